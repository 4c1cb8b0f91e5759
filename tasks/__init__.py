"""Benchmarks: questions, gold answers, prompts and parsing. Knows no model."""
