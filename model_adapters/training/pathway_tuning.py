"""Pathway-regularised fine-tuning: in a share of the steps attention is cut to a policy, in the others it is whole.

The paper's outlook, for any model that loads here: a model trained so learns to send its answer along the policy's
pathways, and keeps working without them. The bundled `pathways` model was made in this way (model_adapters/mini).

    model = LlavaVideo.load(folder, dtype="float32")
    optimizer = torch.optim.AdamW(trainable(model), lr=1e-5)
    regularisation = Regularisation((parse_intervention("effective"),), share=0.5)
    for step in tune(model, questions, regularisation, optimizer, steps=1000):
        print(step.number, step.intervention, step.loss)

The decoder's layers are trained; vision tower, projector and embeddings stay as they are. One question a step: batches,
schedules and saving belong to whoever trains (accumulate gradients by an optimizer that steps every so often).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from mapflow.model_adapters.interventions import DecoderInputs, Intervention
from mapflow.model_adapters.interventions.execution.answers import answer_loss
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Question

FULL = Intervention()


@dataclass(frozen=True)
class Regularisation:
    """In a `share` of the steps one of `interventions`, each as often as the others; no cut in the rest.

    Raises MapflowError for a share outside 0..1 and for no intervention at all.
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
        """What is in force in a step (from 0); it depends on `seed` and the number alone, so training can be resumed."""
        draw = np.random.default_rng((self.seed, number))
        if draw.random() >= self.share:
            return FULL
        return self.interventions[int(draw.integers(len(self.interventions)))]


@dataclass(frozen=True)
class Step:
    """What one optimiser step saw."""

    number: int
    question_id: str
    intervention: str
    loss: float


def trainable(model: VideoLLM) -> list[nn.Parameter]:
    """The parameters of the decoder's layers, switched on; everything else is switched off.

    Raises MapflowError where the weights are not of a floating-point kind, quantised ones for example.
    """
    model.model.requires_grad_(False)
    parameters = list(model.decoder.layers.parameters())
    if kinds := {str(p.dtype) for p in parameters if not p.is_floating_point()}:
        raise MapflowError(
            f"weights of {', '.join(sorted(kinds))} cannot be trained: load them as bfloat16 or float32"
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
    """`steps` optimiser steps from number `first`, questions in order, over and over.

    The right option's letter is taught (the answer's first token where a question has no options). Raises MapflowError
    where an intervention does not fit the model or a prompt, and where the loss is not finite; VideoError for a clip that
    cannot be read.
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
                f"step {number}, {prepared.question.question_id}, {intervention}: the loss is {float(loss.detach())};"
                " a lower learning rate or float32 may help"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        yield Step(number, prepared.question.question_id, str(intervention), float(loss.detach()))


def regularised_loss(
    model: VideoLLM, prepared: Prepared, intervention: Intervention
) -> torch.Tensor:
    """One question's loss with `intervention` in force; a scalar to call `backward` on."""
    compiled = intervention.compile(
        prepared.layout, model.decoder.n_layers, model.pathways, prepared.question.question_id
    )
    (encoded,) = model.embed([prepared])
    # encoded under inference mode, whose tensors autograd refuses: copies are ordinary ones
    inputs = DecoderInputs(
        encoded.embeds.clone(),
        None if encoded.position_ids is None else encoded.position_ids.clone(),
        {layer: vectors.clone() for layer, vectors in encoded.added.items()},
    )
    return answer_loss(model.decoder, inputs, compiled, torch.tensor([prepared.target_id]))
