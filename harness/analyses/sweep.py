"""Sweep: cuts each route in a window around every layer and measures the change of the answer.

mapflow sweep --routes vql-to-ql --output_path sweep/
torchrun --nproc_per_node 4 -m mapflow sweep …   # the same records
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapflow.harness.analyses.analysis import Drawing, QuestionAnalysis
from mapflow.harness.analyses.route_sets import check_routes, parse_routes
from mapflow.harness.cli.arguments import (
    add_memory_budget,
    add_output_path,
    add_samples,
    add_subject_arguments,
    chosen_memory_budget,
)
from mapflow.results.contract.errors import FAILED, MapflowError
from mapflow.results.contract.question import Question
from mapflow.results.contract.visible_text import counted
from mapflow.results.records.sweep import SweepRecord

if TYPE_CHECKING:
    from mapflow.harness.analyses.samples import Samples
    from mapflow.harness.analyses.sweep_windows import Budget
    from mapflow.model_adapters.interventions import Compiled, DecoderInputs, Route
    from mapflow.model_adapters.interventions.language.layers import WindowStyle
    from mapflow.model_adapters.video_llm import Prepared, VideoLLM
    from mapflow.results.tables.sweeps import SweepSummary

STYLES = ("center", "inverse", "top-down", "bottom-up")


@dataclass(frozen=True)
class Sweep(QuestionAnalysis[SweepRecord]):
    """Routes cut in windows of `size` layers of one `style`.

    Attributes:
        audit: share of windows (0 to 1) that are checked against one full forward pass each.
        memory_budget: bytes for windows that run together; None for the default of the device.
            It is halved when memory runs out.
    """

    routes: tuple[Route, ...]
    style: WindowStyle = "center"
    size: int = 9
    samples: Samples = "all"
    audit: float = 0.0
    memory_budget: int | None = None

    RECORD = SweepRecord
    FIGURE = "routes"
    VERB = "swept"

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--routes",
            action="append",
            metavar="A[,B…]",
            help="sets (cross-frame, vql-to-ql, question-and-options-to-last, vq-to-true-opt,"
            " paper)"
            " and routes such as video:stem; repeatable (default: vql-to-ql)",
        )
        parser.add_argument(
            "--window", type=int, metavar="K", help="layers per window (default: 9)"
        )
        parser.add_argument("--style", choices=STYLES, default="center", help="default: center")
        add_samples(parser)
        add_subject_arguments(parser)
        parser.add_argument(
            "--audit",
            type=float,
            default=0.0,
            metavar="SHARE",
            help="check this share of windows against one full forward pass each",
        )
        add_memory_budget(parser)
        add_output_path(parser)

    @classmethod
    def from_options(cls, options: argparse.Namespace) -> Sweep:
        from mapflow.model_adapters.interventions.language.layers import SIZED_STYLES

        if options.window is not None and options.window < 1:
            raise MapflowError(f"--window {options.window} must be at least 1 layer")
        if options.window is not None and options.style not in SIZED_STYLES:
            raise MapflowError(
                f"--window {options.window} cannot act on --style {options.style}, whose windows"
                " reach to the first or the last layer: leave it out"
            )
        if not 0 <= options.audit <= 1:
            raise MapflowError(f"--audit {options.audit:g} is outside 0..1")
        return cls(
            routes=tuple(parse_routes(options.routes or ["vql-to-ql"])),
            style=options.style,
            size=options.window or 9,
            samples=options.samples,
            audit=options.audit,
            memory_budget=chosen_memory_budget(options),
        )

    def check(self, questions: Sequence[Question]) -> None:
        super().check(questions)
        check_routes(self.routes, questions)

    @property
    def window(self) -> int | None:
        """`size`; None for styles whose windows reach to the first or the last layer."""
        from mapflow.model_adapters.interventions.language.layers import SIZED_STYLES

        return self.size if self.style in SIZED_STYLES else None

    @property
    def names(self) -> Sequence[str]:
        return [str(route) for route in self.routes]

    @property
    def settings(self) -> Mapping[str, Any]:
        return {
            "style": self.style,
            "window": self.window,
            "audit": self.audit,
        }

    @property
    def note(self) -> str:
        return (
            "change: mean relative change of the baseline run's answer, in percent; drop: of"
            " accuracy, in points [95 % CI by video], among the questions that the baseline run"
            " answers right; records and summary"
        )

    def fields(self, question: Question) -> Mapping[str, Any]:
        return {
            "style": self.style,
            "window": self.window,
            "n_options": len(question.options),
            "target": question.target_text,
        }

    def plan(self, model: VideoLLM, prepared: Prepared) -> list[str]:
        from mapflow.harness.analyses.sweep_windows import plan_windows

        (inputs,) = model.embed([prepared])
        compiled = self._compiled(model, prepared, inputs)
        planned = plan_windows(model, inputs, compiled, self.memory_budget)
        routes, n_layers = len(self.routes), model.decoder.n_layers
        cuts = f"{counted(routes, 'route')} × {counted(n_layers, 'layer')}"
        size = f"{cuts} on {counted(len(prepared.layout), 'position')}"
        return [f"plan: {size}: {planned}", *(f"plan: {note}" for note in planned.notes)]

    def measure(self, model: VideoLLM, prepared: Prepared) -> list[SweepRecord]:
        from mapflow.harness.analyses import sweep_windows as windows

        question, n_layers = prepared.question, model.decoder.n_layers
        (inputs,) = model.embed([prepared])
        compiled = self._compiled(model, prepared, inputs)
        found = windows.window_probabilities(model, inputs, compiled, self._budget)
        if found is None:
            return self.failed(question, self.NOT_FINITE)
        records = []
        for number, name in enumerate(self.names):
            own = slice(1 + number * n_layers, 1 + (number + 1) * n_layers)
            layers = windows.audited_layers(self.audit, question.question_id, name, n_layers)
            values = windows.route_values(model, prepared, found[0], found[own])
            difference = windows.largest_difference(
                model, inputs, compiled[own], found[own], layers
            )
            audit = {"audited": layers, "audit_difference": difference}
            records.append(self.record(question, name, **values, **audit))
        return records

    @cached_property
    def _budget(self) -> Budget:
        from mapflow.harness.analyses.sweep_windows import Budget

        return Budget(self.memory_budget)

    def _compiled(
        self, model: VideoLLM, prepared: Prepared, inputs: DecoderInputs
    ) -> list[Compiled]:
        from mapflow.harness.analyses.sweep_windows import window_interventions

        n_layers = model.decoder.n_layers
        windows = window_interventions(n_layers, self.routes, self.style, self.size)
        with self.naming(prepared.question):
            return model.compile_all(windows, prepared, inputs)

    def summarize(self, records: Sequence[SweepRecord]) -> list[SweepSummary]:
        from mapflow.results.tables.sweeps import summarize_sweep

        return [summarize_sweep(records, name) for name in self.names]

    def table(self, summary: Sequence[SweepSummary]) -> str:
        from mapflow.results.tables.sweeps import sweep_table

        return sweep_table(summary)

    def verdict(self, summary: Sequence[SweepSummary], model: VideoLLM) -> int:
        """1 if an audited window differs by more than the noise of the precision."""
        from mapflow.model_adapters.inference.subject import weights_dtype
        from mapflow.model_adapters.interventions.inspection.noise import NOISE

        differences = [one.audit_difference for one in summary if one.audit_difference is not None]
        if not differences:
            return 0
        dtype = weights_dtype(model)
        bound, largest = NOISE[dtype].probability, max(differences)
        windows = sum(one.audited for one in summary)
        print(
            f"audit: {counted(windows, 'window')} checked against one forward pass each; largest"
            f" difference"
            f" {largest:.1e}, {'within' if largest <= bound else 'BEYOND'} the noise of"
            f" {str(dtype).removeprefix('torch.')} ({bound:.0e})"
        )
        return 0 if largest <= bound else FAILED

    @classmethod
    def figure(
        cls,
        records: Sequence[SweepRecord],
        names: Sequence[str],
        title: str = "",
        words: Path | None = None,
    ) -> Drawing:
        from mapflow.results.figures import route_curves, route_panels, route_rows

        order = list(names)
        curves = sorted(
            route_panels(records),
            key=lambda one: order.index(one.route) if one.route in order else len(order),
        )
        notes = [f"{one.route}: no band: {one.note}" for one in curves if one.note]
        return Drawing(route_curves(curves, title), route_rows(curves), notes)
