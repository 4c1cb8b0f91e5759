"""The bundled VideoLLM: how the small checkpoints that ship with the project were trained.

Not a family: the checkpoints have the LLaVA-Video layout and the LLaVA adapter loads them. This folder alone brings
a benchmark and a network together, because that is what training is; nothing else imports it.
"""
