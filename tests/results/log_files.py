"""Small logs in the layouts of other tools, with answers of our own."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DATE = "2026-01-02T03-04-05.678901"
INSPECT_DATE = "2026-01-02T03-04-05-00-00"


def harness_sample(number: int, right: object, **changes: Any) -> dict[str, Any]:
    """A line of a multiple-choice task of lm-evaluation-harness; the first of three is right."""
    doc = {"q": f"question {number}", "video_id": f"v{number // 2}.mp4"}
    likelihoods = [["-0.5", "True"], ["-1.5", "False"], ["-2.5", "False"]]
    return {
        "doc_id": number,
        "doc": doc,
        "target": "0",
        "arguments": {"gen_args_0": {"arg_0": "Question", "arg_1": " one"}},
        "resps": [[one] for one in likelihoods],
        "filtered_resps": likelihoods if right else likelihoods[::-1],
        "filter": "none",
        "metrics": ["acc_norm", "acc"],
        "doc_hash": f"{number:064x}",
        "prompt_hash": "p",
        "target_hash": "t",
        "acc_norm": 1.0,
        "acc": right,
        **changes,
    }


def write_harness(
    folder: Path,
    tasks: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    pretrained: str = "lab/model",
    date: str = DATE,
    **results: Any,
) -> Path:
    """The folder of one run of lm-evaluation-harness with `--log_samples`."""
    folder.mkdir(parents=True, exist_ok=True)
    for task, samples in tasks.items():
        text = "".join(json.dumps(sample) + "\n" for sample in samples)
        (folder / f"samples_{task}_{date}.jsonl").write_text(text)
    about = {
        "config": {"model": "hf", "model_args": {"pretrained": pretrained, "dtype": "float32"}},
        "lm_eval_version": "0.4.13",
        "n-shot": {task: 0 for task in tasks},
        "n-samples": {task: {"original": len(one)} for task, one in tasks.items()},
        "group_subtasks": {},
        "higher_is_better": {task: {"acc": True, "acc_norm": True} for task in tasks},
        "versions": {task: 1.0 for task in tasks},
        **results,
    }
    (folder / f"results_{date}.json").write_text(json.dumps(about))
    return folder


def inspect_sample(number: int, value: object, **changes: Any) -> dict[str, Any]:
    """A sample of a multiple-choice task of Inspect."""
    return {
        "id": number,
        "epoch": 1,
        "input": f"question {number}",
        "choices": ["one", "two", "three"],
        "target": "A",
        "metadata": {"video": f"v{number // 2}.mp4"},
        "scores": {"choice": {"value": value, "answer": "A" if value == "C" else "B"}},
        **changes,
    }


def inspect_header(task: str = "own", model: str = "lab/model", **changes: Any) -> dict[str, Any]:
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "task": task,
            "model": model,
            "created": "2026-01-02T03:04:05+00:00",
            "dataset": {"name": "own", "samples": 3},
            "config": {"epochs": 1},
            "packages": {"inspect_ai": "0.3.285"},
        },
        "plan": {"name": "plan", "steps": [{"solver": "multiple_choice"}]},
        "results": {"scores": [{"name": "choice", "scorer": "choice"}]},
        **changes,
    }


def write_inspect(
    folder: Path,
    samples: Sequence[Mapping[str, Any]],
    header: Mapping[str, Any] | None = None,
    *,
    suffix: str = ".eval",
    date: str = INSPECT_DATE,
) -> Path:
    """One log of Inspect; an archive is packed by deflate, which Inspect reads as well."""
    folder.mkdir(parents=True, exist_ok=True)
    about = header or inspect_header()
    file = folder / f"{date}_{about['eval']['task']}_ID{suffix}"
    if suffix == ".json":
        file.write_text(json.dumps({**about, "samples": list(samples)}))
        return file
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", json.dumps(about))
        archive.writestr("summaries.json", json.dumps(list(samples)))
        for sample in samples:
            name = f"samples/{sample['id']}_epoch_{sample['epoch']}.json"
            archive.writestr(name, json.dumps(sample))
    return file
