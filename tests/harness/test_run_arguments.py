"""What one command asks for: `--config` against the command line, selections, and its log."""

from __future__ import annotations

import logging
import os
import warnings

import pytest

from mapflow.harness.cli.logs import DebugLines, set_up_logs
from mapflow.harness.evaluation.arguments import chosen_interventions, requested_runs
from mapflow.harness.evaluation.lmms_eval import main
from mapflow.harness.evaluation.upstream import flag_parser, full_arguments
from mapflow.results.contract.errors import MapflowError

OWN = "mine: video:question@1-4\nno-shortcut: {cut: [video:last, video:template]}\n"


def test_flags_read_from_the_source_are_those_of_lmms_eval():
    words = ["--model", "m", "--limit", "4", "-b", "auto:2", "--process-docs-parallel", "2"]
    quick, full = vars(flag_parser().parse_args(words)), vars(full_arguments(words))
    full["seed"], full["process_docs_parallel"] = quick["seed"], str(full["process_docs_parallel"])
    assert quick == full


SAME = {
    "model: m\nlimit: 4\nlog_samples: true\nwrite_out: false\ndevice: null": [
        "--model=m", "--limit=4", "--log_samples",
    ],
    "data-dir: D\nallow_missing: true\ninterventions-file: f.yaml\nprotocol: official": [
        "--data_dir=D", "--allow-missing", "--interventions-file=f.yaml", "--protocol=official",
    ],
    "intervention: [full, 'random:seed=1,ratio=0.5']": [
        "--intervention", "full", "--intervention", "random:seed=1,ratio=0.5",
    ],
    "intervention: full,effective": ["--intervention", "full,effective"],
    "tasks: [a, b]\nmodel_args: {pretrained: P, dtype: bfloat16}\neffect_size: 0.1": [
        "--tasks=a,b", "--model_args=pretrained=P,dtype=bfloat16", "--effect-size=0.1",
    ],
}  # fmt: skip


