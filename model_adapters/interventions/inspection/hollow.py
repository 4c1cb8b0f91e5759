"""Layers are inspected before weights are loaded, on a model that takes almost no memory.

The model is built without memory from its config. Every parameter then becomes a view of one short
buffer of random numbers, so any size of model runs; only the first layer of every kind does.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mapflow.model_adapters.interventions.inspection.layers import (
    NotInspected,
    check_layers,
    inspect_layers,
    select_attention,
)

ALIGNED = 16
"""Numbers between the beginnings of two experts' matrices."""

SHARE = 4
"""One layer may take this part of the free memory: some kernels copy what they are given."""


def check_hollow(build: Callable[[], PreTrainedModel]) -> None:
    """Refuses the model that `build` makes, as `check_layers` does, before its weights are read.

    Nothing happens where that cannot be known without weights; the loaded model is asked again.
    Raises MapflowError as `check_layers` and `inspect_layers`.
    """
    from accelerate import init_empty_weights

    try:
        with init_empty_weights(include_buffers=False):
            core: Any = build().get_decoder()
    except Exception:  # the loaded model will say what is wrong with it
        return
    select_attention(core.eval())
    layers = core.layers
    try:
        kinds = [_kind(layer) for layer in layers]
        first = [kinds.index(kind) for kind in kinds]
        largest = max(sum(p.numel() for p in layers[n].parameters()) for n in first)
        if 4 * largest > _free_memory() / SHARE:
            return
        _fill(core)
        found = inspect_layers(core, layers, only=set(first))
    except NotInspected:
        return
    for number, kind in enumerate(first):
        if kind in found.attends:
            found.attends.add(number)
        if kind in found.mixing:
            found.mixing[number] = found.mixing[kind]
    check_layers(found, layers, type(core).__name__)


def _kind(layer: nn.Module) -> Any:
    """Equal for layers of the same modules with the same shapes and settings."""
    return tuple(
        (
            name,
            type(module),
            tuple((key, tuple(p.shape)) for key, p in module.named_parameters(recurse=False)),
            tuple(
                (key, value)
                for key, value in sorted(vars(module).items())
                if isinstance(value, int | float | str | bool) and key != "layer_idx"
            ),
        )
        for name, module in layer.named_modules()
    )


def _fill(model: nn.Module) -> None:
    """Every parameter becomes a view of random numbers, of the usual size for its shape."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                values = _view(parameter.shape, generator)
                module._parameters[name] = nn.Parameter(values, requires_grad=False)


def _view(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Around 0 for matrices, around 1 for vectors; a matrix repeats its numbers, row by row."""
    if len(shape) < 2:
        return 1 + 0.1 * torch.randn(shape, generator=generator)
    scale = math.sqrt(shape[-1])
    if len(shape) == 2:
        return (torch.randn(sum(shape), generator=generator) / scale).as_strided(shape, (1, 1))
    # kernels of many experts at once take whole matrices only: they overlap in all but few rows
    matrix = shape[-2] * shape[-1]
    numbers = torch.randn(matrix + ALIGNED * sum(shape[:-2]), generator=generator) / scale
    return numbers.as_strided(shape, (*(ALIGNED for _ in shape[:-2]), shape[-1], 1))


def _free_memory() -> int:
    """Bytes of main memory that are not in use."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
