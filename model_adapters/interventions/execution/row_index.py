"""RowIndex: from runs (a schedule's boolean vectors) to positions of tensors, each worked out once.

Contiguous rows become slices, which are views; others index tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

Where = slice | Tensor


class RowIndex:
    """Rows of one prompt whose runs have `sizes` rows each; index tensors live on `device`."""

    def __init__(self, sizes: Int[np.ndarray, " run"], device: torch.device) -> None:
        self.sizes, self.device = sizes, device
        self.run_of_row = np.repeat(np.arange(len(sizes)), sizes)
        self._within: dict[tuple[bytes, bytes | int], Where] = {}
        self._tensors: dict[bytes, tuple[Tensor, Tensor]] = {}

    def rows(self, runs: Bool[np.ndarray, " run"]) -> Int[np.ndarray, " row"]:
        """Positions in the prompt, ascending."""
        return runs[self.run_of_row].nonzero()[0]

    def count(self, runs: Bool[np.ndarray, " run"]) -> int:
        return int(self.sizes[runs].sum())

    def within(self, inner: Bool[np.ndarray, " run"], outer: Bool[np.ndarray, " run"]) -> Where:
        """Where the rows of `inner` stand in a tensor that holds the rows of `outer`, a superset."""
        key = (inner.tobytes(), outer.tobytes())
        if key not in self._within:
            place = outer[self.run_of_row].cumsum() - 1
            self._within[key] = self._where(place[self.rows(inner)])
        return self._within[key]

    def tiled(self, runs: Bool[np.ndarray, " run"], times: int) -> Where:
        """The rows' positions in the prompt, `times` over."""
        if times == 1:
            return self.within(runs, np.ones_like(runs))
        key = (runs.tobytes(), times)
        if key not in self._within:
            self._within[key] = torch.from_numpy(np.tile(self.rows(runs), times)).to(
                self.device, non_blocking=True
            )
        return self._within[key]

    def positions_and_runs(
        self, runs: Bool[np.ndarray, " run"]
    ) -> tuple[Int[Tensor, " row"], Int[Tensor, " row"]]:
        """Each row's position and run, on the device."""
        key = runs.tobytes()
        if key not in self._tensors:
            rows = self.rows(runs)
            self._tensors[key] = (
                torch.from_numpy(rows).to(self.device, non_blocking=True),
                torch.from_numpy(self.run_of_row[rows]).to(self.device, non_blocking=True),
            )
        return self._tensors[key]

    def numbers(self, numbers: Sequence[int]) -> Where:
        """Some ascending or other numbers along an axis."""
        key = (b"", np.array(numbers).tobytes())
        if key not in self._within:
            self._within[key] = self._where(np.array(numbers))
        return self._within[key]

    def _where(self, places: Int[np.ndarray, " row"]) -> Where:
        if len(places) and (np.diff(places) == 1).all():
            return slice(int(places[0]), int(places[-1]) + 1)
        return torch.from_numpy(places).to(self.device, non_blocking=True)


def take(tensor: Tensor, dim: int, where: Where) -> Tensor:
    """Those rows along `dim`: a view where they are contiguous."""
    if isinstance(where, slice):
        return tensor.narrow(dim, where.start, where.stop - where.start)
    return tensor.index_select(dim, where.to(tensor.device, non_blocking=True))
