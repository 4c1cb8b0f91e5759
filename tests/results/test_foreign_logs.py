"""Logs of lm-evaluation-harness and Inspect become runs; hostile ones are refused in one line."""

import json
import os
import zipfile
import zlib
from pathlib import Path

import pytest

from mapflow.harness.cli.main import main
from mapflow.results.contract.errors import MapflowError
from mapflow.results.logs import log_files
from mapflow.results.runs.run import read_runs
from tests.results.log_files import (
    DATE,
    INSPECT_DATE,
    harness_sample,
    inspect_header,
    inspect_sample,
    write_harness,
    write_inspect,
)

EXTRA = {"doc_hash": "e" * 64}


def test_a_task_of_lm_eval_becomes_a_run(tmp_path):
    samples = [harness_sample(i, right) for i, right in enumerate([1.0, 0.0, 1.0, 1.0])]
    (run,) = read_runs(write_harness(tmp_path, {"own": samples}))
    assert (run.benchmark, run.title, run.model) == ("own (lm-eval)", "own (lm-eval)", "lab/model")
    assert run.question_id.tolist() == [f"own (lm-eval)/own/{i:06d}" for i in range(4)]
    assert run.correct.tolist() == [True, False, True, True]  # acc, though acc_norm comes first
    assert run.cluster is not None and run.cluster.tolist() == [0, 0, 1, 1]
    assert run.n_options.tolist() == [3] * 4 and run.gold.tolist() == ["0"] * 4
    assert (run.protocol, run.total, run.complete) == ("0-shot, acc", 4, True)
    versions = run.manifest["identity"]["versions"]
    assert versions == {"lm-eval": "0.4.13", "task own": "1.0"}


def test_every_filter_of_lm_eval_is_a_benchmark_and_a_group_has_its_tasks_as_subtasks(tmp_path):
    def written(i, name, right):
        changes = {"filter": name, "metrics": ["exact_match"], "filtered_resps": ["7"]}
        return {**harness_sample(i, None, **changes), "exact_match": right}

    samples = [written(i, name, i % 2) for i in range(4) for name in ("strict", "loose")]
    parts = {f"part_{name}": [harness_sample(i, 1) for i in range(2)] for name in "ab"}
    groups = {"whole": ["inner", "part_a"], "inner": ["part_b"], "part_a": []}
    tasks = {"a_samples_b": samples, **parts}  # not a log of lmms-eval by its name
    runs = read_runs(
        write_harness(tmp_path, tasks, group_subtasks=groups, **{"n-samples": {}, "n-shot": {}})
    )
    assert [(run.benchmark, run.n, run.protocol) for run in runs] == [
        ("a_samples_b (lm-eval, strict)", 4, "exact_match"),
        ("a_samples_b (lm-eval, loose)", 4, "exact_match"),
        ("whole (lm-eval)", 4, "acc"),
    ]
    assert sorted(set(runs[2].task)) == ["part_a", "part_b"]
    assert runs[0].n_options.tolist() == [0] * 4 and runs[0].total is None


def test_tasks_of_a_group_that_are_scored_otherwise_stand_alone(tmp_path):
    """lm-evaluation-harness's leaderboard is such a group."""
    other = {"metrics": ["exact_match"], "exact_match": 1, "filtered_resps": ["7"]}
    tasks = {
        "a1": [harness_sample(0, 1)],
        "a2": [harness_sample(0, 0)],
        "written": [harness_sample(0, 1, **other)],
        "perplexity": [harness_sample(0, 1, metrics=["bits"], bits=0.7)],
    }
    groups = {"all": ["a", "written", "perplexity"], "a": ["a1", "a2"], "twice": ["written"]}
    runs = read_runs(write_harness(tmp_path, tasks, group_subtasks=groups))
    assert {run.benchmark: (run.n, run.total) for run in runs} == {
        "a (lm-eval)": (2, 2),
        "written (lm-eval)": (1, 1),
    }
    assert runs[0].left_out == ("perplexity (lm-eval)",)


def test_limited_and_renamed_logs_of_lm_eval(tmp_path):
    samples = [harness_sample(i, 1) for i in range(2)]
    sizes = {"n-samples": {"own": {"original": 10, "effective": 2}}}
    folder = write_harness(tmp_path / "limited", {"own": samples}, **sizes)
    (run,) = read_runs(folder)
    assert (run.total, run.complete) == (10, False)
    renamed = (folder / f"samples_own_{DATE}.jsonl").rename(tmp_path / "mine.jsonl")
    (run,) = read_runs(renamed)
    assert run.benchmark == "mine (lm-eval)" and run.model == "mine.jsonl"


