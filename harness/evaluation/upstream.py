"""Everything that relies on names inside lmms-eval, in one place.

mapflow reads the arguments, and `lmms_eval.__main__.cli_evaluate_single` runs one set of them.
While it runs, `TaskManager` finds mapflow's tasks, too; `evaluator.simple_evaluate` and
`evaluator.get_task_dict` are replaced so that tasks that cannot be asked are refused before the
model loads; and its progress bars are hidden. lmms-eval exits 0 on model errors, missing tasks and
unwritable output, so `cli_evaluate`, which does that, is not called. Checked with lmms-eval 0.7.3.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib.machinery
import importlib.util
import io
import re
import sys
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from mapflow.harness.cli.endings import Parser
from mapflow.harness.cli.logs import DebugLines, route_loguru
from mapflow.model_adapters.lmms.network_guard import replaced
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.visible_text import nearest, quoted

LISTINGS = {
    "list": "list",
    "list_groups": "groups",
    "list_tags": "tags",
    "list_subtasks": "subtasks",
}
"""Values of `--tasks` that print a list, and what `lmms_eval tasks` calls them."""


_NAMED = re.compile(rb"^(?:task|group|tag):[ \t]*[\"']?([\w.+-]+)", re.MULTILINE)
_TYPES: Mapping[str, Any] = {"int": int, "float": float, "str": str}


@cache
def flag_parser() -> Parser:
    """lmms-eval's flags, read from the source of its function.

    Importing `lmms_eval.__main__` takes seconds, and a misspelt flag can be refused at once. Types
    that are functions of lmms-eval are left to `full_arguments`.
    """
    parser = Parser("lmms_eval", formatter_class=argparse.RawTextHelpFormatter)
    spec = importlib.util.find_spec("lmms_eval.__main__")
    source = ast.parse(Path(str(spec and spec.origin)).read_text(encoding="utf-8"))
    texts: dict[str, Any] = {}
    (function,) = [
        one
        for one in source.body
        if isinstance(one, ast.FunctionDef) and one.name == "parse_eval_args"
    ]
    for line in function.body:
        if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant):
            texts |= {one.id: line.value.value for one in line.targets if isinstance(one, ast.Name)}
        call = line.value if isinstance(line, ast.Expr) else None
        if not isinstance(call, ast.Call) or getattr(call.func, "attr", "") != "add_argument":
            continue
        settings = {str(one.arg): _literal(one.value, texts) for one in call.keywords}
        if "type" in settings:
            named = [one.value for one in call.keywords if one.arg == "type"]
            settings["type"] = _TYPES.get(getattr(named[0], "id", ""), str)
        parser.add_argument(*(_literal(one, texts) for one in call.args), **settings)
    parser.set_defaults(model="")  # upstream's default is a model that it does not have
    return parser


def _literal(node: ast.expr, texts: Mapping[str, Any]) -> Any:
    """The value of a literal or of a name in `texts`; of a formatted text its constant parts."""
    if isinstance(node, ast.Name):
        return texts.get(node.id)
    try:
        return ast.literal_eval(node)
    except ValueError:
        parts = [one.value for one in ast.walk(node) if isinstance(one, ast.Constant)]
        return "".join(map(str, parts))


def full_arguments(words: Sequence[str]) -> argparse.Namespace:
    """What lmms-eval's own parser makes of the flags. Raises MapflowError where it refuses them."""
    import lmms_eval.__main__ as upstream

    said = io.StringIO()
    try:
        with replaced(sys, "argv", ["lmms_eval", *words]), contextlib.redirect_stderr(said):
            return upstream.parse_eval_args()[1]
    except SystemExit:
        reason = said.getvalue().strip().rpartition("error: ")[2]
        raise MapflowError(f"{reason}; --help lists all flags") from None


def check_model(name: str) -> None:
    """Raises MapflowError for a model that lmms-eval does not have. Needs no torch."""
    from lmms_eval.models import list_available_models

    known = list_available_models(include_aliases=True)
    if name not in known:
        hint = nearest(name, known, "`lmms_eval models` lists them")
        raise MapflowError(f"unknown model {quoted(name)}; {hint}")


