"""Which executor answers: the branching one, all prompts in one batch, or the incremental one, prompt by prompt.

Where a policy leaves rows that nobody reads any more (`effective-strict` reads no video after its video->question range:
a third of all row-layers), the incremental executor does not compute them. Where little is dead, one batch of
everything is as good and knows fewer conditions.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from jaxtyping import Float
from torch import Tensor

from mapflow.model_adapters.interventions.execution import incremental
from mapflow.model_adapters.interventions.execution.decoder import Decoder
from mapflow.model_adapters.interventions.execution.decoder_inputs import DecoderInputs
from mapflow.model_adapters.interventions.execution.layer_arguments import NotIncremental
from mapflow.model_adapters.interventions.language.intervention import Compiled
from mapflow.model_adapters.interventions.language.liveness import live_row_layers

WORTH = 1.5
"""Layers' worth of rows that nobody reads from which rows are left out. In the last layer of every run one row is read, so that
almost one layer's worth is dead whatever the intervention; the paper's policy has two (measured: tests/benchmarks/README.md)."""


def answer_logits(
    decoder: Decoder, inputs: Sequence[DecoderInputs], compiled: Sequence[Sequence[Compiled]]
) -> list[Float[Tensor, "intervention vocab"]]:
    """As `Decoder.answer_logits`, without rows that no answer depends on where that saves work."""
    found: dict[int, Tensor] = {}
    for prompt, own in enumerate(compiled):
        if skips_rows(own):
            with suppress(NotIncremental):
                found[prompt] = incremental.answer_logits(decoder, inputs[prompt], own)
    rest = [prompt for prompt in range(len(inputs)) if prompt not in found]
    if rest:
        logits = decoder.answer_logits(
            [inputs[prompt] for prompt in rest], [compiled[prompt] for prompt in rest]
        )
        found |= dict(zip(rest, logits, strict=True))
    return [found[prompt] for prompt in range(len(inputs))]


def skips_rows(compiled: Sequence[Compiled]) -> bool:
    """Is so little of one prompt's rows live, under these interventions together, that leaving the others out pays?

    Early exits are left to the branching executor, which has no rows to save in layers that do not run.
    """
    if any(one.depth < one.n_layers for one in compiled):
        return False
    dead = sum(one.row_layers - live_row_layers(one) for one in compiled)
    return dead > WORTH * sum(len(one.layout) for one in compiled)
