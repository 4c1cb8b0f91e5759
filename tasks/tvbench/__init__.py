"""TVBench: 2,525 questions in ten subtasks that need the order of the frames (arXiv 2410.07752)."""
