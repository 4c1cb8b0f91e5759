"""Trace: in which layer does the answer appear? Every layer's output at the last position, read as if it were the end.

The paper's generation-probability analysis, under any intervention. The base answer is always the plain run's, so that
interventions are compared on the same token. Knows no checkpoint, no task, no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from mapflow.model_adapters.interventions import Intervention
from mapflow.model_adapters.interventions.execution.readout import (
    hidden_states,
    layer_outputs,
    probabilities,
)
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Question
from mapflow.results.records.trace import TraceRecord


@dataclass(frozen=True)
class Trace:
    """What to trace. `norm`: read every layer through the final norm, not the last one alone; `released`: options'
    tokens chosen by the released code's rule (`nearest_id`)."""

    interventions: tuple[Intervention, ...]
    norm: bool = True
    released: bool = False


def trace_question(model: VideoLLM, prepared: Prepared, trace: Trace) -> list[TraceRecord]:
    """A record an intervention. Raises MapflowError, naming the question, where one does not fit the prompt."""
    question, decoder = prepared.question, model.decoder
    last = torch.tensor([len(prepared.layout) - 1])
    try:
        plain, *compiled = [
            one.compile(prepared.layout, decoder.n_layers, model.pathways, question.question_id)
            for one in (Intervention(), *trace.interventions)
        ]
    except MapflowError as error:
        raise MapflowError(f"question {question.question_id} cannot be traced: {error}") from None
    (inputs,) = model.embed([prepared])
    (base,) = decoder.answer_logits([inputs], [[plain]])
    answer = int(base[0].argmax())
    target, options = _ids(model.tokenizer, prepared, answer, trace.released)
    records = []
    for intervention, one in zip(trace.interventions, compiled, strict=True):
        outputs = layer_outputs(decoder, hidden_states(decoder, inputs, one, last), trace.norm)
        found = probabilities(decoder.logits, outputs)[:, 0]
        if not (torch.isfinite(found).all() and torch.isfinite(base).all()):
            records.append(
                TraceRecord(
                    **_identity(question, trace, intervention),
                    error="the model's logits are not finite",
                )
            )
            continue
        records.append(
            TraceRecord(
                **_identity(question, trace, intervention),
                answer=model.text([answer]),
                p_answers=tuple(found[:, answer].tolist()),
                p_targets=tuple(found[:, target].tolist()),
                p_options={letter: found[:, token].tolist() for letter, token in options.items()},
                false_options=_false_options(question),
                tops=tuple(model.text([token]) for token in found.argmax(-1).tolist()),
            )
        )
    return records


def failed(question: Question, trace: Trace, reason: str) -> list[TraceRecord]:
    """The records of a question that could not be asked; `reason` is one line."""
    why = " ".join(reason.split())
    return [
        TraceRecord(**_identity(question, trace, one), error=why) for one in trace.interventions
    ]


def nearest_id(tokenizer: PreTrainedTokenizerBase, letter: str, predicted: int) -> int:
    """The released code's choice for a letter: of its spellings with and without a leading space the one whose id is
    numerically nearest to the predicted token's (sic), so that it depends on what the model answers.

    Raises MapflowError where the vocabulary has neither.
    """
    vocabulary = tokenizer.get_vocab()
    ids = [vocabulary[text] for text in (f"▁{letter}", f"Ġ{letter}", letter) if text in vocabulary]
    if not ids:
        raise MapflowError(
            f"the vocabulary has no token for the option {letter!r}, which --released looks for"
        )
    return min(ids, key=lambda token: abs(token - predicted))


def _ids(
    tokenizer: PreTrainedTokenizerBase, prepared: Prepared, predicted: int, released: bool
) -> tuple[int, dict[str, int]]:
    """The right answer's token and every option's by letter."""
    question = prepared.question
    if not released:
        return prepared.target_id, dict(zip(question.letters, prepared.option_ids, strict=True))
    options = {letter: nearest_id(tokenizer, letter, predicted) for letter in question.letters}
    return options.get(question.target_text, prepared.target_id), options


def _false_options(question: Question) -> tuple[str, ...]:
    """Letters of wrong options; some questions list the right text twice."""
    if isinstance(question.target, str):
        return ()
    right = question.options[question.target]
    pairs: Sequence[tuple[str, str]] = list(zip(question.letters, question.options, strict=True))
    return tuple(letter for letter, text in pairs if text != right)


def _identity(question: Question, trace: Trace, intervention: Intervention) -> dict[str, Any]:
    return {
        **question.identity,
        "intervention": str(intervention),
        "norm": trace.norm,
        "released": trace.released,
        "target": question.target_text,
    }
