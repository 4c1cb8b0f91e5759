"""Exported runs: read back by the tools whose formats they are, and equal to the records."""

import csv
import dataclasses
import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pandas
import pytest
import yaml

from mapflow.harness.api.runs import read_run
from mapflow.harness.cli.main import main
from mapflow.results.exchange.formats import FORMATS
from mapflow.results.runs.run import read_runs
from mapflow.results.statistics import accuracy
from mapflow.results.tables.comparison import compare_groups
from tests.results.log_files import harness_sample, write_harness
from tests.results.run_folders import answers, write_run

RIGHT = {"full": [1, 1, 0, 1, 1, 0, 1, None], "effective": [1, 0, 0, 1, 1, 1, 0, None]}
HOSTILE = "=cmd|'/c' \x1b[31m\u202e\n<script>"


@pytest.fixture
def run(tmp_path) -> Path:
    """Two interventions, eight questions about four videos, one of them failed, one hostile."""
    records = [
        one for name, right in RIGHT.items() for one in answers(name, right, video_id="one/{}.mp4")
    ]
    records[2] = type(records[2])(**{**vars(records[2]), "prediction": HOSTILE})
    for place, record in enumerate(records):
        video = f"one/{int(record.question_id[-4:]) // 2}.mp4"
        records[place] = type(record)(**{**vars(record), "video_id": video})
    identity = {"checkpoint": "lab/model-7B"}
    return write_run(tmp_path / "run", records, identity=identity, command=["lmms_eval", "--x y"])


def export(run, to, out, *more) -> int:
    return main(["export", str(run), "--to", to, "-o", str(out), *more])


def test_csv_and_parquet_hold_every_record(run, tmp_path):
    assert (
        export(run, "csv", tmp_path / "a.csv")
        == export(run, "parquet", tmp_path / "a.parquet")
        == 0
    )
    own = read_run(run)
    frame, rows = own.to_pandas(), list(csv.DictReader((tmp_path / "a.csv").open(newline="")))
    parquet = pandas.read_parquet(tmp_path / "a.parquet")
    assert len(rows) == len(parquet) == len(frame) == 16
    assert list(parquet.columns) == ["model", "benchmark", *frame.columns] == list(rows[0])
    assert set(parquet["model"]) == {"lab/model-7B"} and set(parquet["benchmark"]) == {"tvbench"}
    for name in ("question_id", "video_id", "intervention", "prediction", "error"):
        expected = [getattr(record, name) for record in own.records]
        assert parquet[name].astype(object).where(parquet[name].notna(), None).tolist() == expected
    right = [record.correct for record in own.records]
    assert [None if pandas.isna(one) else bool(one) for one in parquet["correct"]] == right
    assert [list(one) for one in parquet["frame_indices"]] == [[0, 1]] * 16
    assert json.loads(parquet["option_probs"][0]) == own.records[0].option_probs
    assert json.loads(rows[0]["option_probs"]) == own.records[0].option_probs
    hostile = [row["prediction"] for row in rows if "cmd" in row["prediction"]]
    assert hostile == ["'" + HOSTILE]  # a spreadsheet shows it; the line break stays in its cell


def test_analyses_are_exported_as_data_frames_only(tmp_path, capsys):
    folder = Path(__file__).parents[1] / "harness" / "earlier_runs" / "lens"
    assert export(folder, "csv", tmp_path / "lens.csv") == 0
    frame = pandas.read_csv(tmp_path / "lens.csv")
    assert len(frame) == len(read_run(folder)) and set(frame["model"]) == {"pathways"}
    capsys.readouterr()
    assert export(folder, "inspect", tmp_path / "x") == 2
    assert "is the folder of an analysis" in capsys.readouterr().err


def eee_schema(name: str) -> dict:
    """A schema of the package `every-eval-ever`, which is not imported."""
    package = importlib.util.find_spec("every_eval_ever")
    if package is None or not package.submodule_search_locations:
        pytest.skip("every-eval-ever, which holds the schemas, is not installed")
    folder = Path(package.submodule_search_locations[0])
    return json.loads((folder / "schemas" / name).read_text(encoding="utf-8"))


