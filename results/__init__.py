"""What was asked and what was answered: records, statistics and tables. Knows no torch and no model."""
