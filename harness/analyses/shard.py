"""Who answers which question, where several processes share a run: by the questions' ids.

Any number of processes gives the same records, and a run may be taken up by another number than began it: a question's
record does not depend on who answers it (everything drawn at random is drawn from its id), and what is answered is left
out after the shares are dealt. Knows no model and no folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import itemgetter
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """This process among `world`."""

    rank: int
    world: int

    @classmethod
    def from_environment(cls) -> Shard:
        """RANK and WORLD_SIZE, as torchrun and accelerate set them on one host or many."""
        return cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))

    def share(
        self, questions: Iterable[T], id_of: Callable[[T], str] = itemgetter("question_id")
    ) -> list[T]:
        """This process's questions: in the order of their ids, one to each process in turn.

        Shares differ in size by at most one, and do not depend on the order in which questions come.
        """
        return sorted(questions, key=id_of)[self.rank :: self.world]
