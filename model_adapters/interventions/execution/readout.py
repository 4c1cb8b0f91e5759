"""Readout: the logit lens. What each layer of one prompt would answer if it were the last one.

Forward hooks record the residual stream while the decoder runs under an intervention. It is then
projected to the vocabulary: by the final norm and the head, or by the raw input embeddings.
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

Projection = Callable[[Float[Tensor, "position hidden"]], Float[Tensor, "position vocab"]]

AT_ONCE = 256
"""Positions whose logits over a large vocabulary are held at the same time."""


@torch.inference_mode()
def hidden_states(
    decoder: Decoder, inputs: DecoderInputs, compiled: Compiled, positions: Int[Tensor, " position"]
) -> Float[Tensor, "depth position hidden"]:
    """The residual stream at some positions, before the final norm.

    Entry 0 enters the first layer; entry l leaves the (1-based) layer l.
    """
    caught: list[Tensor] = []

    # inputs, not outputs: vectors that some models add between layers belong to the stream
    def catch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states: Tensor = args[0] if args else kwargs["hidden_states"]
        caught.append(states[0, positions.to(states.device)])

    with ExitStack() as stack:
        for module in (*decoder.layers, final_norm(decoder)):
            stack.callback(module.register_forward_pre_hook(catch, with_kwargs=True).remove)
        decoder.answer_logits([inputs], [[compiled]])
    return torch.stack([states.to(caught[-1].device) for states in caught])


@torch.inference_mode()
def layer_outputs(
    decoder: Decoder, hidden: Float[Tensor, "depth position hidden"], norm: bool = True
) -> Float[Tensor, "layer position hidden"]:
    """Every layer's output as the head receives it.

    Without `norm`, only the last layer's output goes through the final norm, as in the authors'
    code.
    """
    final = final_norm(decoder)
    outputs = hidden[1:]
    return final(outputs) if norm else torch.cat([outputs[:-1], final(outputs[-1:])])


@torch.inference_mode()
def layer_inputs(
    decoder: Decoder, hidden: Float[Tensor, "depth position hidden"]
) -> Float[Tensor, "layer position hidden"]:
    """The states of the authors' logit lens: each layer's input without norm.

    The last entry is the final norm's output, in place of the last layer's input.
    """
    return torch.cat([hidden[:-2], final_norm(decoder)(hidden[-1:])])


def embedding_logits(decoder: Decoder) -> Projection:
    """Float32 scalar products with the raw input embeddings: the lens of the authors' code."""
    embeddings: Tensor = decoder.core.get_input_embeddings().weight  # pyright: ignore[reportAssignmentType]
    return lambda hidden: (hidden.to(embeddings) @ embeddings.mT).float()


@torch.inference_mode()
def probabilities(
    project: Projection, hidden: Float[Tensor, "layer position hidden"]
) -> Float[Tensor, "layer position vocab"]:
    """The probability of every token, in float32 on the CPU."""
    return torch.stack([project(states).softmax(-1).cpu() for states in hidden])


@torch.inference_mode()
def top_k(
    project: Projection, hidden: Float[Tensor, "layer position hidden"], k: int
) -> tuple[Int[Tensor, "layer position k"], Float[Tensor, "layer position k"]]:
    """Ids and probabilities of the k most probable tokens, best first, on the CPU."""
    parts = [project(rows).softmax(-1).topk(k) for rows in hidden.flatten(0, 1).split(AT_ONCE)]
    shape = (*hidden.shape[:2], k)
    return (
        torch.cat([part.indices.cpu() for part in parts]).view(shape),
        torch.cat([part.values.cpu() for part in parts]).view(shape),
    )


def final_norm(decoder: Decoder) -> nn.Module:
    """The norm between the last layer and the head.

    Raises MapflowError if the model has none by its usual name.
    """
    norm = getattr(decoder.core, "norm", None)
    if not isinstance(norm, nn.Module):
        raise MapflowError(
            f"{type(decoder.core).__name__} has no module 'norm' after its layers, so they cannot"
            " be read one by one"
        )
    return norm
