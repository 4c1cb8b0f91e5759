"""`lmms_eval`: lmms-eval's command with interventions, reliable exit codes, and a table.

lmms-eval parses its own flags and runs the tasks. This wrapper removes its own flags from the
command line, adds the interventions and the run folder to the model's arguments, and turns errors
into exit codes.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mapflow.harness.cli.endings import run_command
from mapflow.harness.evaluation import upstream
from mapflow.harness.evaluation.refused_flags import check_flags
from mapflow.harness.evaluation.run_output import RunOutput
from mapflow.model_adapters.families.model_args import (
    COMMON,
    checked_options,
    parse_model_args,
    written_options,
)
from mapflow.model_adapters.families.registry import BUNDLED_MODEL, check_family, family
from mapflow.model_adapters.lmms.generation import Generation, read_generation
from mapflow.model_adapters.lmms.requested import request_generation
from mapflow.results.contract.errors import FAILED, QUESTIONS_MISSING, USAGE_ERROR, MapflowError
from mapflow.results.contract.visible_text import counted
from mapflow.tasks.lmms_files import check_table_cache, write_task_files

LMMS = ("intervention", "allow_uncut_layers")
"""Arguments of lmms-eval's model classes (`model_adapters/lmms/models.py`) beside the family's."""


def own_parser() -> argparse.ArgumentParser:
    """mapflow's flags only; all others belong to lmms-eval."""
    parser = argparse.ArgumentParser("lmms_eval", add_help=False, allow_abbrev=False)
    group = parser.add_argument_group("mapflow")
    group.add_argument(
        "--intervention",
        action="append",
        metavar="A[,B…]",
        help="attention interventions, e.g. full,effective,random:ratio=0.58,seed=3"
        " (repeatable; default: full)",
    )
    group.add_argument(
        "--interventions-file", metavar="YAML", help="named interventions from a file"
    )
    group.add_argument(
        "--protocol", metavar="NAME", help="prompts and scoring: paper (default) or official"
    )
    group.add_argument(
        "--data_dir", metavar="DIR", help="benchmark files as published (default: $MAPFLOW_DATA)"
    )
    group.add_argument(
        "--allow-missing",
        action="store_true",
        help="exit 0 even if videos are missing or broken (their questions get error records)",
    )
    group.add_argument(
        "--allow-uncut-layers",
        action="store_true",
        help="load models with layers that mix positions outside attention, where cuts do not act",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 failed, 2 wrong usage, 3 some questions failed, 130/143 interrupted."""
    # Set before torch is imported: its threads then sleep instead of spinning while they wait for
    # a core (40 questions on two cores shared with four busy processes: 16 s instead of 200 s).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # Set before datasets is imported: it would report each loaded file to a download counter.
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    arguments = list(sys.argv[1:] if argv is None else argv)
    code = run_command(
        "lmms_eval",
        lambda: _run(arguments),
        arguments,
    )
    if code and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # a normal exit would wait for other ranks, which wait for this one
    return code


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["eval"]:
        del arguments[0]
    asks_for_help = bool({"-h", "--help"} & set(arguments))
    if asks_for_help and arguments[0].startswith("-"):
        print(own_parser().format_help(), flush=True)
    if asks_for_help or not arguments or not arguments[0].startswith("-"):
        upstream.run_subcommand(arguments)
        return 0
    return _evaluate(*own_parser().parse_known_args(arguments))


def _evaluate(own: argparse.Namespace, rest: list[str]) -> int:
    """Raises MapflowError for mistakes that the user can correct."""
    _check_early(rest)
    for variable, value in (("MAPFLOW_PROTOCOL", own.protocol), ("MAPFLOW_DATA", own.data_dir)):
        if value is not None:
            os.environ[variable] = value
    texts = [*(own.intervention or []), *filter(None, [own.interventions_file])]
    # Parsed before lmms-eval is imported, which takes seconds: a misspelt name is refused at once.
    from mapflow.model_adapters.interventions.language.grammar import parse_interventions

    parsed = parse_interventions(texts) if texts else []
    command = _Command(";".join(texts).replace(",", ";"), own)

    from mapflow.model_adapters.lmms.requested import requested_interventions

    with requested_interventions(parsed):
        code = upstream.evaluate(
            rest, command.wrap_single, command.wrap_task_manager, command.check_task
        )
    if command.error is not None:
        raise command.error
    if not command.code and code:
        command.code = code if isinstance(code, int) else FAILED
    return command.code or command.report()


def _check_early(rest: Sequence[str]) -> None:
    """Raises MapflowError, before lmms-eval is imported, which takes seconds, for a model of ours
    that does not exist and for a limit that lmms-eval would take for all questions or none."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--model", default="")
    parser.add_argument("--limit", type=float, default=1.0)
    try:
        given, _ = parser.parse_known_args(rest)
    except argparse.ArgumentError as error:
        raise MapflowError(str(error)) from None
    if given.model.startswith("mapflow"):
        check_family(given.model)
    if not given.limit > 0:
        raise MapflowError(
            f"--limit {given.limit:g} must be at least 1 question, or a share between 0 and 1;"
            " leave it out to ask all"
        )


