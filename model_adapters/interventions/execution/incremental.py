"""The incremental executor: many interventions on one prompt for little more than one forward pass.

It is exact. The model's own forward runs once, for the trunk, and with every layer that it calls,
the branches of the `Schedule` run too. Hooks replace the layer's input by the trunk's used
positions, and then call the same layer once for each job: differing positions over the trunk's
keys. So a window that begins at layer s costs nothing before s, a route into `last` costs one
position, and unused positions are not computed. Keys and values live for one layer only, as trunk
and branches are always at the same layer.

The branches of one call lie end to end in one sequence. Each position attends to the trunk's keys,
which all branches share, and to those of its own branch, so that only a branch's own positions are
copied.

Layers are not reimplemented: positions and masks are the arguments that the model
passed to it, keys and values go through its cache argument, and cuts through the attention
function. Between two layers the model's forward gets a placeholder of zeros and must hand it on as
it is. After the last layer it gets the last position of each answering branch, for its final norm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mapflow.model_adapters.interventions.execution.branch_masks import BranchMasks
from mapflow.model_adapters.interventions.execution.decoder import Decoder
from mapflow.model_adapters.interventions.execution.decoder_inputs import DecoderInputs
from mapflow.model_adapters.interventions.execution.layer_arguments import (
    Keys,
    KeysKnown,
    KeyValueProbe,
    LayerCache,
    NotIncremental,
    PositionArguments,
    PrefixedCache,
    RecordingCache,
    ReplayCache,
    StretchIndex,
    joined,
    take,
)
from mapflow.model_adapters.interventions.execution.memory_plan import (
    MemoryPlan,
    PlannedPass,
    plan_passes,
)
from mapflow.model_adapters.interventions.execution.schedule import TRUNK, Job
from mapflow.model_adapters.interventions.kernels.attention import apply
from mapflow.model_adapters.interventions.kernels.edges import Edges
from mapflow.model_adapters.interventions.language.intervention import Compiled


@torch.inference_mode()
def answer_logits(
    decoder: Decoder,
    inputs: DecoderInputs,
    compiled: Sequence[Compiled],
    planned: MemoryPlan | None = None,
) -> Float[Tensor, "intervention vocab"]:
    """Float32 logits at the prompt's last position under each intervention.

    Equals `Decoder.answer_logits`, which also answers early exits here. `planned` is
    `plan_passes(...)` for the same interventions; None runs all of them in one pass. Raises
    NotIncremental for a model whose layers cannot run for some positions alone.
    """
    if inputs.special or any(one.own and not one.own.causal for one in compiled):
        raise NotIncremental(
            f"{type(decoder.core).__name__} receives its own mask or arguments, so the incremental"
            " executor cannot run it: run its interventions one by one"
        )
    if any(one.depth < decoder.n_layers for one in compiled):
        return decoder.answer_logits([inputs], [compiled])[0]
    planned = planned or plan_passes(compiled)
    logits: list[Tensor | None] = [None] * len(compiled)
    for one in planned.passes:
        own = _Pass(decoder, inputs, [compiled[i] for i in one.interventions], one).run()
        for place, row in zip(one.interventions, own, strict=True):
            logits[place] = row
    return torch.stack([row for row in logits if row is not None])


@dataclass(frozen=True)
class _States:
    """Hidden states after a layer: `hidden[i]` are those of branch `branches[i]` at `stretches`."""

    branches: tuple[int, ...]
    stretches: Bool[np.ndarray, " stretch"]
    hidden: Float[Tensor, "branch position hidden"]


@dataclass(frozen=True)
class _Call:
    """One call of the layer: some of a job's branches."""

    job: Job
    members: slice


