"""The README's figures of the bundled models and the table of their pathways (`make figures`).

One process per model runs the commands that a user would type: `mapflow discover`, `mapflow sweep`
and `mapflow figure`. A Markdown table shows planted and found layer ranges.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from mapflow.harness.cli.main import main as mapflow
from mapflow.model_adapters.checkpoints.pathways import checkpoint_pathways
from mapflow.model_adapters.families.registry import BUNDLED
from mapflow.results.contract.files import read_json

MODELS = {"pathways": "readme_sweep", "natural": "readme_sweep_natural"}
"""Bundled model → file name of its figure."""
TITLES = {
    "pathways": "trained with planted pathways",
    "natural": "trained with full attention only",
}
DISCOVER = ("--bin", "1", "--window", "1", "--threshold", "-5")
SWEEP = ("--routes", "cross-frame,vql-to-ql", "--window", "3")
TABLE = "readme_pathways.md"
PATHWAYS = {
    "cross_frame": "cross-frame",
    "video_to_question": "video → question",
    "question_to_last": "question → last",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, or the largest one of the models' processes."""
    parser = argparse.ArgumentParser(
        "bundled_figures", description="figures and table of the bundled models"
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="for records")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="for figures and table"
    )
    parser.add_argument(
        "--limit",
        default="10",
        metavar="N",
        help="questions of each subtask (default: %(default)s)",
    )
    parser.add_argument("--only", choices=sorted(MODELS), help="only this model, without the table")
    options = parser.parse_args(arguments)
    if options.only:
        return _records(options.only, options.folder / options.only, options.limit, options.output)
    own = [str(options.folder), "--output", str(options.output), "--limit", options.limit]
    running = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "mapflow.harness.reporting.bundled_figures",
                *own,
                "--only",
                name,
            ]
        )
        for name in MODELS
    ]
    code = max(abs(process.wait()) for process in running)
    if code:
        return code
    table = pathway_table(
        {name: read_json(options.folder / name / "found/discovery.json") for name in MODELS}
    )
    (options.output / TABLE).write_text(table + "\n", encoding="utf-8")
    print(f"\n{table}\n\nwritten: {options.output / TABLE}")
    return 0


def _records(name: str, folder: Path, limit: str, output: Path) -> int:
    """Discovery, sweep and figure of one model."""
    subject = ("--pretrained", str(BUNDLED.parent / name), "--limit", limit)
    commands = (
        ("discover", *subject, *DISCOVER, "--output_path", str(folder / "found")),
        ("sweep", *subject, *SWEEP, "--output_path", str(folder / "sweep")),
        ("figure", str(folder / "sweep"), "--title", TITLES[name]),
    )
    code = next((code for command in commands if (code := mapflow(command))), 0)
    if not code:
        output.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "sweep/routes.png", output / f"{MODELS[name]}.png")
    return code


def pathway_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """A Markdown table with one row per model and rule, and one row for planted ranges.

    Rows hold the ranges found from all questions at the first threshold, and the accuracy of
    ranges found from one half of the questions on the other half.

    found: each model's discovery.json.
    """
    rows: list[list[str]] = []
    for name, report in found.items():
        planted = checkpoint_pathways(BUNDLED.parent / name)
        if planted is not None:
            rows.append(
                [
                    name,
                    "*planted*",
                    *(str(getattr(planted, pathway)) for pathway in PATHWAYS),
                    "",
                    "",
                    "",
                ]
            )
        threshold = report["found"][0]["threshold"]
        for row in report["found"]:
            if row["threshold"] == threshold:
                layers = [row["ranges"][pathway] or "–" for pathway in PATHWAYS]
                rows.append([name, row["rule"], *layers, *_score(row)])
    heads = ["model", "rule", *PATHWAYS.values(), "full", "found pathways alone", "edges kept"]
    return tabulate(rows, heads, tablefmt="github", disable_numparse=True)


def _score(row: Mapping[str, Any]) -> list[str]:
    if row["verdict"] is None:
        return ["", "no policy in a half", ""]
    shares = (row["accuracy_full"], row["accuracy_effective"], row["edges_kept"])
    return [f"{share:.1%}" for share in shares]


if __name__ == "__main__":
    sys.exit(main())
