"""From questions to records with one loaded model."""
