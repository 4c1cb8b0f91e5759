"""One run of the main job: checked without lmms-eval and without weights, then run.

lmms-eval runs the tasks once: the model answers every question under all interventions, and gives
lmms-eval the answers under the first. It runs them again for every other intervention, with the
answers that are there, so that each has lmms-eval's results, sample logs and W&B run of its own.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mapflow.harness.cli.early_checks import check_folder, check_wording, early_model
from mapflow.harness.evaluation import upstream
from mapflow.harness.evaluation.arguments import chosen_interventions
from mapflow.harness.evaluation.refused_flags import check_flags
from mapflow.harness.evaluation.run_output import RunOutput, report_unseen
from mapflow.harness.evaluation.trackers import Trackers
from mapflow.model_adapters.families.model_args import (
    REMOTE_CODE,
    parse_model_args,
    written_options,
)
from mapflow.model_adapters.families.registry import BUNDLED_MODEL, card, check_family
from mapflow.model_adapters.inference.batch_size import read_batch_size
from mapflow.model_adapters.inference.identity import package_version
from mapflow.model_adapters.lmms.generation import Generation, parse_settings, read_generation
from mapflow.model_adapters.lmms.requested import Request, requesting
from mapflow.results.contract.errors import QUESTIONS_MISSING, MapflowError
from mapflow.results.contract.visible_text import nearest, quoted
from mapflow.results.runs.claim import Claim
from mapflow.tasks.lmms_files import check_table_cache, write_task_files
from mapflow.tasks.registry import load_questions, task_names

LOG = logging.getLogger(__name__)
LMMS = ("intervention", "allow_uncut_layers")
"""Arguments of lmms-eval's model classes (`model_adapters/lmms/models.py`) beside the family's."""


class CheckedRun:
    """One run: checked when it is made, before lmms-eval is imported and a model loads.

    Raises MapflowError for mistakes that the user can correct.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._ours = str(args.model).startswith("mapflow")
        if not args.model:
            raise MapflowError("--model is required, e.g. --model mapflow_llava")
        if not (args.limit is None or 0 < args.limit < math.inf):
            raise MapflowError(
                f"--limit {args.limit:g} must be at least 1 question, or a share between 0 and 1;"
                " leave it out to ask all"
            )
        if args.log_samples and not args.output_path:
            raise MapflowError("--log_samples needs a place for the logs: add --output_path DIR")
        self._protocol = args.protocol or os.environ.get("MAPFLOW_PROTOCOL", "paper")
        self._given: dict[str, str] = {}
        self._generation: Generation | None = None
        if self._ours:
            check_family(args.model)
            check_flags(args)
            read_batch_size(args.batch_size, args.max_batch_size)
            settings = parse_settings(args.gen_kwargs or "")
            self._generation = read_generation(settings, "--gen_kwargs")
            self._given = self._read_model_args()
        elif args.intervention or args.interventions_file:
            raise MapflowError(f"--intervention needs a model named mapflow_…, not {args.model!r}")
        else:
            upstream.check_model(args.model)
        if not args.tasks and args.model == BUNDLED_MODEL and "pretrained" not in self._given:
            args.tasks = "mapflow_motion"
        self._check_tasks()
        self._interventions = (
            chosen_interventions(args, self._given.get("intervention")) if self._ours else []
        )
        self._trackers = Trackers(args)
        self._trackers.check([str(one) for one in self._interventions])
        self._claim = self._check_model_and_folder() if self._ours else None
        if self._ours and not args.include_path:
            self._check_questions()

    def run(self) -> int:
        """Runs the tasks, prints the tables, returns the exit code."""
        args = self._args
        request = Request(tuple(self._interventions), self._generation)
        output = RunOutput(args.output_path) if self._ours else None
        names = [str(one) for one in self._interventions] or [""]
        evaluation = upstream.Evaluation(
            self._task_manager, self._check_task if self._ours else None
        )
        tables: list[str] = []
        unlogged: MapflowError | None = None
        with (
            _environment(MAPFLOW_PROTOCOL=args.protocol, MAPFLOW_DATA=args.data_dir),
            requesting(request),
        ):
            upstream.join_processes()
            for number, name in enumerate(names):
                request.reported = number
                changes = self._changes(name, output, several=len(names) > 1)
                with self._trackers.run(name, self._group()) as log:
                    results, samples = evaluation.run(args.words, changes)
                    if results is not None:
                        if output is not None:
                            output.check_written(results["date"])
                        try:
                            log(results, samples)
                        except MapflowError as error:  # the others wait for this process
                            unlogged = error
                        tables.append(f"\n{name}\n{upstream.score_table(results)}")
                upstream.wait_for_all()
            if not tables:  # only the first process has results
                return 0
            if not self._ours or any(not one.startswith("mapflow_") for one in self._names()):
                print("\n".join(tables))
            errors = report_unseen() + (output.report() if output is not None else 0)
        if unlogged is not None:
            raise unlogged
        return QUESTIONS_MISSING if errors and not args.allow_missing else 0

    def _changes(
        self, intervention: str, output: RunOutput | None, several: bool
    ) -> dict[str, Any]:
        """The arguments that lmms-eval gets instead of the user's."""
        changes: dict[str, Any] = {"tasks": self._args.tasks, "model": self._args.model}
        if output is None:
            return changes
        given = {name: text for name, text in self._given.items() if name not in LMMS}
        arguments = [f"{name}={text}" for name, text in given.items()]
        arguments += written_options(card(self._args.model).arguments, given)
        logged = intervention.replace(",", ";").translate(_QUOTES)
        arguments += [f"intervention={logged}", f"records={output.folder}"]
        allowed = self._given.get("allow_uncut_layers", str(self._args.allow_uncut_layers))
        arguments += [f"allow_uncut_layers={allowed}"] if allowed.lower() == "true" else []
        changes["model_args"] = ",".join(arguments)
        if self._args.output_path and several:
            changes["output_path"] = str(output.folder_of(intervention))
        return changes

    def _group(self) -> str:
        """What the runs of one command are called together in a tracker."""
        place = self._args.output_path
        return f"{self._args.model} {Path(place).name if place else os.getpid()}"

    def _names(self) -> list[str]:
        return self._args.tasks.split(",")

    def _check_tasks(self) -> None:
        """Raises MapflowError without tasks, and for a task that does not exist."""
        if not self._args.tasks:
            raise MapflowError(
                "--tasks is required, e.g. --tasks mapflow_tvbench; `lmms_eval tasks` lists them"
            )
        if self._args.include_path:
            if not Path(self._args.include_path).is_dir():
                raise MapflowError(f"--include_path {quoted(self._args.include_path)} is no folder")
            return
        known = task_names()
        for name in self._names():
            if name.startswith("mapflow_") and "*" not in name and name not in known:
                raise _unknown_task(name, known)
            if name not in known and not {*"*?[/"} & {*name} and not Path(name).exists():
                upstream.check_task(name, known)

    def _task_manager(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """lmms-eval's task manager, with mapflow's tasks; unknown tasks are refused with the
        nearest name.

        It reads its own thousand tasks only if one is asked for that neither mapflow nor a folder
        of `--include_path` has.
        """
        include = [*filter(None, [kwargs.pop("include_path", None)]), str(write_task_files())]
        check_table_cache()
        manager = original(*args, include_path=include, include_defaults=False, **kwargs)
        if not {*self._names()} <= {*manager.all_tasks}:
            manager = original(*args, include_path=include, include_defaults=True, **kwargs)
        for name in self._names():
            if not Path(name).exists() and not manager.match_tasks([name]):
                raise _unknown_task(name, manager.all_tasks)
        return manager

    def _check_task(self, name: str, task: Any) -> None:
        """Raises MapflowError for a task that our models cannot answer or that needs a judge."""
        if name.startswith("mapflow_"):
            from mapflow.tasks.lmms_functions import question_of

            check_wording(self._args.model, [question_of(task.eval_docs_no_media[0])])
        else:
            from mapflow.model_adapters.lmms.foreign_tasks import scoring_of

            scoring_of(task)

    def _read_model_args(self) -> dict[str, str]:
        """--model_args by name. Raises MapflowError for what a flag says already."""
        args = self._args
        given = parse_model_args(str(args.model_args or ""))
        if "records" in given:
            raise MapflowError("records= in --model_args is what --output_path is for: use that")
        for name in ("batch_size", "max_batch_size"):
            if name in given:
                raise MapflowError(f"{name}= in --model_args is what --{name} is for: use that")
        if args.device and {"device", "device_map"} & given.keys():
            raise MapflowError(
                f"--device {args.device} and a device in --model_args: keep one of them"
            )
        return given

    def _check_model_and_folder(self) -> Claim | None:
        """Raises MapflowError for arguments and a checkpoint that the model cannot take, for layers
        that it lacks, and for a folder that holds another run. Returns the claim of the folder.
        """
        args, given = self._args, {"device": self._args.device, **self._given}
        if "trust_remote_code" in given:
            raise MapflowError(REMOTE_CODE)
        uncut = given.pop("allow_uncut_layers", None)
        allowed = args.allow_uncut_layers or str(uncut).lower() == "true"
        given.pop("intervention", None)
        model = early_model(args.model, given, LMMS, allow_uncut_layers=allowed)
        described = model.described(self._interventions)
        if not args.output_path:
            return None
        identity = model.identity(self._protocol)
        identity["versions"] |= {"lmms-eval": package_version("lmms-eval")}
        if self._generation not in (None, Generation()):
            identity["generation"] = asdict(self._generation)
        return check_folder(Path(args.output_path), identity, described)

    def _check_questions(self) -> None:
        """Raises MapflowError for missing or wrong files of mapflow's tasks, and for wordings that
        they lack. lmms-eval reads the questions again, after it is imported.
        """
        data = self._args.data_dir or os.environ.get("MAPFLOW_DATA")
        for name in {*self._names()} & {*task_names()}:
            questions = load_questions(name, self._protocol, Path(data) if data else None)
            check_wording(self._args.model, questions)


def _unknown_task(name: str, known: Iterable[str]) -> MapflowError:
    hint = nearest(name, known, "`lmms_eval tasks` lists them")
    return MapflowError(f"unknown task {name!r}; {hint}")


_QUOTES = str.maketrans("\"'{}[]", "______")
"""Signs that lmms-eval reads as quotes in --model_args."""


@contextmanager
def _environment(**values: str | None) -> Iterator[None]:
    """Within this context the environment has these values, where they are not None."""
    before = {name: os.environ.get(name) for name in values}
    os.environ |= {name: value for name, value in values.items() if value is not None}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
