"""What no run can serve is refused in one line, before a model loads."""

import os

import pytest

from mapflow.harness.cli.main import main as mapflow
from mapflow.harness.evaluation.lmms_eval import main as lmms_eval
from mapflow.model_adapters.checkpoints import network_loading

LONG = "x" * 100_000
SWEEP = ["sweep", "--output_path", "out"]
BOTH = {"mapflow": mapflow, "lmms_eval": lmms_eval}


@pytest.mark.parametrize(
    ("program", "words", "reason"),
    [
        ("mapflow", [*SWEEP, "--model", "mapflow_lava"], "did you mean 'mapflow_llava'?"),
        ("lmms_eval", ["--model", "mapflow_lava"], "did you mean 'mapflow_llava'?"),
        ("lmms_eval", ["--model", "mapflow"], "unknown model family 'mapflow'"),
        ("lmms_eval", ["--model", "mapflow_llava", "--limit", "0"], "at least 1 question"),
        ("lmms_eval", ["--model", "mapflow_llava", "--limit", "-1"], "at least 1 question"),
        ("lmms_eval", ["--model", "mapflow_llava", "--limit", "-0.5"], "at least 1 question"),
        ("lmms_eval", ["--model", "mapflow_llava", "--limit", "nan"], "at least 1 question"),
        ("lmms_eval", ["--model", "mapflow_llava", "--limit", "few"], "invalid float value"),
        ("lmms_eval", ["--model", "mapflow_llava", "--model_args", "pretrained="], "has no value"),
        ("mapflow", [*SWEEP, "--limit", "0"], "must be a whole number of at least 1"),
        ("mapflow", [*SWEEP, "--limit", "-1"], "must be a whole number of at least 1"),
        ("mapflow", [*SWEEP, "--pretrained", ""], "pretrained is empty"),
        ("mapflow", [*SWEEP, "--model_args", "pretrained= "], "has no value"),
        ("mapflow", ["report", "run", "--frames", "-1"], "must be a whole number of at least 0"),
        ("mapflow", ["explain", "full", "--frames", "0"], "must be a whole number of at least 1"),
        ("mapflow", ["explain", "full", "--layers", "-3"], "must be a whole number of at least 1"),
        ("mapflow", ["explain", "full", "--figure", "x.bogus"], "'.bogus' is not one of .png"),
        ("mapflow", ["explain", LONG], "characters left out"),
        ("mapflow", [*SWEEP, "--limit", LONG], "at least 1"),
        ("mapflow", ["compare", LONG], "characters left out"),
        ("mapflow", [LONG], "characters left out"),
    ],
    ids=lambda one: None if isinstance(one, str) else " ".join(one)[:40],
)
def test_refused_in_one_line_before_a_model_loads(
    program, words, reason, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(network_loading, "default_device", _loads)
    try:
        code = BOTH[program](words)
    except SystemExit as stop:  # argparse's own errors
        code = stop.code
    said = capsys.readouterr().err
    assert (code, said.count("\n")) == (2, 1), said
    assert reason in said and len(said) < 6500
    assert list(tmp_path.iterdir()) == []


def _loads(*_):
    raise AssertionError("a model loads")


@pytest.mark.parametrize("name", ["full", "effective", "random:seed=3", "video->last", "a+b"])
def test_a_file_may_not_redefine_what_a_command_line_means(name, tmp_path, capsys):
    path = tmp_path / "own.yaml"
    path.write_text(f'"{name}": video->last@1-2\n')
    code = mapflow(["explain", str(path)])
    said = capsys.readouterr().err
    assert (code, "choose another name" in said) == ((0, False) if name == "a+b" else (2, True))


def test_a_pipe_is_not_a_file_of_interventions(tmp_path, capsys):
    path = tmp_path / "own.yaml"
    os.mkfifo(path)
    assert mapflow(["explain", str(path)]) == 2
    assert "it is not a file" in capsys.readouterr().err
