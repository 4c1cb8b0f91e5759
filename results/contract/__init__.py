"""Shared by all floors: errors, questions, answers and files."""
