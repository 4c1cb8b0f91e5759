"""Values and cells that several tables share: drops, macro averages, probabilities, marks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from mapflow.results.runs.run import Run
from mapflow.results.statistics import (
    Interval,
    MacroDifference,
    PairedRuns,
    accuracy_drop,
    claim,
    clustered_mean,
    detectable,
    points,
)
from mapflow.results.tables.formats import Column, Marks, Row

ALPHA = 0.05

LEGEND = (
    "Bold: best.",
    "†: not significantly different from the baseline (p ≥ 0.05, paired by question, clustered by"
    " video, Holm).",
)


def difference_marks(head: str, rows: Sequence[Row]) -> Marks:
    """The largest difference of several rows, and those that are not significant (Holm)."""
    largest = max((row["difference"] for row in rows), default=None)
    best = {k for k, row in enumerate(rows) if row["difference"] == largest and len(rows) > 1}
    tied = {k for k, row in enumerate(rows) if row["p_holm"] > ALPHA}
    return Marks(head, frozenset(best), frozenset(tied))


def macro_sentence(treatment: str, baseline: str, macro: MacroDifference) -> str:
    said = claim(treatment, baseline, macro.interval, macro.p_holm, macro.non_inferiority)
    power = ""
    if macro.non_inferiority.verdict == "inconclusive":
        power = f" {detectable(macro.interval)}"
    return f"Macro average over subtasks: {said}.{power}"


def macro_values(macro: MacroDifference | None) -> Row:
    """The macro average's values; all None without subtasks."""
    against = macro and macro.non_inferiority
    return {
        "macro_difference": macro and macro.interval.estimate,
        "macro_low": macro and macro.interval.low,
        "macro_high": macro and macro.interval.high,
        "p_macro": macro and macro.test.p_value,
        "p_macro_holm": macro and macro.p_holm,
        "macro_verdict": against and against.verdict,
        "p_macro_non_inferior_holm": against and against.p_holm,
    }


def drop_values(together: PairedRuns, task: str | None = None) -> Row:
    """The accuracy drop among the questions that the first of two runs answers right.

    `task` restricts it to one subtask. The drop is a fraction with its 95 % interval, clustered by
    video; None where the first run answers no question right.
    """
    chosen = np.ones(together.n, dtype=bool)
    if task is not None and together.task is not None:
        chosen = together.task == together.task_names.index(task)
    before, after = together.correct[:, chosen]
    cluster = together.cluster[chosen] if together.clustered else None
    drop = accuracy_drop(before, after, cluster)
    return drop_row(drop, int(before.sum()))


def drop_row(drop: Interval | None, n_right: int) -> Row:
    """The values of `drop_values`."""
    limits = (None,) * 3 if drop is None else (drop.estimate, drop.low, drop.high)
    return {
        "n_right": n_right,
        **dict(zip(("drop", "drop_low", "drop_high"), limits, strict=True)),
    }


def drop_text(row: Row) -> str:
    """The cell of `drop_values`."""
    if row["drop"] is None:
        return "–"
    interval = (
        "" if row["drop_low"] is None else f" {points(row['drop_low'])}…{points(row['drop_high'])}"
    )
    return f"{points(row['drop'])}{interval} (n = {row['n_right']:,})"


DROP_NOTE = (
    "Drop among right: points of accuracy lost among the n questions that the baseline answers"
    " right, with its 95 % interval by video."
)


def p_text(p: float, equals: str = "= ") -> str:
    """A p-value with three digits or as a bound: "= 0.031", "< 0.001"."""
    return "< 0.001" if p < 0.001 else f"{equals}{p:.3f}"


def probability_values(runs: tuple[Run, Run], together: PairedRuns) -> Row:
    """Mean changes of the right answer's probability and of its margin, treatment − baseline.

    Over the questions compared for which both runs recorded them, with 95 % interval and p by
    video. All None where a run recorded none, and where no error can be estimated.
    """
    found: dict[str, Any] = {}
    for name in ("p_target", "target_margin"):
        before, after = (_aligned(run, getattr(run, name), together) for run in runs)
        known = np.isfinite(before) & np.isfinite(after)
        cluster = together.cluster[known] if together.clustered else None
        change = clustered_mean(after[known] - before[known], cluster) if known.any() else None
        interval, test = change or (None, None)
        found |= {
            f"{name}_n": int(known.sum()),
            f"{name}_change": interval and interval.estimate,
            f"{name}_low": interval and interval.low,
            f"{name}_high": interval and interval.high,
            f"{name}_p": test and test.p_value,
        }
    return found


def _aligned(run: Run, values: np.ndarray, together: PairedRuns) -> np.ndarray:
    place = {question: k for k, question in enumerate(run.question_id.tolist())}
    return values[[place[question] for question in together.question_id.tolist()]]


def or_dash(value: float | None, show: Callable[[float], str]) -> str:
    return "–" if value is None else show(value)


def _change_text(name: str, show: Callable[[float], str], row: Row) -> str:
    if row.get(f"{name}_change") is None:
        return "–"
    return f"{show(row[f'{name}_change'])} {show(row[f'{name}_low'])}…{show(row[f'{name}_high'])}"


def _change_p(name: str, row: Row) -> str:
    return or_dash(row.get(f"{name}_p"), lambda p: p_text(p, ""))


def _nats(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


MACRO_COLUMNS: tuple[Column[Row], ...] = (
    Column("macro difference", lambda r: or_dash(r["macro_difference"], points)),
    Column("macro p (Holm)", lambda r: or_dash(r["p_macro_holm"], lambda p: p_text(p, ""))),
    Column("macro verdict", lambda r: r["macro_verdict"] or "–", right=False),
)
"""The columns of `macro_values`, for tables with subtasks."""

PROBABILITY_COLUMNS: tuple[Column[Row], ...] = (
    Column("p(right) change [95 % CI]", partial(_change_text, "p_target", points)),
    Column("p of p(right)", partial(_change_p, "p_target")),
)
"""The columns of `probability_values`, where both runs recorded probabilities."""
MARGIN_COLUMNS: tuple[Column[Row], ...] = (
    Column("margin change [95 % CI]", partial(_change_text, "target_margin", _nats)),
    Column("p of margin", partial(_change_p, "target_margin")),
)
"""The same of margins, on request."""
PROBABILITY_NOTE = (
    "p(right) change: mean change of the right answer's probability in points (first token), with a"
    " robust t-test by video. It asks whether evidence moved, also where no answer flipped; it is"
    " not corrected for several comparisons and never the verdict."
)
