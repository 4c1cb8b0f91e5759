"""A loaded model with two prepared questions, and the simple runs that checks compare with.

`residual` deliberately does not use the instrument's executors: it runs one prompt and keeps every
layer's output.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mapflow.model_adapters.inference.start_checks import attention_of
from mapflow.model_adapters.interventions import Compiled, DecoderInputs, apply, parse_intervention
from mapflow.model_adapters.interventions.execution.batch_masks import BatchMasks
from mapflow.model_adapters.interventions.inspection.noise import NOISE
from mapflow.model_adapters.interventions.kernels.edges import Edges, LayerMasks
from mapflow.model_adapters.interventions.language.own_edges import OwnEdges
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.question import Question


@dataclass(frozen=True)
class Finding:
    """One line of the result; `detail` says what was measured and also explains a failure."""

    check: str
    passed: bool
    detail: str

    def __str__(self) -> str:
        return f"{'pass' if self.passed else 'FAIL'}  {self.check:<18} {self.detail}"


@dataclass(frozen=True)
class ModelUnderTest:
    """`prepared[i]` and `inputs[i]` are question i as the model and as its decoder receive it."""

    model: VideoLLM
    prepared: tuple[Prepared, ...]
    inputs: tuple[DecoderInputs, ...]

    @classmethod
    def of(cls, model: VideoLLM, questions: Sequence[Question]) -> ModelUnderTest:
        """Raises MapflowError if the model cannot prepare a question."""
        prepared = tuple(model.prepare(question) for question in questions)
        return cls(model, prepared, tuple(model.embed(prepared)))

    @property
    def n_layers(self) -> int:
        return self.model.decoder.n_layers

    @property
    def dtype(self) -> torch.dtype:
        return self.inputs[0].embeds.dtype

    @property
    def trials(self) -> dict[str, str]:
        """Short name -> intervention: every kind of cut, in layers that any depth has."""
        half, depth = max(1, self.n_layers // 2), self.n_layers
        ranges = f"cross_frame=1-{half},video_to_question=1-{half},question_to_last={half}-{depth}"
        return {
            "full": "full",
            "effective": f"effective:{ranges}",
            "random": "random:ratio=0.3,seed=1",
            "knockout": f"knockout:video->last@center={half},window=3",
        }

    def compiled(self, text: str, question: int = 0) -> Compiled:
        prepared, own = self.prepared[question], self.own_edges[question]
        key = prepared.question.question_id
        return parse_intervention(text).compile(prepared.layout, self.n_layers, None, key, own)

    @cached_property
    def own_edges(self) -> list[OwnEdges | None]:
        """The edges that the model has for each question."""
        return [self.model.decoder.own_edges(inputs) for inputs in self.inputs]

    def reaches(self, compiled: Compiled, layer: int) -> bool:
        """Whether the model has an edge in a 0-based layer that this intervention cuts there."""
        whole = replace(compiled, allowed=np.ones_like(compiled.allowed))
        return bool((whole.token_mask(layer) & ~compiled.token_mask(layer)).any())

    def changed(
        self, one: Float[Tensor, "*shape hidden"], base: Float[Tensor, "*shape hidden"]
    ) -> Bool[Tensor, "*shape"]:
        """Positions whose hidden states differ: by a bit, or by more than rounding where layers
        choose experts for each token and so change the shapes that kernels get.
        """
        if self.model.decoder.found.exact:
            return (one != base).any(-1)
        apart = (one.double() - base.double()).norm(dim=-1)
        return apart > NOISE[self.dtype].logits * base.double().norm(dim=-1)

    def logits(self, text: str, question: int = 0) -> Float[Tensor, " vocab"]:
        """Float32 logits at the last position, as the instrument computes them."""
        (logits,) = self.model.decoder.answer_logits(
            [self.inputs[question]], [[self.compiled(text, question)]]
        )
        return logits[0]

    @torch.inference_mode()
    def residual(self, masks: LayerMasks | None) -> Float[Tensor, "layer n hidden"]:
        """The first question's residual stream after every layer, by one plain forward under
        `masks`.
        """
        inputs, decoder = self.inputs[0], self.model.decoder
        kept: list[Tensor] = []

        def keep(layer: int, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            if layer in inputs.added:
                hidden = hidden + inputs.added[layer].to(hidden)
            kept.append(hidden[0].to(inputs.embeds.device))
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        ones = inputs.embeds.new_ones(1, len(inputs), dtype=torch.long)
        with ExitStack() as stack:
            for layer, module in enumerate(decoder.layers):
                hook = module.register_forward_hook(
                    lambda _, __, output, layer=layer: keep(layer, output)
                )
                stack.callback(hook.remove)
            stack.enter_context(apply(masks))
            decoder.core(
                inputs_embeds=inputs.embeds[None],
                use_cache=False,
                **{"attention_mask": ones, **inputs.keywords()},
            )
        return torch.stack(kept)

    def attention(self, name: str) -> AbstractContextManager[None]:
        """Within this context the language model uses another attention function."""
        return attention_of(self.model, name)


class ExplicitMasks:
    """An intervention's masks, as explicit masks also in layers where nothing is cut.

    So runs with and without a cut use the same kernels, and positions that the cut cannot reach
    agree bit by bit. `asked` records the layers that asked for a mask, in order.
    """

    def __init__(self, compiled: Compiled, device: torch.device) -> None:
        self._masks = BatchMasks.of([compiled], device=device)
        self.asked: list[int] = []

    def mask(self, layer: int, n_queries: int, n_keys: int) -> Edges:
        self.asked.append(layer)
        return self._masks.dense(layer, n_queries, n_keys)


def hook_counts(model: nn.Module) -> dict[str, int]:
    """Module name -> number of its hooks, for modules that have any."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return {
        name: sum(len(getattr(module, kind, ())) for kind in kinds)
        for name, module in model.named_modules()
    }
