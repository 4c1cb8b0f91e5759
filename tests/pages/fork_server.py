"""Runs commands in children of one process that has imported everything slow already.

A page's blocks start the same programs again and again, and most of their time is the import of
torch, transformers and lmms-eval. `python -m tests.pages.fork_server SOCKET` imports them once;
the programs that `write_programs` makes are clients, each of which runs in a fork of its own with
the caller's folder, environment, arguments and streams.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import sys
import textwrap
from pathlib import Path
from typing import Any

CLIENT = textwrap.dedent(
    """\
    #!{python} -IS
    import json, os, socket, sys
    with socket.socket(socket.AF_UNIX) as server:
        server.connect({socket!r})
        asked = dict(program={program!r}, arguments=sys.argv[1:], folder=os.getcwd(),
                     environment=dict(os.environ))
        socket.send_fds(server, [b"*"], [0, 1, 2])
        server.sendall(json.dumps(asked).encode() + b"\\n")
        sys.exit(int(server.makefile().readline() or 139))
    """
)
PROGRAMS = ("mapflow", "lmms_eval", "lmms-eval", "python", "torchrun", "accelerate")
PRELOADED = (
    "mapflow.harness.evaluation.lmms_eval",
    "mapflow.harness.api.analyses",
    "mapflow.harness.api.runs",
    "mapflow.model_adapters.lmms.models",
    "mapflow.model_adapters.families.llava.model",
    "mapflow.results.figures",
    "lmms_eval.evaluator",
    "lmms_eval.models",
    "matplotlib.pyplot",
    "pandas",
)


def write_programs(folder: Path, server: Path) -> None:
    """All programs as clients of the server, in `folder`."""
    for program in PROGRAMS:
        client = folder / program
        client.write_text(CLIENT.format(python=sys.executable, socket=str(server), program=program))
        client.chmod(0o755)


def serve(path: str) -> None:
    """Never returns; every connection is served by a child."""
    import importlib

    for module in PRELOADED:
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        while True:
            connection, _ = server.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                code = _run(connection)
                connection.sendall(f"{code}\n".encode())
                os._exit(0)
            connection.close()


def _run(connection: socket.socket) -> int:
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    asked: dict[str, Any] = json.loads(connection.makefile("rb").readline())
    for place, stream in enumerate(streams):
        os.dup2(stream, place)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = [asked["program"], *asked["arguments"]]
    try:
        code = _program(asked["program"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code or 0


def _program(name: str) -> int | None:
    if name in ("torchrun", "accelerate"):
        return _launched(name)
    sys.argv += _limit(sys.argv)
    if name in ("mapflow", "lmms_eval"):
        from mapflow.harness.cli import entry

        return getattr(entry, name)()
    if name == "lmms-eval":
        from lmms_eval.cli.dispatch import main

        return main()
    del sys.argv[0]
    if sys.argv[0] == "-m":
        del sys.argv[0]
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    elif sys.argv[0] == "-c":
        exec(sys.argv[1], {"__name__": "__main__"})
    else:
        runpy.run_path(sys.argv[0], run_name="__main__")
    return 0


def _launched(name: str) -> int | None:
    """The launcher's line, checked by its own parser, with one process in place of several."""
    if name == "torchrun":
        from torch.distributed.run import get_args_parser as parser
    else:
        from accelerate.commands.launch import launch_command_parser as parser

        del sys.argv[1]  # "launch"
    given = parser().parse_args(sys.argv[1:])
    sys.argv = ["python", "-m", given.training_script, *given.training_script_args]
    return _program("python")


def _limit(arguments: list[str]) -> list[str]:
    """One question of each subtask suffices, or six; of two flags `--limit` the later counts."""
    asks = {"run", "sweep", "trace", "lens", "attention", "discover"}
    asks |= {"--intervention", "--interventions-file", "--tasks", "--model", "--config"}
    alone = {"verify", "explain", "figure"} & set(arguments)
    few = (
        "6" if {"discover", "correct"} & set(arguments) else "1"
    )  # two halves, each with right answers
    return ["--limit", few] if asks & set(arguments) and not alone else []


if __name__ == "__main__":
    serve(sys.argv[1])
