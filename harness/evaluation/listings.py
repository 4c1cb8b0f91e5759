"""mapflow's part of `lmms_eval tasks` and `lmms_eval models`."""

from __future__ import annotations

from tabulate import tabulate

from mapflow.model_adapters.families.registry import BUNDLED_MODEL, families
from mapflow.tasks.registry import BENCHMARKS


def list_tasks() -> str:
    """Every benchmark's task with its title, and its subtasks with their numbers of questions."""
    rows = []
    for one in BENCHMARKS.values():
        subtasks = (
            f"{one.task}_{name}" + ("" if n is None else f" {n:,}")
            for name, n in one.counts.items()
        )
        rows.append((one.task, f"{one.title}, {one.size:,} questions"))
        rows += [("", text) for text in subtasks]
    table = tabulate(rows, tablefmt="plain", disable_numparse=True)
    return (
        f"mapflow's tasks ({len(BENCHMARKS)} benchmarks; each subtask is a task, too)\n\n"
        f"{table}\n\n"
        "Protocols of prompts: --protocol paper (default) or official. Files: `mapflow data check`"
    )


def list_models() -> str:
    """Every family with the package that announces it."""
    rows = [
        (name, f"package {one.distribution}" + (f": {one.problem}" if one.problem else ""))
        for name, one in families().items()
    ]
    return (
        "\nmapflow's models (they take --intervention; without pretrained=,"
        f" {BUNDLED_MODEL} runs the small bundled model)\n\n"
        + tabulate(rows, tablefmt="plain", disable_numparse=True)
    )
