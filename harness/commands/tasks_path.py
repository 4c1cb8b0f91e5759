"""`mapflow tasks-path`: for `lmms-eval --include_path $(mapflow tasks-path)`."""

from __future__ import annotations

import argparse

from mapflow.harness.evaluation.lmms_eval import tasks_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None needed."""


def run(options: argparse.Namespace) -> int:
    print(tasks_path())
    return 0
