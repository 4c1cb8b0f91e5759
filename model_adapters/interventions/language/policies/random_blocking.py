"""Random blocking, the paper's control (Table 3): cuts as many edges as `effective`, at random.

In each layer a uniform choice among the model's edges whose query and key both lie at or after the
first video token. The choice depends on (seed, key, layer) alone, `key` being the question's id:
not on order, batch, device or worker. It is drawn by hashing: every edge's number passes through a
bijection of 64-bit integers that the seed selects (splitmix64's finaliser, Steele et al., 2014),
and the edges with the smallest images are cut. A bijection has no ties, and integer arithmetic is
the same on every device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int

from mapflow.model_adapters.interventions.language.layout import TokenLayout
from mapflow.model_adapters.interventions.language.own_edges import OwnEdges
from mapflow.model_adapters.interventions.language.pathways import PathwayRanges
from mapflow.model_adapters.interventions.language.policies.effective import Effective
from mapflow.model_adapters.interventions.language.policies.policy import (
    Cuts,
    Policy,
    no_cuts,
    parse_options,
    typed_options,
)
from mapflow.model_adapters.interventions.language.segment_masks import count_edges
from mapflow.model_adapters.interventions.language.tensors import Device, Tensor
from mapflow.results.contract.errors import MapflowError


@dataclass(frozen=True)
class RandomBlocking(Policy):
    """`ratio` is a share of *all* edges that the model has (as in the authors' code); None: as many
    as `effective` cuts, whose `ranges` and `scale` may be given as there.
    """

    names: ClassVar[tuple[str, ...]] = ("random",)
    once_as: ClassVar[str | None] = "random policy"
    ratio: float | None = None
    seed: int = 0
    scale: str | None = None
    ranges: PathwayRanges | None = None

    def __post_init__(self) -> None:
        if self.scale == "":
            raise MapflowError("random:scale= names no model")
        if self.ratio is not None and self.scale:
            raise MapflowError(f"random takes ratio={self.ratio:g} or scale={self.scale}, not both")
        if self.ratio is not None and not 0 <= self.ratio <= 1:
            raise MapflowError(f"ratio={self.ratio:g} is outside 0..1")
        if not 0 <= self.seed < 2**63:
            raise MapflowError(f"seed={self.seed} is outside 0..2^63-1")

    @classmethod
    def parse(cls, term: str) -> RandomBlocking:
        """From "random" or "random:ratio=0.58,seed=3,scale=MODEL"."""
        types = {"ratio": float, "seed": int, "scale": str}
        return cls(**typed_options(parse_options(term.partition(":")[2]), types, "random"))

    @property
    def scaled_from(self) -> str | None:
        return self.scale

    def resolve(self, find: Callable[[str, int], PathwayRanges], n_layers: int) -> RandomBlocking:
        return replace(self, ranges=find(self.scale, n_layers)) if self.scale else self

    def cuts(self, layout: TokenLayout, n_layers: int, pathways: PathwayRanges | None) -> Cuts:
        """No segment cuts: random blocking cuts single edges (`blocked`)."""
        return no_cuts(layout, n_layers)

    def budget(
        self,
        layout: TokenLayout,
        n_layers: int,
        pathways: PathwayRanges | None,
        own: OwnEdges | None = None,
    ) -> list[int]:
        """The number of edges to block in each layer, at most all that may be blocked.

        With a ratio int(N(N+1)/2 × ratio) in every layer. Otherwise as many as `effective` cuts,
        spread evenly, the remainder over the first layers. `own` are the model's own edges; None
        means causal attention.
        """
        n, start = len(layout), first_video_position(layout)
        eligible = n - start
        most, total = [eligible * (eligible + 1) // 2] * n_layers, [n * (n + 1) // 2] * n_layers
        if own is not None:
            for layer, mask in enumerate(own.masks):
                total[layer] = own.total(layer, n)
                most[layer] = most[layer] if mask is None else int(mask[start:, start:].sum())
        if self.ratio is not None:
            return [min(int(all_ * self.ratio), m) for all_, m in zip(total, most, strict=True)]
        cut = int(
            count_edges(
                Effective(self.ranges, scale=self.scale).cuts(layout, n_layers, pathways),
                layout.segment_of,
                own,
            ).sum()
        )
        return [
            min(cut // n_layers + (layer < cut % n_layers), most[layer])
            for layer in range(n_layers)
        ]

    def blocked(
        self,
        layout: TokenLayout,
        layer: int,
        count: int,
        key: str,
        device: Device = "cpu",
        own: Bool[Tensor, "query key"] | None = None,
    ) -> Bool[Tensor, "query key"]:
        """`count` blocked edges of a 0-based layer, at or after the first video token.

        `own` is the layer's own mask, None if it is causal.
        """
        import torch

        n, start = len(layout), first_video_position(layout)
        blocked = torch.zeros(n, n, dtype=torch.bool, device=device)
        if count:
            if own is None:
                rows, columns = torch.tril_indices(n - start, n - start, device=device) + start
            else:
                rows, columns = own[start:, start:].to(device).nonzero().T + start
            order = _scramble(
                torch.arange(rows.shape[0], device=device), _stream(self.seed, key, layer)
            )
            chosen = order.topk(count, largest=False, sorted=False).indices
            # not blocked[...] = True: that copies the value to the device and waits for it
            blocked.view(-1).index_fill_(0, (rows * n + columns)[chosen], True)
        return blocked

    def __str__(self) -> str:
        ratio = [] if self.ratio is None else [f"ratio={float(self.ratio)!r}"]
        scale = [f"scale={self.scale}"] if self.scale else []
        return f"random:{','.join([*ratio, *scale, f'seed={self.seed}'])}"


def first_video_position(layout: TokenLayout) -> int:
    """Raises MapflowError for a prompt without video."""
    return int(np.flatnonzero(layout.select("video")[layout.segment_of])[0])


def _stream(seed: int, key: str, layer: int) -> int:
    """A signed 64-bit number for (seed, key, layer)."""
    digest = hashlib.sha256(f"{seed}/{layer}/{key}".encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def _scramble(index: Int[Tensor, " edge"], stream: int) -> Int[Tensor, " edge"]:
    """splitmix64's finaliser over wrapping 64-bit integers: a bijection for every `stream`."""

    def shifted(x: Tensor, bits: int) -> Tensor:
        return (x >> bits) & (
            (1 << (64 - bits)) - 1
        )  # int64 shifts copy the sign; the finaliser wants zeros

    x = index ^ stream
    x = (x ^ shifted(x, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    x = (x ^ shifted(x, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    return x ^ shifted(x, 31)
