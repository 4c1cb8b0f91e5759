"""The bundled VideoLLM: two small checkpoints and the code that trained them.

It is not a family: the checkpoints have the LLaVA-Video layout and load through the LLaVA adapter.
"""