def test_every_eval_evers_schemas_accept_the_documents(run, tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    document_schema = eee_schema("eval.schema.json")
    sample_schema = eee_schema("instance_level_eval.schema.json")
    export(run, "every-eval-ever", tmp_path)
    (samples,) = tmp_path.glob("data/tvbench/lab/model-7B/*_samples.jsonl")
    document = json.loads(Path(str(samples).replace("_samples.jsonl", ".json")).read_text())
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    for schema, values in ((document_schema, [document]), (sample_schema, rows)):
        validator = jsonschema.Draft7Validator(schema)
        validator.check_schema(schema)
        for one in values:
            assert not [error.message for error in validator.iter_errors(one)]
        broken = {**values[0], "evaluation_id": 7}
        assert len(list(validator.iter_errors(broken))) == 1  # it would have said so
    assert document["detailed_evaluation_results"]["file_path"] == str(
        samples.relative_to(tmp_path)
    )


def test_every_eval_ever_gets_the_numbers_of_the_tables(run, tmp_path):
    export(run, "every-eval-ever", tmp_path)
    export(run, "every-eval-ever", tmp_path)  # replaces its own files
    (file,) = tmp_path.glob("data/tvbench/lab/model-7B/*[0-9a-f].json")
    document = json.loads(file.read_text())
    rows = [json.loads(line) for line in next(file.parent.glob("*.jsonl")).read_text().splitlines()]
    full, effective = document["evaluation_results"]
    runs = read_runs(run)
    found = accuracy(runs[1].correct[~runs[1].failed], runs[1].cluster)
    assert effective["score_details"]["score"] == found.estimate == 4 / 7
    interval = effective["score_details"]["uncertainty"]["confidence_interval"]
    assert (interval["lower"], interval["upper"]) == (found.low, found.high)
    (pair,) = compare_groups([runs])
    details = effective["score_details"]["details"]
    assert float(details["paired_difference"]) == pair.comparison.difference.estimate == -1 / 7
    assert float(details["p_value"]) == pair.comparison.test.p_value
    assert (details["lost"], details["gained"], details["failed"]) == ("2", "1", "1")
    assert details["baseline_result_id"] == full["evaluation_result_id"]
    assert "paired_difference" not in full["score_details"]["details"]
    own = {(row["evaluation_result_id"], row["sample_id"]): row["evaluation"] for row in rows}
    assert len(own) == len(rows) == 14 == document["detailed_evaluation_results"]["total_rows"]
    for one, result in zip(runs, (full, effective), strict=True):
        for question, right in zip(
            one.question_id[~one.failed], one.correct[~one.failed], strict=True
        ):
            score = own[result["evaluation_result_id"], question]
            assert (score["score"], score["is_correct"]) == (float(right), bool(right))


def test_runs_that_cannot_be_compared_are_exported_with_the_reason(tmp_path):
    """One video for all questions; other questions under each intervention."""
    shared = {"video_id": "one.mp4"}
    cases = {
        "about one video": answers("full", [1, 0], **shared) + answers("cut", [1, 1], **shared),
        "answer different questions": answers("full", [1, 0]) + answers("cut", [1]),
    }
    for reason, records in cases.items():
        run = write_run(tmp_path / reason, records)
        assert export(run, "every-eval-ever", tmp_path / f"{reason} out") == 0
        (file,) = (tmp_path / f"{reason} out").glob("data/*/*/*/*[0-9a-f].json")
        full, cut = json.loads(file.read_text())["evaluation_results"]
        assert reason in cut["score_details"]["details"]["paired_difference_missing"]
        assert "paired_difference_missing" not in full["score_details"]["details"]
        uncertain = full["score_details"]["uncertainty"]
        assert "about one video" in uncertain["confidence_interval"]["method"]
        assert uncertain["confidence_interval"]["lower"] == 0 and "standard_error" not in uncertain


def test_names_from_a_run_never_lead_out_of_the_folder(tmp_path):
    bad = {"question_id": "../../x/{:04d}", "task": "../y"}
    records = answers("../../cut", [1, 0], **bad) + answers("\x1b[2J/..", [1, 1], **bad)
    run = write_run(tmp_path / "run", records, identity={"checkpoint": "../../../evil"})
    (tmp_path / "in").mkdir()
    for to in ("every-eval-ever", "inspect"):
        assert export(run, to, tmp_path / "in" / to) == 0
    assert {one.name for one in tmp_path.iterdir()} == {"run", "in"}
    files = [one for one in (tmp_path / "in").rglob("*") if one.is_file()]
    assert len(files) == 4 and all(one.name.isprintable() for one in files)


def test_the_hub_reads_its_results_back(tmp_path):
    from huggingface_hub import parse_eval_result_entries

    run = write_run(tmp_path / "run", answers("full", [1, 1, 0]) + answers("effective", [1, 0, 0]))
    out = tmp_path / "model.yaml"
    # 3 of TVBench's 2,525 questions are not a result; the same answers to another task are
    assert export(run, "eval-results", out) == 2 and not out.exists()
    logs = write_harness(tmp_path / "logs", {"own": [harness_sample(i, i % 2) for i in range(3)]})
    assert export(logs, "eval-results", out, "--dataset", "lab/own:hard") == 0
    (entry,) = parse_eval_result_entries(yaml.safe_load(out.read_text()))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("lab/own", "hard", 33.33)
    assert entry.notes.startswith(
        "lm-eval 0.4.13; protocol 0-shot, acc; accuracy in percent over 3"
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entry.date)


@pytest.mark.parametrize(
    ("place", "more", "said"),
    [
        ("run:effective", [], "no answers of the model without cuts (full) to tvbench"),
        ("logs", [], "own (lm-eval) has no data set on the Hub that is known here: name it with"),
        ("logs", ["--dataset", "nonsense"], "is not OWNER/NAME"),
    ],
)
def test_what_is_not_a_result_of_the_model_is_refused(run, tmp_path, capsys, place, more, said):
    write_harness(tmp_path / "logs", {"own": [harness_sample(0, 1)]})
    assert export(tmp_path / place, "eval-results", tmp_path / "x.yaml", *more) == 2
    error = capsys.readouterr().err
    assert said.lower() in error.lower() and error.count("\n") == 1


def test_an_inspect_log_gives_the_same_answers_back(run, tmp_path):
    assert export(run, "inspect", tmp_path / "logs") == 0
    for own in read_runs(run):
        (file,) = (tmp_path / "logs").glob(f"*_tvbench-{own.intervention}_*.json")
        (back,) = read_runs(file)
        assert (back.benchmark, back.intervention) == ("tvbench (Inspect)", own.intervention)
        assert (back.n, back.errors, back.model) == (7, 1, "lab/model-7B")
        assert back.protocol == "mapflow"
        assert [one.partition("/")[2] for one in back.question_id] == own.question_id.tolist()
        for name in ("correct", "failed", "gold", "video_id"):
            assert np.array_equal(getattr(back, name), getattr(own, name)), name
    (pair,), (back,) = (compare_groups([read_runs(one)]) for one in (run, tmp_path / "logs"))
    assert pair.comparison.difference == back.comparison.difference
    assert (back.baseline.intervention, back.treatment.intervention) == ("full", "effective")
    assert export(f"{run}:full", "inspect", tmp_path / "one.json") == 0
    assert read_runs(tmp_path / "one.json")[0].n == 7


def test_inspect_itself_reads_the_log(run, tmp_path):
    inspect = pytest.importorskip("inspect_ai.log", reason="inspect-ai is not installed")
    export(run, "inspect", tmp_path / "logs")
    (file,) = (tmp_path / "logs").glob("*_tvbench-effective_*.json")
    log = inspect.read_eval_log(str(file))
    assert (log.status, log.eval.model) == ("success", "lab/model-7B")
    assert log.results.scores[0].metrics["accuracy"].value == 4 / 7
    assert [sample.scores and sample.scores["mapflow"].value for sample in log.samples] == [
        *("C" if right else "I" for right in RIGHT["effective"][:-1]),
        None,
    ]
    assert log.samples[-1].error.message == "no video"
    assert log.samples[0].metadata["video_id"] == "one/0.mp4"
    inspect.write_eval_log(log, str(tmp_path / "packed.eval"))  # packed as Inspect packs
    (packed,) = read_runs(tmp_path / "packed.eval")
    assert packed.correct.tolist() == read_runs(run)[1].correct.tolist()


def test_answers_that_nothing_scores_are_exported_as_records(run, tmp_path, capsys):
    free = [
        dataclasses.replace(one, correct=None)
        for one in answers("full", [1, 1], question_id="captions/{:04d}", task="captions")
    ]
    mixed = write_run(tmp_path / "mixed", [*answers("full", [1, 0]), *free])
    assert export(mixed, "csv", tmp_path / "all.csv") == 0
    assert len(pandas.read_csv(tmp_path / "all.csv")) == 4
    capsys.readouterr()
    assert export(mixed, "inspect", tmp_path / "logs") == 0
    assert "captions (lmms-eval), whose answers are not right or wrong" in capsys.readouterr().err
    assert len(list((tmp_path / "logs").iterdir())) == 1
    alone = write_run(tmp_path / "alone", free)
    assert export(f"{alone}:full", "parquet", tmp_path / "alone.parquet") == 0
    assert export(alone, "inspect", tmp_path / "none") == 2


@pytest.mark.parametrize("to", FORMATS)
def test_every_format_refuses_in_one_line(run, tmp_path, capsys, to):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    write_run(tmp_path / "nothing", [])
    places = ("absent", "empty", "text.txt", "nothing", "run:other")
    for place in places:
        assert export(tmp_path / place, to, tmp_path / "out") == 2, place
        said = capsys.readouterr()
        assert said.err.count("\n") == 1 and said.err.startswith("mapflow export: error: "), place
        assert not said.out and not (tmp_path / "out").exists(), place
    for out in (tmp_path / "text.txt" / "inside", Path("/proc/no/such")):
        assert export(f"{run}:full", to, out) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("to", "flags", "said"),
    [
        ("csv", ["--margin", "3"], "--margin has no effect on csv, only on every-eval-ever"),
        ("inspect", ["--baseline", "full"], "--baseline has no effect on inspect"),
        ("parquet", ["--dataset", "a/b"], "only on every-eval-ever and eval-results"),
        ("csv", ["-o", "records.parquet"], "'records.parquet' would hold csv"),
        ("every-eval-ever", ["--margin", "0"], "must lie between 0 and 100"),
        ("every-eval-ever", ["--baseline", "cut"], "no intervention 'cut' on 'tvbench'"),
    ],
)
def test_flags_that_could_not_act_are_refused(run, tmp_path, capsys, to, flags, said):
    assert export(run, to, tmp_path / "out", *flags) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_margin_and_baseline_are_those_of_the_paired_difference(run, tmp_path):
    flags = ("--margin", "30", "--baseline", "effective")
    assert export(run, "every-eval-ever", tmp_path, *flags) == 0
    (file,) = tmp_path.glob("data/tvbench/lab/model-7B/*[0-9a-f].json")
    effective, full = json.loads(file.read_text())["evaluation_results"]
    details = full["score_details"]["details"]
    assert effective["evaluation_result_id"] == details["baseline_result_id"]
    assert float(details["paired_difference"]) == 1 / 7
    assert float(details["non_inferiority_margin"]) == 0.3


@pytest.mark.parametrize("to", ["csv", "parquet", "every-eval-ever", "inspect"])
def test_one_question_that_failed_and_one_that_did_not(tmp_path, to):
    for name, right in (("right", [1]), ("failed", [None])):
        run = write_run(tmp_path / name, answers("full", right))
        refused = name == "failed" and to == "every-eval-ever"  # its samples need scores
        assert export(run, to, tmp_path / f"{name}-{to}") == (2 if refused else 0)


@pytest.mark.parametrize("word", ["video:last", "video→last", "video->last"])
def test_an_intervention_is_found_in_any_spelling(word, tmp_path, capsys):
    kept = [one for name in ("full", "video->last") for one in answers(name, [1, 0])]
    write_run(tmp_path / "run", kept)
    table = tmp_path / "out.csv"
    assert main(["export", f"{tmp_path / 'run'}:{word}", "--to", "csv", "-o", str(table)]) == 0
    assert [row["intervention"] for row in csv.DictReader(table.open())] == ["video->last"] * 2
    assert str(table) in capsys.readouterr().out
