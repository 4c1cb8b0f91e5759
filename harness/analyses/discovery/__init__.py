"""Finds the layer ranges of the effective pathways."""
