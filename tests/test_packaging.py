"""Wheel and sdist hold every module and data file, and nothing else; the wheel runs anywhere."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FLOORS = ("harness", "tasks", "model_adapters", "results")
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc")


def run(*command: str, folder: Path, **environment: str) -> str:
    """What the command prints; its failure is the test's."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def build_wheel(source: Path) -> Path:
    run(
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        "dist",
        ".",
        folder=source,
    )
    (wheel,) = (source / "dist").glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy, so that building leaves nothing in the repository."""
    source = tmp_path_factory.mktemp("source")
    for name in (*FLOORS, "docs", "tests", ".ci"):
        shutil.copytree(ROOT / name, source / name, ignore=IGNORED)
    for path in filter(Path.is_file, ROOT.iterdir()):
        shutil.copy(path, source)
    return source


@pytest.fixture(scope="module")
def wheel(source) -> Path:
    return build_wheel(source)


@pytest.fixture(scope="module")
def sdist(source) -> Path:
    """Built as pip and build do it, by the back end that pyproject.toml names."""
    run("-c", "import setuptools.build_meta as b; b.build_sdist('dist')", folder=source)
    (archive,) = (source / "dist").glob("*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The wheel alone in a folder of its own, which comes before everything else on the path."""
    place = tmp_path_factory.mktemp("installed")
    run(
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(place),
        str(wheel),
        folder=place,
    )
    return place


def travels(path: Path) -> bool:
    """Is it part of the program, rather than something that only readers of the repository see?"""
    return path.is_file() and "__pycache__" not in path.parts and path.suffix not in (".md", ".png")


def test_every_file_of_the_four_floors_travels(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for floor in FLOORS:
        for path in filter(travels, (ROOT / floor).rglob("*")):
            place = path.relative_to(ROOT)
            if place.is_relative_to("harness/package_root"):
                place = place.relative_to("harness/package_root")
            assert f"mapflow/{place}" in names
    assert not [name for name in names if "package_root" in name]
    for suffix in (".safetensors", ".yaml", ".mp4", "py.typed", ".jinja", ".js", ".css"):
        assert any(name.endswith(suffix) for name in names), suffix


def test_nothing_generic_lands_in_site_packages(wheel):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert all(top == "mapflow" or top.endswith(".dist-info") for top in tops)


def test_the_sdist_makes_the_same_wheel(wheel, sdist, tmp_path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    again = zipfile.ZipFile(build_wheel(unpacked))
    first = zipfile.ZipFile(wheel)

    def contents(file: zipfile.ZipFile) -> dict[str, int]:
        return {
            entry.filename: entry.CRC
            for entry in file.infolist()
            if not entry.filename.endswith("/RECORD")
        }

    assert contents(again) == contents(first)


def test_the_sdist_holds_what_its_pages_refer_to(sdist):
    with tarfile.open(sdist) as archive:
        names = {Path(*Path(name).parts[1:]) for name in archive.getnames()}
    pages = list(ROOT.glob("*.md"))
    pages += [page for place in (*FLOORS, "docs", "tests") for page in (ROOT / place).rglob("*.md")]
    assert {page.relative_to(ROOT) for page in pages} <= names
    assert {Path("Makefile"), Path(".ci/run"), Path("tests/FAULTS.md"), Path("mkdocs.yml")} <= names


@pytest.fixture
def dependencies() -> dict[str, Requirement]:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = map(Requirement, project["dependencies"])
    return {canonicalize_name(one.name): one for one in required}


def test_every_import_is_a_declared_dependency(dependencies):
    known = packages_distributions()
    for path in (path for floor in FLOORS for path in (ROOT / floor).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            for top in {module.partition(".")[0] for module in modules}:
                if top == "mapflow" or top in sys.stdlib_module_names:
                    continue
                names = {canonicalize_name(one) for one in known.get(top, [top])}
                assert names & set(dependencies), f"{path} imports {top}: not a dependency"


def test_packages_whose_inside_is_used_are_bounded(dependencies):
    for name in ("lmms-eval", "transformers"):
        bounds = dependencies[name].specifier
        assert any(one.operator == "<" for one in bounds) and bounds.contains(version(name))


def test_commands_and_the_plugin_are_announced(installed):
    (file,) = installed.glob("mapflow-*.dist-info/entry_points.txt")
    points = ConfigParser(delimiters="=")
    points.read(file)
    assert set(points["console_scripts"]) == {"mapflow", "lmms_eval"}
    assert points["lmms_eval.models"]["mapflow"] == "mapflow.model_adapters.lmms.manifest:manifests"


def test_the_installed_command_runs_the_main_job_from_any_folder(installed, tmp_path):
    """Without the repository: `mapflow` is the installed one, also in processes of the job."""
    here = "import mapflow.harness.cli.main as m; print(m.__file__)"
    path = {"PYTHONPATH": str(installed)}
    assert Path(run("-c", here, folder=tmp_path, **path).strip()).is_relative_to(installed)
    script = "import sys; from mapflow.harness.evaluation.lmms_eval import main; sys.exit(main())"
    arguments = [
        "--model",
        "mapflow_llava",
        "--intervention",
        "effective",
        "--limit",
        "1",
        "--output_path",
        "out",
    ]
    said = run("-c", script, *arguments, folder=tmp_path, **path)
    assert "effective" in said
    assert list((tmp_path / "out").rglob("records.jsonl"))
