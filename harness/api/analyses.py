"""Analyses as functions: `sweep`, `trace`, `lens`, `attention` and `discover` of a loaded model."""

from __future__ import annotations

import contextlib
import io
from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mapflow.harness.analyses.analysis import QuestionAnalysis
from mapflow.harness.analyses.attention import AttentionMaps
from mapflow.harness.analyses.discovery.run import Discovery
from mapflow.harness.analyses.lens import Lens
from mapflow.harness.analyses.route_sets import parse_routes
from mapflow.harness.analyses.run import run_analysis
from mapflow.harness.analyses.samples import SAMPLES, Samples
from mapflow.harness.analyses.sweep import Sweep
from mapflow.harness.analyses.trace import Trace
from mapflow.harness.api.model import Model
from mapflow.model_adapters.inference.subject import Subject
from mapflow.model_adapters.interventions import Intervention, parse_intervention
from mapflow.model_adapters.interventions.language.layers import WindowStyle
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import read_json
from mapflow.results.contract.question import Question
from mapflow.results.contract.visible_text import counted
from mapflow.results.records.base import JsonlRecord
from mapflow.results.runs.processes import processes
from mapflow.results.runs.temporary import temporary_folder
from mapflow.tasks.registry import benchmark_titles

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

R = TypeVar("R", bound=JsonlRecord)


class AnalysisResult(Generic[R]):
    """The records of one analysis, one per question and intervention or route.

    Attributes: `records`; `analysis`, the settings; `summaries`, means over questions by benchmark.
    """

    def __init__(self, analysis: QuestionAnalysis[R], records: Sequence[R]) -> None:
        self.analysis, self.records = analysis, list(records)
        self.summaries = analysis.summaries(self.records)

    @property
    def summary(self) -> Sequence[Any]:
        """Means over questions. Raises MapflowError for several benchmarks."""
        return self.summaries[self._one_of(None)]

    @property
    def table(self) -> str:
        """The table that the command prints."""
        return self.analysis.tables(self.summaries)

    def to_pandas(self) -> pandas.DataFrame:
        """One row per record, one column per field; curves are tuples with one entry per layer."""
        import pandas

        return pandas.DataFrame([vars(record) for record in self.records])

    def plot(self, title: str = "", benchmark: str | None = None) -> Figure:
        """Mean curves over layers with 95 % bands, as `mapflow figure` draws them.

        benchmark: a key of `summaries`. Raises MapflowError if it is missing with several
        benchmarks, whose mean would mean nothing.
        """
        chosen = self._one_of(benchmark)
        own = [record for record in self.records if record.benchmark == chosen or not chosen]
        return self.analysis.figure(own, list(self.analysis.names), title).figure

    def _one_of(self, benchmark: str | None) -> str:
        names = list(self.summaries)
        if benchmark is None and len(names) == 1:
            return names[0]
        if benchmark not in names:
            asked = "several benchmarks" if benchmark is None else f"no benchmark {benchmark!r}"
            raise MapflowError(
                f"the records are of {asked}: choose one of {', '.join(names)}, e.g."
                f" .plot(benchmark={names[0]!r}) or .summaries[{names[0]!r}]"
            )
        return benchmark

    def __repr__(self) -> str:
        kind = type(self.analysis).__name__
        return f"<{kind}: {counted(len(self.records), 'record')}>\n{self.table}"

    def _repr_html_(self) -> str:
        several, shown = len(self.summaries) > 1, ""
        for benchmark in self.summaries:
            title = benchmark_titles().get(benchmark, benchmark) if several else ""
            image = io.BytesIO()
            self.plot(title, benchmark).savefig(image, format="png", bbox_inches="tight")
            picture = b64encode(image.getvalue()).decode("ascii")
            name = escape(f"{type(self.analysis).__name__} {title}".strip())
            shown += f'<img alt="{name}" src="data:image/png;base64,{picture}">'
        return f"{shown}<pre>{escape(self.table)}</pre>"


def sweep(
    model: Model,
    questions: Sequence[Question],
    routes: str | Iterable[str] = "vql-to-ql",
    *,
    style: WindowStyle = "center",
    window: int = 9,
    samples: Samples = "all",
    audit: float = 0.0,
    output_path: str | Path | None = None,
) -> AnalysisResult[Any]:
    """Cuts each route in a window around every layer and measures the answer's probability.

    routes: names of sets or routes such as "video:last"; style, window: which layers a knockout
    covers (paper, Section 3); samples: only questions that the baseline run answers so (the paper's
    curves: "correct"); audit: share of windows checked against one full forward pass each;
    output_path: a folder that is continued if it exists, None keeps the records in memory only.
    """
    if window < 1:
        raise MapflowError(f"window={window} must be at least 1 layer")
    if not 0 <= audit <= 1:
        raise MapflowError(f"audit={audit:g} must lie between 0 and 1")
    parsed = tuple(parse_routes([routes] if isinstance(routes, str) else routes))
    return _run(Sweep(parsed, style, window, samples, audit), model, questions, output_path)


