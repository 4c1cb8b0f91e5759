"""Captures the decoder inputs that a vision-language model computes.

Merging of video tokens, M-RoPE positions and DeepStack differ between families and versions of
transformers. They are not reimplemented: the model's own forward runs until it calls its language
model, where a hook takes the arguments and stops. Masks over the prompt's positions, and tensors
with one row for each position (token types, per-layer embeddings), are passed on as they are. Other
arguments are refused, because they may change attention in a way that interventions do not cover.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from mapflow.model_adapters.interventions import DecoderInputs
from mapflow.results.contract.errors import MapflowError

# Arguments that carry no information for a single prompt without padding.
IGNORED = ("input_ids", "past_key_values", "use_cache", "cache_position")


class _Caught(Exception):
    """Ends the model's forward and carries the decoder's arguments."""

    def __init__(self, arrived: Mapping[str, Any]) -> None:
        super().__init__()
        self.arrived = arrived


def decoder_inputs(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> DecoderInputs:
    """The arguments with which `model(**inputs)` calls its decoder, for a batch of one.

    Raises MapflowError if there is one that `DecoderInputs` cannot hold.
    """
    core = model.get_decoder()

    def catch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _Caught({**kwargs, **({"positional arguments": args} if args else {})})

    hook = core.register_forward_pre_hook(catch, with_kwargs=True)
    try:
        model(**inputs, use_cache=False)
    except _Caught as caught:
        return _understood(caught.arrived, core, type(model).__name__)
    finally:
        hook.remove()
    raise MapflowError(f"{type(model).__name__} does not call its decoder {type(core).__name__}")


def _understood(arrived: Mapping[str, Any], core: nn.Module, name: str) -> DecoderInputs:
    known = dict(arrived)
    if "mm_token_type_ids" not in signature(core.forward).parameters:
        known.pop("mm_token_type_ids", None)  # for the forward around the decoder
    embeds: Tensor = known.pop("inputs_embeds")[0]
    positions: Tensor | None = known.pop("position_ids", None)
    mask: Tensor | None = known.pop("attention_mask", None)
    shown: Tensor | None = known.pop("visual_pos_masks", None)
    deep: list[Tensor] | None = known.pop("deepstack_visual_embeds", None)
    arguments = {
        key: value for key, value in known.items() if key not in IGNORED and holds_tensors(value)
    }
    strangers = [key for key, value in arguments.items() if not _of_one_prompt(value, len(embeds))]
    if isinstance(mask, Tensor) and mask.ndim == 2 and bool(mask.bool().all()):
        mask = None  # no padding
    masks = list(mask.values()) if isinstance(mask, Mapping) else [mask]
    if not all(one is None or _is_mask(one, len(embeds)) for one in masks):
        strangers.append("attention_mask")
    if strangers:
        raise MapflowError(
            f"the decoder of {name} also receives {', '.join(strangers)}, which interventions do"
            " not cover;"
            " write an adapter for this model (model_adapters/README.md)"
        )
    if positions is not None:
        positions = positions[:, 0] if positions.ndim == 3 else positions[:1]
    added = {}
    if deep is not None and shown is not None:
        for layer, vectors in enumerate(deep):
            added[layer] = torch.zeros_like(embeds)
            added[layer][shown[0].to(embeds.device)] = vectors.to(embeds)
    if all(one is None for one in masks):
        mask = None
    return DecoderInputs(embeds, positions, added, mask, arguments)


def _is_mask(value: Any, n: int) -> bool:
    """Whether it says, for all heads alike, which of `n` keys each of `n` queries may attend to."""
    return isinstance(value, Tensor) and value.dtype == torch.bool and value.shape == (1, 1, n, n)


def _of_one_prompt(value: Any, n: int) -> bool:
    """Whether it is one tensor with a row for each of `n` positions, such as token types."""
    return isinstance(value, Tensor) and value.ndim > 1 and value.shape[:2] == (1, n)


def holds_tensors(value: Any) -> bool:
    """Whether it is a tensor, or has one within nested lists or mappings."""
    if isinstance(value, Mapping):
        return any(map(holds_tensors, value.values()))
    if isinstance(value, list | tuple):
        return any(map(holds_tensors, value))
    return isinstance(value, Tensor)
