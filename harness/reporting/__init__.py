"""Fills the report: policy diagrams, texts and frames of questions, tables and sweeps."""
