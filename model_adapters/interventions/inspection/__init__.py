"""What a language model is made of, as far as interventions depend on it."""
