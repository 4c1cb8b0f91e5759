"""What the code must not contain: eval, pickle, remote code, YAML that builds objects, a shell."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    file
    for floor in ("harness", "tasks", "model_adapters", "results")
    for file in (ROOT / floor).rglob("*.py")
)
NAMES = {"eval", "exec", "compile", "__import__"}
MODULES = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "requests",
    "urllib",
    "httpx",
}
CALLS = {
    "torch.load",
    "numpy.load",
    "np.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "os.system",
    "os.popen",
}


def said(node: ast.AST) -> str:
    """A call's function as it is written, "" for what is no plain name."""
    return ast.unparse(node) if isinstance(node, (ast.Name, ast.Attribute)) else ""


def mistakes(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = said(node.func)
            if name in NAMES | CALLS:
                found.append(name)
            if name == "yaml.load" and not all(
                "_TextLoader" in ast.unparse(k.value) for k in node.keywords if k.arg == "Loader"
            ):
                found.append(name)
            if name == "yaml.load" and not any(k.arg == "Loader" for k in node.keywords):
                found.append(name)
            for keyword in node.keywords:
                constant = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
                if (keyword.arg, constant) in (
                    ("shell", True),
                    ("trust_remote_code", True),
                    ("weights_only", False),
                ):
                    found.append(f"{keyword.arg}={constant}")
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names]
            )
            found += [
                name
                for name in names
                if name.partition(".")[0] in MODULES and name != "urllib.parse"  # text only
            ]
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if (
                    isinstance(key, ast.Constant)
                    and key.value == "trust_remote_code"
                    and ast.unparse(value) != "False"
                ):
                    found.append("trust_remote_code")
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_runs_or_unpickles_what_it_is_given(file):
    assert not mistakes(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "import pickle",
        "from urllib.request import urlopen",
        "torch.load(file)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "run('x', shell=True)",
        "f(trust_remote_code=True)",
        "x = {'trust_remote_code': flag}",
    ],
)
def test_each_of_them_would_be_seen(source):
    assert mistakes(source)
