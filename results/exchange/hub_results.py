"""Results for a model's page on the Hugging Face Hub: `.eval_results/*.yaml` of its repository."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import write_file
from mapflow.results.exchange.content import Exported
from mapflow.results.runs.run import Run, share_text
from mapflow.results.statistics import ONE_VIDEO, accuracy

WITHOUT_CUTS = "full"


def write_hub_results(exported: Exported, path: Path) -> list[Path]:
    """One entry per benchmark: the accuracy in percent of the run without cuts.

    Raises MapflowError for a run under an intervention, an incomplete run, and a benchmark without
    a data set on the Hub.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    entries = []
    for group in exported.groups:
        run = _uncut(group, exported.place)
        if run.total is not None and not run.complete:
            raise MapflowError(
                f"{str(exported.place)!r} has answered {share_text(run)} of {run.title}; a result"
                " for the Hub needs all of them"
            )
        dataset, _, task = exported.datasets.get(run.benchmark, "").partition(":")
        if not dataset:
            raise MapflowError(
                f"{run.title} has no data set on the Hub that is known here: name it with"
                " --dataset OWNER/NAME or OWNER/NAME:TASK"
            )
        found = accuracy(run.correct[~run.failed], run.cluster)
        limits = f"{100 * found.low:.1f} to {100 * found.high:.1f}"
        if found.method == ONE_VIDEO:
            limits = ONE_VIDEO
        tool, version = exported.tool
        notes = [
            f"{tool} {version}",
            f"protocol {run.protocol}" if run.protocol else "",
            f"accuracy in percent over {run.n:,} questions, 95 % CI {limits}",
        ]
        entries.append(
            EvalResultEntry(
                dataset_id=dataset,
                task_id=task or "default",
                value=round(100 * found.estimate, 2),
                date=exported.written.strftime("%Y-%m-%dT%H:%M:%SZ"),
                notes="; ".join(filter(None, notes)),
            )
        )
    text = yaml.safe_dump(
        eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True, width=1000
    )
    write_file(path, text)
    return [path]


def _uncut(group: Sequence[Run], place: Path) -> Run:
    for run in group:
        if run.intervention == WITHOUT_CUTS:
            return run
    names = ", ".join(run.intervention for run in group)
    raise MapflowError(
        f"{str(place)!r} has no answers of the model without cuts ({WITHOUT_CUTS}) to"
        f" {group[0].title}, only under {names}: these are not results of the model itself"
    )
