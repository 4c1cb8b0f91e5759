"""`lmms_eval`: lmms-eval's command with interventions, reliable exit codes, and a table.

Subcommands, help and listings are answered here; runs are `checked_run.CheckedRun`.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from mapflow.harness.cli.endings import run_command
from mapflow.harness.cli.logs import set_up_logs
from mapflow.harness.evaluation import upstream
from mapflow.harness.evaluation.arguments import own_parser, requested_runs
from mapflow.harness.evaluation.checked_run import CheckedRun
from mapflow.harness.evaluation.listings import list_models, list_tasks
from mapflow.results.contract.errors import FAILED, USAGE_ERROR, MapflowError
from mapflow.results.runs.processes import is_alone
from mapflow.tasks.lmms_files import write_task_files


def main(argv: Sequence[str] | None = None, program: str = "lmms_eval") -> int:
    """Exit code: 0 done, 1 failed, 2 wrong usage, 3 some questions failed, 130/143 interrupted.

    program: what the user typed, which begins error lines.
    """
    # Set before torch is imported: its threads then sleep instead of spinning while they wait for
    # a core (40 questions on two cores shared with four busy processes: 16 s instead of 200 s).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # Set before datasets is imported: it would report each loaded file to a download counter.
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    arguments = list(sys.argv[1:] if argv is None else argv)
    code = run_command(program, lambda: _run(arguments, program), arguments)
    if code and not is_alone():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # a normal exit would wait for other ranks, which wait for this one
    return code


def _run(arguments: list[str], program: str) -> int:
    if arguments[:1] == ["eval"] and len(arguments) > 1:
        del arguments[0]
    if not arguments or not arguments[0].startswith("-"):
        set_up_logs(program)
        return _subcommand(arguments)
    if {"-h", "--help"} & {*arguments}:
        print(_help(program))
        return 0
    asked = requested_runs(arguments)
    set_up_logs(program, asked[0].verbosity, quiet=asked[0].quiet)
    if (listing := asked[0].tasks) in upstream.LISTINGS:
        include = [f"--include-path={asked[0].include_path}"] if asked[0].include_path else []
        return _subcommand(["tasks", upstream.LISTINGS[listing], *include])
    if asked[0].power_analysis:
        upstream.power_analysis(asked[0].words, write_task_files())
        return 0
    runs: list[CheckedRun] = []
    for args in asked:
        try:
            runs.append(CheckedRun(args))
        except MapflowError as error:
            raise MapflowError(f"{args.where}{error}") from error
    if len(runs) == 1:
        return runs[0].run()
    return _all(runs, program)


def _all(runs: Sequence[CheckedRun], program: str) -> int:
    """Every run of a file; one that fails does not keep the others from running, except where
    other processes would wait for it. The code of the first that failed."""
    codes: list[int] = []
    for number, run in enumerate(runs, 1):
        try:
            codes.append(run.run())
        except Exception as error:
            if not is_alone():
                raise
            where = f"{program}: error: run {number} of {len(runs)}"
            if isinstance(error, MapflowError):
                print(f"{where}: {error}", file=sys.stderr)
                codes.append(USAGE_ERROR)
            else:
                traceback.print_exc()
                print(f"{where} failed", file=sys.stderr)
                codes.append(FAILED)
    return next(filter(None, codes), 0)


def _subcommand(arguments: Sequence[str]) -> int:
    """`lmms_eval tasks` and so on: lmms-eval's own, with what mapflow adds."""
    if arguments:
        upstream.check_subcommand(arguments[0])
    if not {"-h", "--help"} & {*arguments}:
        if arguments[:1] == ["tasks"] and not {"groups", "subtasks", "tags"} & {*arguments}:
            print(list_tasks(), end="\n\n", flush=True)
        elif arguments[:1] == ["models"]:
            print(list_models(), flush=True)
    upstream.run_subcommand(arguments, write_task_files)
    return 0


def _help(program: str) -> str:
    flags = upstream.flag_parser().format_help().partition("\n\n")[2]
    return (
        f"usage: {program} --model NAME [--model_args NAME=VALUE,…] [--tasks NAME,…]"
        f" [--intervention A,B,…] [--output_path DIR] …\n"
        f"       {program} tasks | models | power | version | serve | ui | mcp [--help]\n\n"
        f"{own_parser().format_help()}\n"
        f"lmms-eval's own flags (every flag may stand in --config's file, too):\n{flags}"
    )


if __name__ == "__main__":
    sys.exit(main())
