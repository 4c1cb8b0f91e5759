"""Runs of W&B and SwanLab (`--wandb_args`, `--swanlab_args`): one per intervention.

Relies on `WandbLogger` and `SwanLabLogger` of lmms-eval 0.7.3.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.visible_text import nearest
from mapflow.results.runs.processes import processes


class Trackers:
    """Runs of W&B and SwanLab, as `--wandb_args` and `--swanlab_args` ask for.

    One run per intervention; those of one command are a group in W&B. Raises MapflowError for
    arguments that the trackers do not take, and for one that is not installed.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._settings = {
            name: _tracker_settings(name, text)
            for name in ("wandb", "swanlab")
            if (text := getattr(args, f"{name}_args"))
        }

    def check(self, names: Sequence[str]) -> None:
        """Raises MapflowError for settings that several runs cannot share."""
        for tracker, settings in self._settings.items():
            for one in ("id", "resume", "resume_from", "fork_from"):
                if one in settings and len(names) > 1:
                    raise MapflowError(
                        f"--{tracker}_args {one}={settings[one]} names one run, and there is one"
                        f" run per intervention ({', '.join(names)}): leave it out"
                    )

    @contextmanager
    def run(self, intervention: str, group: str) -> Iterator[Callable[[Any, Any], None]]:
        """One run of every tracker; the function yielded logs results and samples to it."""
        started: list[tuple[str, Any]] = []
        for tracker in self._settings if processes().rank == 0 else ():
            with _tracker_errors(tracker):
                started.append((tracker, self._start(tracker, intervention, group)))

        def log(results: Any, samples: Any) -> None:
            for tracker, one in started:
                with _tracker_errors(tracker):
                    one.post_init({**results, "results": _scalars(results["results"])})
                    if tracker == "wandb":
                        one.run.config.update({"intervention": intervention})
                    one.log_eval_result()
                    if samples is not None and getattr(self._args, f"{tracker}_log_samples"):
                        one.log_eval_samples(_complete_samples(samples, results["configs"]))

        try:
            yield log
        finally:
            for tracker, one in started:
                with _tracker_errors(tracker):
                    one.run.finish() if tracker == "wandb" else one.finish()

    def _start(self, tracker: str, intervention: str, group: str) -> Any:
        from lmms_eval.loggers import SwanLabLogger, WandbLogger
        from lmms_eval.utils import simple_parse_args_string

        settings = simple_parse_args_string(getattr(self._args, f"{tracker}_args"))
        key = "name" if tracker == "wandb" else "exp_name"
        settings[key] = f"{settings.get(key, group)} {intervention}".strip()
        if tracker == "wandb":
            os.environ.setdefault("WANDB_QUIET", "true")  # no summary of the run on standard error
            settings.setdefault("group", group)
        return (WandbLogger if tracker == "wandb" else SwanLabLogger)(**settings)


@contextmanager
def _tracker_errors(tracker: str) -> Iterator[None]:
    """Turns a tracker's own errors into MapflowError."""
    try:
        yield
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise MapflowError(
            f"--{tracker}_args: the run cannot be logged ({reason}); records that are written are"
            " kept, and the same command goes on from there"
        ) from error


def _scalars(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Texts and numbers only: trackers fail with the lists that some metrics of tasks are."""
    return {
        task: {name: one for name, one in values.items() if isinstance(one, (str, int, float))}
        for task, values in results.items()
    }


def _complete_samples(
    samples: Mapping[str, Sequence[Mapping[str, Any]]], configs: Mapping[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    """Samples with what lmms-eval's loggers read: writing sample logs has removed some of it, and
    failed questions lack metrics."""
    found: dict[str, list[dict[str, Any]]] = {}
    for task, own in samples.items():
        metrics = [one["metric"] for one in configs[task]["metric_list"]]
        for one in own:
            prompt = one["input"] if "input" in one else one["arguments"][0]
            text = one["filtered_resps"]
            while isinstance(text, list) and text:
                text = text[0]
            told = {"arguments": [[prompt]], "resps": [[text]], "filtered_resps": [text]}
            found.setdefault(task, []).append({**dict.fromkeys(metrics), **one, **told})
    return found


def _tracker_settings(tracker: str, text: str) -> dict[str, str]:
    """The names and values of `--wandb_args`. Raises MapflowError for what `init` does not take."""
    flag = f"--{tracker}_args"
    try:
        init = importlib.import_module(tracker).init
    except (ImportError, AttributeError):
        raise MapflowError(
            f"{flag} needs the Python package {tracker!r}: pip install {tracker}"
        ) from None
    settings: dict[str, str] = {}
    known = [name for name in inspect.signature(init).parameters if name != "kwargs"]
    for part in filter(None, (one.strip() for one in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals:
            raise MapflowError(f"{flag} {part!r} is not of the form name=value")
        if name not in (*known, "exp_name"):
            hint = nearest(name, known, f"known: {', '.join(known)}")
            raise MapflowError(f"{flag}: {tracker}.init has no argument {name!r}; {hint}")
        settings[name] = value
    return settings
