"""What a model does to its decoder's output: the head, and scales or caps of the logits after it.

Cohere and Granite scale their logits, Falcon-H1 its head's output, Gemma bounds them. None of that
is in the module `get_output_embeddings` names; it is in the model's forward. So the forward runs,
with a decoder that returns the given hidden states.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from mapflow.results.contract.errors import MapflowError

ROWS = 3
"""Random rows on which the model's tail is compared with its head alone."""


@contextmanager
def replaced_forward(module: nn.Module, forward: Any) -> Iterator[None]:
    """Within this block the module computes `forward`; its hooks stay."""
    earlier = vars(module).get("forward")  # accelerate sets one on models spread over devices
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
        if earlier is not None:
            module.forward = earlier


class _Given(BaseModelOutputWithPast):
    """A decoder's output without what some models add to it, such as router logits."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def own_logits(
    model: PreTrainedModel, core: PreTrainedModel, hidden: Float[Tensor, "row hidden"]
) -> Float[Tensor, "row vocab"]:
    """The model's own logits of hidden states that its decoder `core` might have returned."""
    given = _Given(last_hidden_state=hidden[None])  # pyright: ignore[reportArgumentType]

    def answer(*_: Any, **__: Any) -> BaseModelOutputWithPast:
        return given

    with replaced_forward(core, answer):
        try:
            return model(inputs_embeds=hidden[None], use_cache=False).logits[0]
        except RuntimeError:  # Gemma's small models look embeddings up in their table
            ids = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
            return model(input_ids=ids, use_cache=False).logits[0]


@torch.no_grad()
def equals_head(model: PreTrainedModel, core: PreTrainedModel, head: nn.Module) -> bool:
    """Whether the logits are the head's output, bit by bit: no scale, no cap.

    Raises MapflowError for a model whose forward cannot be run on hidden states.
    """
    weight: Tensor = head.weight  # pyright: ignore[reportAssignmentType]
    hidden = torch.randn(ROWS, weight.shape[1], generator=torch.Generator().manual_seed(0))
    hidden = hidden.to(weight)
    try:
        own = own_logits(model, core, hidden)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise MapflowError(
            f"what {type(model).__name__} does after its decoder cannot be run:"
            f" {type(error).__name__}: {reason}"
        ) from error
    return torch.equal(own, head(hidden))
