"""The house as ARCHITECTURE.md draws it: floors, strata, no cycles, rooms of a readable size.

Imports are read from the source, those inside functions included; imports for type checkers only
are not counted.
"""

from __future__ import annotations

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("harness", "tasks", "model_adapters", "results")
MOST_MODULES = 12
MOST_LINES = 400
HEAVY = ("torch", "transformers", "accelerate", "lmms_eval")


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imported_names(tree: ast.AST) -> set[str]:
    """Dotted names of everything that a module imports at run time."""
    found: set[str] = set()
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if is_type_checking(node):
            waiting.extend(node.orelse)  # type: ignore[attr-defined]
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        waiting.extend(ast.iter_child_nodes(node))
    return found


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    if parts[:2] == ("harness", "package_root"):
        parts = parts[2:]
    return ".".join(("mapflow", *(parts[:-1] if parts[-1] == "__init__" else parts)))


@cache
def modules() -> dict[str, Path]:
    files = (file for floor in FLOORS for file in (ROOT / floor).rglob("*.py"))
    return {module_name(file): file for file in files if "__pycache__" not in file.parts}


@cache
def imports() -> dict[str, set[str]]:
    """Module -> the modules of mapflow that it imports."""
    graph: dict[str, set[str]] = {}
    for name, file in modules().items():
        graph[name] = set()
        for dotted in imported_names(ast.parse(file.read_text(encoding="utf-8"))):
            if dotted.split(".")[0] == "mapflow":
                parent = dotted.rpartition(".")[0]
                graph[name].add(dotted if dotted in modules() else parent)
        graph[name].discard(name)
    return graph


def edges(source: str, target: str) -> list[str]:
    """Imports from modules below `source` to modules below `target`."""

    def below(name: str, room: str) -> bool:
        return name == room or name.startswith(f"{room}.")

    return [
        f"{importer} -> {imported}"
        for importer, used in sorted(imports().items())
        if below(importer, source)
        for imported in sorted(used)
        if below(imported, target)
    ]


def test_the_source_is_read_whole():
    """A graph that lost its edges would pass every other test."""
    assert len(modules()) > 100
    assert sum(map(len, imports().values())) > 400
    assert edges("mapflow.harness", "mapflow.results")


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        ("mapflow.tasks", "mapflow.harness"),
        ("mapflow.model_adapters", "mapflow.harness"),
        ("mapflow.results", "mapflow.harness"),
        ("mapflow.results", "mapflow.model_adapters"),
        ("mapflow.results", "mapflow.tasks"),
        *(
            ("mapflow.model_adapters.video", f"mapflow.model_adapters.{room}")
            for room in ("families", "inference", "lmms", "mini", "interventions")
        ),
        ("mapflow.model_adapters.video", "mapflow.tasks"),
        ("mapflow.model_adapters.families", "mapflow.tasks"),
        ("mapflow.model_adapters.inference", "mapflow.tasks"),
        ("mapflow.model_adapters.interventions", "mapflow.tasks"),
        *(
            ("mapflow.model_adapters.interventions", f"mapflow.model_adapters.{room}")
            for room in ("families", "checkpoints", "video", "inference", "lmms", "mini")
        ),
        (
            "mapflow.model_adapters.interventions.kernels",
            "mapflow.model_adapters.interventions.execution",
        ),
        (
            "mapflow.model_adapters.interventions.inspection",
            "mapflow.model_adapters.interventions.execution",
        ),
        (
            "mapflow.model_adapters.interventions.kernels",
            "mapflow.model_adapters.interventions.inspection",
        ),
        (
            "mapflow.model_adapters.interventions.language",
            "mapflow.model_adapters.interventions.kernels",
        ),
        (
            "mapflow.model_adapters.interventions.language",
            "mapflow.model_adapters.interventions.execution",
        ),
        ("mapflow.results.contract", "mapflow.results.records"),
        ("mapflow.results.statistics", "mapflow.results.tables"),
    ],
)
def test_imports_run_downward(lower, upper):
    assert edges(lower, upper) == []


def test_only_the_bundled_models_training_joins_adapters_and_benchmarks():
    """It renders its training clips with the bundled benchmark's scenes."""
    joined = edges("mapflow.model_adapters", "mapflow.tasks")
    assert [edge for edge in joined if not edge.startswith("mapflow.model_adapters.mini.")] == []


def test_benchmarks_take_nothing_of_the_adapters_but_the_video_reader():
    """It cuts clips for models that cannot; it knows no model."""
    used = edges("mapflow.tasks", "mapflow.model_adapters")
    assert used and all(" -> mapflow.model_adapters.video." in edge for edge in used)


def test_results_and_the_grammar_import_no_torch():
    for name, file in modules().items():
        if name.startswith("mapflow.results"):
            used = imported_names(ast.parse(file.read_text(encoding="utf-8")))
            assert not [one for one in used if one.split(".")[0] in HEAVY], name


def test_there_is_no_import_cycle():
    try:
        TopologicalSorter(imports()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_file_is_too_long():
    long = {
        name: n
        for name, file in modules().items()
        if (n := len(file.read_text().splitlines())) > MOST_LINES
    }
    assert long == {}


def rooms() -> list[Path]:
    return sorted({file.parent for file in modules().values()})


@pytest.mark.parametrize("room", rooms(), ids=lambda room: str(room.relative_to(ROOT)))
def test_every_room_is_small_and_introduces_itself(room):
    own = [file for file in room.glob("*.py") if file.name != "__init__.py"]
    assert len(own) <= MOST_MODULES, sorted(file.name for file in own)
    readme = room / "README.md"
    assert readme.is_file(), f"{room.name} has no README.md"
    assert readme.read_text(encoding="utf-8").startswith("# ")


def test_room_pages_name_files_that_exist():
    """A page that lists a file keeps up with it."""
    for room in rooms():
        for line in (room / "README.md").read_text(encoding="utf-8").splitlines():
            first = line.split("|")[1].strip() if line.startswith("| `") else ""
            if first.startswith("`") and first.endswith(".py`") and first.count("`") == 2:
                assert (room / first.strip("`")).is_file(), f"{room.name}/README.md names {first}"
