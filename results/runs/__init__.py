"""Run folders: writing, reading and the provenance of their numbers."""