def trace(
    model: Model,
    questions: Sequence[Question],
    interventions: str | Intervention | Iterable[str | Intervention] = "full",
    *,
    norm: bool = True,
    samples: Samples = "all",
    output_path: str | Path | None = None,
) -> AnalysisResult[Any]:
    """The answer's probability after every layer, read through the head.

    norm: apply the final norm to every layer's output, not only to the last one; samples: as in
    `sweep`.
    """
    analysis = Trace(_parsed(interventions), norm, samples=samples)
    return _run(analysis, model, questions, output_path)


def lens(
    model: Model,
    questions: Sequence[Question],
    interventions: str | Intervention | Iterable[str | Intervention] = "full",
    *,
    k: int = 5,
    raw_embeddings: bool = False,
    samples: Samples = "all",
    output_path: str | Path | None = None,
) -> AnalysisResult[Any]:
    """The `k` most probable tokens at every video position and layer (logit lens).

    raw_embeddings: compare each layer's input with the input embeddings, as the authors' code does;
    samples: as in `sweep`.
    """
    analysis = Lens(_parsed(interventions), k, raw_embeddings, samples=samples)
    return _run(analysis, model, questions, output_path)


def attention(
    model: Model,
    questions: Sequence[Question],
    interventions: str | Intervention | Iterable[str | Intervention] = "full",
    *,
    rows: str = "last",
    samples: Samples = "all",
    output_path: str | Path | None = None,
) -> AnalysisResult[Any]:
    """How much attention the positions of segment `rows` pay to the video, layer by layer.

    samples: as in `sweep`.
    """
    analysis = AttentionMaps(_parsed(interventions), rows, samples=samples)
    return _run(analysis, model, questions, output_path)


def discover(
    model: Model,
    questions: Sequence[Question],
    output_path: str | Path,
    *,
    bin_size: int = 5,
    window: int = 9,
    threshold: float = -5.0,
    margin: float = 2.0,
    samples: Samples = "correct",
) -> dict[str, Any]:
    """Finds the layer ranges of the three effective pathways and scores them on held-out videos.

    bin_size, window: layers; threshold: percent, negative; margin: percentage points; samples:
    the questions that ranges are found on, by default those answered right, as in the paper (scores
    are of all questions). Writes sweeps, scores and policies into `output_path` and returns what
    its discovery.json holds.
    """
    analysis = Discovery(window, bin_size, threshold, margin / 100, samples=_known(samples))
    analysis.check(questions)
    with contextlib.redirect_stdout(io.StringIO()):  # tables, which the returned rows repeat
        analysis.run(_subject(model, questions), Path(output_path))
    if processes().rank > 0:
        raise MapflowError(f"process 0 writes the result into {str(output_path)!r}: wait for it")
    return read_json(Path(output_path) / "discovery.json")


def _run(
    analysis: QuestionAnalysis[R],
    model: Model,
    questions: Sequence[Question],
    output_path: str | Path | None,
) -> AnalysisResult[R]:
    """Raises MapflowError if the questions or the model do not suit the analysis."""
    subject = _subject(model, questions)
    _known(analysis.samples)
    analysis.check(questions)
    fitted = analysis.fitted(model.video_llm)
    with contextlib.ExitStack() as stack:
        folder = output_path or stack.enter_context(temporary_folder())
        records = run_analysis(fitted, subject, Path(folder))
    if records is None:
        raise MapflowError(f"other processes still write into {str(output_path)!r}: wait for them")
    # a continued folder may hold other questions, and other interventions or routes
    asked = {(one.question_id, name) for one in questions for name in fitted.names}
    return AnalysisResult(fitted, [one for one in records if one.key in asked])


def _subject(model: Model, questions: Sequence[Question]) -> Subject:
    if not questions:
        raise MapflowError("no questions given: load some with mapflow.load_questions(...)")
    return Subject(model.family, model.video_llm, questions)


def _known(samples: Samples) -> Samples:
    """Raises MapflowError for another word."""
    if samples not in SAMPLES:
        raise MapflowError(f"samples={samples!r} must be {' or '.join(SAMPLES)}")
    return samples


def _parsed(
    interventions: str | Intervention | Iterable[str | Intervention],
) -> tuple[Intervention, ...]:
    """Parsed only: `fitted` fills in what depends on the model."""
    several = [interventions] if isinstance(interventions, str | Intervention) else interventions
    return tuple(parse_intervention(one) if isinstance(one, str) else one for one in several)
