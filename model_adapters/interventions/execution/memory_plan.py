"""Plan: passes and batches that keep a set of interventions within a memory budget, and what they will cost.

A pass is one forward of the model with the branches of its interventions alongside. The states of all its branches are
held from layer to layer; keys, scores and feed-forward activations exist for one batch of branches at a time. So a
budget is met by smaller batches first, by more passes then, each of which repeats the trunk, and by one intervention a
pass in the end, which the plan says in `notes`.

Bytes are counted for what branches need; the weights and the plain run itself come on top. Knows no tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mapflow.model_adapters.interventions.execution.schedule import Job, Schedule, schedule
from mapflow.model_adapters.interventions.language.intervention import Compiled


@dataclass(frozen=True)
class Widths:
    """What a decoder's tensors measure: numbers a row, and bytes a number."""

    hidden: int
    queries: int
    keys: int
    feed_forward: int
    bytes: int

    @classmethod
    def of(cls, config: object, bytes: int) -> Widths:
        """From a language model's config."""
        hidden = int(getattr(config, "hidden_size"))  # noqa: B009
        heads = int(getattr(config, "num_attention_heads"))  # noqa: B009
        dim = int(getattr(config, "head_dim", None) or hidden // heads)
        kv_heads = int(getattr(config, "num_key_value_heads", None) or heads)
        feed_forward = int(getattr(config, "intermediate_size", None) or 4 * hidden)
        return cls(hidden, heads * dim, kv_heads * dim, feed_forward, bytes)


@dataclass(frozen=True)
class PlannedPass:
    """`interventions` are numbers of those planned for; `chunks[l][j]` is how many branches of layer l's job j are
    computed at a time."""

    interventions: tuple[int, ...]
    schedule: Schedule
    chunks: tuple[tuple[int, ...], ...]
    bytes: int


@dataclass(frozen=True)
class MemoryPlan:
    """`bytes` is the largest pass's estimate; `notes` are sentences for the user."""

    passes: tuple[PlannedPass, ...]
    notes: tuple[str, ...] = ()

    @property
    def row_layers(self) -> int:
        """Rows that pass through whole layers."""
        return sum(one.schedule.row_layers for one in self.passes)

    @property
    def key_row_layers(self) -> int:
        """Rows of which only keys and values are computed."""
        return sum(one.schedule.key_row_layers for one in self.passes)

    @property
    def naive_row_layers(self) -> int:
        """One whole forward pass for every intervention."""
        return sum(one.schedule.naive_row_layers for one in self.passes)

    @property
    def bytes(self) -> int:
        return max(one.bytes for one in self.passes)

    def __str__(self) -> str:
        share = self.naive_row_layers / max(1, self.row_layers)
        passes = f"{len(self.passes)} pass{'es' * (len(self.passes) > 1)}"
        memory = f", about {self.bytes / 2**20:,.0f} MiB" if self.bytes else ""
        return (
            f"{self.row_layers:,} row-layers of the {self.naive_row_layers:,} that one forward pass each would take"
            f" ({share:.1f} times fewer), in {passes}{memory}"
        )


def plan_passes(
    compiled: Sequence[Compiled], widths: Widths | None = None, memory_budget: int | None = None
) -> MemoryPlan:
    """For interventions on one prompt; `memory_budget` in bytes needs the `widths`. None: everything at once."""
    if widths is None:
        whole = schedule(compiled)
        chunks = tuple(tuple(len(job.branches) for job in jobs) for jobs in whole.layers)
        return MemoryPlan((PlannedPass(tuple(range(len(compiled))), whole, chunks, 0),))
    passes: list[PlannedPass] = []
    waiting = [tuple(range(len(compiled)))]
    while waiting:
        some = waiting.pop(0)
        one = _pass(some, schedule([compiled[i] for i in some], compiled[0]), widths, memory_budget)
        if memory_budget is None or one.bytes <= memory_budget or len(some) == 1:
            passes.append(one)
        else:
            half = len(some) // 2
            waiting[:0] = [some[:half], some[half:]]
    notes = []
    if memory_budget is not None and (largest := max(one.bytes for one in passes)) > memory_budget:
        notes.append(
            f"memory budget {memory_budget:,} bytes: a single window takes {largest:,}, so windows that do not fit"
            " are run one at a time, regardless"
        )
    return MemoryPlan(tuple(passes), tuple(notes))


def _pass(
    interventions: tuple[int, ...], one: Schedule, widths: Widths, memory_budget: int | None
) -> PlannedPass:
    """Batches as large as they pay, and as the budget lets them be, of one branch at least."""
    held = [sum(_held(one, job, widths) for job in jobs) for jobs in one.layers]
    most = 0
    chunks = []
    for layer, jobs in enumerate(one.layers):
        states = held[layer] + (held[layer - 1] if layer else 0)
        sizes = []
        for job in jobs:
            size = min(len(job.branches), max(1, _enough(widths) // max(1, one.rows(job.own))))
            while memory_budget is not None and size > 1:
                if states + _working(one, job, size, widths) <= memory_budget:
                    break
                size = (size + 1) // 2
            sizes.append(size)
            most = max(most, states + _working(one, job, size, widths))
        chunks.append(tuple(sizes))
    return PlannedPass(interventions, one, tuple(chunks), most)


def _enough(widths: Widths) -> int:
    """Rows in one call beyond which more would cost more: a row's scores against the other branches' keys, which are
    computed and masked, grow with the rows, its way through the layer's matrices does not."""
    return max(256, widths.hidden // 2)


def _held(one: Schedule, job: Job, widths: Widths) -> int:
    """Bytes of a job's hidden states between two layers."""
    return (
        0
        if job.is_trunk
        else len(job.branches) * one.rows(job.computed) * widths.hidden * widths.bytes
    )


def _working(one: Schedule, job: Job, branches: int, widths: Widths) -> int:
    """Bytes that some branches of a job need while its layer runs: arriving states, then attention or feed-forward."""
    if job.is_trunk:
        return 0
    own, rows = branches * one.rows(job.own), branches * one.rows(job.computed)
    keys = own + one.rows(job.kept)
    repeated = (
        0 if widths.keys == widths.queries else widths.queries
    )  # key heads, for each query head
    arriving = (own + 2 * rows) * widths.hidden
    attention = (
        2 * own * widths.keys + 3 * rows * widths.queries + 2 * keys * (widths.keys + repeated)
    )
    mask = rows * keys * (3 + widths.bytes)
    feed_forward = 3 * rows * widths.feed_forward
    return max(
        (arriving + attention) * widths.bytes + mask, (arriving + feed_forward) * widths.bytes
    )
