"""The main job as a user runs it: the real command, real clips, exit codes, files, numbers."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mapflow.results.contract.files import file_name
from mapflow.results.runs.run import read_runs
from mapflow.tasks.lmms_files import write_task_files

BIN = Path(sys.executable).parent
SUBTASKS = {"direction", "antonym", "sequence", "count", "scene"}


def command(*words: str | Path, cwd: Path, program: str | Path = "lmms_eval", **environment: str):
    """Runs one of the installed commands away from the repository."""
    own = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", **environment}
    words = [BIN / program, *words] if isinstance(program, str) else [program, *words]
    return subprocess.run(
        list(map(str, words)),
        cwd=cwd,
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def main_job(tmp_path_factory):
    """`make demo`'s command on the whole bundled benchmark, logged; its folder and what it printed.

    W&B writes its runs to disk only.
    """
    folder = tmp_path_factory.mktemp("main")
    done = command(
        "--model", "mapflow_llava", "--intervention", "full,effective,random",
        "--output_path", folder / "run",
        "--log_samples", "--wandb_args", "project=tests,job_type=eval", "--wandb_log_samples",
        cwd=folder, WANDB_MODE="offline", WANDB_DIR=str(folder),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [one for one in done.stderr.splitlines() if one.strip()]
    noise = [one for one in lines if not one.startswith(("wandb:", "questions:"))]
    assert len(noise) <= 1, noise  # which model runs
    return folder / "run", done.stdout


@pytest.fixture(scope="module")
def summary(main_job):
    return json.loads((main_job[0] / "summary.json").read_text())


def records(folder: Path) -> dict[tuple[str, str], dict]:
    lines = (folder / "records.jsonl").read_text().splitlines()
    found = {(r["question_id"], r["intervention"]): r for r in map(json.loads, lines)}
    assert len(found) == len(lines), "a question × intervention stands twice"
    return found


def test_effective_keeps_what_full_knows_and_random_does_not(summary):
    full, effective, random = summary["full"], summary["effective"], summary["random:seed=0"]
    assert full["micro"] >= 0.95
    assert effective["micro"] >= full["micro"] - 0.01
    assert effective["edges_kept"] <= 0.70 * effective["edges_total"]
    assert random["edges_kept"] == effective["edges_kept"]
    assert random["micro"] <= effective["micro"] - 0.20


def test_the_summary_is_the_records_own(main_job, summary):
    by_intervention = {
        name: [r for (_, i), r in records(main_job[0]).items() if i == name] for name in summary
    }
    for name, own in by_intervention.items():
        right = [r["prediction"] == r["target"] for r in own]
        assert [r["correct"] for r in own] == right
        assert summary[name]["n"] == len(own) >= 5 * 60
        assert summary[name]["micro"] == pytest.approx(sum(right) / len(own))
        assert {task.rpartition("_")[2] for task in summary[name]["accuracy"]} == SUBTASKS
        assert summary[name]["macro"] == pytest.approx(
            sum(summary[name]["accuracy"].values()) / len(SUBTASKS)
        )


def test_records_say_how_sure_the_model_was(main_job):
    for record in records(main_job[0]).values():
        options = record["option_probs"]
        assert record["p_target"] == options[record["target"]]
        assert record["option_prediction"] == max(options, key=options.get)
        assert record["p_answer"] >= max(options.values())
        assert sum(options.values()) <= 1 + 1e-5
        assert 0 < record["edges_kept"] <= record["edges_total"]
        assert record["edges_total"] == 12 * record["n_tokens"] * (record["n_tokens"] + 1) // 2
        assert len(record["frame_indices"]) == 8


def test_the_table_ends_the_output(main_job, summary):
    folder, printed = main_job
    table = printed[printed.rindex("\nintervention ") :].splitlines()[1:]
    assert printed.splitlines()[1:] == table and len(table) == 7  # nothing else is printed
    assert re.split(r"\s{2,}", table[0].strip()) == [
        "intervention", *sorted(SUBTASKS), "macro", "micro", "chance", "valid", "edges kept",
        "edges %", "n",
    ]  # fmt: skip
    for row, (name, values) in zip(table[2:5], summary.items(), strict=True):
        cells = row.split()
        assert cells[0] == name
        assert cells[6] == f"{100 * values['macro']:.1f}"
        assert cells[10] == f"{values['edges_kept']:,.0f}"
    assert printed.rstrip().endswith(str(folder))


def test_each_intervention_has_lmms_eval_s_results_and_sample_logs(main_job, summary):
    logs = main_job[0] / "lmms_eval"
    assert {path.name for path in logs.iterdir()} == {*map(file_name, summary)}
    own = {run.intervention: run for run in read_runs(main_job[0])}
    for name, values in summary.items():
        folder = logs / file_name(name)
        (path,) = folder.glob("*_results.json")
        results = json.loads(path.read_text())
        assert f"intervention={name}" in results["config"]["model_args"]
        theirs = {task: one["accuracy,none"] for task, one in results["results"].items()}
        assert theirs.pop("mapflow_motion") == pytest.approx(values["macro"])
        assert theirs == pytest.approx(values["accuracy"])
        (logged,) = read_runs(folder)
        assert logged.intervention == name
        order = [own[name].question_id.tolist().index(one) for one in logged.question_id]
        assert logged.correct.tolist() == own[name].correct[order].tolist()


def test_each_intervention_is_a_run_of_one_group_in_wandb(main_job, summary):
    found = dict(map(wandb_run, main_job[0].parent.glob("wandb/offline-run-*/*.wandb")))
    assert found.keys() == {f"mapflow_llava run {name}" for name in summary}
    for name, values in summary.items():
        run, config, logged = found[f"mapflow_llava run {name}"]
        assert (run.run_group, run.project, run.job_type) == ("mapflow_llava run", "tests", "eval")
        assert config["intervention"] == name
        for task, accuracy in values["accuracy"].items():
            assert logged[f"{task}/accuracy"] == pytest.approx(accuracy)
            assert any(key.startswith(f"{task}_eval_results") for key in logged), sorted(logged)


def wandb_run(path: Path):
    """Name, record, configuration and logged values of a run that W&B has written offline."""
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    store, run, config, logged = DataStore(), None, {}, {}
    store.open_for_scan(str(path))
    while (data := store.scan_data()) is not None:
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        run = record.run if record.WhichOneof("record_type") == "run" else run
        config |= {one.key: json.loads(one.value_json) for one in record.config.update}
        for one in record.history.item:
            logged[one.key or ".".join(one.nested_key)] = json.loads(one.value_json)
    return run.display_name, (run, config, logged)


def test_the_manifest_names_model_weights_and_command(main_job):
    manifest = json.loads((main_job[0] / "manifest.json").read_text())
    assert manifest["identity"]["model"] == "mapflow_llava"
    assert re.fullmatch("[0-9a-f]{64}", manifest["identity"]["digest"])
    assert manifest["identity"]["protocol"] == "paper"
    assert "--intervention" in manifest["command"]
    assert manifest["interventions"]["effective"].startswith("effective:cross_frame=")


def test_the_same_command_again_answers_nothing_anew(main_job):
    folder, _ = main_job
    before = {name: (folder / name).read_bytes() for name in ("records.jsonl", "summary.json")}
    done = command(
        "--model",
        "mapflow_llava",
        "--intervention",
        "full,effective,random",
        "--output_path",
        folder,
        cwd=folder.parent,
    )
    assert done.returncode == 0, done.stderr
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_unmodified_lmms_eval_prints_the_same_accuracy(main_job, summary, tmp_path):
    done = command(
        "--model", "mapflow_llava", "--model_args", "intervention=effective",
        "--tasks", "mapflow_motion",
        "--include_path", str(write_task_files()), program="lmms-eval", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = dict(
        re.findall(
            r"\|[ -]*mapflow_motion_?(\w*) *\|none *\| *\d*\|accuracy\|↑ *\|([\d. ]+)\|",
            done.stdout,
        )
    )
    expected = {
        task.rpartition("_")[2]: value for task, value in summary["effective"]["accuracy"].items()
    }
    assert {name: float(value) for name, value in printed.items()} == pytest.approx(
        expected | {"": summary["effective"]["macro"]}, abs=5e-5
    )


def test_two_processes_write_the_records_of_one(main_job, tmp_path):
    config = {"model": "mapflow_llava", "intervention": ["full", "random"], "limit": 50}
    (tmp_path / "run.yaml").write_text(json.dumps(config))
    done = command(
        "--nproc_per_node", "2", "-m", "mapflow", "run", "--config", "run.yaml",
        "--limit", "5", "--output_path", tmp_path / "two",
        program="torchrun", cwd=tmp_path, OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    two, one = records(tmp_path / "two"), records(main_job[0])
    assert len(two) == 2 * 5 * len(SUBTASKS)
    assert list(two) == sorted(two)
    assert two == {key: one[key] for key in two}


BAD = {
    "unknown intervention": (["--intervention", "efective"], "did you mean 'effective'"),
    "unknown segment": (["--intervention", "vidoe->last"], "did you mean 'video'"),
    "layer beyond the model": (
        ["--intervention", "video->last@10-13"],
        "layer 13 is outside 1..12",
    ),
    "window": (
        ["--intervention", "knockout:video->last@center=3,window=0"],
        "window=0 must be at least 1",
    ),
    "ratio": (["--intervention", "random:ratio=1.2"], "ratio=1.2 is outside 0..1"),
    "no such folder": (
        ["--model_args", "pretrained=nowhere", "--tasks", "mapflow_motion"],
        "nowhere",
    ),
    "unknown argument": (
        ["--model_args", "pretraind=x", "--tasks", "mapflow_motion"],
        "no argument 'pretraind'",
    ),
    "unknown task": (["--tasks", "mapflow_motoin"], "mapflow_motoin"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_exit_2_and_nothing_written(case, tmp_path):
    words, complaint = BAD[case]
    done = command(
        "--model", "mapflow_llava", *words, "--output_path", tmp_path / "run", cwd=tmp_path
    )
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("lmms_eval: error: ")]
    assert complaint in line
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "run" / "records.jsonl").exists()


def test_help_is_quick_and_names_our_flags(tmp_path):
    done = command("--help", cwd=tmp_path, program="mapflow")
    assert done.returncode == 0
    assert "explain" in done.stdout
    assert (
        "torch"
        not in command(
            "-X",
            "importtime",
            "-m",
            "mapflow.harness.cli.main",
            "--help",
            cwd=tmp_path,
            program=Path(sys.executable),
        ).stderr
    )
