"""What every floor shares: errors, questions, answers and files."""
