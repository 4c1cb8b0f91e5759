"""The answers to prepared questions under interventions, as records.

One forward pass gives every probability of a record. The first answer token is scored at the last
position of the prompt: the full-vocabulary argmax against the bare letter (paper protocol), and
beside it the argmax over the options with its margin. Protocols that let the model write use a
greedy continuation instead, parsed by the rules of the benchmark.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from mapflow.model_adapters.device_copies import AsyncHostCopy
from mapflow.model_adapters.interventions import Compiled, DecoderInputs, Intervention
from mapflow.model_adapters.interventions.execution.answers import answer_logits
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.answers import grade
from mapflow.results.contract.question import Question
from mapflow.results.records.base import NOT_FINITE
from mapflow.results.records.record import Record, log_margin


def answer(
    model: VideoLLM, prepared: Sequence[Prepared], interventions: Sequence[Intervention]
) -> list[list[Record]]:
    """For each prepared question one record per intervention, in order.

    Videos are encoded once, and layers that interventions treat alike run once. Raises MapflowError
    if an intervention does not fit the prompt or the model.
    """
    return begin(model, prepared, interventions)()


def begin(
    model: VideoLLM, prepared: Sequence[Prepared], interventions: Sequence[Intervention]
) -> Callable[[], list[list[Record]]]:
    """`answer` in two halves: this call starts the computation, the returned function waits for it.

    Raises as `answer`, in this call. Between the halves only the answers stay on the device.
    """
    inputs = model.embed(prepared)
    compiled = [
        model.compile_all(interventions, *one) for one in zip(prepared, inputs, strict=True)
    ]
    if any(p.question.max_new_tokens > 1 for p in prepared):
        written = [_write(model, *each) for each in zip(prepared, inputs, compiled, strict=True)]
        logits, tokens = [rows for _, rows in written], [ids for ids, _ in written]
    else:
        logits, tokens = answer_logits(model.decoder, inputs, compiled), None
    arriving = [_Answer(rows) for rows in logits]

    def read() -> list[list[Record]]:
        texts = tokens or [one.first_tokens() for one in arriving]
        return [
            _records(model, *each, interventions)
            for each in zip(prepared, compiled, arriving, texts, strict=True)
        ]

    return read


class _Answer:
    """Probabilities, finiteness and best tokens of one prompt, copied from the device meanwhile."""

    def __init__(self, logits: Float[Tensor, "intervention vocab"]) -> None:
        self._arriving = AsyncHostCopy(
            [logits.softmax(-1), logits.isfinite().all(-1), logits.argmax(-1)]
        )

    def probabilities(self) -> Float[Tensor, "intervention vocab"]:
        return self._arriving.wait()[0]

    def finite(self) -> list[bool]:
        return self._arriving.wait()[1].tolist()

    def first_tokens(self) -> list[list[int]]:
        return self._arriving.wait()[2][:, None].tolist()


def _write(
    model: VideoLLM, prepared: Prepared, inputs: DecoderInputs, compiled: Sequence[Compiled]
) -> tuple[list[list[int]], Float[Tensor, "intervention vocab"]]:
    """Tokens and first logits of a written answer; the interventions share one batch."""
    return model.decoder.generate(
        inputs, compiled, prepared.question.max_new_tokens, model.stop_ids
    )


def _records(
    model: VideoLLM,
    prepared: Prepared,
    compiled: Sequence[Compiled],
    answer: _Answer,
    tokens: Sequence[Sequence[int]],
    interventions: Sequence[Intervention],
) -> list[Record]:
    question = prepared.question
    records = []
    for intervention, item, row, ids, sound in zip(
        interventions, compiled, answer.probabilities(), tokens, answer.finite(), strict=True
    ):
        if not sound:
            records.append(failed(question, intervention, NOT_FINITE))
            continue
        options = {
            letter: float(row[i])
            for letter, i in zip(question.letters, prepared.option_ids, strict=True)
        }
        text = _until(model.text(ids), question.until)
        correct, valid = _graded(model, prepared, text, int(row.argmax()))
        records.append(
            Record.of(
                question,
                str(intervention),
                **_fields(question, intervention),
                prediction=text,
                correct=correct,
                valid=valid,
                p_answer=float(row.max()),
                p_target=float(row[prepared.target_id]) if prepared.target_id >= 0 else None,
                option_probs=options,
                option_prediction=max(options, key=options.__getitem__) if options else None,
                margin=log_margin(options),
                edges_kept=item.edges_kept,
                edges_total=item.edges_total,
                n_tokens=len(item.layout),
                frame_indices=prepared.frame_indices,
                repeated_frames=prepared.repeated_frames,
            )
        )
    return records


def _graded(model: VideoLLM, prepared: Prepared, text: str, first: int) -> tuple[bool | None, bool]:
    """(right, valid) of an answer that begins with the token `first`; None without a right one."""
    question = prepared.question
    if question.first_token and question.options:
        question, text = replace(question, max_new_tokens=1), model.text([first])
    right, valid = grade(question, text, first_token_right=model.begins_right(prepared, first))
    return (None if question.target == "" else right), valid


def _until(text: str, ends: Sequence[str]) -> str:
    """The text before the first of `ends` in it."""
    for end in ends:
        text = text.partition(end)[0]
    return text.strip()


def failed(question: Question, intervention: Intervention, reason: str) -> Record:
    """The record of a failed question."""
    return Record.failed(question, str(intervention), reason, **_fields(question, intervention))


def _fields(question: Question, intervention: Intervention) -> dict[str, Any]:
    return {
        "seed": intervention.seed,
        "n_options": len(question.options),
        "n_right": question.n_right if question.n_right > 1 else None,
        "target": question.target_text,
    }
