"""Decoder: a language model run under interventions, several prompts and interventions in one pass.

Interventions on the same prompt share every layer up to the first in which their cuts differ. The
batch starts with one row per prompt, and a forward hook adds rows where interventions part. The
layers are run by the model's own forward and are not reimplemented. Any causal language
model of transformers works whose decoder has `layers` and whose attention goes through the
attention interface.

Prompts are padded on the right. Causality alone keeps padding from every prompt position, so no
padding mask is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel

from mapflow.model_adapters.interventions.execution.batch_masks import BatchMasks
from mapflow.model_adapters.interventions.execution.decoder_inputs import DecoderInputs
from mapflow.model_adapters.interventions.execution.kept_keys import KeptKeys
from mapflow.model_adapters.interventions.execution.layer_arguments import POSITION_AXIS
from mapflow.model_adapters.interventions.inspection.layers import (
    check_layers,
    inspect_layers,
    select_attention,
)
from mapflow.model_adapters.interventions.inspection.own_masks import own_edges
from mapflow.model_adapters.interventions.inspection.rotary import depends_on_length
from mapflow.model_adapters.interventions.inspection.tail import equals_head, own_logits
from mapflow.model_adapters.interventions.kernels.attention import apply
from mapflow.model_adapters.interventions.kernels.edges import Edges
from mapflow.model_adapters.interventions.language.intervention import Compiled
from mapflow.model_adapters.interventions.language.own_edges import OwnEdges


class Decoder:
    """The decoder inside `model`, switched to our attention function; a vision tower keeps its own.

    `model` is a causal language model, or contains one. `own_attention` is the implementation that
    it was loaded with; `found` says what its layers do. Raises MapflowError if its attention does
    not go through transformers' attention interface, and if layers mix positions otherwise
    (`inspection.layers.check_layers`).
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.core: PreTrainedModel = model.get_decoder()
        self.own_attention = str(self.core.config._attn_implementation)
        select_attention(self.core)
        self.layers: nn.ModuleList = self.core.layers  # pyright: ignore[reportAttributeAccessIssue]
        self.found = inspect_layers(self.core, self.layers)
        check_layers(self.found, self.layers, type(self.core).__name__)
        self._head: nn.Module = model.get_output_embeddings()  # pyright: ignore[reportAttributeAccessIssue]
        self._any_length = not depends_on_length(self.core)
        self._has_tail = not equals_head(model, self.core, self._head)

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    @property
    def device(self) -> torch.device:
        """The device of the input embeddings."""
        return self.core.get_input_embeddings().weight.device  # pyright: ignore[reportReturnType]

    @torch.inference_mode()
    def answer_logits(
        self, inputs: Sequence[DecoderInputs], compiled: Sequence[Sequence[Compiled]]
    ) -> list[Float[Tensor, "intervention vocab"]]:
        """Float32 logits at each prompt's last position, one row per intervention.

        `compiled[p]` are prompt p's interventions. The result equals one forward pass for every
        prompt and intervention (tests/interventions/test_decoder.py). Prompts with explicit
        position ids run one at a time, because the batch axis of their rotary tables differs
        between models; so do all where these tables depend on the length.
        """
        if len(inputs) > 1 and not (self._any_length and all(item.plain for item in inputs)):
            pairs = zip(inputs, compiled, strict=True)
            return [logits for one, own in pairs for logits in self.answer_logits([one], [own])]
        depths = {item.depth for own in compiled for item in own}
        if len(depths) > 1:
            return self._answer_logits_by_depth(inputs, compiled, sorted(depths))
        for one, own in zip(inputs, compiled, strict=True):
            _check_edges(one, own)
        items = [(prompt, item) for prompt, own in enumerate(compiled) for item in own]
        branches = _Branches(
            [prompt for prompt, _ in items], [item for _, item in items], len(inputs), self.device
        )
        batch = pad_sequence([item.embeds for item in inputs], batch_first=True)
        with (
            apply(branches),
            self._branching(branches),
            self.adding_vectors(inputs[0].added),
            self.ending_after(*depths),
        ):
            hidden = self.core(
                inputs_embeds=batch,
                use_cache=False,
                **self._keywords(inputs[0], batch),
            ).last_hidden_state
        row, last = torch.tensor(
            [branches.row_of[-1], [len(item.layout) - 1 for _, item in items]]
        ).to(hidden.device, non_blocking=True)
        return list(self.logits(hidden[row, last]).split([len(own) for own in compiled]))

    @torch.inference_mode()
    def generate(
        self,
        inputs: DecoderInputs,
        compiled: Sequence[Compiled],
        max_new_tokens: int,
        stop_ids: Sequence[int] = (),
    ) -> tuple[list[list[int]], Float[Tensor, "intervention vocab"]]:
        """Greedy decoding of one prompt under each intervention.

        Returns the new token ids, without the stop id that ends them, and the first step's float32
        logits: NaN for an intervention with non-finite logits in any later step. Generated
        positions attend to the prompt as its last position does, and to generated keys freely.
        Unused keys are not kept.
        """
        _check_edges(inputs, compiled)
        depths = sorted({item.depth for item in compiled})
        if len(depths) > 1:
            parts = _by_depth(compiled, depths)
            found = [
                self.generate(inputs, [compiled[i] for i in part], max_new_tokens, stop_ids)
                for part in parts
            ]
            order = torch.tensor([i for part in parts for i in part]).argsort()
            written = [ids for part, _ in found for ids in part]
            return [written[i] for i in order.tolist()], torch.cat([rows for _, rows in found])[
                order
            ]
        cache = DynamicCache(config=self.core.config)
        masks = KeptKeys(compiled, cache, self.device)
        tokens: list[list[int]] = [[] for _ in compiled]
        open_rows = set(range(len(compiled)))
        with apply(masks), self.ending_after(*depths):
            with self.adding_vectors(inputs.added), masks.dropping(self.layers[: depths[0]]):
                hidden = self.core(
                    inputs_embeds=inputs.embeds.expand(len(compiled), -1, -1),
                    past_key_values=cache,
                    use_cache=True,
                    **inputs.keywords(len(compiled)),
                ).last_hidden_state
            first = logits = self.logits(hidden[:, -1])
            for step in range(max_new_tokens):
                chosen = logits.argmax(-1)
                for row in list(open_rows):
                    if int(chosen[row]) in stop_ids:
                        open_rows.discard(row)
                    else:
                        tokens[row].append(int(chosen[row]))
                if not open_rows or step == max_new_tokens - 1:
                    break
                axes = 1 if inputs.position_ids is None else len(inputs.position_ids)
                position = torch.full(
                    (len(compiled), 1), inputs.next_position + step, device=self.device
                )
                masks.generated = step + 1
                hidden = self.core(
                    **self._written(chosen[:, None].to(self.device), inputs),
                    position_ids=position if axes == 1 else position.expand(axes, -1, -1),
                    past_key_values=cache,
                    use_cache=True,
                ).last_hidden_state
                logits = self.logits(hidden[:, -1])
                first[~logits.isfinite().all(-1)] = torch.nan
        return tokens, first

    def _written(
        self, ids: Int[Tensor, "intervention 1"], inputs: DecoderInputs
    ) -> dict[str, Tensor]:
        """Written tokens as the model hands on the prompt's: a core may do more with ids."""
        if inputs.arguments:  # tensors that the core computes from ids, such as token types
            return {"input_ids": ids}
        table: Any = self.core.get_input_embeddings()
        return {"inputs_embeds": table(ids)}

    @torch.inference_mode()
    def own_edges(self, inputs: DecoderInputs) -> OwnEdges | None:
        """The edges that the model has for this prompt; None for causal attention in all layers.

        Layers without attention have no edges.
        """
        batch = inputs.embeds[None]
        keywords = self._keywords(inputs, batch)
        return own_edges(self.core, self.layers, self.found, batch, keywords)

    def _keywords(
        self, inputs: DecoderInputs, batch: Float[Tensor, "prompt n hidden"]
    ) -> dict[str, Any]:
        """What the model receives besides `batch`, which is this prompt if it is not plain."""
        found = inputs.keywords()
        if inputs.position_ids is not None and "attention_mask" not in found:
            # without a mask, transformers takes jumping positions for several packed prompts
            found["attention_mask"] = batch.new_ones(batch.shape[:2], dtype=torch.long)
        return found

    def logits(self, hidden: Float[Tensor, "row hidden"]) -> Float[Tensor, "row vocab"]:
        """Float32 logits of hidden states after the final norm, by all that the model does to them.

        That is the head, and what some models do after it: scales, caps of the final logits.
        """
        if self._has_tail:
            return own_logits(self.model, self.core, hidden).float()
        return self._head(hidden).float()

    def _answer_logits_by_depth(
        self,
        inputs: Sequence[DecoderInputs],
        compiled: Sequence[Sequence[Compiled]],
        depths: Sequence[int],
    ) -> list[Float[Tensor, "intervention vocab"]]:
        """One pass for every depth at which some interventions end."""
        rows: dict[tuple[int, int], Tensor] = {}
        for depth in depths:
            chosen = [_by_depth(own, [depth])[0] for own in compiled]
            asked = [prompt for prompt, own in enumerate(chosen) if own]
            found = self.answer_logits(
                [inputs[prompt] for prompt in asked],
                [[compiled[prompt][i] for i in chosen[prompt]] for prompt in asked],
            )
            for prompt, logits in zip(asked, found, strict=True):
                rows |= {(prompt, i): row for i, row in zip(chosen[prompt], logits, strict=True)}
        return list(
            torch.stack([rows[place] for place in sorted(rows)]).split(
                [len(own) for own in compiled]
            )
        )

    @contextmanager
    def ending_after(self, depth: int) -> Iterator[None]:
        """The model without layers after `depth`: its norm and head read that layer's output."""
        self.core.layers = self.layers[:depth] if depth < self.n_layers else self.layers
        try:
            yield
        finally:
            self.core.layers = self.layers

    @contextmanager
    def adding_vectors(self, added: Mapping[int, Float[Tensor, "n hidden"]]) -> Iterator[None]:
        """Hooks that add a prompt's vectors after their layers, in every row of the batch."""

        def adds(vectors: Float[Tensor, "n hidden"]) -> Any:
            def add(module: nn.Module, args: Any, output: Any) -> Any:
                if isinstance(output, tuple):
                    return (output[0] + vectors.to(output[0]), *output[1:])
                return output + vectors.to(output)

            return add

        hooks = [
            self.layers[layer].register_forward_hook(adds(vectors))
            for layer, vectors in added.items()
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def _branching(self, branches: _Branches) -> Iterator[None]:
        """Hooks that widen the batch where interventions part."""
        hooks = [
            layer.register_forward_pre_hook(branches.hook(index), with_kwargs=True)
            for index, layer in enumerate(self.layers[: len(branches.row_of)])
            if branches.widens(index)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


class _Branches:
    """The rows of the batch in each layer, and their masks.

    Items with the same cuts so far share a row: `row_of[l][item]` is the item's row in layer l.
    """

    def __init__(
        self,
        prompt_of: Sequence[int],
        items: Sequence[Compiled],
        n_prompts: int,
        device: torch.device,
    ) -> None:
        self.items, self.prompt_of = items, prompt_of
        self.n_prompts, self.device = n_prompts, device
        self.length = max(len(item.layout) for item in items)
        self.row_of: list[list[int]] = []
        self._masks: dict[tuple[int, ...], BatchMasks] = {}
        paths: list[tuple[Any, ...]] = [(prompt,) for prompt in prompt_of]
        for layer in range(items[0].depth):
            paths = [(path, _cuts(item, layer)) for path, item in zip(paths, items, strict=True)]
            index: dict[tuple[Any, ...], int] = {}
            self.row_of.append([index.setdefault(path, len(index)) for path in paths])
            paths = [(row,) for row in self.row_of[-1]]

    def members(self, layer: int) -> tuple[int, ...]:
        """One item for each row of this layer."""
        rows = self.row_of[layer]
        return tuple(rows.index(row) for row in range(max(rows) + 1))

    def widens(self, layer: int) -> bool:
        """Whether this layer has other rows than its arguments, which have one row per prompt."""
        return [self.prompt_of[item] for item in self.members(layer)] != list(range(self.n_prompts))

    def mask(self, layer: int, n_queries: int, n_keys: int) -> Edges | None:
        members = self.members(layer)
        if members not in self._masks:
            chosen = [self.items[item] for item in members]
            self._masks[members] = BatchMasks.of(chosen, length=self.length, device=self.device)
        return self._masks[members].mask(layer, n_queries, n_keys)

    def hook(self, layer: int) -> Any:
        """A forward pre-hook that gives `layer` its rows: states by parent, all else by prompt."""
        members = self.members(layer)
        before = self.row_of[layer - 1] if layer else self.prompt_of
        parents = [before[item] for item in members]
        parent = torch.tensor(parents)
        grows = parents != list(range(max(before) + 1))
        prompt = torch.tensor([self.prompt_of[item] for item in members])

        def by_prompt(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(by_prompt(part) for part in value)
            if (
                isinstance(value, Tensor)
                and self.n_prompts > 1
                and value.shape[0] == self.n_prompts
            ):
                return value[prompt.to(value.device, non_blocking=True)]
            return value

        def alone(name: str, value: Any) -> Any:
            """The rows of an argument of the only prompt; rotary tables and masks broadcast."""
            if isinstance(value, MutableMapping):  # keys and values that layers share
                for key, shared in value.items() if grows else ():
                    value[key] = tuple(
                        part[parent.to(part.device, non_blocking=True)] for part in shared
                    )
            elif isinstance(value, Tensor) and name not in POSITION_AXIS and value.ndim > 1:
                return value.expand(len(members), *value.shape[1:]) if len(value) == 1 else value
            return value

        def fitted(name: str, value: Any) -> Any:
            return by_prompt(value) if self.n_prompts > 1 else alone(name, value)

        def widen(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[Any, dict[str, Any]]:
            hidden = args[0] if args else kwargs["hidden_states"]
            # the third axis from the end: some models stack several streams before the batch
            hidden = hidden.index_select(-3, parent.to(hidden.device, non_blocking=True))
            others = {
                name: fitted(name, value)
                for name, value in kwargs.items()
                if name != "hidden_states"
            }
            return (
                ((hidden, *(fitted("", value) for value in args[1:])), others)
                if args
                else ((), {"hidden_states": hidden, **others})
            )

        return widen


def _check_edges(inputs: DecoderInputs, compiled: Sequence[Compiled]) -> None:
    """Raises ValueError for cuts that were compiled without the mask that comes with the prompt."""
    if inputs.attention_mask is not None and any(
        item.own is None and (item.random or not item.allowed.all()) for item in compiled
    ):
        raise ValueError("the prompt has a mask of its own: compile with decoder.own_edges(inputs)")


def _by_depth(items: Sequence[Compiled], depths: Sequence[int]) -> list[list[int]]:
    """For each depth the indices of the items that end there."""
    return [[i for i, item in enumerate(items) if item.depth == depth] for depth in depths]


def _cuts(item: Compiled, layer: int) -> Any:
    """Equal for two interventions on one prompt exactly if they cut the same edges of a layer."""
    return item.allowed[layer].tobytes(), item.draw(layer)