def check_task(name: str, others: Collection[str]) -> None:
    """Raises MapflowError for a name that stands in none of lmms-eval's task files.

    Importing lmms-eval and reading its tasks takes ten seconds; their text takes a tenth.
    others: further tasks that exist, for suggestions.
    """
    package = importlib.util.find_spec("lmms_eval")
    (folder,) = (package and package.submodule_search_locations) or [""]
    texts = [path.read_bytes() for path in Path(folder, "tasks").rglob("*.yaml")]
    if not any(name.encode("utf-8", "surrogatepass") in text for text in texts):
        named = (found.decode("utf-8", "replace") for one in texts for found in _NAMED.findall(one))
        hint = nearest(name, {*named, *others}, "`lmms_eval tasks` lists them")
        raise MapflowError(f"unknown task {quoted(name)}; {hint}")


def check_subcommand(name: str) -> None:
    """Raises MapflowError if lmms-eval has no such subcommand."""
    from lmms_eval.cli.dispatch import _SUBCOMMANDS as known

    if name not in known:
        hint = nearest(name, known, f"known: {', '.join(sorted(known))}")
        raise MapflowError(f"unknown subcommand {quoted(name)}; {hint}")


def run_subcommand(arguments: Sequence[str], task_files: Callable[[], Path]) -> None:
    """`lmms_eval tasks`, `models`, `power`, …: lmms-eval's own command, with mapflow's tasks and
    models in it."""
    import lmms_eval.models as models
    from lmms_eval.cli.dispatch import main

    from mapflow.model_adapters.families.registry import families

    own = {name: "MapflowModel" for name in families() if name.isidentifier()}
    with ExitStack() as stack:
        stack.enter_context(replaced(sys, "argv", ["lmms_eval", *arguments]))
        simple = {**models.AVAILABLE_SIMPLE_MODELS, **own}
        stack.enter_context(replaced(models, "AVAILABLE_SIMPLE_MODELS", simple))
        if not {"models", "version", "-h", "--help"} & {*arguments} and arguments:
            import lmms_eval.tasks as tasks

            route_loguru()
            manager = _with_files(tasks.TaskManager, task_files())
            stack.enter_context(replaced(tasks, "TaskManager", manager))
        main()


def power_analysis(words: Sequence[str], task_files: Path) -> None:
    """`--power-analysis`: prints lmms-eval's own."""
    import lmms_eval.__main__ as upstream
    import lmms_eval.cli.power_utils as power

    route_loguru()
    with replaced(power, "TaskManager", _with_files(power.TaskManager, task_files)):
        upstream._run_power_analysis(full_arguments(words))


def _with_files(task_manager: Any, folder: Path) -> Any:
    """`TaskManager` that finds the tasks of `folder`, too."""

    def make(*args: Any, include_path: Any = None, **kwargs: Any) -> Any:
        user = [include_path] if isinstance(include_path, str) else include_path or []
        return task_manager(*args, include_path=[*user, str(folder)], **kwargs)

    return make