@pytest.mark.parametrize("text", SAME)
def test_a_file_says_what_the_command_line_says(text, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    (of_file,), (typed,) = requested_runs(["--config", str(path)]), requested_runs(SAME[text])
    own = ("config", "words", "where")
    assert {k: v for k, v in vars(of_file).items() if k not in own} == {
        k: v for k, v in vars(typed).items() if k not in own
    }
    full = vars(full_arguments(of_file.words)) | {"config": ""}
    assert full == vars(full_arguments(typed.words))


def test_the_command_line_wins_over_every_run_of_a_file(tmp_path, monkeypatch):
    path = tmp_path / "runs.yaml"
    path.write_text(
        "[{model: a, limit: 3, intervention: full}, {limit: 5, env: {MAPFLOW_X: $HOME}}]"
    )
    monkeypatch.setenv("MAPFLOW_X", "")
    found = requested_runs(["--config", str(path), "--limit", "9", "--intervention", "random"])
    assert [(one.model, one.limit, one.intervention) for one in found] == [
        ("a", 9.0, ["random"]), ("", 9.0, ["random"]),
    ]  # fmt: skip
    assert os.environ["MAPFLOW_X"] == os.environ["HOME"]


FILES: dict[str | None, str] = {
    "model: mapflow_llava\ninterventoin: full": "unknown key 'interventoin'; did you mean 'inter",
    "3: 4": "unknown key '3'",
    "- a\n- b": "run 1 must map flags to values",
    "5": "must map flags to values",
    "": "must map flags to values",
    "[]": "holds no run",
    "model: a\nmodel: b": "line 2: key 'model' is there twice",
    "batch-size: 1\nbatch_size: 2": "batch-size and batch_size are one flag",
    "{model: [": "is not YAML",
    "log_samples: maybe": "must be true or false",
    "model: mapflow_llava\nlimit: few": "invalid float value: 'few'",
    "model: mapflow_llava\nlimit: 0": "at least 1 question",
    "model: {a: b}": "must be one value",
    "model: mapflow_llava\nintervention: [[a]]": "must be an intervention, or a mapping",
    "model: mapflow_llava\nintervention: {full: video:last}": "choose another name",
    "model: mapflow_llava\nintervention: {a: {cut: [vidoe:last]}}": "did you mean 'video'?",
    "[{model: mapflow_llava}, {model: mapflow_lava}]": "run 2: unknown model family",
    "model: mapflow_llava\nwandb_args: {projct: a}": "'projct'; did you mean 'project'?",
    "model: mapflow_llava\nwandb_args: junk": "'junk' is not of the form name=value",
    "model: mapflow_llava\nbatch_size: auto:0": "whole number of at least 1",
    "model: mapflow_llava\nverbosity: LOUD": "is not one of DEBUG, INFO",
    "model: mapflow_llava\nlog_samples: true": "add --output_path",
    "env: 3": "env must map names of variables to texts",
    "env: {A B: x}": "env cannot set 'A B'",
    "[{env: {X: a}}, {env: {X: b}}]": "run 2: env sets X to 'b', another run to 'a'",
}


@pytest.mark.parametrize("text", [*FILES, None, "folder", "fifo"])
def test_a_wrong_file_is_refused_in_one_line(text, tmp_path, capsys):
    path = tmp_path / "run.yaml"
    if text in FILES:
        path.write_text(str(text))
    elif text is not None:
        path.mkdir() if text == "folder" else os.mkfifo(path)
    assert main(["--config", str(path)], "mapflow run") == 2
    said = capsys.readouterr().err
    expected = FILES.get(text, "No such file" if text is None else "it is not a file")
    assert said.startswith("mapflow run: error: ") and said.count("\n") == 1
    assert expected in said, said


SELECTED = {
    ("mine,effective",): ["full", "mine", "effective"],
    ("random:seed=1", "no-shortcut"): ["full", "random:seed=1", "no-shortcut"],
    ("mine,full",): ["mine", "full"],
    (): ["full", "mine", "no-shortcut"],
}


@pytest.mark.parametrize("asked", SELECTED)
def test_a_file_s_names_are_selected_beside_the_baseline(asked, tmp_path):
    (tmp_path / "own.yaml").write_text(OWN)
    words = ["--interventions-file", str(tmp_path / "own.yaml")]
    words += [word for one in asked for word in ("--intervention", one)]
    (args,) = requested_runs(words)
    names = [str(one) for one in chosen_interventions(args, None)]
    assert names == SELECTED[asked]
    args.no_baseline = True
    alone = [str(one) for one in chosen_interventions(args, None)]
    assert alone == [name for name in names if name != "full" or "full" in "".join(asked)]


@pytest.mark.parametrize(
    ("asked", "said"),
    [("no-shortcat", "did you mean 'no-shortcut'?"), ("zzz", "the file names mine, no-shortcut")],
)
def test_a_name_that_the_file_lacks_is_refused(asked, said, tmp_path):
    (tmp_path / "own.yaml").write_text(OWN)
    words = ["--interventions-file", str(tmp_path / "own.yaml"), "--intervention", asked]
    (args,) = requested_runs(words)
    with pytest.raises(MapflowError) as refused:
        chosen_interventions(args, None)
    assert said in str(refused.value)


def test_without_a_file_exactly_the_interventions_named_are_asked():
    (args,) = requested_runs(["--intervention", "effective"])
    assert [str(one) for one in chosen_interventions(args, None)] == ["effective"]
    args.no_baseline = True
    with pytest.raises(MapflowError, match="acts with --interventions-file only"):
        chosen_interventions(args, None)


@pytest.mark.parametrize("verbosity", ["INFO", "DEBUG", "quiet", "rank 1"])
def test_one_log_on_standard_error(verbosity, monkeypatch, capsys):
    """Other libraries' messages are shown at DEBUG only; nothing but errors in other processes."""
    names = ("mapflow", "lmms_eval", "")
    levels = {name: logging.getLogger(name).level for name in names}
    root = logging.getLogger()
    handlers = list(root.handlers)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    for name in ("TRANSFORMERS_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS"):
        monkeypatch.setenv(name, "")
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2")) if verbosity == "rank 1" else ():
        monkeypatch.setenv(name, value)
    try:
        level = verbosity if verbosity == "DEBUG" else "INFO"
        set_up_logs("mapflow run", level, quiet=verbosity == "quiet")
        logging.getLogger("mapflow.some.module").info("a note")
        logging.getLogger("mapflow.some.module").warning("a doubt")
        logging.getLogger("otherlib").warning("chatter")
        print("a task's own print", file=DebugLines())
        warnings.showwarning(UserWarning("deprecated"), UserWarning, "/x/lib.py", 3)
    finally:
        for name, one in levels.items():
            logging.getLogger(name).setLevel(one)
        root.handlers = handlers
    doubt = ["mapflow run: warning: a doubt"]
    everything = [
        "a note", *doubt, "mapflow run: warning: otherlib: chatter",
        "lmms_eval: a task's own print", "mapflow run: warning: py.warnings: lib.py:3: deprecated",
    ]  # fmt: skip
    expected = {"INFO": ["a note", *doubt], "DEBUG": everything, "quiet": doubt, "rank 1": []}
    captured = capsys.readouterr()
    assert (captured.out, captured.err.splitlines()) == ("", expected[verbosity])
