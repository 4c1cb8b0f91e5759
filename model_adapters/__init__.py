"""VideoLLM families: checkpoint layouts, conversations and frames, wired to the attention instrument."""
