"""DecoderInputs: what a language model receives for one prompt, beyond which only attention cuts differ.

For most families that is a row of embeddings. Two things that some models need besides are data as well, so that
whoever runs the layers treats all families alike: positions that do not count up (M-RoPE, where each video token has a
time, a height and a width) and vectors added to the residual stream after single layers (DeepStack).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class DecoderInputs:
    """One prompt at the decoder's door.

    `position_ids` is None where positions simply count up from 0. `added[l]` is added to the output of the 0-based
    layer l, zero in rows that get nothing.
    """

    embeds: Float[Tensor, "n hidden"]
    position_ids: Int[Tensor, "axis n"] | None = None
    added: Mapping[int, Float[Tensor, "n hidden"]] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.embeds.shape[0]

    @property
    def plain(self) -> bool:
        """Embeddings alone: such prompts share a batch."""
        return self.position_ids is None and not self.added

    @property
    def batched_position_ids(self) -> Int[Tensor, "*axis 1 n"] | None:
        """As transformers' decoders take them for a batch of one: [1, n], or [axis, 1, n] where there are several."""
        if self.position_ids is None or len(self.position_ids) == 1:
            return self.position_ids
        return self.position_ids[:, None]

    def followed_by(self, rows: Float[Tensor, "more hidden"]) -> DecoderInputs:
        """The prompt with text tokens' embeddings behind it, at the positions that generation gives them."""
        positions = self.position_ids
        if positions is not None:
            count = torch.arange(len(rows), device=positions.device) + self.next_position
            positions = torch.cat([positions, count.expand(len(positions), -1)], 1)
        added: dict[int, Tensor] = {
            layer: torch.cat([vectors, vectors.new_zeros(len(rows), vectors.shape[1])])
            for layer, vectors in self.added.items()
        }
        return DecoderInputs(torch.cat([self.embeds, rows.to(self.embeds)]), positions, added)

    @property
    def next_position(self) -> int:
        """Of the first generated token, the same on every axis."""
        return len(self) if self.position_ids is None else int(self.position_ids.max()) + 1
