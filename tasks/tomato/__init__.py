"""TOMATO: 1,484 questions about motion, in six types and three kinds of demonstration (arXiv 2410.23266)."""
