"""Trace: the probability of each answer after every layer.

The output of every layer at the last position is read as if it were the last layer's: the
generation probability of the paper, under any intervention. The base answer is always the baseline
run's, so interventions are compared on the same token.

    mapflow trace --intervention full,effective --output_path trace/
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapflow.harness.analyses.analysis import Drawing, InterventionAnalysis, band_notes
from mapflow.harness.cli.arguments import add_analysis_arguments, chosen_interventions
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Question
from mapflow.results.records.trace import TraceRecord, TraceSummary, summarize_trace, trace_table

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mapflow.model_adapters.video_llm import Prepared, VideoLLM
    from mapflow.results.figures import CurveBlock


@dataclass(frozen=True)
class Trace(InterventionAnalysis[TraceRecord]):
    """`norm`: read every layer through the final norm, not only the last one.

    `released`: the authors' rule for the tokens of options (`nearest_id`).
    """

    norm: bool = True
    released: bool = False

    RECORD = TraceRecord
    FIGURE = "answers"
    VERB = "traced"
    JOINS_FOLDERS = True

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        add_analysis_arguments(parser)
        parser.add_argument(
            "--norm",
            action=argparse.BooleanOptionalAction,
            default=True,
            help="read every layer through the final norm, not only the last one (default: --norm)",
        )
        parser.add_argument(
            "--released",
            action="store_true",
            help="tokens of options by the rule of the authors' code: with or without a leading"
            " space,"
            " whichever id is nearer to the predicted token's (the paper's curves: --released"
            " --no-norm)",
        )

    @classmethod
    def from_options(cls, options: argparse.Namespace) -> Trace:
        interventions = chosen_interventions(options)
        return cls(interventions, options.norm, options.released, samples=options.samples)

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"norm": self.norm, "released": self.released}

    @property
    def note(self) -> str:
        return "mean probability of the first answer token, in percent; records and summary"

    def fields(self, question: Question) -> Mapping[str, Any]:
        return {**self.settings, "target": question.target_text}

    def measure(self, model: VideoLLM, prepared: Prepared) -> list[TraceRecord]:
        import torch

        from mapflow.model_adapters.interventions import Intervention
        from mapflow.model_adapters.interventions.execution.readout import (
            hidden_states,
            layer_outputs,
            probabilities,
        )

        question, decoder = prepared.question, model.decoder
        last = torch.tensor([len(prepared.layout) - 1])
        (inputs,) = model.embed([prepared])
        asked = (Intervention(), *self.interventions)
        baseline, *compiled = self.compiled(model, prepared, inputs, asked)
        (base,) = decoder.answer_logits([inputs], [[baseline]])
        answer = int(base[0].argmax())
        target, options = self._tokens(model.tokenizer, prepared, answer)
        records = []
        for name, one in zip(self.names, compiled, strict=True):
            outputs = layer_outputs(decoder, hidden_states(decoder, inputs, one, last), self.norm)
            found = probabilities(decoder.logits, outputs)[:, 0]
            values = {
                "answer": model.text([answer]),
                "p_answers": tuple(found[:, answer].tolist()),
                "p_targets": tuple(found[:, target].tolist()),
                "p_options": {letter: found[:, i].tolist() for letter, i in options.items()},
                "false_options": _false_options(question),
                "tops": tuple(model.text([token]) for token in found.argmax(-1).tolist()),
            }
            records.append(self.checked(question, name, [found, base], values))
        return records

    def _tokens(
        self, tokenizer: PreTrainedTokenizerBase, prepared: Prepared, predicted: int
    ) -> tuple[int, dict[str, int]]:
        """The token of the right answer, and of every option by letter."""
        question = prepared.question
        if not self.released:
            return prepared.target_id, dict(zip(question.letters, prepared.option_ids, strict=True))
        options = {letter: nearest_id(tokenizer, letter, predicted) for letter in question.letters}
        return options.get(question.target_text, prepared.target_id), options

    def summarize(self, records: Sequence[TraceRecord]) -> list[TraceSummary]:
        return [summarize_trace(records, name) for name in self.names]

    def table(self, summary: Sequence[TraceSummary]) -> str:
        return trace_table(summary)

    @classmethod
    def blocks(cls, records: Sequence[TraceRecord], names: Sequence[str]) -> list[CurveBlock]:
        from mapflow.results.figures import answer_blocks, answer_panels

        return answer_blocks(answer_panels(records, names))

    @classmethod
    def figure(
        cls,
        records: Sequence[TraceRecord],
        names: Sequence[str],
        title: str = "",
        words: Path | None = None,
    ) -> Drawing:
        from mapflow.results.figures import answer_curves, answer_panels, answer_rows

        found = answer_panels(records, names)
        return Drawing(answer_curves(found, title), answer_rows(found), band_notes(found))


def nearest_id(tokenizer: PreTrainedTokenizerBase, letter: str, predicted: int) -> int:
    """The token of a letter by the rule of the authors' code.

    Of its spellings with and without a leading space, the one whose id is numerically nearest to
    the predicted token's (sic), so it depends on what the model answers. Raises MapflowError if the
    vocabulary has neither.
    """
    vocabulary = tokenizer.get_vocab()
    ids = [vocabulary[text] for text in (f"▁{letter}", f"Ġ{letter}", letter) if text in vocabulary]
    if not ids:
        raise MapflowError(
            f"the vocabulary has no token for the option {letter!r}, which --released looks for"
        )
    return min(ids, key=lambda token: abs(token - predicted))


def _false_options(question: Question) -> tuple[str, ...]:
    """Letters of wrong options; some questions list the right text twice."""
    if isinstance(question.target, str):
        return ()
    right = question.options[question.target]
    pairs = zip(question.letters, question.options, strict=True)
    return tuple(letter for letter, text in pairs if text != right)
