"""DecoderInputs: everything that a language model receives for one prompt, besides attention masks.

For most families these are embeddings. Some models also need positions that do not count up:
in M-RoPE each video token has a time, a height and a width. DeepStack adds vectors to the residual
stream after single layers. Both are data here, so all families run alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class DecoderInputs:
    """Decoder inputs of one prompt.

    `position_ids` is None where positions count up from 0. `added[l]` is added to the output of the
    0-based layer l, and is zero at positions that get nothing.
    """

    embeds: Float[Tensor, "n hidden"]
    position_ids: Int[Tensor, "axis n"] | None = None
    added: Mapping[int, Float[Tensor, "n hidden"]] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.embeds.shape[0]

    @property
    def plain(self) -> bool:
        """Whether these are embeddings alone; such prompts can share a batch."""
        return self.position_ids is None and not self.added

    @property
    def batched_position_ids(self) -> Int[Tensor, "*axis 1 n"] | None:
        """For a batch of one in transformers: [1, n], or [axis, 1, n] for several axes."""
        if self.position_ids is None or len(self.position_ids) == 1:
            return self.position_ids
        return self.position_ids[:, None]

    def followed_by(self, rows: Float[Tensor, "more hidden"]) -> DecoderInputs:
        """The prompt followed by text tokens, at the positions of generated tokens."""
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
        """The position of the first generated token, the same on every axis."""
        return len(self) if self.position_ids is None else int(self.position_ids.max()) + 1
