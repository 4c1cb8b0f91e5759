"""Command lines, the Python API, analyses, reports and checks of adapters."""
