"""Benchmarks: questions, gold answers, prompts and parsing."""
