"""Runs in the schema of Every Eval Ever (0.3.0): one document and one samples file per benchmark.

A document has one result per intervention. The result of a treatment holds its paired comparison
with the baseline in `score_details.details`, whose values the schema wants as text. The layout is
that of the project's repository: `data/<benchmark>/<developer>/<model>/<uuid>.json`.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import time
import uuid
from pathlib import Path
from typing import Any

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import write_file
from mapflow.results.contract.question import Question
from mapflow.results.exchange.content import Exported
from mapflow.results.exchange.names import file_part, make_folder
from mapflow.results.records.record import Record
from mapflow.results.runs.run import Run
from mapflow.results.statistics import accuracy, clustered_standard_error
from mapflow.results.tables.comparison import ComparedPair

SCHEMA = "0.3.0"
BY_VIDEO = "analytic, by video (Miller 2024, arXiv 2411.00640, equation 4)"
LOCAL = "local"
"""The developer of a checkpoint without one: a folder on the machine of the run."""


def write_every_eval_ever(exported: Exported, path: Path) -> list[Path]:
    """Writes all documents below the folder `path`; failed questions are counted, not listed.

    Raises MapflowError for a run without an answered question.
    """
    now, files = str(int(time.time())), []
    for group in exported.groups:
        runs = [run for run in group if run.n]
        if not runs:
            continue
        model = _model_id(runs[0])
        developer, _, name = model.rpartition("/")
        folder = Path("data", file_part(runs[0].benchmark), developer or LOCAL, name)
        evaluation = f"{file_part(runs[0].benchmark)}/{model}/{now}"
        rows = [row for run in runs for row in _samples(run, exported, evaluation, model)]
        identity = _uuid(
            f"{runs[0].benchmark} {folder} {exported.written} {[run.intervention for run in runs]}"
        )
        samples = folder / f"{identity}_samples.jsonl"
        lines = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
        tool, version = exported.tool
        versions = (exported.manifest.get("identity") or {}).get("versions") or {}
        document = {
            "schema_version": SCHEMA,
            "evaluation_id": evaluation,
            "evaluation_timestamp": exported.written.isoformat(),
            "retrieved_timestamp": now,
            "source_metadata": {
                "source_name": f"{tool} run",
                "source_type": "evaluation_run",
                "source_organization_name": "unknown",
                "evaluator_relationship": "other",
            },
            "eval_library": {
                "name": tool,
                "version": version,
                "additional_details": _texts(versions),
            },
            "model_info": _model_info(runs[0], model, exported),
            "evaluation_results": [_result(run, runs[0], exported) for run in runs],
            "detailed_evaluation_results": {
                "format": "jsonl",
                "file_path": samples.as_posix(),
                "hash_algorithm": "sha256",
                "checksum": hashlib.sha256(lines.encode()).hexdigest(),
                "total_rows": len(rows),
            },
        }
        make_folder(path / folder)
        write_file(path / samples, lines)
        write_file(
            path / folder / f"{identity}.json",
            json.dumps(document, ensure_ascii=False, allow_nan=False, indent=2) + "\n",
        )
        files += [path / folder / f"{identity}.json", path / samples]
    if not files:
        raise MapflowError(f"{str(exported.place)!r} holds no answered question: nothing to export")
    return files


def _model_id(run: Run) -> str:
    """`developer/name` as on the Hub; of a local folder its last part."""
    parts = [file_part(part) for part in run.model.split("/") if part]
    on_hub = len(parts) == 2 and not run.model.startswith(("/", ".", "~"))
    return "/".join(parts) if on_hub else (parts or ["unnamed"])[-1]


def _uuid(text: str) -> str:
    """A version 4 UUID made of a digest: a repeated export replaces its own files."""
    return str(uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16], version=4))


def _model_info(run: Run, model: str, exported: Exported) -> dict[str, Any]:
    """What is known of the model; for logs of other tools, not where and how it ran."""
    identity = exported.manifest.get("identity") or {}
    known = {
        name: identity.get(name) for name in ("model", "checkpoint", "digest", "dtype", "released")
    }
    version = (identity.get("versions") or {}).get("transformers")
    engine = {"inference_engine": {"name": "transformers", "version": version}} if version else {}
    foreign = exported.manifest.get("logged_by")
    return {
        "name": run.model,
        "id": model,
        "developer": model.rpartition("/")[0] or LOCAL,
        **engine,
        "additional_details": {
            "deployment_type": "unknown" if foreign else "self_deployed",
            "model_availability": "unknown",
            **_texts({name: value for name, value in known.items() if value is not None}),
        },
    }


def _result_id(run: Run) -> str:
    return f"{run.benchmark}/{run.intervention}/accuracy"


def _result_name(run: Run, baseline: Run) -> str:
    return run.title if run is baseline else f"{run.title} under {run.intervention}"


def _result(run: Run, baseline: Run, exported: Exported) -> dict[str, Any]:
    found = accuracy(run.correct[~run.failed], run.cluster)
    error = clustered_standard_error(run.correct[~run.failed], run.cluster)
    by_video = {} if error is None else {"standard_error": {"value": error, "method": BY_VIDEO}}
    paired = next((_paired(one) for one in exported.pairs if one.treatment is run), {})
    if run is not baseline and run.benchmark in exported.unpaired:
        paired = {"paired_difference_missing": exported.unpaired[run.benchmark]}
    repository = exported.datasets.get(run.benchmark, "").partition(":")[0]
    source = (
        {"source_type": "hf_dataset", "hf_repo": repository, "samples_number": run.total or run.n}
        if repository
        else {"source_type": "other"}
    )
    command = exported.manifest.get("command")
    arguments = (
        {"execution_command": shlex.join(map(str, command))} if isinstance(command, list) else {}
    )
    meaning = (exported.manifest.get("interventions") or {}).get(run.intervention)
    setting = {"intervention": run.intervention, "intervention_in_full": meaning or None}
    setting |= {"protocol": run.protocol or None, "edges_kept_share": run.edges_share}
    return {
        "evaluation_result_id": _result_id(run),
        "evaluation_name": _result_name(run, baseline),
        "source_data": {"dataset_name": run.title, **source},
        "metric_config": {
            "metric_id": "accuracy",
            "metric_name": "Accuracy",
            "metric_kind": "accuracy",
            "metric_unit": "proportion",
            "lower_is_better": False,
            "score_type": "continuous",
            "min_score": 0.0,
            "max_score": 1.0,
        },
        "score_details": {
            "score": found.estimate,
            "details": _texts({**_counts(run), **paired}),
            "uncertainty": {
                **by_video,
                "confidence_interval": {
                    "lower": found.low,
                    "upper": found.high,
                    "confidence_level": found.confidence,
                    "method": found.method,
                },
                "num_samples": run.n,
            },
        },
        "generation_config": {
            "generation_args": arguments,
            "additional_details": _texts(
                {name: value for name, value in setting.items() if value is not None}
            ),
        },
    }


def _counts(run: Run) -> dict[str, Any]:
    asked = ~run.failed
    subtasks = {
        task: float(run.correct[asked & (run.task == task)].mean())
        for task in sorted(set(run.task[asked].tolist()))
    }
    return {
        "correct": int(run.correct[asked].sum()),
        "answered": run.n,
        "failed": run.errors,
        "questions_of_the_benchmark": run.total or "unknown",
        "accuracy_by_subtask": json.dumps(subtasks, ensure_ascii=False),
    }


def _paired(pair: ComparedPair) -> dict[str, Any]:
    """The paired comparison with the baseline, as `mapflow compare` reports it."""
    found = pair.comparison
    return {
        "baseline_result_id": _result_id(pair.baseline),
        "paired_difference": found.difference.estimate,
        "paired_difference_lower": found.difference.low,
        "paired_difference_upper": found.difference.high,
        "paired_difference_confidence_level": found.difference.confidence,
        "paired_difference_method": found.test.method,
        "paired_questions": found.n,
        "paired_clusters": found.n_clusters,
        "lost": found.cells.lost,
        "gained": found.cells.gained,
        "p_value": found.test.p_value,
        "p_value_holm": found.p_holm,
        "non_inferiority_margin": found.non_inferiority.margin,
        "verdict": found.non_inferiority.verdict,
        "sentence": pair.text,
    }


def _samples(run: Run, exported: Exported, evaluation: str, model: str) -> list[dict[str, Any]]:
    """One row per answered question: a failed one has no score, which the schema requires."""
    baseline = next(group[0] for group in exported.groups if run in group)
    return [
        {
            "schema_version": SCHEMA,
            "evaluation_id": evaluation,
            "model_id": model,
            "evaluation_name": _result_name(run, baseline),
            "evaluation_result_id": _result_id(run),
            "sample_id": record.question_id,
            "interaction_type": "single_turn",
            **_texts_of(record, exported.questions.get(record.question_id)),
            "output": {"raw": [record.prediction or ""]},
            "messages": None,
            "answer_attribution": [
                {
                    "turn_idx": 0,
                    "source": "output.raw",
                    "extracted_value": record.prediction or "",
                    "extraction_method": record.protocol or "unknown",
                    "is_terminal": True,
                }
            ],
            "evaluation": {
                "score": float(bool(record.correct)),
                "is_correct": bool(record.correct),
            },
            "metadata": _texts(_about(record)),
        }
        for record in exported.records_of(run)
        if record.error is None
    ]


def _texts_of(record: Record, question: Question | None) -> dict[str, Any]:
    """The input, and its hash, which identifies a question across runs, where the text is known."""
    if question is None:
        return {"input": {"raw": record.question_id, "reference": [record.target]}}
    hashed = hashlib.sha256(f"{question.stem}{record.target}".encode("utf-8", "replace"))
    options = {"choices": list(question.options)} if question.options else {}
    return {
        "sample_hash": hashed.hexdigest(),
        "input": {"raw": question.stem, "reference": [record.target], **options},
    }


def _about(record: Record) -> dict[str, Any]:
    names = ("video_id", "task", "intervention", "valid", "p_answer", "p_target", "margin")
    values = {name: getattr(record, name) for name in (*names, "edges_kept", "edges_total")}
    return {name: value for name, value in values.items() if value not in (None, "")}


def _texts(values: dict[str, Any]) -> dict[str, str]:
    """The schema's free fields hold text only."""
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
    }
