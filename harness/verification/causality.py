"""Does cutting an edge change only rows that it may change?

An edge is cut in one layer. There, only the rows that lose a key may change; in each later layer those and whoever reads
them. Which rows that are is followed here edge by edge, and every other row must keep its bits.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool
from torch import Tensor

from mapflow.harness.verification.finding import Finding
from mapflow.harness.verification.subject import ExplicitMasks, Subject
from mapflow.model_adapters.interventions import Compiled

ROUTES = ("frame[0]->frame[1]", "video->stem", "option[0]->template", "video->last", "stem->last")


def check_causality(subject: Subject) -> Iterator[Finding]:
    device = subject.model.decoder.device
    base = subject.residual(ExplicitMasks(subject.compiled("full"), device))
    layer = (subject.n_layers - 1) // 2
    names = {str(segment) for segment in subject.prepared[0].layout.segments} | {"video"}
    for route in ROUTES:
        if not names >= set(route.split("->")):
            continue  # a clip of one frame segment
        compiled = subject.compiled(f"{route}@{layer + 1}")
        cut = subject.residual(ExplicitMasks(compiled, device))
        changed = (cut != base).any(-1).cpu()
        may = rows_that_may_change(compiled)
        strangers = [
            f"layer {at + 1}, row {int(row)}"
            for at in range(len(may))
            for row in (changed[at] & ~may[at]).nonzero().flatten()[:1]
        ]
        if strangers:
            yield Finding(
                "causality", False, f"{route} in layer {layer + 1} also changes {strangers[0]}"
            )
        elif not changed[layer].any():
            yield Finding("causality", False, f"{route} in layer {layer + 1} changes nothing there")
        else:
            counts = f"{int(changed[layer].sum())} of {int(may[layer].sum())} rows there"
            yield Finding(
                "causality",
                True,
                f"{route} in layer {layer + 1} changes {counts}, and no others later",
            )


def rows_that_may_change(compiled: Compiled) -> Bool[Tensor, "layer n"]:
    """Rows of each layer's output that the cuts can make differ from the uncut run."""
    n = len(compiled.layout)
    causal = torch.ones(n, n, dtype=torch.bool).tril()
    changed = torch.zeros(n, dtype=torch.bool)
    out = []
    for layer in range(compiled.n_layers):
        mask = compiled.token_mask(layer)
        changed = changed | (mask & changed).any(1) | (causal & ~mask).any(1)
        out.append(changed)
    return torch.stack(out)
