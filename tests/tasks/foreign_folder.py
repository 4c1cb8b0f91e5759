"""lmms-eval's own video tasks over a few local questions, for tests.

Prompts, videos and scoring are those of the installed lmms-eval; only the questions are ours, in
each data set's own fields, with videos of the bundled benchmark.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mapflow.tasks.motion

VIDEOS = sorted((Path(mapflow.tasks.motion.__file__).parent / "data/video/count").glob("*.mp4"))
UTILS = "lmms_eval.tasks.{}.utils.{}"
POST = '{post_prompt: "\\nAnswer with the option\'s letter from the given choices directly.", '
POST += 'pre_prompt: "", sub_task: moving_count}'

TASKS: Mapping[str, tuple[str, dict[str, str], Sequence[tuple[str, str]]]] = {
    "mvbench": (
        "mvbench",
        {
            "doc_to_visual": "mvbench_doc_to_visual",
            "doc_to_text": "mvbench_doc_to_text",
            "process_results": "mvbench_process_results",
        },
        [("mvbench_accuracy", "mvbench_aggregate_results")],
    ),
    "longvideobench": (
        "longvideobench",
        {
            "doc_to_visual": "longvideobench_doc_to_visual_v",
            "doc_to_text": "longvideobench_doc_to_text",
            "process_results": "longvideobench_process_results",
        },
        [("lvb_acc", "longvideobench_aggregate_results")],
    ),
    "videomme": (
        "videomme",
        {
            "doc_to_visual": "videomme_doc_to_visual",
            "doc_to_text": "videomme_doc_to_text",
            "process_results": "videomme_process_results",
        },
        [("videomme_perception_score", "videomme_aggregate_results")],
    ),
    "yes_no": (
        "tempcompass",
        {
            "doc_to_visual": "tempcompass_doc_to_visual",
            "doc_to_text": "tempcompass_doc_to_text_yes_no",
            "process_results": "tempcompass_process_results_yes_no",
        },
        [
            ("avg_accuracy", "tempcompass_aggregate_rating"),
            ("order_accuracy", "tempcompass_aggregate_rating"),
        ],
    ),
    "captioning": (
        "tempcompass",
        {
            "doc_to_visual": "tempcompass_doc_to_visual",
            "doc_to_text": "tempcompass_doc_to_text_captioning",
            "process_results": "tempcompass_process_results_captioning",
        },
        [("avg_accuracy", "tempcompass_aggregate_rating")],
    ),
    "activitynetqa": (
        "activitynetqa",
        {
            "doc_to_visual": "activitynetqa_doc_to_visual",
            "doc_to_text": "activitynetqa_doc_to_text",
            "process_results": "activitynetqa_process_results",
        },
        [("gpt_eval_score", "activitynetqa_aggregate_score")],
    ),
    "tvbench": (
        "tvbench",
        {
            "doc_to_visual": "tvbench_doc_to_visual",
            "doc_to_text": "tvbench_doc_to_text",
            "process_results": "tvbench_process_results",
        },
        [("tvbench_acc", "mean")],
    ),
    "egotempo": (
        "egotempo",
        {
            "doc_to_visual": "egotempo_doc_to_visual",
            "doc_to_text": "egotempo_doc_to_text",
            "process_results": "egotempo_process_results",
        },
        [("egotempo_anls", "egotempo_aggregate_results")],
    ),
}
"""Short name → lmms-eval's folder, the task's functions, its metrics with their aggregations."""


def write_tasks(root: Path, documents: Mapping[str, Sequence[Mapping[str, Any]]]) -> Path:
    """The folder for --include_path, with one task `own_<name>` per entry of `documents`."""
    folder = root / "tasks"
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in documents.items():
        module, functions, metrics = TASKS[name]
        data = folder / f"{name}.json"
        data.write_text(json.dumps(list(rows)), encoding="utf-8")
        called = {
            key: f"!function {UTILS.format(module, value)}" for key, value in functions.items()
        }
        post = POST
        if module == "tempcompass":
            words = '{yes_no: "\\nPlease answer yes or no:", captioning: ""}'
            post = f'{{pre_prompt: "", post_prompt: {words}}}'
        lines = [
            f"task: own_{name}",
            "dataset_path: json",
            f"dataset_kwargs: {{data_files: {{test: {data}}}}}",
            "test_split: test",
            "output_type: generate_until",
            "doc_to_target: answer",
            *(f"{key}: {value}" for key, value in called.items()),
            "generation_kwargs: {max_new_tokens: 4, temperature: 0, do_sample: false}",
            "metric_list:",
            *(
                f"- {{metric: {metric}, aggregation: {_function(module, function)},"
                " higher_is_better: true}"
                for metric, function in metrics
            ),
            f"lmms_eval_specific_kwargs: {{default: {post}}}",
        ]
        (folder / f"own_{name}.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _function(module: str, name: str) -> str:
    return name if name == "mean" else f"!function {UTILS.format(module, name)}"


def write_videos(hf_home: Path) -> None:
    """Videos where the tasks look for them below HF_HOME."""
    for place in (
        "mvbench_video/clevrer/video_validation",
        "datasets/longvideobench/videos",
        "videomme/data",
        "tempcompass/videos",
    ):
        (hf_home / place).mkdir(parents=True, exist_ok=True)
        for number, video in enumerate(VIDEOS[:3]):
            shutil.copy(video, hf_home / place / f"clip{number}.mp4")


def mvbench(video: str, candidates: Sequence[str], answer: str) -> dict[str, Any]:
    return {
        "video": f"{video}.mp4",
        "question": "How many balls move?",
        "candidates": list(candidates),
        "answer": answer,
    }


def longvideobench(video: str, options: Sequence[str], right: int) -> dict[str, Any]:
    padded = [*options, *["N/A"] * (5 - len(options))]
    return {
        "id": f"{video}_{right}",
        "video_path": f"{video}.mp4",
        "question": "How many balls move?",
        **{f"option{number}": text for number, text in enumerate(padded)},
        "correct_choice": right,
        "duration": 4.0,
        "duration_group": 15,
        "question_category": "O2E",
        "answer": "unused",
    }


def videomme(video: str, answer: str) -> dict[str, Any]:
    return {
        "videoID": video,
        "video_id": "001",
        "question_id": f"001-{video}",
        "question": "How many balls move?",
        "options": ["A. One.", "B. Two.", "C. Three.", "D. None."],
        "answer": answer,
        "duration": "short",
        "domain": "Knowledge",
        "sub_category": "Astronomy",
        "task_type": "Counting Problem",
    }


def yes_no(video: str, answer: str) -> dict[str, Any]:
    return {
        "video_id": video,
        "question": "Does a ball move?",
        "answer": answer,
        "dim": "order",
        "mc_question": "x",
        "mc_answer": "A. x",
    }
