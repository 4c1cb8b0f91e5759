"""MemoryPlan: passes and chunks that keep a set of interventions within a memory budget.

A pass is one forward of the model with the branches of its interventions. The hidden states of all
its branches are held from layer to layer; keys, scores and feed-forward activations exist for one
chunk of branches at a time. So a budget is met by smaller chunks first, then by more passes, each
of which repeats the trunk, and finally by one intervention per pass, which `notes` reports.

Bytes are counted for branches only; the weights and the baseline run come on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mapflow.model_adapters.interventions.execution.schedule import Job, Schedule, schedule
from mapflow.model_adapters.interventions.language.intervention import Compiled


@dataclass(frozen=True)
class Widths:
    """Sizes of a decoder's tensors: numbers per position, and bytes per number."""

    hidden: int
    queries: int
    keys: int
    feed_forward: int
    bytes: int

    @classmethod
    def of(cls, config: object, bytes: int) -> Widths:
        """From a language model's configuration."""
        hidden = int(getattr(config, "hidden_size"))  # noqa: B009
        heads = int(getattr(config, "num_attention_heads"))  # noqa: B009
        dim = int(getattr(config, "head_dim", None) or hidden // heads)
        kv_heads = int(getattr(config, "num_key_value_heads", None) or heads)
        feed_forward = int(getattr(config, "intermediate_size", None) or 4 * hidden)
        return cls(hidden, heads * dim, kv_heads * dim, feed_forward, bytes)


@dataclass(frozen=True)
class PlannedPass:
    """One pass. `interventions` are indices of those planned for.

    `chunks[l][j]` is the number of branches of layer l's job j that run in one call; `bytes` is the
    largest amount of memory in any layer.
    """

    interventions: tuple[int, ...]
    schedule: Schedule
    chunks: tuple[tuple[int, ...], ...]
    bytes: int


@dataclass(frozen=True)
class MemoryPlan:
    """The passes of a set of interventions; `notes` are sentences for the user."""

    passes: tuple[PlannedPass, ...]
    notes: tuple[str, ...] = ()

    @property
    def row_layers(self) -> int:
        """Positions that pass through whole layers."""
        return sum(one.schedule.row_layers for one in self.passes)

    @property
    def key_row_layers(self) -> int:
        """Positions of which only keys and values are computed."""
        return sum(one.schedule.key_row_layers for one in self.passes)

    @property
    def naive_row_layers(self) -> int:
        """The row-layers of one whole forward pass for every intervention."""
        return sum(one.schedule.naive_row_layers for one in self.passes)

    @property
    def bytes(self) -> int:
        """The estimate of the largest pass."""
        return max(one.bytes for one in self.passes)

    @property
    def is_smallest(self) -> bool:
        """No other plan needs less memory: each pass runs one intervention, or none is known."""
        return not self.bytes or all(len(one.interventions) == 1 for one in self.passes)

    def __str__(self) -> str:
        share = self.naive_row_layers / max(1, self.row_layers)
        passes = f"{len(self.passes)} pass{'es' * (len(self.passes) > 1)}"
        memory = f", about {self.bytes / 2**20:,.0f} MiB" if self.bytes else ""
        return (
            f"{self.row_layers:,} row-layers of the {self.naive_row_layers:,} that one forward pass"
            f" each would take ({share:.1f} times fewer), in {passes}{memory}"
        )


def plan_passes(
    compiled: Sequence[Compiled], widths: Widths | None = None, memory_budget: int | None = None
) -> MemoryPlan:
    """For interventions on one prompt.

    `memory_budget` is in bytes; None runs everything in one pass. Without `widths` there is no
    estimate and no budget.
    """
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
            f"memory budget {memory_budget:,} bytes: a single window takes {largest:,}, so windows"
            " that do not fit are run one at a time, regardless"
        )
    return MemoryPlan(tuple(passes), tuple(notes))


def _pass(
    interventions: tuple[int, ...], one: Schedule, widths: Widths, memory_budget: int | None
) -> PlannedPass:
    """One pass in chunks of at least one branch, as large as pays and as the budget allows."""
    held = [sum(_held(one, job, widths) for job in jobs) for jobs in one.layers]
    most = 0
    chunks = []
    for layer, jobs in enumerate(one.layers):
        states = held[layer] + (held[layer - 1] if layer else 0)
        sizes = []
        for job in jobs:
            size = min(len(job.branches), max(1, _enough(widths) // max(1, one.count(job.own))))
            while memory_budget is not None and size > 1:
                if states + _working(one, job, size, widths) <= memory_budget:
                    break
                size = (size + 1) // 2
            sizes.append(size)
            most = max(most, states + _working(one, job, size, widths))
        chunks.append(tuple(sizes))
    return PlannedPass(interventions, one, tuple(chunks), most)


def _enough(widths: Widths) -> int:
    """Positions in one call beyond which each further branch makes the call slower per branch.

    The scores of a position against other branches' keys, which are computed and masked, grow with
    the number of positions; its share of the layer's matrix products does not.
    """
    return max(256, widths.hidden // 2)


def _held(one: Schedule, job: Job, widths: Widths) -> int:
    """Bytes of a job's hidden states between two layers."""
    return (
        0
        if job.is_trunk
        else len(job.branches) * one.count(job.computed) * widths.hidden * widths.bytes
    )


def _working(one: Schedule, job: Job, branches: int, widths: Widths) -> int:
    """Bytes that some branches of a job need while its layer runs."""
    if job.is_trunk:
        return 0
    own, rows = branches * one.count(job.own), branches * one.count(job.computed)
    keys = own + one.count(job.kept)
    # key heads that are repeated for each query head
    repeated = 0 if widths.keys == widths.queries else widths.queries
    arriving = (own + 2 * rows) * widths.hidden
    attention = (
        2 * own * widths.keys + 3 * rows * widths.queries + 2 * keys * (widths.keys + repeated)
    )
    mask = rows * keys * (3 + widths.bytes)
    feed_forward = 3 * rows * widths.feed_forward
    return max(
        (arriving + attention) * widths.bytes + mask, (arriving + feed_forward) * widths.bytes
    )