class Evaluation:
    """lmms-eval's evaluation of one set of arguments, several times with the same tasks.

    make_manager: receives lmms-eval's `TaskManager` and its arguments, and returns one.
    check_task: receives name and task object of every task before the model is loaded.
    """

    def __init__(
        self, make_manager: Callable[..., Any], check_task: Callable[[str, Any], None] | None
    ) -> None:
        self._make_manager, self._check_task = make_manager, check_task
        self._manager: Any = None
        self._loaded: Mapping[Any, Any] | None = None

    def run(self, words: Sequence[str], changes: Mapping[str, Any]) -> tuple[Any, Any]:
        """Results and sample logs as lmms-eval makes them, None in all processes but the first.

        words: lmms-eval's flags. changes: arguments by name that replace them. Raises whatever the
        model and the tasks raise.
        """
        import lmms_eval.__main__ as upstream
        from lmms_eval import evaluator
        from lmms_eval.api import task

        route_loguru()
        arguments = full_arguments(words)
        vars(arguments).update(changes)

        def manager(*args: Any, **kwargs: Any) -> Any:
            if self._manager is None:
                self._manager = self._make_manager(original_manager, *args, **kwargs)
            return self._manager

        def tasks_first(*args: Any, **kwargs: Any) -> Any:
            if self._loaded is None:
                kind = _kind(kwargs["model"], kwargs.get("force_simple", False))
                self._loaded = _loaded(kwargs["tasks"], kwargs["task_manager"], kind)
                for name, one in _leaves(self._loaded):
                    if check is not None:
                        check(name, one)
            with replaced(evaluator, "get_task_dict", lambda *_: self._loaded):
                return original_evaluate(*args, **kwargs)

        check, original_manager = self._check_task, upstream.TaskManager
        original_evaluate = evaluator.simple_evaluate
        with ExitStack() as stack:
            stack.enter_context(replaced(upstream, "TaskManager", manager))
            stack.enter_context(replaced(evaluator, "simple_evaluate", tasks_first))
            for module in (evaluator, task):
                stack.enter_context(replaced(module, "tqdm", _hidden(module.tqdm)))
            if not arguments.show_config:
                stack.enter_context(contextlib.redirect_stdout(typing.cast(Any, DebugLines())))
            try:
                return upstream.cli_evaluate_single(arguments)
            except Exception as error:
                raise original_error(error) from error


def _hidden(bar: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: bar(*args, **{**kwargs, "disable": True})


def join_processes() -> None:
    """Starts the process group of a job with several processes, with lmms-eval's long timeout."""
    import datetime

    import torch

    if not torch.distributed.is_initialized():
        from accelerate import Accelerator
        from accelerate.utils import InitProcessGroupKwargs

        Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=datetime.timedelta(days=1))])


def wait_for_all() -> None:
    """Until every process of the job has come here."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.barrier()


def score_table(results: Mapping[str, Any]) -> str:
    """lmms-eval's own table."""
    from lmms_eval.utils import make_table

    groups = [make_table(results, "groups")] if "groups" in results else []
    return "\n".join([make_table(results), *groups]).strip("\n")


def _kind(model: str, force_simple: bool) -> str:
    """Whether tasks pass a conversation ("chat") to a model's class, or text and visuals.

    Raises what importing the class raises.
    """
    from lmms_eval.models import get_model

    return "simple" if get_model(model, force_simple).is_simple else "chat"


def _loaded(names: Sequence[Any], manager: Any, kind: str) -> Mapping[Any, Any]:
    """The task objects, in lmms-eval's nesting. Raises MapflowError for a package that is missing.

    Some tasks import decord for frames that models here read themselves; without it, they get a
    module of that name that can only be imported.
    """
    from lmms_eval.tasks import get_task_dict

    if importlib.util.find_spec("decord") is None:
        sys.modules["decord"] = _Absent("decord")
    try:
        return get_task_dict(names, manager, kind)
    except ModuleNotFoundError as error:
        raise MapflowError(
            f"--tasks {','.join(map(str, names))} need the Python package {error.name!r}, which is"
            " not installed: install it, or leave the task out"
        ) from error


def _leaves(tasks: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    """Name and object of every task of nested groups."""
    found: list[tuple[str, Any]] = []
    for name, task in tasks.items():
        task = task[1] if isinstance(task, tuple) else task
        if isinstance(task, Mapping):
            found += _leaves(task)
        elif task is not None:
            found.append((str(name), task))
    return found


class _Absent(ModuleType):
    """A package that is not installed: its names exist, using one raises MapflowError."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def use(*args: Any, **kwargs: Any) -> Any:
            raise MapflowError(f"this task uses {self.__name__}.{name}: install {self.__name__}")

        return use


def original_error(error: BaseException) -> BaseException:
    """The error itself where lmms-eval's retries (tenacity) have wrapped it."""
    attempt = getattr(error, "last_attempt", None)
    return attempt.exception() if attempt is not None and attempt.failed else error
