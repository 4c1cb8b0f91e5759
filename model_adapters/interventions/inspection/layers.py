"""Which layers have attention that masks reach, and which mix positions besides it.

Linear attention, state spaces, short convolutions and token shifts carry information from position
to position without attention edges: a cut in such a layer does nothing, or leaves a path open. They
are found by behaviour. The model's own forward runs on two rows of equal tokens, and all edges are
cut but each position's own. Before every layer the second row becomes a copy of the first in which
half of the positions are changed. If the other half changes, the layer mixes positions. Layers
whose attention function is never called have no attention edges.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from transformers import PreTrainedModel

from mapflow.model_adapters.interventions.inspection.noise import NOISE, distance
from mapflow.model_adapters.interventions.inspection.tail import replaced_forward
from mapflow.model_adapters.interventions.kernels.attention import SDPA, apply
from mapflow.model_adapters.interventions.kernels.edges import DenseEdges, Edges, Mask
from mapflow.results.contract.errors import MapflowError

POSITIONS = 24
"""Length of the text that is tried; short convolutions and token shifts reach 2 to 8 positions."""

_consent: ContextVar[bool] = ContextVar("mapflow_allow_uncut_layers", default=False)


@contextmanager
def uncut_layers_allowed(allowed: bool) -> Iterator[None]:
    """Whether models load within this block although some layers mix positions otherwise."""
    token = _consent.set(allowed)
    try:
        yield
    finally:
        _consent.reset(token)


@dataclass
class Layers:
    """What each 0-based layer does.

    Attributes:
        attends: layers that call the attention function.
        mixing: layers that carry information between positions besides attention, with the share
            of a layer's output that changes.
        exact: positions that cannot change keep their bits. Where experts are chosen for each
            token, kernels get other shapes and results differ by rounding.
        extras: number of outputs after the hidden states in a layer's tuple; None for a tensor.
    """

    attends: set[int] = field(default_factory=set)
    mixing: dict[int, float] = field(default_factory=dict)
    exact: bool = True
    extras: int | None = None

    @property
    def uncut(self) -> list[int]:
        return sorted(self.mixing)

    @property
    def uncut_groups(self) -> list[tuple[list[int], str]]:
        """The layers that cuts do not reach, and how they mix positions; no group is empty."""
        groups = (
            ([layer for layer in self.uncut if layer not in self.attends], "without attention"),
            ([layer for layer in self.uncut if layer in self.attends], "besides their attention"),
        )
        return [(some, f"mix positions {how}") for some, how in groups if some]


def select_attention(core: PreTrainedModel) -> None:
    """Switches a decoder to our attention function. Raises MapflowError if it offers no choice."""
    with suppress(ValueError):
        core.set_attn_implementation(SDPA)
    if core.config._attn_implementation != SDPA or not hasattr(core, "layers"):
        raise MapflowError(
            f"{type(core).__name__} does not support transformers' attention interface,"
            " which interventions need"
        )


class NotInspected(MapflowError):
    """A model that does not run on plain text."""


@torch.no_grad()
def inspect_layers(
    core: PreTrainedModel, layers: nn.ModuleList, only: Collection[int] | None = None
) -> Layers:
    """Runs the model once on a few tokens; `core` uses our attention function.

    `only` names the layers that run; the others hand on what they receive. Raises NotInspected for
    a model that cannot be run so. Raises MapflowError if its attention is not that of a prompt's
    positions to themselves, and as the attention function does.
    """
    probe = _Probe(layers, range(len(layers)) if only is None else only)
    table: Any = core.get_input_embeddings()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(len(table.weight), (1, POSITIONS), generator=generator).expand(2, -1)
    ids = ids.to(table.weight.device)
    run: Any = core
    try:
        with apply(probe), probe.hooks():
            run(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    except MapflowError:
        raise
    except Exception as error:  # whatever a model raises that does not take plain text
        reason = " ".join(str(error).split())
        raise NotInspected(
            f"{type(core).__name__} cannot be run on plain text, so its layers cannot be checked:"
            f" {type(error).__name__}: {reason}"
        ) from error
    return probe.found


def check_layers(found: Layers, layers: nn.ModuleList, name: str) -> None:
    """Raises MapflowError for layers that mix positions besides attention, unless that is allowed.

    Also for a model without any attention that could be cut.
    """
    if not found.attends:
        raise MapflowError(
            f"{name} has no attention that could be cut: its {len(layers)} layers"
            f" ({_kinds(layers, range(len(layers)))}) never call the attention function"
        )
    if found.mixing and not _consent.get():
        parts = [
            f"layers {numbered(some)} ({_kinds(layers, some)}) {what}"
            for some, what in found.uncut_groups
        ]
        raise MapflowError(
            f"{name}: {' and '.join(parts)}, so cutting attention edges does not cut what flows"
            " there; --allow-uncut-layers runs cuts in the attention that there is and says so in"
            " every table"
        )


def numbered(layers: Sequence[int]) -> str:
    """0-based layers as people read them, 1-based: "1-3,5"."""
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and runs[-1][1] == layer - 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ",".join(f"{a + 1}-{b + 1}" if b > a else f"{a + 1}" for a, b in runs)


def _kinds(layers: nn.ModuleList, some: Sequence[int]) -> str:
    """The classes of the modules that layers differ by: those which no other layer has."""
    others = {
        type(child)
        for number, layer in enumerate(layers)
        if number not in some
        for child in layer.modules()
    }
    names = dict.fromkeys(
        type(child).__name__
        for number in some
        for child in (layers[number], *layers[number].children())
        if type(child) not in others and not type(child).__module__.startswith("torch.")
    )
    return ", ".join(list(names)[:3]) or type(layers[some[0]]).__name__


class _Probe:
    """The masks and hooks of the run, and what they found."""

    def __init__(self, layers: nn.ModuleList, only: Collection[int]) -> None:
        self.layers, self.only, self.found = layers, only, Layers()
        self.current = -1
        changed = torch.zeros(POSITIONS, dtype=torch.bool)
        # neighbours on both sides of a changed position, and some distance
        changed[torch.randperm(POSITIONS, generator=torch.Generator().manual_seed(1))[::2]] = True
        self.changed = changed

    def mask(self, layer: int, n_queries: int, n_keys: int) -> Edges:
        """Each position's own edge. Records that the layer calls the attention function."""
        if layer != self.current:
            raise MapflowError(
                f"attention in layer {self.current + 1} calls itself layer {layer + 1}, so cuts"
                " would act in the wrong layer: this model cannot be run"
            )
        if n_queries != n_keys or n_queries != POSITIONS:
            raise MapflowError(
                f"layer {layer + 1} attends from {n_queries} to {n_keys} places, which are not the"
                f" {POSITIONS} positions of its prompt: this model cannot be run"
            )
        self.found.attends.add(layer)
        return _Own(torch.eye(POSITIONS, dtype=torch.bool)[None, None], layer)

    @contextmanager
    def hooks(self) -> Iterator[None]:
        with ExitStack() as stack:
            for number, layer in enumerate(self.layers):
                if number not in self.only:
                    stack.enter_context(replaced_forward(layer, self._skipped))
                    continue
                own = _OfLayer(self, number)
                stack.callback(layer.register_forward_pre_hook(own.before, with_kwargs=True).remove)
                stack.callback(layer.register_forward_hook(own.after, with_kwargs=True).remove)
            yield

    def _skipped(self, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        extras = self.found.extras
        return hidden_states if extras is None else (hidden_states, *[None] * extras)


class _OfLayer:
    """The hooks of one layer."""

    def __init__(self, probe: _Probe, number: int) -> None:
        self.probe, self.number = probe, number

    def before(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self.probe.current = self.number
        hidden = args[0] if args else kwargs["hidden_states"]
        if hidden.ndim < 3 or hidden.shape[-3:-1] != (2, POSITIONS):
            raise MapflowError(
                f"layer {self.number + 1} works on hidden states of shape {tuple(hidden.shape)},"
                f" not on one vector for each of {POSITIONS} positions: this model cannot be run"
            )
        changed = self.probe.changed.to(hidden.device)
        # not the negative: gates multiply two projections, and its sign would cancel
        one = hidden.select(-3, 0)
        noise = torch.randn(one.shape, generator=torch.Generator().manual_seed(2)).to(one)
        other = torch.where(changed[:, None], noise * one.float().square().mean().sqrt(), one)
        hidden = torch.stack([one, other.to(one)], -3)
        self.arriving = one
        if args:
            return (hidden, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": hidden}

    def after(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        found = self.probe.found
        found.extras = len(output) - 1 if isinstance(output, tuple) else None
        hidden = output[0] if isinstance(output, tuple) else output
        # both rows share the calls of experts, so a row's rounding shows beside another row
        again = self._beside_itself(module, args, kwargs)
        found.exact &= torch.equal(hidden.select(-3, 0), again.select(-3, 0))
        kept = ~self.probe.changed.to(hidden.device)
        one, other = (hidden.select(-3, row)[..., kept, :] for row in (0, 1))
        if torch.equal(one, other):
            return
        found.exact = False
        written = one - self.arriving[..., kept, :].to(one)
        share = distance(written + (other - one), written)
        if share > NOISE[hidden.dtype].logits:
            found.mixing[self.number] = share

    def _beside_itself(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        """The layer's output where the second row is a copy of the first."""
        hidden = torch.stack([self.arriving] * 2, -3)
        if args:
            output = module.forward(hidden, *args[1:], **kwargs)
        else:
            output = module.forward(**{**kwargs, "hidden_states": hidden})
        return output[0] if isinstance(output, tuple) else output


class _Own(DenseEdges):
    """Each position's own edge; looks at the model's own mask when it is joined with it."""

    def __init__(self, allowed: Bool[Tensor, "batch head query key"], layer: int) -> None:
        super().__init__(allowed)
        self.layer = layer

    def to(self, device: torch.device) -> DenseEdges:
        return self if device == self.allowed.device else _Own(self.allowed.to(device), self.layer)

    def __and__(self, padding: Mask) -> DenseEdges:
        later = torch.ones_like(padding[0, 0]).triu(1)
        if bool((padding & later).any()):
            raise MapflowError(
                f"layer {self.layer + 1} attends to later positions of plain text, too; cuts assume"
                " causal attention: this model cannot be run"
            )
        return super().__and__(padding)
