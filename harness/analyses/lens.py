"""Lens: the logit lens at every video position, in every layer.

By default the output of each layer goes through the final norm and the head. The authors' code
compares the input of each layer, without norm, with the input embeddings: `raw_embeddings`.

    mapflow lens --limit 5 --output_path lens/
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapflow.harness.analyses.analysis import Drawing, InterventionAnalysis, band_notes, six_digits
from mapflow.harness.cli.arguments import (
    add_analysis_arguments,
    add_overlay,
    chosen_interventions,
    overlay_layers,
)
from mapflow.harness.cli.table_output import write_text
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import read_yaml
from mapflow.results.contract.question import Question
from mapflow.results.records.lens import (
    Frequency,
    LensRecord,
    WordLists,
    frequencies,
    frequency_csv,
    frequency_table,
)

if TYPE_CHECKING:
    from mapflow.model_adapters.inference.subject import Subject
    from mapflow.model_adapters.video_llm import Prepared, VideoLLM
    from mapflow.results.figures import CurveBlock

SHIPPED_WORDS = Path(__file__).with_name("lens_words.yaml")
"""The spatial and temporal word lists that are counted by default."""


def read_word_lists(path: Path = SHIPPED_WORDS) -> WordLists:
    """Reads named word lists from a YAML file: name → words in lower case.

    Raises MapflowError for a file that does not map names to lists of words.
    """
    try:
        values = read_yaml(path)
    except MapflowError as error:
        raise MapflowError(f"word lists {error}") from error
    if not isinstance(values, dict) or not values:
        raise MapflowError(
            f"{str(path)!r} holds no word lists; write e.g. 'spatial: [left, right]'"
        )
    for name, words in values.items():
        if not isinstance(words, list) or not words:
            raise MapflowError(
                f"{str(path)!r}: {name!r} is not a list of words; write e.g. '{name}: [left,"
                " right]'"
            )
        for word in words:
            if not isinstance(word, str) or not word.strip():
                raise MapflowError(
                    f"{str(path)!r}: {word!r} in {name!r} is not a word; put quotes around words"
                    " such as 'on' and 'off'"
                )
    return {
        str(name): frozenset(word.strip().lower() for word in words)
        for name, words in values.items()
    }


@dataclass(frozen=True)
class Lens(InterventionAnalysis[LensRecord]):
    """The `k` most probable tokens at every video position, and how many of them are in the lists
    of `words`.

    `overlay` names the layers to draw on the frames: None for no pictures, "" for the last layer.
    """

    k: int = 5
    raw_embeddings: bool = False
    words: WordLists = field(default_factory=read_word_lists)
    overlay: str | None = None

    RECORD = LensRecord
    FIGURE = "words"
    VERB = "read"
    TAKES_WORDS = True

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        add_analysis_arguments(parser)
        parser.add_argument(
            "--topk",
            type=int,
            default=5,
            metavar="K",
            help="words per token and layer (default: %(default)s)",
        )
        parser.add_argument(
            "--raw-embeddings",
            action="store_true",
            help="as the authors' code: inputs of layers, without norm, against the input"
            " embeddings"
            " (default: outputs of layers through the final norm and the head)",
        )
        parser.add_argument(
            "--words",
            type=Path,
            metavar="YAML",
            help="named word lists, e.g. 'spatial: [left, right]' (default: shipped)",
        )
        add_overlay(
            parser,
            "also write each patch's most probable word on the frames, for each of LAYERS"
            " (default: the last)",
        )

    @classmethod
    def from_options(cls, options: argparse.Namespace) -> Lens:
        if options.topk < 1:
            raise MapflowError(f"--topk {options.topk} must be at least 1 word")
        words = read_word_lists(options.words or SHIPPED_WORDS)
        interventions = chosen_interventions(options)
        return cls(
            interventions,
            options.topk,
            options.raw_embeddings,
            words,
            options.overlay,
            samples=options.samples,
        )

    def fitted(self, model: VideoLLM) -> Lens:
        weight: Any = model.decoder.core.get_input_embeddings().weight
        if self.k > len(weight):
            raise MapflowError(
                f"--topk {self.k} is more than the vocabulary's {len(weight)} tokens"
            )
        self.check_depth(model.decoder.n_layers)
        return super().fitted(model)

    def check_depth(self, n_layers: int) -> None:
        overlay_layers(self.overlay, n_layers, str(n_layers))

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"raw_embeddings": self.raw_embeddings, "topk": self.k}

    @property
    def note(self) -> str:
        return (
            f"shares of the {self.k} most probable words of every video token, in percent; records"
        )

    def fields(self, question: Question) -> Mapping[str, Any]:
        return {"raw_embeddings": self.raw_embeddings}

    def measure(self, model: VideoLLM, prepared: Prepared) -> list[LensRecord]:
        from mapflow.model_adapters.interventions.execution.readout import (
            embedding_logits,
            hidden_states,
            layer_inputs,
            layer_outputs,
            top_k,
        )

        question, decoder, layout = prepared.question, model.decoder, prepared.layout
        video = layout.positions("video")
        segments = [layout.segments[index] for index in layout.segment_of[video].tolist()]
        (inputs,) = model.embed([prepared])
        records = []
        for name, intervention in zip(self.names, self.interventions, strict=True):
            (compiled,) = self.compiled(model, prepared, inputs, [intervention])
            hidden = hidden_states(decoder, inputs, compiled, video)
            if self.raw_embeddings:
                ids, found = top_k(embedding_logits(decoder), layer_inputs(decoder, hidden), self.k)
            else:
                ids, found = top_k(decoder.logits, layer_outputs(decoder, hidden), self.k)
            values = {
                "frames": tuple(segment.index or 0 for segment in segments),
                "ids": tuple(ids.tolist()),
                "probabilities": tuple(six_digits(found.tolist())),
                "words": {
                    str(one): str(model.tokenizer.decode([one])).strip()
                    for one in ids.unique().tolist()
                },
            }
            records.append(self.checked(question, name, [found], values))
        return records

    def summarize(self, records: Sequence[LensRecord]) -> list[Frequency]:
        return frequencies(records, self.names, self.words)

    def table(self, summary: Sequence[Frequency]) -> str:
        return frequency_table(summary)

    def save(self, summary: Sequence[Frequency], folder: Path) -> None:
        write_text(folder / "frequency.csv", frequency_csv(summary))

    def draw_overlays(self, subject: Subject, records: Sequence[LensRecord], folder: Path) -> None:
        from mapflow.harness.analyses.overlays import draw_lens

        n_layers = subject.model.decoder.n_layers
        layers = overlay_layers(self.overlay, n_layers, str(n_layers))
        if layers is not None:
            draw_lens(subject, records, self.names, layers, folder)

    @classmethod
    def blocks(cls, records: Sequence[LensRecord], names: Sequence[str]) -> list[CurveBlock]:
        from mapflow.results.figures import lens_blocks, lens_panels

        return lens_blocks(lens_panels(records, read_word_lists(), names))

    @classmethod
    def figure(
        cls,
        records: Sequence[LensRecord],
        names: Sequence[str],
        title: str = "",
        words: Path | None = None,
    ) -> Drawing:
        from mapflow.results.figures import lens_curves, lens_panels, lens_rows

        found = lens_panels(records, read_word_lists(words or SHIPPED_WORDS), names)
        return Drawing(lens_curves(found, title), lens_rows(found), band_notes(found))
