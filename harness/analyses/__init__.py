"""Analyses of models: see README.md."""
