"""Pathway-regularised fine-tuning: a share of the steps trains under an intervention.

This follows the paper's outlook and works for every model that loads here. The model learns to
route information along the pathways of the intervention, and still works without cuts. The bundled
`pathways` model was trained by the same idea (`model_adapters/mini`).

    model = LlavaVideo.load(folder, dtype="float32")
    optimizer = torch.optim.AdamW(trainable(model), lr=1e-5)
    regularisation = Regularisation((parse_intervention("effective"),), share=0.5)
    for step in tune(model, questions, regularisation, optimizer, steps=1000):
        print(step.number, step.intervention, step.loss)

The layers of the decoder are trained; vision tower, projector and embeddings are frozen. One step
takes one question. Batches (by gradient accumulation in the optimizer), schedules and saving are
left to the caller.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from mapflow.model_adapters.interventions import Intervention
from mapflow.model_adapters.interventions.execution.answers import answer_loss
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Question

FULL = Intervention()


@dataclass(frozen=True)
class Regularisation:
    """Draws the intervention of each step: full attention, or one of `interventions`.

    A `share` of the steps draws uniformly from `interventions`.

    Raises MapflowError for a share outside 0..1 and for an empty tuple of interventions.
    """

    interventions: tuple[Intervention, ...]
    share: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise MapflowError(f"share={self.share:g} of the steps is outside 0..1")
        if not self.interventions:
            raise MapflowError(
                "pathway regularisation needs at least one intervention, e.g. effective"
            )

    def of_step(self, number: int) -> Intervention:
        """The intervention of a step, from 0. Depends only on `seed` and `number`, to resume."""
        draw = np.random.default_rng((self.seed, number))
        if draw.random() >= self.share:
            return FULL
        return self.interventions[int(draw.integers(len(self.interventions)))]


@dataclass(frozen=True)
class Step:
    """The record of one optimiser step."""

    number: int
    question_id: str
    intervention: str
    loss: float


def trainable(model: VideoLLM) -> list[nn.Parameter]:
    """Freezes the model except the decoder's layers, and returns their parameters.

    Raises MapflowError for weights that are not floating point, such as quantised ones.
    """
    model.model.requires_grad_(False)
    parameters = list(model.decoder.layers.parameters())
    if kinds := {str(p.dtype) for p in parameters if not p.is_floating_point()}:
        raise MapflowError(
            f"weights of {', '.join(sorted(kinds))} cannot be trained:"
            " load them as bfloat16 or float32"
        )
    for parameter in parameters:
        parameter.requires_grad_(True)
    return parameters


def tune(
    model: VideoLLM,
    questions: Sequence[Question],
    regularisation: Regularisation,
    optimizer: torch.optim.Optimizer,
    steps: int,
    first: int = 0,
) -> Iterator[Step]:
    """Runs `steps` optimiser steps, numbered from `first`, cycling through the questions in order.

    The target is the letter of the right option, or the first token of the answer to an open
    question.

    Raises MapflowError if an intervention does not fit the model or a prompt, or if the loss is not
    finite, and VideoError for a clip that cannot be read.
    """
    if not questions:
        raise MapflowError("no questions to train on")
    for intervention in regularisation.interventions:
        intervention.check(model.decoder.n_layers, model.pathways)
    for number in range(first, first + steps):
        prepared = model.prepare(questions[number % len(questions)])
        intervention = regularisation.of_step(number)
        loss = regularised_loss(model, prepared, intervention)
        if not torch.isfinite(loss):
            raise MapflowError(
                f"step {number}, {prepared.question.question_id}, {intervention}:"
                f" the loss is {float(loss.detach())}; a lower learning rate or float32 may help"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        yield Step(number, prepared.question.question_id, str(intervention), float(loss.detach()))


def regularised_loss(
    model: VideoLLM, prepared: Prepared, intervention: Intervention
) -> torch.Tensor:
    """The loss of one question under `intervention`, with gradients."""
    (encoded,) = model.embed([prepared])
    compiled = model.compile(intervention, prepared, encoded)
    inputs = encoded.cloned()  # autograd refuses tensors made under inference mode
    return answer_loss(model.decoder, inputs, compiled, torch.tensor([prepared.target_id]))