def test_the_newest_of_two_logs_counts_and_other_scores_are_not_taken(tmp_path):
    write_harness(tmp_path, {"own": [harness_sample(0, 0)]}, date="2025-12-31T23-59-59.1")
    write_harness(tmp_path, {"own": [harness_sample(0, 1)]})
    assert read_runs(tmp_path)[0].correct.tolist() == [True]
    samples = [{**harness_sample(0, 0.5), "errors": 1.0, "metrics": ["acc", "errors", "acc_norm"]}]
    higher = {"higher_is_better": {"own": {"errors": False}}}
    (run,) = read_runs(write_harness(tmp_path / "other", {"own": samples}, **higher))
    assert run.protocol == "0-shot, acc_norm" and run.correct.tolist() == [True]


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([harness_sample(0, 0.5, acc_norm=float("nan"))], "no score that is 0 or 1"),
        ([harness_sample(0, 1), harness_sample(0, 0)], "document '000000' is there twice"),
        ([harness_sample(0, 1, doc_id=None)], "doc_id is None: expected a whole number or text"),
        ([harness_sample(0, 1, doc_id=1.5)], "doc_id"),
        ([harness_sample(0, 1, doc_id="x" * 2000)], "id 'own .* has 2,018 bytes"),
        ([harness_sample(0, 1, metrics="acc")], "metrics"),
        ([harness_sample(0, 1, filter=7)], "filter"),
        ([[]], "not a sample"),
        ([], "holds no answers yet"),
    ],
)
def test_lm_eval_samples_that_are_no_measurements_are_refused(tmp_path, samples, said):
    with pytest.raises(MapflowError, match=said):
        read_runs(write_harness(tmp_path, {"own": samples}))


def test_one_document_number_with_two_documents_is_told_apart_by_the_hash(tmp_path):
    samples = [harness_sample(0, 1), harness_sample(0, 0, **EXTRA), harness_sample(1, 1)]
    (run,) = read_runs(write_harness(tmp_path, {"own": samples}))
    assert [one.rpartition("/")[2] for one in run.question_id] == [
        "000000-0000000000000000",
        "000000-eeeeeeeeeeeeeeee",
        "000001",
    ]


@pytest.mark.parametrize("suffix", [".eval", ".json"])
def test_a_task_of_inspect_becomes_a_run(tmp_path, suffix):
    samples = [
        inspect_sample(0, "C"),
        inspect_sample(1, "I"),
        inspect_sample(2, "N", scores={"choice": {"value": "N", "answer": ""}}),
        inspect_sample(3, None, scores=None, error={"message": "no\nvideo", "traceback": "…"}),
        inspect_sample(4, 1),
        inspect_sample(5, None, scores={}),
    ]
    (run,) = read_runs(write_inspect(tmp_path, samples, suffix=suffix))
    assert (run.benchmark, run.model) == ("own (Inspect)", "lab/model")
    assert run.question_id.tolist() == [f"own (Inspect)/{i:06d}" for i in range(6)]
    assert run.correct[~run.failed].tolist() == [True, False, False, True]
    assert run.failed.tolist() == [False, False, False, True, False, True]
    assert run.valid is not None and run.valid[~run.failed].tolist() == [True, True, False, True]
    assert run.cluster is not None and run.cluster.tolist() == [0, 0, 1, 2]
    assert run.n_options.tolist() == [3] * 6 and set(run.gold) == {"A"}
    assert (run.protocol, run.total) == ("multiple_choice, choice", 3)


def test_inspects_headline_and_parts_of_a_score(tmp_path):
    samples = [
        inspect_sample(i, "C", scores={"a": {"value": 0}, "b": {"value": {"x": 1, "y": 0.3}}})
        for i in range(2)
    ]
    scores = [{"name": "a", "scorer": "a"}]
    named = {"scores": scores, "headline": {"scorer": "b", "score": "x"}}
    cases = [({"scores": scores}, False), (named, True), (None, False)]
    for number, (results, right) in enumerate(cases):
        header = inspect_header(results=results)
        (run,) = read_runs(write_inspect(tmp_path / str(number), samples, header))
        assert run.correct.tolist() == [right] * 2


def test_of_several_inspect_logs_the_newest_that_finished_counts(tmp_path):
    def log(date, status, value):
        header = inspect_header(status=status)
        header["eval"]["created"] = date
        write_inspect(tmp_path, [inspect_sample(0, value)], header, date=date)

    log("2026-01-02T00-00-00", "success", "I")
    log("2026-01-03T00-00-00", "success", "C")
    log("2026-01-04T00-00-00", "error", "I")
    write_inspect(tmp_path, [inspect_sample(0, "I")], inspect_header("another"))
    runs = {run.benchmark: run for run in read_runs(tmp_path)}
    assert runs["own (Inspect)"].correct.tolist() == [True] and len(runs) == 2
    other = inspect_header(model="lab/other")
    write_inspect(tmp_path, [inspect_sample(0, "I")], other, date="2027-01-01T00-00-00")
    with pytest.raises(MapflowError, match=r"logs of 2 models \(lab/model, lab/other\)"):
        read_runs(tmp_path)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([inspect_sample(0, "P")], "choice score 'P', which is neither right"),
        ([inspect_sample(0, float("nan"))], "choice score nan"),
        ([inspect_sample(0, [1])], r"choice score \[1\]"),
        ([inspect_sample(0, "C"), inspect_sample(0, "I", epoch=2)], "has several answers"),
        ([inspect_sample(0, "C", id=None)], "not the summaries"),
        ([inspect_sample(0, "C", id=1e300)], "not the summaries"),
        ([inspect_sample(0, "C", target=3)], "not the summaries"),
        ([inspect_sample(0, "C", id="x" * 2000)], "has 2,0[0-9]+ bytes"),
        ([], "holds no answers yet"),
    ],
)
def test_inspect_samples_that_are_no_measurements_are_refused(tmp_path, samples, said):
    with pytest.raises(MapflowError, match=said):
        read_runs(write_inspect(tmp_path, samples))


