"""Readout: what every layer of one prompt would answer, were it the last one.

The hidden states come from the decoder's own run under an intervention, caught on the way by forward hooks; what is
done with them afterwards is plain tensor work: through the final norm and the head, or against the raw input embeddings.
Knows no question, no option and no file.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mapflow.model_adapters.interventions.execution.decoder import Decoder
from mapflow.model_adapters.interventions.execution.decoder_inputs import DecoderInputs
from mapflow.model_adapters.interventions.language.intervention import Compiled
from mapflow.results.contract.errors import MapflowError

Projection = Callable[[Float[Tensor, "row hidden"]], Float[Tensor, "row vocab"]]

ROWS_AT_ONCE = 256  # whose logits over a large vocabulary are held at the same time


@torch.inference_mode()
def hidden_states(
    decoder: Decoder, inputs: DecoderInputs, compiled: Compiled, rows: Int[Tensor, " row"]
) -> Float[Tensor, "depth row hidden"]:
    """The residual stream at these positions: entry 0 enters the first layer, entry l leaves (1-based) layer l, un-normed."""
    caught: list[Tensor] = []

    # inputs, not outputs: vectors that some models add between two layers are part of the stream
    def catch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states: Tensor = args[0] if args else kwargs["hidden_states"]
        caught.append(states[0, rows.to(states.device)])

    with ExitStack() as stack:
        for module in (*decoder.layers, final_norm(decoder)):
            stack.callback(module.register_forward_pre_hook(catch, with_kwargs=True).remove)
        decoder.answer_logits([inputs], [[compiled]])
    return torch.stack([states.to(caught[-1].device) for states in caught])


@torch.inference_mode()
def layer_outputs(
    decoder: Decoder, hidden: Float[Tensor, "depth row hidden"], norm: bool = True
) -> Float[Tensor, "layer row hidden"]:
    """Every layer's output as the head receives it. Without `norm`, only the last layer's goes through the final norm,
    as in the released code."""
    final = final_norm(decoder)
    outputs = hidden[1:]
    return final(outputs) if norm else torch.cat([outputs[:-1], final(outputs[-1:])])


@torch.inference_mode()
def layer_inputs(
    decoder: Decoder, hidden: Float[Tensor, "depth row hidden"]
) -> Float[Tensor, "layer row hidden"]:
    """What the released code's logit lens shows: each layer's un-normed input, in the last one's place the final norm's
    output (the output of the layer before the last is never shown)."""
    return torch.cat([hidden[:-2], final_norm(decoder)(hidden[-1:])])


def embedding_logits(decoder: Decoder) -> Projection:
    """Scalar products with the raw input embeddings, in float32: the released code's lens."""
    embeddings: Tensor = decoder.core.get_input_embeddings().weight  # pyright: ignore[reportAssignmentType]
    return lambda hidden: (hidden.to(embeddings) @ embeddings.mT).float()


@torch.inference_mode()
def probabilities(
    project: Projection, hidden: Float[Tensor, "layer row hidden"]
) -> Float[Tensor, "layer row vocab"]:
    """Of every token, in float32 on the CPU."""
    return torch.stack([project(states).softmax(-1).cpu() for states in hidden])


@torch.inference_mode()
def top_k(
    project: Projection, hidden: Float[Tensor, "layer row hidden"], k: int
) -> tuple[Int[Tensor, "layer row k"], Float[Tensor, "layer row k"]]:
    """Ids and probabilities of the k most probable tokens, best first, on the CPU."""
    parts = [project(rows).softmax(-1).topk(k) for rows in hidden.flatten(0, 1).split(ROWS_AT_ONCE)]
    shape = (*hidden.shape[:2], k)
    return (
        torch.cat([part.indices.cpu() for part in parts]).view(shape),
        torch.cat([part.values.cpu() for part in parts]).view(shape),
    )


def final_norm(decoder: Decoder) -> nn.Module:
    """Between the last layer and the head. Raises MapflowError where the model calls it by no name that we know."""
    norm = getattr(decoder.core, "norm", None)
    if not isinstance(norm, nn.Module):
        raise MapflowError(
            f"{type(decoder.core).__name__} has no module 'norm' after its layers, so they cannot be read one by one"
        )
    return norm
