"""`--model_args`: the same in lmms_eval, analyses and verify; each argument acts or is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_videollama3 import write_tiny_videollama3

import mapflow
from mapflow.harness.analyses.registry import ANALYSES
from mapflow.harness.cli.main import main
from mapflow.harness.evaluation.lmms_eval import main as lmms_eval
from mapflow.model_adapters.families.model_args import checked_options, parse_model_args
from mapflow.model_adapters.families.registry import card
from mapflow.results.contract.errors import MapflowError
from mapflow.results.records.attention import AttentionRecord
from mapflow.results.runs.folder import read_records


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tiny_videollama3(tmp_path_factory.mktemp("tiny") / "tiny")


def test_text_is_read_as_in_lmms_eval():
    from lmms_eval.utils import simple_parse_args_string

    text = " pretrained=a/b,dtype=float32,,intervention=full;random:seed=1,max_tokens=96 "
    read = parse_model_args(text)
    theirs = {name: str(value) for name, value in simple_parse_args_string(text).items()}
    assert read == theirs


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vision_attention", "'vision_attention' is not of the form name=value"),
        ("dtype=float32,dtype=bfloat16", "names 'dtype' twice ('float32' and 'bfloat16')"),
    ],
)
def test_text_that_says_two_things_or_none_is_refused(text, said):
    with pytest.raises(MapflowError) as found:
        parse_model_args(text)
    assert said in str(found.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"vision_atention": "isolated"}, "did you mean 'vision_attention'?"),
        ({"pretraned": "x"}, "did you mean 'pretrained'?"),
        ({"frames": "16"}, "known: vision_attention, max_tokens, pretrained"),
        ({"vision_attention": "eager"}, "must be released or isolated"),
        ({"max_tokens": "many"}, "must be a whole number"),
        ({"max_tokens": True}, "must be a whole number"),
        ({"max_tokens": 9.5}, "must be a whole number"),
    ],
)
def test_unknown_and_ill_typed_arguments_are_refused_by_name(options, said):
    with pytest.raises(MapflowError) as found:
        checked_options("mapflow_videollama3", card("mapflow_videollama3").arguments, options)
    assert said in str(found.value)
    assert next(iter(options)) in str(found.value)


@pytest.mark.parametrize("command", [*ANALYSES, "verify"])
def test_every_analysis_refuses_before_the_checkpoint_is_opened(command, tmp_path, capsys):
    """The folder does not exist, so the argument is refused first."""
    output = ["--output_path", str(tmp_path / "out")]
    words = ["mapflow_videollama3"] if command == "verify" else ["--model", "mapflow_videollama3"]
    words += [] if command == "verify" else output
    assert main([command, *words, "--model_args", "pretrained=absent,vision_atention=x"]) == 2
    assert "no argument 'vision_atention'" in capsys.readouterr().err
    assert (
        main([command, *words, "--pretrained", "absent", "--model_args", "pretrained=other"]) == 2
    )
    assert "--pretrained absent and --model_args pretrained=other differ" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_analysis_runs_the_model_that_its_arguments_name(folder, tmp_path):
    """Two attentions in the vision tower give two models: other numbers, other names."""
    found = {}
    for value in ("released", "isolated"):
        output = tmp_path / value
        code = main(
            [
                *("attention", "--model", "mapflow_videollama3", "--limit", "1"),
                *("--task", "mapflow_motion_direction", "--output_path", str(output)),
                *("--model_args", f"pretrained={folder},vision_attention={value},device=cpu"),
            ]
        )
        assert code == 0
        identity = json.loads((output / "manifest.json").read_text())["identity"]
        assert identity["model_args"] == {"vision_attention": value, "max_tokens": None}
        found[identity["checkpoint"]] = read_records(output, AttentionRecord)[0].weights
    assert list(found) == ["tiny", "tiny+isolated-vision-attention"]
    assert len(set(map(str, found.values()))) == 2
    same = mapflow.load(
        folder,
        family="mapflow_videollama3",
        device="cpu",
        model_args={"vision_attention": "isolated"},
    )
    assert same.name == "tiny+isolated-vision-attention"
    with pytest.raises(MapflowError, match="'dtype', which is an argument of load itself"):
        mapflow.load(folder, family="mapflow_videollama3", model_args={"dtype": "float64"})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model_args", "pretraind=x"], "no argument 'pretraind' (--model_args); did you mean"),
        (["--model_args", "dtype=float32,dtype=float64"], "names 'dtype' twice"),
        (["--model_args", "records=x"], "--output_path is for"),
        (
            ["--model_args", "intervention=full", "--intervention", "effective"],
            "keep one of them",
        ),
    ],
)
def test_lmms_eval_refuses_arguments_that_would_be_ignored(words, said, capsys):
    assert lmms_eval(["--model", "mapflow_llava", *words]) == 2
    assert said in capsys.readouterr().err
