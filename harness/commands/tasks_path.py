"""`mapflow tasks-path`: for `lmms-eval --include_path $(mapflow tasks-path)`."""

from __future__ import annotations

import argparse

from mapflow.tasks.lmms_files import write_task_files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It has none."""


def run(options: argparse.Namespace) -> int:
    print(write_task_files())
    return 0
