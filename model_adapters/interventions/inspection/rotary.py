"""Rotary tables that depend on the length of what is run: "dynamic" and "longrope" scaling.

Prompts that are padded to the longest of their batch would take its table. And transformers' module
for "dynamic" keeps the table of the longest prompt so far, so that a number would depend on the
questions before it.
"""

from __future__ import annotations

from typing import Any

from torch import nn


def depends_on_length(core: nn.Module) -> bool:
    """Whether there are such tables. From then on, each call begins with the original one."""
    found = False
    for module in core.modules():
        kinds: Any = getattr(module, "rope_type", None)
        for layer_type, kind in (kinds if isinstance(kinds, dict) else {"": kinds}).items():
            found |= isinstance(kind, str) and (kind == "longrope" or "dynamic" in kind)
            prefix = f"{layer_type}_" if layer_type else ""
            if isinstance(kind, str) and "dynamic" in kind:
                module.register_forward_pre_hook(_Forgets(prefix))
    return found


class _Forgets:
    """Puts a module back to where it has seen no prompt."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def __call__(self, module: Any, args: Any) -> None:
        table = getattr(module, f"{self.prefix}inv_freq")
        original = getattr(module, f"{self.prefix}original_inv_freq").to(table)
        module.register_buffer(f"{self.prefix}inv_freq", original, persistent=False)
        setattr(module, f"{self.prefix}max_seq_len_cached", module.original_max_seq_len)
