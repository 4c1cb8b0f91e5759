"""Executors that run an unmodified transformers decoder under interventions."""
