"""What needs no weights is refused before torch, transformers and lmms-eval are imported.

All cases run in one process, which reports after each what has been imported by then.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mapflow.model_adapters.checkpoints.declared import declared
from mapflow.model_adapters.families.registry import BUNDLED, load_model
from mapflow.model_adapters.lmms.generation import parse_settings
from mapflow.results.contract.errors import MapflowError
from mapflow.results.runs.claim import claim

PROGRAM = """
import contextlib, io, json, sys
from mapflow.harness.cli.main import main as mapflow
from mapflow.harness.evaluation.lmms_eval import main as lmms_eval
heavy = {"torch", "transformers", "lmms_eval.evaluator", "scipy", "pandas", "matplotlib", "av"}
for name, (program, *words) in json.load(sys.stdin).items():
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            code = {"mapflow": mapflow, "lmms_eval": lmms_eval}[program](words)
        except SystemExit as stop:
            code = stop.code
    print(json.dumps([name, code, said.getvalue(), sorted(heavy & set(sys.modules))]))
"""
LLAVA = ["lmms_eval", "--model", "mapflow_llava"]
ASKED = [*LLAVA, "--tasks", "mapflow_motion", "--model_args"]
SWEEP = ["mapflow", "sweep", "--output_path", "new"]
DISCOVER = ["mapflow", "discover", "--output_path", "new"]
TRACE = ["mapflow", "trace", "--output_path", "new"]
SHARED = {
    "another family's checkpoint": ("pretrained=other", "use --model mapflow_internvl"),
    "an unknown architecture": ("pretrained=unheard", "run with --model mapflow_hf"),
    "a missing checkpoint": ("pretrained=/nowhere", "'/nowhere'|folder /nowhere does not exist"),
    "a folder without config.json": ("pretrained=empty", "no config.json"),
    "pickled weights": ("pretrained=pickled", "only pickled weights"),
    "a missing adapter": ("lora=/nowhere", "/nowhere does not exist"),
    "an unknown argument": ("pretraind=x", "did you mean 'pretrained'"),
    "an unknown precision": ("dtype=int3", "dtype 'int3' is unknown"),
    "an unknown device": ("device=gpu", "device 'gpu' is unknown"),
}
"""Values of --model_args that `lmms_eval`, analyses and `verify` refuse alike."""
CASES: dict[str, tuple[list[str], str]] = {
    **{f"lmms_eval, {name}": ([*ASKED, text], why) for name, (text, why) in SHARED.items()},
    **{f"sweep, {name}": ([*SWEEP, "--model_args", t], why) for name, (t, why) in SHARED.items()},
    **{
        f"verify, {name}": (["mapflow", "verify", "mapflow_llava", "--model_args", text], why)
        for name, (text, why) in SHARED.items()
    },
    "an unknown flag": ([*LLAVA, "--nonsense"], "--nonsense"),
    "a misspelt flag": ([*LLAVA, "--intervenion", "full"], "did you mean '--intervention'"),
    "a flag's wrong type": ([*LLAVA, "--num_fewshot", "x"], "invalid int value"),
    "an unknown intervention": ([*LLAVA, "--intervention", "effectve"], "did you mean"),
    "an unknown model": (["lmms_eval", "--model", "qwen2_5_v", "--tasks", "x"], "did you mean"),
    "no model": (["lmms_eval", "--tasks", "mapflow_motion"], "--model is required"),
    "an unknown task": ([*LLAVA, "--tasks", "mapflow_tvbnch"], "did you mean 'mapflow_tvbench'"),
    "an unknown task of lmms-eval": ([*LLAVA, "--tasks", "tvbenchh"], "did you mean 'tvbench'"),
    "another model's unknown task": (
        ["lmms_eval", "--model", "qwen2_5_vl", "--tasks", "mvbench,mapflow_motion,mvbnch"],
        "unknown task 'mvbnch'; did you mean 'mvbench'",
    ),
    "a folder of tasks that is missing": ([*LLAVA, "--include_path", "/nowhere"], "is no folder"),
    "questions without end": ([*LLAVA, "--limit", "inf"], "--limit inf must be"),
    "an empty list of interventions": (["lmms_eval", "--config", "none.yaml"], "list is empty"),
    "another run, in few words": (
        [*LLAVA, "--output_path", "ours", "--protocol", "x" * 10_000],
        "xxx...; choose another",
    ),
    "remote code": ([*ASKED, "trust_remote_code=True"], "trust_remote_code is refused"),
    "missing data": ([*LLAVA, "--tasks", "mapflow_tvbench", "--data_dir", "/nowhere"], "/nowhere"),
    "a wrong batch size": ([*LLAVA, "--batch_size", "0"], "must be a whole number"),
    "sampling": ([*LLAVA, "--gen_kwargs", "do_sample=True"], "answers are greedy"),
    "an unknown protocol": ([*LLAVA, "--protocol", "offical"], "has no protocol 'offical'"),
    "layers that are not there": ([*LLAVA, "--intervention", "video:last@13"], "outside 1..12"),
    "ranges that are not there": (
        [*ASKED, "pretrained=noranges", "--intervention", "effective"],
        "needs layer ranges",
    ),
    "an unknown model to scale": ([*LLAVA, "--intervention", "effective:scale=x"], "published:"),
    "a file as a folder": ([*LLAVA, "--output_path", "file"], "is not a folder"),
    "a folder that cannot be made": ([*LLAVA, "--output_path", "/proc/x"], "cannot be written"),
    "another checkpoint's run": (
        [*LLAVA, "--output_path", "theirs"],
        "its checkpoint is '7B', this one's 'pathways'",
    ),
    "another meaning of a name": (
        [*LLAVA, "--output_path", "ours", "--intervention", "full"],
        "its full is 'random', this one's 'full'",
    ),
    "a folder in use": ([*LLAVA, "--output_path", "busy"], "is in use by process"),
    "a missing file of runs": (["lmms_eval", "--config", "/nowhere.yaml"], "/nowhere.yaml"),
    "sweep, layers": ([*SWEEP, "--routes", "vidio:last"], "did you mean 'video'"),
    "sweep, another run": (
        ["mapflow", "sweep", "--output_path", "theirs"],
        "its checkpoint is '7B'",
    ),
    "sweep, in use": (["mapflow", "sweep", "--output_path", "busy"], "is in use by process"),
    "sweep, a file": (["mapflow", "sweep", "--output_path", "file"], "is not a folder"),
    "trace, layers": ([*TRACE, "--intervention", "video:last@13"], "layer 13 is outside 1..12"),
    "attention, layers": (
        ["mapflow", "attention", "--output_path", "new", "--overlay", "13"],
        "--overlay 13: layer 13 is outside",
    ),
    "lens, layers": (["mapflow", "lens", "--output_path", "new", "--overlay", "13"], "outside"),
    "discover, a file": (["mapflow", "discover", "--output_path", "file"], "is not a folder"),
    "discover, missing data": (
        [*DISCOVER, "--data_dir", "/nowhere", "--task", "mapflow_tvbench"],
        "'/nowhere' does not exist",
    ),
    "explain": (["mapflow", "explain", "effectve"], "did you mean 'effective'"),
    "explain, a figure": (["mapflow", "explain", "full", "--figure", "/nowhere/x.png"], "exist"),
    "explain, a format": (["mapflow", "explain", "full", "--figure", "x.bogus"], "not one of"),
    "figure, a format": (["mapflow", "figure", "empty", "-o", "x.bogus"], "not one of"),
    "export": (["mapflow", "export", "/nowhere", "--to", "csv", "-o", "x.csv"], "does not exist"),
    "export, scored": (
        ["mapflow", "export", "/nowhere", "--to", "inspect", "-o", "x"],
        "does not exist",
    ),
    "export, its output": (
        ["mapflow", "export", "empty", "--to", "inspect", "-o", "absent/x"],
        "'absent/x' cannot be written: its folder does not exist",
    ),
    "power": (["mapflow", "power"], "name runs, or plan without them"),
    "power, a folder": (["mapflow", "power", "/nowhere"], "does not exist"),
    "compare": (["mapflow", "compare", "/nowhere"], "does not exist"),
    "compare, its output": (["mapflow", "compare", "empty", "-o", "/nowhere/x.csv"], "x.csv"),
    "compare, a label": (["mapflow", "compare", "empty", "--label", "x"], "--label is of LaTeX"),
    "leaderboard": (["mapflow", "leaderboard", "/nowhere"], "does not exist"),
    "ablate": (["mapflow", "ablate", "/nowhere"], "does not exist"),
    "report": (["mapflow", "report", "/nowhere"], "does not exist"),
    "figure": (["mapflow", "figure", "/nowhere"], "holds no sweep.jsonl"),
    "data check": (["mapflow", "data", "check", "--data_dir", "/nowhere"], "/nowhere"),
}


def prepared(place: Path) -> None:
    """The folders that the cases name."""
    for name in ("other", "unheard", "empty", "pickled", "noranges", "theirs", "ours", "busy"):
        (place / name).mkdir()
    (place / "file").write_text("")
    (place / "none.yaml").write_text("model: mapflow_llava\nintervention: []\n")
    (place / "other" / "config.json").write_text('{"architectures": ["InternVLChatModel"]}')
    (place / "unheard" / "config.json").write_text('{"architectures": ["Unheard"]}')
    (place / "pickled" / "config.json").write_text((BUNDLED / "config.json").read_text())
    (place / "pickled" / "pytorch_model.bin").write_bytes(b"")
    for file in BUNDLED.iterdir():
        if file.name != "pathways.yaml":
            (place / "noranges" / file.name).symlink_to(file)
    theirs = {"identity": {"model": "mapflow_llava", "checkpoint": "7B"}, "interventions": {}}
    (place / "theirs" / "manifest.json").write_text(json.dumps(theirs))


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    """Case → exit code, what it said, what heavy was imported by then."""
    place = tmp_path_factory.mktemp("early")
    prepared(place)
    asked = subprocess.run(
        [sys.executable, "-c", IDENTITY], cwd=place, capture_output=True, text=True, check=True
    )
    ours = {"identity": json.loads(asked.stdout), "interventions": {"full": "random"}}
    (place / "ours" / "manifest.json").write_text(json.dumps(ours))
    held = claim(place / "busy")
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps({name: words for name, (words, _) in CASES.items()}),
        cwd=place,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MAPFLOW_DATA": ""},
    )
    del held
    assert not (place / "new").exists()
    return {name: rest for name, *rest in map(json.loads, ran.stdout.splitlines())}


IDENTITY = """
import json
from mapflow.harness.cli.early_checks import early_model
from mapflow.model_adapters.inference.identity import package_version
identity = early_model("mapflow_llava", {}).identity("paper")
identity["versions"]["lmms-eval"] = package_version("lmms-eval")
print(json.dumps(identity))
"""


@pytest.mark.parametrize("name", CASES)
def test_what_needs_no_weights_is_refused_at_once(name, refusals):
    code, said, heavy = refusals[name]
    assert (code, said.count("\n"), heavy) == (2, 1, []), said
    assert any(reason in said for reason in CASES[name][1].split("|")), said


def test_what_a_folder_declares_is_what_loads():
    place, model = declared(BUNDLED), load_model()
    assert (place.name, place.pathways) == (model.name, model.pathways)
    assert place.n_layers == model.decoder.n_layers


@pytest.mark.parametrize(
    "text",
    ["", "a=1,b=0.5", "x=True,y=false", "until=['a','b'],t=0", 'u="a,b",v=w=z', " a=1 ,,b={1,2}"],
)
def test_settings_are_read_as_lmms_eval_reads_them(text):
    from lmms_eval.utils import simple_parse_args_string

    assert parse_settings(text) == simple_parse_args_string(text)
    with pytest.raises(MapflowError, match="must be settings like"):
        parse_settings(text + ",max_new_tokens")
