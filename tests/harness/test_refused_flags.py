"""Flags that could not act are refused by name, before weights load and before files are read."""

from __future__ import annotations

import pytest

from mapflow.harness.cli.main import main
from mapflow.harness.evaluation.lmms_eval import main as lmms_eval
from mapflow.harness.evaluation.refused_flags import POWER, REFUSED

FLAGS = {
    "num_fewshot": (["--num_fewshot", "2"], "without examples"),
    "fewshot_as_multiturn": (["--fewshot_as_multiturn"], "without examples"),
    "system_instruction": (["--system_instruction", "Be brief."], "use --protocol"),
    "apply_chat_template": (["--apply_chat_template"], "use --protocol"),
    "max_batch_size": (["--max_batch_size", "8"], "--batch_size auto only"),
    "batch_size": (["--batch_size", "automatic"], "whole number of at least 1, or auto"),
    "use_cache": (["--use_cache", "cache"], "records in --output_path are the cache"),
    "cache_requests": (["--cache_requests", "true"], "read anew"),
    "predict_only": (["--predict_only"], "leave it out"),
    "seed": (["--seed", "3"], "random:seed=1"),
    "repeats": (["--repeats", "3"], "greedy"),
    "max_tokens": (["--max_tokens", "100"], "max_new_tokens"),
    "log_samples_suffix": (["--log_samples_suffix", "mine"], "file names"),
    "agentic_trace_mode": (["--agentic_trace_mode", "full"], "one round"),
    "alpha": (["--alpha", "0.01"], "acts with --power-analysis only"),
    "batch_size in model_args": (["--model_args", "batch_size=4"], "use that"),
    "two devices": (["--device", "cpu", "--model_args", "device=cuda"], "keep one of them"),
}


@pytest.mark.parametrize("name", FLAGS)
def test_lmms_eval_s_flags_act_or_are_refused_by_name(name, tmp_path, capsys):
    """The checkpoint does not exist, so the flag is refused before it is opened."""
    words, why = FLAGS[name]
    words = [*words, "--output_path", str(tmp_path / "run")]
    assert lmms_eval(["--model", "mapflow_internvl", "--tasks", "mapflow_motion", *words]) == 2
    (line,) = [one for one in capsys.readouterr().err.splitlines() if "lmms_eval: error" in one]
    flag = FLAGS[name][0][0]
    assert flag in line and why in line
    assert not (tmp_path / "run").exists()


def test_every_refused_flag_is_tried_and_exists_upstream(monkeypatch):
    import sys

    from lmms_eval.__main__ import parse_eval_args

    monkeypatch.setattr(sys, "argv", ["lmms_eval"])
    _, defaults = parse_eval_args()
    assert REFUSED.keys() <= FLAGS.keys()
    for flag, (accepted, _) in REFUSED.items():
        assert getattr(defaults, flag) in accepted, flag
    assert {name: getattr(defaults, name) for name in POWER} == POWER


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["RUN", "--seeds", "5"], "--seeds is of a grid to run: add --run DIR"),
        (["RUN", "--interventions", "full"], "--interventions is of a grid to run"),
        (
            ["--run", "DIR", "--interventions", "full,effective", "--ratios", "0.5"],
            "--ratios is of random interventions, and 'full,effective' names none",
        ),
    ],
)
def test_ablate_refuses_parts_of_a_grid_that_it_does_not_run(words, said, capsys):
    assert main(["ablate", *words]) == 2
    assert said in capsys.readouterr().err
