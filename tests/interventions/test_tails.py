"""Logits come through all that a model does after its decoder, in every way of running it."""

from __future__ import annotations
