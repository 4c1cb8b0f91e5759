"""The registry of model families: lazy, and open to other packages through entry points."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mapflow.harness.cli.main import main
from mapflow.model_adapters.families import registry
from mapflow.model_adapters.families.registry import (
    BUNDLED,
    Card,
    card,
    families,
    family,
    family_for,
)
from mapflow.model_adapters.lmms.manifest import manifests
from mapflow.results.contract.errors import MapflowError

OWN = [family.name for family in registry.OWN]
CONFIG = {
    "architectures": ["LabVideoModel"],
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.fixture(autouse=True)
def fresh_registry():
    families.cache_clear()
    yield
    families.cache_clear()


def announce(site: Path, distribution: str, *entries: str) -> None:
    """An installed package as pip leaves it, with entry points in our group."""
    folder = site / f"{distribution}-0.1.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 0.1\n")
    (folder / "entry_points.txt").write_text("\n".join([f"[{registry.GROUP}]", *entries]) + "\n")


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    """A folder for packages, on this process's path."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    return site


def test_the_bundled_families_are_listed_for_lmms_eval():
    assert list(families())[: len(OWN)] == OWN
    assert {"mapflow_llava", "mapflow_internvl", "mapflow_videollama3", "mapflow_hf"} <= set(OWN)
    assert {manifest.model_id for manifest in manifests()} == set(families())


@pytest.mark.parametrize("name", OWN)
def test_what_is_known_without_importing_a_family_is_what_its_class_says(name):
    assert card(name) == Card.of(family(name)) and families()[name].written_card is not None


def test_listing_families_imports_no_model_code():
    code = (
        "import sys; from mapflow.model_adapters.families.registry import families; families();"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


RUN = """
import json, sys
from mapflow.harness.cli.main import main as mapflow
from mapflow.harness.evaluation.lmms_eval import main as lmms_eval
folder, output = sys.argv[1:]
asked = lmms_eval([
    "--model", "mapflow_mine", "--model_args", f"pretrained={folder},device=cpu,seed=1",
    "--tasks", "mapflow_motion_direction", "--limit", "2",
    "--intervention", "full,video->last", "--output_path", output,
])
verified = mapflow(["verify", "mapflow_mine", "--pretrained", folder, "--device", "cpu"])
print(json.dumps([asked, verified]))
"""


def test_a_family_of_another_package_answers_and_is_verified(tmp_path):
    """In another process, as after `pip install`: lmms_eval and mapflow find it by name."""
    package, folder = tmp_path / "site" / "mylab", tmp_path / "lab-model"
    package.mkdir(parents=True)
    folder.mkdir()
    (package / "__init__.py").touch()
    shutil.copy(Path(__file__).with_name("lab_family.py"), package / "adapter.py")
    announce(tmp_path / "site", "mylab", "mine = mylab.adapter:LabVideo")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BUNDLED / name, folder)
    vocabulary = len(json.loads((BUNDLED / "tokenizer.json").read_text())["model"]["vocab"])
    (folder / "config.json").write_text(json.dumps(CONFIG | {"vocab_size": vocabulary + 16}))
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(folder), str(tmp_path / "out")],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.stdout.splitlines()[-1:] == ["[0, 0]"], said
    assert "FAIL" not in done.stdout
    (records,) = (tmp_path / "out").rglob("records.jsonl")
    answered = [json.loads(line) for line in records.read_text().splitlines()]
    assert len(answered) == 4 and all(record["error"] is None for record in answered)
    manifest = json.loads(records.with_name("manifest.json").read_text())
    assert manifest["identity"]["model"] == "mapflow_mine"
    assert manifest["identity"]["versions"]["mylab"] == "0.1"


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("absent_package.adapter:Model", "cannot be imported .* ModuleNotFoundError"),
        ("broken_package:Model", "cannot be imported .* RuntimeError: no licence"),
        ("json:Absent", "cannot be imported .* AttributeError"),
        ("not a path", "cannot be imported"),
        ("json:JSONDecoder", "json:JSONDecoder is not a subclass of VideoLLM"),
        ("half_package:Half", "half_package:Half does not define embed, prepare"),
    ],
)
def test_a_broken_family_names_its_package_and_leaves_the_others(site, value, complaint, capsys):
    (site / "broken_package.py").write_text("raise RuntimeError('no licence')")
    (site / "half_package.py").write_text(
        "from mapflow.model_adapters.video_llm import VideoLLM\n"
        "class Half(VideoLLM):\n    @classmethod\n    def load(cls, path): ...\n"
    )
    announce(site, "broken", f"mapflow_broken = {value}")
    assert list(families()) == [*OWN, "mapflow_broken"]
    said = f"model family mapflow_broken of package broken.*{complaint}"
    with pytest.raises(MapflowError, match=said) as refused:
        family("mapflow_broken")
    assert "\n" not in str(refused.value)
    assert main(["verify", "mapflow_broken", "--pretrained", "."]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert family("mapflow_llava").family == "llava"
    assert family_for("Unheard") is None


def test_a_name_announced_twice_is_refused_by_both_packages_names(site):
    announce(site, "first", "same = json:A", "fine = json:A")
    announce(site, "second", "mapflow_same = json:B", "mapflow_hf = json:C")
    for name, other in (("mapflow_same", "first"), ("mapflow_hf", "mapflow")):
        with pytest.raises(MapflowError, match=f"{name} is announced by two packages") as refused:
            family(name)
        assert {other, "second"} <= set(str(refused.value).replace(":", "").split())
    assert set(families()) == {*OWN, "mapflow_same", "mapflow_fine"}
    assert family("mapflow_llava").family == "llava"


def test_a_name_that_is_no_word_is_refused_and_kept_from_lmms_eval(site):
    announce(site, "dotted", "my.model = json:A")
    with pytest.raises(MapflowError, match=r"package dotted announces .*'my\.model'.* rename"):
        family("mapflow_my.model")
    assert {manifest.model_id for manifest in manifests()} == set(OWN)


def test_an_unknown_family_is_refused_with_the_known_ones():
    with pytest.raises(
        MapflowError, match="unknown model family 'mapflow_lava'; did you mean 'mapflow_llava'"
    ):
        family("mapflow_lava")