class _Command:
    """One command: completes arguments before lmms-eval runs, keeps errors, reports at the end.

    `interventions` is the text that lmms-eval's result files show; the model receives the parsed
    objects.
    """

    def __init__(self, interventions: str, own: argparse.Namespace) -> None:
        self._interventions, self._allow_missing = interventions, own.allow_missing
        self._allow_uncut = own.allow_uncut_layers
        self._include_defaults = True
        self._model: str | None = None  # its name, if it is one of ours
        self._asked: list[str] = []
        self._tasks: list[str] = []
        self._finished: list[RunOutput] = []
        self.code = 0
        self.error: MapflowError | None = None

    def wrap_task_manager(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """lmms-eval's task manager; unknown tasks are refused with the nearest name.

        It reads its own thousand tasks only if one is asked for that neither mapflow nor a folder
        of `--include_path` has.
        """

        def task_manager(*args: Any, **kwargs: Any) -> Any:
            manager = original(*args, include_defaults=False, **kwargs)
            if self._include_defaults and not set(self._asked) <= {*manager.all_subtasks}:
                manager = original(*args, include_defaults=True, **kwargs)
            for name in self._tasks:
                if not Path(name).exists() and not manager.match_tasks([name]):
                    close = difflib.get_close_matches(name, manager.all_tasks, n=1)
                    hint = (
                        f"did you mean {close[0]!r}?" if close else "`lmms_eval tasks` lists them"
                    )
                    raise MapflowError(f"unknown task {name!r}; {hint}")
            return manager

        return task_manager

    def wrap_single(self, original: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """`cli_evaluate_single` with completed arguments; its errors are kept for the exit code."""

        def single(args: argparse.Namespace) -> Any:
            try:
                self._check(args)
                output = RunOutput(args.output_path) if _is_ours(args.model) else None
                self._complete(args, output)
                results = original(args)
                if output is not None and results[0] is not None:
                    output.check_written(results[0]["date"])
                    self._finished.append(output)
                return results
            except Exception as error:
                cause = upstream.original_error(error)
                self.code = FAILED
                if not isinstance(cause, MapflowError):
                    raise
                self.error = cause
                raise SystemExit(USAGE_ERROR) from error

        return single

    def check_task(self, name: str, task: Any) -> None:
        """Raises MapflowError for a task that our models cannot answer or that needs a judge."""
        if self._model is None:
            return
        if name.startswith("mapflow_"):
            from mapflow.tasks.lmms_functions import question_of

            question_of(task.eval_docs_no_media[0]).prompt(family(self._model).prompt_style)
        else:
            from mapflow.model_adapters.lmms.foreign_tasks import scoring_of

            scoring_of(task)

    def report(self) -> int:
        """Prints mapflow's tables after lmms-eval's; returns the exit code."""
        from mapflow.tasks.lmms_functions import failed_questions

        errors = sum(output.report() for output in self._finished)
        if failed := failed_questions():  # of models that are not ours
            count = counted(len(failed), "question")
            print(
                f"{count} of mapflow's tasks without a video to show, not scored; the first"
                f" {next(iter(failed))}: {next(iter(failed.values()))}",
                file=sys.stderr,
            )
            errors += len(failed)
        return QUESTIONS_MISSING if errors and not self._allow_missing else 0

    def _check(self, args: argparse.Namespace) -> None:
        if not args.model:
            raise MapflowError("--model is required, e.g. --model mapflow_llava")
        if self._interventions and not _is_ours(args.model):
            raise MapflowError(f"--intervention needs a model named mapflow_…, not {args.model!r}")
        self._model = args.model if _is_ours(args.model) else None
        if self._model is not None:
            check_flags(args)
            request_generation(_generation(args.gen_kwargs))
        given = self._model_args(args) if self._model is not None else {}
        bundled = args.model == BUNDLED_MODEL and "pretrained" not in given
        if args.tasks is None and bundled:
            args.tasks = "mapflow_motion"
        if not args.tasks:
            raise MapflowError(
                "--tasks is required, e.g. --tasks mapflow_tvbench; `lmms_eval tasks` lists them"
            )

    def _model_args(self, args: argparse.Namespace) -> dict[str, str]:
        """--model_args by name. Raises MapflowError, before lmms-eval starts, for what the model
        does not take and for what a flag says already."""
        given = parse_model_args(str(args.model_args or ""))
        if "records" in given:
            raise MapflowError("records= in --model_args is what --output_path is for: use that")
        for name in ("batch_size", "max_batch_size"):
            if name in given:
                raise MapflowError(f"{name}= in --model_args is what --batch_size is for: use that")
        if args.device and {"device", "device_map"} & given.keys():
            raise MapflowError(
                f"--device {args.device} and a device in --model_args: keep one of them"
            )
        if "intervention" in given and self._interventions:
            raise MapflowError("--intervention and intervention= in --model_args: keep one of them")
        elsewhere = {*COMMON, *LMMS, "trust_remote_code"}  # the model class checks these
        own = {name: value for name, value in given.items() if name not in elsewhere}
        checked_options(args.model, family(args.model), own, LMMS)
        return given

    def _complete(self, args: argparse.Namespace, output: RunOutput | None) -> None:
        """Adds mapflow's tasks to the user's, and interventions and run folder to model_args."""
        included = args.include_path or []
        included = [included] if isinstance(included, str) else included
        args.include_path = [*included, str(write_task_files())]
        check_table_cache()
        names = args.tasks.split(",")
        self._asked = names
        self._tasks = [name for name in names if name not in upstream.LISTINGS]
        self._include_defaults = not all(name.startswith("mapflow_") for name in names)
        if output is not None:
            own = [f"intervention={self._interventions}"] if self._interventions else []
            own += ["allow_uncut_layers=True"] if self._allow_uncut else []
            given = parse_model_args(str(args.model_args or ""))
            defaults = written_options(family(args.model), given)
            arguments = [args.model_args, *defaults, *own, f"records={output.folder}"]
            args.model_args = ",".join(filter(None, arguments))


def _generation(text: str | None) -> Generation:
    """What --gen_kwargs asks for. Raises MapflowError for settings that cannot act."""
    from lmms_eval.utils import simple_parse_args_string

    try:
        settings = simple_parse_args_string(text or "")
    except ValueError:
        raise MapflowError(
            f"--gen_kwargs {text!r} must be settings like max_new_tokens=20,do_sample=False"
        ) from None
    return read_generation(settings, "--gen_kwargs")


def _is_ours(model: Any) -> bool:
    return str(model).startswith("mapflow_")


if __name__ == "__main__":
    sys.exit(main())