class _Pass:
    """One forward pass of the model with all branches of a schedule, whose masks it also serves."""

    def __init__(
        self,
        decoder: Decoder,
        inputs: DecoderInputs,
        compiled: Sequence[Compiled],
        planned: PlannedPass,
    ) -> None:
        self.decoder, self.inputs = decoder, inputs
        self.schedule, self.chunks = planned.schedule, planned.chunks
        self.index = StretchIndex(self.schedule.sizes, decoder.device)
        self.masks = BranchMasks(self.index, compiled)
        self.placeholder = inputs.embeds.new_zeros(1).expand(1, *inputs.embeds.shape)
        self.states: list[_States] = []
        self.leaving: list[_States] = []
        self.calls: list[_Call] = []
        self.number = -1
        self.arguments = PositionArguments({})
        self.trunk_keys: tuple[Keys, Keys] | None = None
        self.trunk_stretches = self._everything
        self._cache: LayerCache | None = None
        self._current: _Call

    def run(self) -> Float[Tensor, "intervention vocab"]:
        with apply(self), self._hooks():  # pyright: ignore[reportArgumentType]
            hidden = self.decoder.core(
                inputs_embeds=self.inputs.embeds[None],
                position_ids=self.inputs.batched_position_ids,
                use_cache=False,
            ).last_hidden_state
        logits = self.decoder.logits(hidden[:, 0])
        branches = sorted(set(self.schedule.answers))
        return take(
            logits,
            0,
            self.index.places([branches.index(branch) for branch in self.schedule.answers]),
        )

    def mask(self, layer: int, n_queries: int, n_keys: int) -> Edges | None:
        """The edges of the current call, for the attention function.

        They are made here, after the call's matrix products have been queued, so a GPU does not
        wait.
        """
        return self.masks.of(self._current.job, self._current.members, self.number)

    @contextmanager
    def _hooks(self) -> Iterator[None]:
        with ExitStack() as stack:
            for number, layer in enumerate(self.decoder.layers):
                before, after = partial(self._before, number), partial(self._after, number)
                stack.callback(layer.register_forward_pre_hook(before, with_kwargs=True).remove)
                stack.callback(layer.register_forward_hook(after).remove)
            yield

    def _before(
        self, number: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Tensor], dict[str, Any]]:
        """Turns the layer's own call into the first of its jobs' calls."""
        arriving = args[0] if args else kwargs["hidden_states"]
        if arriving.ndim != 3 or (number and arriving is not self.placeholder) or len(args) > 1:
            raise NotIncremental(
                f"{type(self.decoder.core).__name__} works on hidden states between its layers, or"
                " hands them over in an unknown way, so the incremental executor cannot run it:"
                " run its interventions one by one"
            )
        if number == 0:
            self.states = [
                _States((TRUNK,), np.ones(len(self.schedule.sizes), dtype=bool), arriving)
            ]
        self.number = number
        self.arguments = self.arguments.next_layer(
            {
                name: value
                for name, value in kwargs.items()
                if name not in ("hidden_states", "past_key_values")
            }
        )
        self.leaving, self.trunk_keys = [], None
        self.calls = [
            _Call(job, slice(start, min(start + size, len(job.branches))))
            for job, size in zip(self.schedule.layers[number], self.chunks[number], strict=True)
            for start in range(0, len(job.branches), size)
        ]
        first = self.calls[0]
        if not first.job.computed.any():  # a trunk of which only keys are used
            self.trunk_keys = self._keys_only(layer, first.job, self._hidden(first))
            self.trunk_stretches = first.job.own
            del self.calls[0]
        hidden, keywords = self._prepare(layer, self.calls[0])
        return (hidden,), keywords

    def _after(self, number: int, layer: nn.Module, args: Any, output: Any) -> Any:
        """Makes the layer's other calls; returns the placeholder, or in the end the answers."""
        self._finish(number, self.calls[0], output)
        for call in self.calls[1:]:
            hidden, keywords = self._prepare(layer, call)
            self._finish(number, call, layer.forward(hidden, **keywords))
        self.states = self.leaving
        passed_on = self._answers() if number == self.decoder.n_layers - 1 else self.placeholder
        return (passed_on, *output[1:]) if isinstance(output, tuple) else passed_on

    def _prepare(self, layer: nn.Module, call: _Call) -> tuple[Tensor, dict[str, Any]]:
        """Hidden states and arguments of one call; its keys become the active ones."""
        job, hidden = call.job, self._hidden(call)
        kept = self._kept(job)
        if job.in_two_steps:
            own = self._keys_only(layer, job, hidden)
            if job.is_trunk:
                self.trunk_keys, self.trunk_stretches = own, job.own
            self._cache = ReplayCache(*own if kept is None else map(joined, kept, own))
            hidden = take(hidden, 1, self.index.within(job.computed, job.own))
        else:
            self._cache = RecordingCache() if kept is None else PrefixedCache(*kept)
        self._current = call
        together = len(job.branches[call.members])
        queries = self.index.repeated(job.computed, together)
        keys = [
            self.index.repeated(part, times)
            for part, times in ((job.kept, 1), (job.own, together))
            if part.any()
        ]
        return end_to_end(hidden), {
            **self.arguments.of(queries, keys),
            "past_key_values": self._cache,
        }

    def _keys_only(self, layer: nn.Module, job: Job, hidden: Tensor) -> tuple[Keys, Keys]:
        """Keys and values of a job's own positions; the layer's call ends when they are known."""
        cache = KeyValueProbe()
        queries = self.index.repeated(job.own, len(hidden))
        with suppress(KeysKnown):
            layer.forward(
                end_to_end(hidden), **self.arguments.of(queries, None), past_key_values=cache
            )
        return cache.keys, cache.values

    def _finish(self, number: int, call: _Call, output: Any) -> None:
        job, hidden = call.job, output[0] if isinstance(output, tuple) else output
        if job.is_trunk and isinstance(self._cache, RecordingCache):
            self.trunk_keys, self.trunk_stretches = (self._cache.keys, self._cache.values), job.own
        branches = job.branches[call.members]
        hidden = hidden.view(len(branches), -1, hidden.shape[-1])
        if number in self.inputs.added:
            added = take(self.inputs.added[number], 0, self.index.repeated(job.computed, 1))
            hidden = hidden + added.to(hidden)
        self.leaving.append(_States(branches, job.computed, hidden))
        self._cache = None

    @property
    def _everything(self) -> Bool[np.ndarray, " stretch"]:
        return np.ones(len(self.schedule.sizes), dtype=bool)

    def _answers(self) -> Float[Tensor, "branch 1 hidden"]:
        """The last position of every branch that answers, by branch number."""
        found: dict[int, Tensor] = {}
        for state in self.states:
            found |= dict(zip(state.branches, state.hidden[:, -1], strict=True))
        return torch.stack([found[branch] for branch in sorted(set(self.schedule.answers))])[
            :, None
        ]

    def _hidden(self, call: _Call) -> Float[Tensor, "branch position hidden"]:
        """The own positions of a call's branches: inherited from their parents, or the trunk's.

        A branch may not use some positions of its call; these hold any finite numbers.
        """
        job, own = call.job, call.job.own
        if job.is_trunk:
            return self._from_trunk(own)
        parents, inherited = job.parents[call.members], job.inherited[call.members]
        sources: dict[tuple[int, bytes], list[int]] = {}
        for member, parent in enumerate(parents):
            if inherited[member].any():
                where = next(i for i, state in enumerate(self.states) if parent in state.branches)
                sources.setdefault((where, inherited[member].tobytes()), []).append(member)
        hidden = None
        for (where, _), members in sources.items():
            state, chosen = self.states[where], inherited[members[0]]
            places = self.index.places(
                [state.branches.index(parents[member]) for member in members]
            )
            source = take(
                take(state.hidden, 1, self.index.within(chosen, state.stretches)), 0, places
            )
            if len(members) == len(parents) and (chosen == own).all():
                return source
            if hidden is None:
                hidden = self._from_trunk(own).repeat(len(parents), 1, 1)
            rows, columns = self.index.places(members), self.index.within(chosen, own)
            if isinstance(rows, slice) or isinstance(columns, slice):
                hidden[rows, columns] = source
            else:
                hidden[rows[:, None], columns] = source
        return self._from_trunk(own).expand(len(parents), -1, -1) if hidden is None else hidden

    def _from_trunk(self, own: Bool[np.ndarray, " stretch"]) -> Float[Tensor, "1 position hidden"]:
        """The trunk's hidden states; zeros where it has none."""
        trunk = next((state for state in self.states if state.branches == (TRUNK,)), None)
        if trunk is not None and (trunk.stretches >= own).all():
            return take(trunk.hidden, 1, self.index.within(own, trunk.stretches))
        like = self.states[0].hidden
        hidden = like.new_zeros(1, self.index.count(own), like.shape[-1])
        if trunk is not None and (both := own & trunk.stretches).any():
            source = take(trunk.hidden, 1, self.index.within(both, trunk.stretches))
            hidden[:, self.index.within(both, own)] = source
        return hidden

    def _kept(self, job: Job) -> tuple[Keys, Keys] | None:
        """The trunk's keys and values that a job's branches use."""
        if not job.kept.any():
            return None
        assert self.trunk_keys is not None, "the trunk's job is each layer's first"
        keys, values = self.trunk_keys
        where = self.index.within(job.kept, self.trunk_stretches)
        return take(keys, 2, where), take(values, 2, where)


def end_to_end(
    hidden: Float[Tensor, "branch position hidden"],
) -> Float[Tensor, "1 branch*position hidden"]:
    """Branches one after another in one sequence."""
    return hidden.reshape(1, -1, hidden.shape[-1])
