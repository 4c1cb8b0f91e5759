"""`lmms_eval`: upstream's command with interventions, honest exit codes and a table at the end.

Upstream stays upstream: its parser reads its own flags, its evaluator runs the tasks. This wrapper takes its own
flags off the command line first and stands in for `cli_evaluate_single` in `lmms_eval.__main__`, the one place where
a run's arguments are final (also those from --config) and its errors can still be seen: upstream exits 0 on all of
them (design.md, lmms-eval).
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from mapflow.harness.cli.interruption import Interrupted, interruptible
from mapflow.harness.evaluation.run_output import RunOutput
from mapflow.model_adapters.families.registry import BUNDLED_MODEL
from mapflow.results.contract.errors import MapflowError

LISTINGS = ("list", "list_groups", "list_tags", "list_subtasks")
FAILED, USAGE_ERROR, QUESTIONS_MISSING = 1, 2, 3


def own_parser() -> argparse.ArgumentParser:
    """Our flags alone; everything else goes to upstream."""
    parser = argparse.ArgumentParser("lmms_eval", add_help=False, allow_abbrev=False)
    group = parser.add_argument_group("mapflow")
    group.add_argument(
        "--intervention",
        action="append",
        metavar="A[,B…]",
        help="attention interventions, e.g. full,effective,random:ratio=0.58,seed=3 (repeatable; default: full)",
    )
    group.add_argument(
        "--interventions-file", metavar="YAML", help="named interventions from a file"
    )
    group.add_argument(
        "--protocol", metavar="NAME", help="prompts and scoring: paper (default) or official"
    )
    group.add_argument(
        "--data_dir", metavar="DIR", help="benchmarks' files as published (default: $MAPFLOW_DATA)"
    )
    group.add_argument(
        "--allow-missing",
        action="store_true",
        help="exit 0 although videos were missing or broken (recorded as errors either way)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 failed, 2 wrong usage, 3 some questions could not be asked, 130 and 143 interrupted."""
    # Before torch is imported: its threads must sleep, not spin, while they wait for a core that another process has
    # (40 questions on two cores shared with four busy processes: 16 s instead of 200 s).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # Before datasets is imported: it would report every file that it loads to its publisher's counter.
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["eval"]:
        del arguments[0]
    if not arguments or not arguments[0].startswith("-"):
        return _upstream_command(arguments)
    if {"-h", "--help"} & set(arguments):
        print(own_parser().format_help(), flush=True)
        return _upstream_command(arguments)
    own, rest = own_parser().parse_known_args(arguments)
    try:
        with interruptible():
            code = _evaluate(own, rest)
    except MapflowError as error:
        print(f"lmms_eval: error: {error}", file=sys.stderr)
        code = USAGE_ERROR
    except Interrupted as stop:
        print(f"\nlmms_eval: {stop}", file=sys.stderr)
        code = stop.exit_code
    if code and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # an ordinary exit would wait for ranks that wait for this one
    return code


def tasks_path() -> str:
    """The folder of our task files, for upstream's --include_path."""
    from mapflow import tasks

    return str(next(iter(tasks.__path__)))


def _upstream_command(arguments: list[str]) -> int:
    """`lmms_eval tasks`, `models`, `version` …: upstream as it is, our tasks among its own."""
    from lmms_eval.cli.dispatch import main as upstream_main

    with mock.patch.object(sys, "argv", ["lmms_eval", *arguments]):
        upstream_main()
    return 0


def _evaluate(own: argparse.Namespace, rest: list[str]) -> int:
    """Raises MapflowError for what the user can mend."""
    for variable, value in (("MAPFLOW_PROTOCOL", own.protocol), ("MAPFLOW_DATA", own.data_dir)):
        if value is not None:
            os.environ[variable] = value
    interventions = _interventions(own)
    import lmms_eval.__main__ as upstream

    run = _Run(upstream, interventions, own.allow_missing)
    with (
        mock.patch.object(sys, "argv", ["lmms_eval", *rest]),
        mock.patch.object(upstream, "cli_evaluate_single", run.single),
        mock.patch.object(upstream, "TaskManager", run.task_manager),
    ):
        try:
            upstream.cli_evaluate()
        except SystemExit as stop:
            run.code = run.code or (
                stop.code if isinstance(stop.code, int) else FAILED if stop.code else 0
            )
    if run.error is not None:
        raise run.error
    return run.code or run.report()


