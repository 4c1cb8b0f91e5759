"""Audit: a share of a sweep's windows is run a second time, naively, and must agree to within the precision's noise.

Which windows is a matter of their names alone, so every way to distribute a sweep audits the same ones.
"""

from __future__ import annotations

import hashlib

NOISE = {"float64": 1e-6, "float32": 5e-5, "float16": 1e-2, "bfloat16": 5e-2}
"""Largest difference in a token's probability that two orders of the same sums may show, by the weights' precision: a
few hundred roundings of float32, a handful of the half precisions; logits are float32 in all of them."""


def audited_layers(share: float, question_id: str, route: str, n_layers: int) -> tuple[int, ...]:
    """1-based layers whose windows are run again, a `share` (0 to 1) of them in the long run."""

    def chosen(layer: int) -> bool:
        digest = hashlib.sha256(f"audit/{question_id}/{route}/{layer}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < share * 2**64

    return tuple(layer for layer in range(1, n_layers + 1) if chosen(layer))