def test_damaged_archives_are_refused_in_one_line(tmp_path, monkeypatch):
    whole = write_inspect(tmp_path, [inspect_sample(0, "C")]).read_bytes()
    file = tmp_path / "own.eval"
    for size in (0, 1, 30, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(MapflowError, match="is not an archive that can be read"):
            read_runs(file)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("_journal/start.json", "{}")
    with pytest.raises(MapflowError, match=r"has no header\.json: .* did not finish"):
        read_runs(file)
    monkeypatch.setattr("mapflow.results.logs.inspect_logs.LARGEST_JSON", 10_000)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:  # a bomb, 1,000 to one
        archive.writestr("header.json", b" " * 10_000_000)
    with pytest.raises(MapflowError, match=r"header\.json has more than 10,000 bytes"):
        read_runs(file)


def test_zstandard_entries_are_read_and_their_bombs_are_not(tmp_path, monkeypatch):
    """As Inspect packs them; the method's number is written into a stored entry here."""
    import pyarrow

    def zstandard(name: str, texts: dict[str, bytes], crc: int | None = None) -> Path:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for entry, text in texts.items():
                archive.writestr(entry, bytes(pyarrow.compress(text, "zstd", asbytes=True)))
            for about in archive.filelist:
                about.compress_type, about.file_size = 93, len(texts[about.filename])
                about.CRC = zlib.crc32(texts[about.filename]) if crc is None else crc
        return tmp_path / name

    texts = {
        "header.json": json.dumps(inspect_header()).encode(),
        "summaries.json": json.dumps([inspect_sample(0, "C")]).encode(),
    }
    (run,) = read_runs(zstandard("good.eval", texts))
    assert run.correct.tolist() == [True]
    with pytest.raises(MapflowError, match="is damaged"):
        read_runs(zstandard("damaged.eval", texts, crc=1))
    monkeypatch.setattr("mapflow.results.logs.inspect_logs.LARGEST_JSON", 2_000_000)
    bomb = zstandard("bomb.eval", {"header.json": b" " * 30_000_000})
    assert bomb.stat().st_size < 10_000
    with pytest.raises(MapflowError, match="has more than 2,000,000 bytes"):
        read_runs(bomb)


def test_numbers_that_json_lacks_and_long_lines(tmp_path, monkeypatch):
    file = write_inspect(
        tmp_path, [inspect_sample(0, "C", metadata={"x": float("nan")})], suffix=".json"
    )
    assert read_runs(file)[0].n == 1
    file.write_text(file.read_text().replace("NaN", "[" * 100_000))
    with pytest.raises(MapflowError, match="not an Inspect log"):
        read_runs(file)
    folder = write_harness(tmp_path / "long", {"own": [harness_sample(0, 1, doc={"x": "y" * 500})]})
    monkeypatch.setattr(log_files, "LONGEST_LINE", 100)
    with pytest.raises(MapflowError, match=r"\.jsonl:1: the line has more than 100 characters"):
        read_runs(folder)


@pytest.mark.parametrize("command", ["compare", "leaderboard", "ablate"])
def test_commands_refuse_wrong_places_in_one_line(tmp_path, capsys, command):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "binary.eval").write_bytes(b"\x00\xff" * 100)
    (tmp_path / "latin.jsonl").write_bytes(b"\xe9\n")
    (tmp_path / "pipe").mkdir()
    for name in (f"samples_own_{DATE}.jsonl", f"{INSPECT_DATE}_own_ID.eval"):
        os.mkfifo(tmp_path / "pipe" / name)
    write_harness(tmp_path / "both", {"own": [harness_sample(0, 1)]})
    write_inspect(tmp_path / "both", [inspect_sample(0, "C")])
    for place in ("absent", "empty", "text.txt", "binary.eval", "latin.jsonl", "both", "pipe"):
        assert main([command, str(tmp_path / place)]) == 2
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1 and str(tmp_path) in said.err


def test_one_question_and_hostile_text_are_answered(tmp_path, capsys):
    """A model name with an escape sequence is shown as text."""
    name = "lab/\x1b[31mmodel"
    logs = [
        write_harness(tmp_path / "one", {"own": [harness_sample(0, 1)]}, pretrained=name),
        write_harness(tmp_path / "two", {"own": [harness_sample(0, 0)]}, pretrained="other"),
    ]
    assert main(["compare", *map(str, logs)]) == 0
    said = capsys.readouterr().out
    assert "1 lost, 0 gained" in said and "\x1b" not in said and "\\x1b[31mmodel" in said
