"""Fine-tuning of any loaded model under interventions."""
