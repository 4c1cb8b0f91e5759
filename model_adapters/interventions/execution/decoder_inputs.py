"""DecoderInputs: everything that a language model receives for one prompt, besides attention masks.

For most families these are embeddings. Some models also need positions that do not count up:
in M-RoPE each video token has a time, a height and a width. DeepStack adds vectors to the residual
stream after single layers. Images that attend to themselves in both directions come as a mask,
token types and per-layer embeddings as arguments. All are data here, so all families run alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mapflow.results.contract.errors import MapflowError


@dataclass(frozen=True)
class DecoderInputs:
    """Decoder inputs of one prompt.

    `position_ids` is None where positions count up from 0. `added[l]` is added to the output of the
    0-based layer l, and is zero at positions that get nothing. `attention_mask` is the model's own
    mask, `[1, 1, n, n]` or one for each kind of layer, if it is not the causal one: cuts act on
    what it allows. `arguments` are handed to the decoder as they are; tensors have a batch axis of
    one.
    """

    embeds: Float[Tensor, "n hidden"]
    position_ids: Int[Tensor, "axis n"] | None = None
    added: Mapping[int, Float[Tensor, "n hidden"]] = field(default_factory=dict)
    attention_mask: Any = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.embeds.shape[0]

    @property
    def plain(self) -> bool:
        """Whether these are embeddings alone; such prompts can share a batch."""
        return self.position_ids is None and not self.added and not self.special

    @property
    def special(self) -> bool:
        """Whether the model's own mask or arguments of its own go along."""
        return self.attention_mask is not None or bool(self.arguments)

    def keywords(self, rows: int = 1) -> dict[str, Any]:
        """What transformers receives besides embeddings, for a batch of copies of this prompt."""
        own = {} if self.attention_mask is None else {"attention_mask": self.attention_mask}
        others = {
            name: value.expand(rows, *value.shape[1:]) if isinstance(value, Tensor) else value
            for name, value in self.arguments.items()
        }
        return {"position_ids": self.batched_position_ids, **own, **others}

    @property
    def batched_position_ids(self) -> Int[Tensor, "*axis 1 n"] | None:
        """For a batch of one in transformers: [1, n], or [axis, 1, n] for several axes."""
        if self.position_ids is None or len(self.position_ids) == 1:
            return self.position_ids
        return self.position_ids[:, None]

    def followed_by(self, rows: Float[Tensor, "more hidden"]) -> DecoderInputs:
        """The prompt followed by text tokens, at the positions of generated tokens.

        Raises MapflowError for a prompt with its own mask or arguments: those of the tokens are
        unknown.
        """
        if self.special:
            raise MapflowError(
                "this model's decoder receives its own mask or arguments, which given tokens after"
                " the prompt do not have: it cannot be tuned on answers of several tokens"
            )
        positions = self.position_ids
        if positions is not None:
            count = torch.arange(len(rows), device=positions.device) + self.next_position
            positions = torch.cat([positions, count.expand(len(positions), -1)], 1)
        added: dict[int, Tensor] = {
            layer: torch.cat([vectors, vectors.new_zeros(len(rows), vectors.shape[1])])
            for layer, vectors in self.added.items()
        }
        return DecoderInputs(torch.cat([self.embeds, rows.to(self.embeds)]), positions, added)

    def cloned(self) -> DecoderInputs:
        """A copy whose tensors autograd accepts, if these were made under inference mode."""
        positions = self.position_ids
        return replace(
            self,
            embeds=self.embeds.clone(),
            position_ids=None if positions is None else positions.clone(),
            added={layer: vectors.clone() for layer, vectors in self.added.items()},
            attention_mask=_cloned(self.attention_mask),
            arguments=_cloned(self.arguments),
        )

    @property
    def next_position(self) -> int:
        """The position of the first generated token, the same on every axis."""
        return len(self) if self.position_ids is None else int(self.position_ids.max()) + 1


def _cloned(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _cloned(part) for name, part in value.items()}
    return value.clone() if isinstance(value, Tensor) else value
