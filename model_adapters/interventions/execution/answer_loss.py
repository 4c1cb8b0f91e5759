"""The loss of an answer while an intervention is in force: what training under cut attention minimises.

The same masks as in a run, through the same attention function; the rows of the answer's own tokens follow the last
prompt row's cuts and read each other freely, as generated rows do (design.md, Interventions).
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from mapflow.model_adapters.interventions.execution.attention_plan import AttentionPlan
from mapflow.model_adapters.interventions.execution.decoder import Decoder
from mapflow.model_adapters.interventions.execution.decoder_inputs import DecoderInputs
from mapflow.model_adapters.interventions.kernels.attention import apply
from mapflow.model_adapters.interventions.language.intervention import Compiled


def answer_loss(
    decoder: Decoder, inputs: DecoderInputs, compiled: Compiled, answer: Int[Tensor, " token"]
) -> Float[Tensor, ""]:
    """Mean cross-entropy of the answer's tokens (at least one) after the prompt; gradients flow into whatever of the
    decoder requires them, and into `inputs.embeds` where that does.

    An early exit trains the layers that run.
    """
    answer = answer.to(decoder.device)
    if len(answer) > 1:
        table = decoder.core.get_input_embeddings()
        inputs = inputs.followed_by(table(answer[:-1]))
    plan = AttentionPlan.of([compiled], device=decoder.device)
    with apply(plan), decoder._adding(inputs.added), decoder._ending_after(compiled.depth):
        hidden = decoder.core(
            inputs_embeds=inputs.embeds[None],
            position_ids=inputs.batched_position_ids,
            use_cache=False,
        ).last_hidden_state
    logits = decoder.logits(hidden[0, -len(answer) :])
    return cross_entropy(logits, answer.to(logits.device))
