"""Decoder: a language model run under interventions, several prompts and several interventions in one pass.

Interventions on the same prompt share every layer up to the first in which they differ: the batch starts with one row
a prompt and branches, by a forward hook, where the first cut that tells two interventions apart comes into force. The
layers themselves are run by the model's own forward; there is no second implementation.

Prompts are padded on the right: causality alone keeps padding from every real row, so no padding mask is needed.
Knows no family: any causal language model of transformers whose decoder has `layers` and whose attention goes
through the attention interface.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel

from mapflow.model_adapters.interventions.attention import SDPA, apply
from mapflow.model_adapters.interventions.intervention import Compiled
from mapflow.model_adapters.interventions.plan import AttentionPlan, Mask


class Decoder:
    """Wraps a causal language model (`PreTrainedModel` with a head) and switches it to our attention function."""

    def __init__(self, causal_lm: PreTrainedModel) -> None:
        causal_lm.set_attn_implementation(SDPA)
        self.causal_lm = causal_lm
        self.core: nn.Module = causal_lm.get_decoder()
        self.layers: nn.ModuleList = self.core.layers  # pyright: ignore[reportAssignmentType]

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    @property
    def device(self) -> torch.device:
        """Where embeddings enter."""
        return self.causal_lm.get_input_embeddings().weight.device  # pyright: ignore[reportReturnType]

    @torch.inference_mode()
    def answer_logits(
        self,
        embeds: Sequence[Float[Tensor, "n hidden"]],
        compiled: Sequence[Sequence[Compiled]],
        position_ids: Int[Tensor, "batch longest"] | None = None,
    ) -> list[Float[Tensor, "intervention vocab"]]:
        """Float32 logits at each prompt's last position, a row an intervention: `compiled[p]` are prompt p's.

        Equals one plain forward for every prompt and intervention (tests/interventions/test_decoder.py).
        """
        items = [(prompt, item) for prompt, own in enumerate(compiled) for item in own]
        branches = _Branches(
            [prompt for prompt, _ in items], [item for _, item in items], len(embeds), self.device
        )
        batch = pad_sequence(list(embeds), batch_first=True)
        with apply(branches), self._branching(branches):  # pyright: ignore[reportArgumentType]
            hidden = self.core(
                inputs_embeds=batch, position_ids=position_ids, use_cache=False
            ).last_hidden_state
        row = torch.tensor(branches.group_of[-1], device=hidden.device)
        last = torch.tensor([len(item.layout) - 1 for _, item in items], device=hidden.device)
        head: nn.Module = self.causal_lm.get_output_embeddings()  # pyright: ignore[reportAssignmentType]
        logits = head(hidden[row, last]).float()
        return list(logits.split([len(own) for own in compiled]))

    @torch.inference_mode()
    def generate(
        self,
        embeds: Float[Tensor, "n hidden"],
        compiled: Sequence[Compiled],
        max_new_tokens: int,
        stop_ids: Sequence[int] = (),
        next_position: int | None = None,
        position_ids: Int[Tensor, "1 n"] | None = None,
    ) -> tuple[list[list[int]], Float[Tensor, "intervention vocab"]]:
        """Greedy decoding of one prompt under each intervention: new token ids (a stop id ends one and is left out) and
        the first step's float32 logits.

        The last prompt row's cuts stay in force for every generated row; generated keys are free. `next_position` is
        the position of the first generated token where positions do not simply count up (M-RoPE).
        """
        n = embeds.shape[0]
        plan = AttentionPlan.of(compiled, device=self.device)
        cache = DynamicCache(config=self.causal_lm.config.get_text_config())
        inputs: dict[str, Any] = {
            "inputs_embeds": embeds.expand(len(compiled), -1, -1),
            "position_ids": position_ids,
        }
        tokens: list[list[int]] = [[] for _ in compiled]
        open_rows = set(range(len(compiled)))
        first = None
        with apply(plan):
            for step in range(max_new_tokens):
                out = self.causal_lm(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
                logits = out.logits[:, -1].float()
                first = logits if first is None else first
                chosen = logits.argmax(-1)
                for row in list(open_rows):
                    if int(chosen[row]) in stop_ids:
                        open_rows.discard(row)
                    else:
                        tokens[row].append(int(chosen[row]))
                if not open_rows:
                    break
                position = torch.tensor(
                    [[(n if next_position is None else next_position) + step]], device=self.device
                )
                inputs = {"input_ids": chosen[:, None], "position_ids": position.expand(len(compiled), -1)}
        assert first is not None, "max_new_tokens is at least 1"
        return tokens, first

    @contextmanager
    def _branching(self, branches: _Branches) -> Iterator[None]:
        """Hooks that widen the batch where interventions part; removed also by an exception."""
        hooks = [
            layer.register_forward_pre_hook(branches.hook(index), with_kwargs=True)
            for index, layer in enumerate(self.layers)
            if branches.widens(index)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


class _Branches:
    """Which rows of the batch exist in which layer: items that have been treated alike so far share one.

    `group_of[l][item]` is the item's row in layer l; it offers the plan's `mask` to the attention function.
    """

    def __init__(
        self, prompt_of: Sequence[int], items: Sequence[Compiled], n_prompts: int, device: torch.device
    ) -> None:
        self.items, self.prompt_of, self.n_prompts, self.device = items, prompt_of, n_prompts, device
        self.length = max(len(item.layout) for item in items)
        self.group_of: list[list[int]] = []
        self._plans: dict[tuple[int, ...], AttentionPlan] = {}
        paths: list[tuple[Any, ...]] = [(prompt,) for prompt in prompt_of]
        for layer in range(items[0].n_layers):
            paths = [(path, _treatment(item, layer)) for path, item in zip(paths, items, strict=True)]
            index: dict[tuple[Any, ...], int] = {}
            self.group_of.append([index.setdefault(path, len(index)) for path in paths])
            paths = [(group,) for group in self.group_of[-1]]

    def members(self, layer: int) -> tuple[int, ...]:
        """One item for each row of this layer."""
        groups = self.group_of[layer]
        return tuple(groups.index(group) for group in range(max(groups) + 1))

    def widens(self, layer: int) -> bool:
        """Does this layer have other rows than one a prompt? (Its other inputs come with one row a prompt.)"""
        return [self.prompt_of[item] for item in self.members(layer)] != list(range(self.n_prompts))

    def mask(self, layer: int, n_queries: int, n_keys: int) -> Mask | None:
        members = self.members(layer)
        if members not in self._plans:
            chosen = [self.items[item] for item in members]
            self._plans[members] = AttentionPlan.of(chosen, length=self.length, device=self.device)
        return self._plans[members].mask(layer, n_queries, n_keys)

    def hook(self, layer: int) -> Any:
        """A forward pre-hook that gives `layer` its rows: hidden states from the layer before, all else by prompt."""
        members = self.members(layer)
        before = self.group_of[layer - 1] if layer else self.prompt_of
        parent = torch.tensor([before[item] for item in members])
        prompt = torch.tensor([self.prompt_of[item] for item in members])

        def by_prompt(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(by_prompt(part) for part in value)
            if isinstance(value, Tensor) and self.n_prompts > 1 and value.shape[0] == self.n_prompts:
                return value[prompt.to(value.device)]
            return value

        def widen(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[Any, dict[str, Any]]:
            hidden = args[0] if args else kwargs["hidden_states"]
            hidden = hidden[parent.to(hidden.device)]
            others = {name: by_prompt(value) for name, value in kwargs.items() if name != "hidden_states"}
            return (
                ((hidden, *map(by_prompt, args[1:])), others)
                if args
                else ((), {"hidden_states": hidden, **others})
            )

        return widen


def _treatment(item: Compiled, layer: int) -> Any:
    """Equal for two interventions on one prompt exactly if this layer treats them alike."""
    if item.budget and item.budget[layer]:
        return (item.reads[layer].numpy().tobytes(), item.random, item.key, item.budget[layer])
    return item.reads[layer].numpy().tobytes()
