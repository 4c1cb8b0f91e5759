"""Answer logits by the cheaper of the two executors, and the loss that tuning minimises.

Both executors are exact. `Decoder.answer_logits` runs all prompts and interventions as one batch.
`incremental.answer_logits` runs one prompt at a time and skips unused positions. It is chosen where
a policy leaves enough of them: under `effective-strict` no layer after the video->question range
attends to the video: a third of all positions, summed over layers, is unused.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from mapflow.model_adapters.interventions.execution import incremental
from mapflow.model_adapters.interventions.execution.batch_masks import BatchMasks
from mapflow.model_adapters.interventions.execution.decoder import Decoder
from mapflow.model_adapters.interventions.execution.decoder_inputs import DecoderInputs
from mapflow.model_adapters.interventions.execution.layer_arguments import NotIncremental
from mapflow.model_adapters.interventions.kernels.attention import apply
from mapflow.model_adapters.interventions.language.intervention import Compiled
from mapflow.model_adapters.interventions.language.liveness import live_row_layers

WORTH = 1.5
"""Skip unused positions once they exceed this many layers' worth. The last layer of every run uses
one position only, so almost one layer's worth is unused under any intervention; under the paper's
policy it is two (measured: tests/benchmarks/README.md).
"""


def answer_logits(
    decoder: Decoder, inputs: Sequence[DecoderInputs], compiled: Sequence[Sequence[Compiled]]
) -> list[Float[Tensor, "intervention vocab"]]:
    """As `Decoder.answer_logits`, but skips unused positions of prompts where that saves work."""
    found: dict[int, Tensor] = {}
    for prompt, own in enumerate(compiled):
        if skips_positions(own):
            with suppress(NotIncremental):
                found[prompt] = incremental.answer_logits(decoder, inputs[prompt], own)
    rest = [prompt for prompt in range(len(inputs)) if prompt not in found]
    if rest:
        logits = decoder.answer_logits(
            [inputs[prompt] for prompt in rest], [compiled[prompt] for prompt in rest]
        )
        found |= dict(zip(rest, logits, strict=True))
    return [found[prompt] for prompt in range(len(inputs))]


def skips_positions(compiled: Sequence[Compiled]) -> bool:
    """Whether these interventions on one prompt leave enough positions unused to skip them.

    False for early exits: the layers that they skip cost `Decoder.answer_logits` nothing.
    """
    if any(one.depth < one.n_layers for one in compiled):
        return False
    unused = sum(one.row_layers - live_row_layers(one) for one in compiled)
    return unused > WORTH * sum(len(one.layout) for one in compiled)


def answer_loss(
    decoder: Decoder, inputs: DecoderInputs, compiled: Compiled, answer: Int[Tensor, " token"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy of the answer's tokens (at least one) after the prompt.

    The answer's positions are masked as generated ones are: each attends to the prompt as the
    last prompt position does, and to all earlier answer tokens. Gradients flow into every parameter
    of the decoder that requires them, and into `inputs.embeds`. An early exit trains the layers
    that run.
    """
    answer = answer.to(decoder.device)
    if len(answer) > 1:
        table = decoder.core.get_input_embeddings()
        inputs = inputs.followed_by(table(answer[:-1]))
    masks = BatchMasks.of([compiled], device=decoder.device)
    with apply(masks), decoder.adding_vectors(inputs.added), decoder.ending_after(compiled.depth):
        hidden = decoder.core(
            inputs_embeds=inputs.embeds[None],
            use_cache=False,
            **inputs.keywords(),
        ).last_hidden_state
    logits = decoder.logits(hidden[0, -len(answer) :])
    return cross_entropy(logits, answer.to(logits.device))