def _interventions(own: argparse.Namespace) -> str:
    """As one model argument, parsed once already: mistakes show before anything heavy is imported."""
    from mapflow.model_adapters.interventions import parse_interventions

    texts = [
        *(own.intervention or []),
        *([own.interventions_file] if own.interventions_file else []),
    ]
    if texts:
        parse_interventions(texts)
    return ";".join(texts).replace(",", ";")


class _Run:
    """What happens around `cli_evaluate_single`: arguments on the way in, exit code and table on the way out."""

    def __init__(self, upstream: Any, interventions: str, allow_missing: bool) -> None:
        self._upstream_single, self._upstream_task_manager = (
            upstream.cli_evaluate_single,
            upstream.TaskManager,
        )
        self._interventions, self._allow_missing = interventions, allow_missing
        self._include_defaults = True
        self._tasks: list[str] = []
        self._finished: list[RunOutput] = []
        self.code = 0
        self.error: MapflowError | None = None

    def task_manager(self, *args: Any, **kwargs: Any) -> Any:
        """Upstream's, without the seconds it takes to read its own thousand tasks where only ours are asked for."""
        manager = self._upstream_task_manager(
            *args, include_defaults=self._include_defaults, **kwargs
        )
        for name in self._tasks:
            if not Path(name).exists() and not manager.match_tasks([name]):
                close = difflib.get_close_matches(name, manager.all_tasks, n=1)
                hint = f"did you mean {close[0]!r}?" if close else "`lmms_eval tasks` lists them"
                raise MapflowError(f"unknown task {name!r}; {hint}")
        return manager

    def single(self, args: argparse.Namespace) -> Any:
        """Stands in for upstream's function of the same name."""
        try:
            self._check(args)
            output = RunOutput(args.output_path) if _is_ours(args.model) else None
            self._complete(args, output)
            results = self._upstream_single(args)
            if output is not None and results[0] is not None:
                output.check_written(results[0]["date"])
                self._finished.append(output)
            return results
        except Exception as error:
            cause = _cause(error)
            self.code = FAILED
            if not isinstance(cause, MapflowError):
                raise
            self.error = cause
            raise SystemExit(USAGE_ERROR) from error

    def report(self) -> int:
        """Our tables, after upstream's; the exit code that the answers deserve."""
        errors = sum(output.report() for output in self._finished)
        return QUESTIONS_MISSING if errors and not self._allow_missing else 0

    def _check(self, args: argparse.Namespace) -> None:
        if not args.model:
            raise MapflowError("--model is required, e.g. --model mapflow_llava")
        if self._interventions and not _is_ours(args.model):
            raise MapflowError(f"--intervention needs a model named mapflow_…, not {args.model!r}")
        if (
            args.tasks is None
            and args.model == BUNDLED_MODEL
            and "pretrained=" not in str(args.model_args)
        ):
            args.tasks = "mapflow_motion"
        if not args.tasks:
            raise MapflowError(
                "--tasks is required, e.g. --tasks mapflow_tvbench; `lmms_eval tasks` lists them"
            )

    def _complete(self, args: argparse.Namespace, output: RunOutput | None) -> None:
        """Our tasks beside the user's own; interventions and the run's folder as arguments of our models."""
        included = args.include_path or []
        args.include_path = [*([included] if isinstance(included, str) else included), tasks_path()]
        self._tasks = [name for name in args.tasks.split(",") if name not in LISTINGS]
        self._include_defaults = not all(
            name.startswith("mapflow_") for name in args.tasks.split(",")
        )
        if output is not None:
            own = [f"intervention={self._interventions}"] if self._interventions else []
            args.model_args = ",".join(
                filter(None, [args.model_args, *own, f"records={output.folder}"])
            )


def _is_ours(model: Any) -> bool:
    return str(model).startswith("mapflow_")


def _cause(error: BaseException) -> BaseException:
    """What really happened, where tenacity has retried it five times and wrapped it."""
    attempt = getattr(error, "last_attempt", None)
    return attempt.exception() if attempt is not None and attempt.failed else error


if __name__ == "__main__":
    sys.exit(main())
