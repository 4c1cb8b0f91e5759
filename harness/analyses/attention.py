"""Attention maps: the attention that query positions pay to each video token, by layer.

The query positions are those of one segment, the last token by default. Under any intervention, so
a knockout can be compared with the baseline run.

    mapflow attention --intervention full,video:question@2-8 --rows question --output_path maps/
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapflow.harness.analyses.analysis import Drawing, InterventionAnalysis, band_notes, six_digits
from mapflow.harness.cli.arguments import (
    add_analysis_arguments,
    add_overlay,
    chosen_interventions,
    overlay_layers,
)
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Question
from mapflow.results.records.attention import (
    PARTS,
    AttentionRecord,
    AttentionSummary,
    attention_table,
    summarize_attention,
)

if TYPE_CHECKING:
    from torch import Tensor

    from mapflow.model_adapters.inference.subject import Subject
    from mapflow.model_adapters.video_llm import Prepared, VideoLLM
    from mapflow.results.figures import CurveBlock


@dataclass(frozen=True)
class AttentionMaps(InterventionAnalysis[AttentionRecord]):
    """The attention of the positions of segment `rows`.

    `overlay` names the layers whose mean is drawn on the frames: None for no pictures, "" for all
    layers.
    """

    rows: str = "last"
    overlay: str | None = None

    RECORD = AttentionRecord
    FIGURE = "attention"
    VERB = "mapped"
    NOT_FINITE = "the model's attention weights are not finite"

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        add_analysis_arguments(parser)
        parser.add_argument(
            "--rows",
            default="last",
            metavar="SEGMENT",
            help="query positions: last, question, true_option, frame[3] … (default: %(default)s)",
        )
        add_overlay(
            parser,
            "also draw each question's frames with the weights on them, averaged over LAYERS"
            " (default: all)",
        )

    @classmethod
    def from_options(cls, options: argparse.Namespace) -> AttentionMaps:
        rows = check_rows(options.rows)
        return cls(chosen_interventions(options), rows, options.overlay, samples=options.samples)

    def fitted(self, model: VideoLLM) -> AttentionMaps:
        self.check_depth(model.decoder.n_layers)
        return super().fitted(model)

    def check_depth(self, n_layers: int) -> None:
        overlay_layers(self.overlay, n_layers, f"1-{n_layers}")

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"rows": self.rows}

    @property
    def note(self) -> str:
        shares = f"mean share of {self.rows}'s attention that goes to video"
        return f"{shares}, in percent; records and summary"

    def fields(self, question: Question) -> Mapping[str, Any]:
        return self.settings

    def measure(self, model: VideoLLM, prepared: Prepared) -> list[AttentionRecord]:
        import torch

        from mapflow.model_adapters.interventions import attention_weights

        question, layout = prepared.question, prepared.layout
        with self.naming(question):
            rows = layout.positions(self.rows)
        (inputs,) = model.embed([prepared])
        compiled = self.compiled(model, prepared, inputs, self.interventions)
        video = layout.positions("video")
        index = torch.tensor([segment.index for segment in layout.segments])
        frame_of = index[layout.segment_of[video]]
        parts = {part: _positions(prepared, part) for part in PARTS}
        records = []
        for name, one in zip(self.names, compiled, strict=True):
            weights = attention_weights(model.decoder, inputs, one, rows)
            by_frame = weights.new_zeros(len(weights), layout.n_frames)
            by_frame.index_add_(1, frame_of, weights[:, video])
            values = {
                "n_rows": len(rows),
                "frames": tuple(frame_of.tolist()),
                "weights": tuple(six_digits(weights[:, video].tolist())),
                "by_frame": tuple(six_digits(by_frame.tolist())),
                "shares": {
                    part: six_digits(weights[:, own].sum(-1).tolist())
                    for part, own in parts.items()
                },
            }
            records.append(self.checked(question, name, [weights], values))
        return records

    def summarize(self, records: Sequence[AttentionRecord]) -> list[AttentionSummary]:
        return [summarize_attention(records, name) for name in self.names]

    def table(self, summary: Sequence[AttentionSummary]) -> str:
        return attention_table(summary)

    def draw_overlays(
        self, subject: Subject, records: Sequence[AttentionRecord], folder: Path
    ) -> None:
        from mapflow.harness.analyses.overlays import draw_attention

        n_layers = subject.model.decoder.n_layers
        layers = overlay_layers(self.overlay, n_layers, f"1-{n_layers}")
        if layers is not None:
            draw_attention(subject, records, self.names, layers, folder)

    @classmethod
    def blocks(cls, records: Sequence[AttentionRecord], names: Sequence[str]) -> list[CurveBlock]:
        from mapflow.results.figures import attention_blocks, attention_panels

        return attention_blocks(attention_panels(records, names))

    @classmethod
    def figure(
        cls,
        records: Sequence[AttentionRecord],
        names: Sequence[str],
        title: str = "",
        words: Path | None = None,
    ) -> Drawing:
        from mapflow.results.figures import attention_curves, attention_panels, attention_rows

        found = attention_panels(records, names)
        return Drawing(attention_curves(found, title), attention_rows(found), band_notes(found))


def check_rows(name: str) -> str:
    """The segment's name, trimmed. Raises MapflowError for a name that no segment has."""
    from mapflow.model_adapters.interventions.language.layout import SELECTORS
    from mapflow.model_adapters.interventions.language.route import is_segment

    if not is_segment(name.strip()):
        known = ", ".join(SELECTORS)
        raise MapflowError(f"--rows {name!r} names no segment; known: {known}, frame[i], option[i]")
    return name.strip()


def _positions(prepared: Prepared, part: str) -> Tensor:
    """Positions of a part of the prompt; none if the prompt lacks it."""
    import torch

    try:
        return prepared.layout.positions(part)
    except MapflowError:
        return torch.tensor([], dtype=torch.long)
