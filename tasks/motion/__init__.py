"""The bundled benchmark: rendered clips whose questions only the order of the frames can answer. Needs no download."""
