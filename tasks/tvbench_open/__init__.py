"""TVBench without options: three subtasks whose answer is begun for the model, scored by its first token."""
