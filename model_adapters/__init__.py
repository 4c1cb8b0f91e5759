"""Model adapters: from a checkpoint folder and a question to decoder inputs and answers."""
