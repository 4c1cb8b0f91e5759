"""`mapflow trace` and `mapflow lens` as a user runs them: files, numbers, exit codes, resumption,
several processes.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mapflow.harness.analyses.lens import SHIPPED_WORDS, read_word_lists
from mapflow.harness.cli.main import main
from mapflow.model_adapters.families.llava.model import LlavaVideo
from mapflow.model_adapters.families.registry import BUNDLED
from mapflow.model_adapters.interventions import BatchMasks, apply, parse_intervention
from mapflow.model_adapters.interventions.execution import readout
from mapflow.results.contract.question import Clip
from mapflow.results.records.lens import LensRecord, frequencies, frequency_csv
from mapflow.results.records.trace import TraceRecord, summarize_trace
from mapflow.results.runs.folder import read_records
from mapflow.tasks.registry import load_questions

TASK = "mapflow_motion_direction"
NAMES = ("full", "effective")
COMMAND = ("--task", TASK, "--limit", "2", "--intervention", "full,effective")
KINDS = {"trace": TraceRecord, "lens": LensRecord}


def mapflow(command: str, folder: Path, *words: str) -> int:
    return main([command, "--output_path", str(folder), *(words or COMMAND)])


@pytest.fixture(scope="module")
def model() -> LlavaVideo:
    return LlavaVideo.load(BUNDLED, dtype=torch.float32)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """A finished trace and a finished lens."""
    folders = {command: tmp_path_factory.mktemp("runs") / command for command in KINDS}
    for command, folder in folders.items():
        assert mapflow(command, folder) == 0
    return folders


def layer_by_layer(model: LlavaVideo, prepared, name: str) -> Iterator[torch.Tensor]:
    """Hidden states layer by layer: the model run once for each depth, cut off there."""
    compiled = parse_intervention(name).compile(
        prepared.layout, model.decoder.n_layers, model.pathways
    )
    (inputs,) = model.embed([prepared])
    core, layers = model.decoder.core, model.decoder.core.layers
    try:
        for depth in range(1, len(layers) + 1):
            core.layers = layers[:depth]
            core.config.num_hidden_layers = depth
            with apply(BatchMasks.of([compiled])):
                yield core(inputs_embeds=inputs.embeds[None], use_cache=False).last_hidden_state[0]
    finally:
        core.layers, core.config.num_hidden_layers = layers, len(layers)


@torch.inference_mode()
def test_records_hold_what_shortened_models_answer(runs, model):
    traces = {record.key: record for record in read_records(runs["trace"], TraceRecord)}
    lenses = {record.key: record for record in read_records(runs["lens"], LensRecord)}
    questions = load_questions(TASK, limit=2)
    assert (
        set(traces)
        == set(lenses)
        == {(question.question_id, name) for question in questions for name in NAMES}
    )
    prepared = model.prepare(questions[0])
    plain = model.plain_logits(prepared).argmax()
    video = prepared.layout.positions("video")
    for name in NAMES:
        trace, lens = (found[questions[0].question_id, name] for found in (traces, lenses))
        assert trace.answer == model.tokenizer.decode([int(plain)]).strip()
        assert trace.norm and trace.p_options is not None
        assert set(trace.false_options) == set(trace.p_options) - {trace.target}
        depths = list(layer_by_layer(model, prepared, name))
        assert len(trace.p_answers) == len(lens.ids) == len(depths)
        for layer, hidden in enumerate(depths):
            found = model.decoder.logits(hidden[-1:])[0].softmax(-1)
            assert trace.p_answers[layer] == pytest.approx(float(found[plain]), abs=1e-5)
            assert trace.p_targets[layer] == pytest.approx(
                float(found[prepared.target_id]), abs=1e-5
            )
            assert trace.tops[layer] == model.tokenizer.decode([int(found.argmax())]).strip()
            for letter, token in zip(prepared.question.letters, prepared.option_ids, strict=True):
                assert trace.p_options[letter][layer] == pytest.approx(
                    float(found[token]), abs=1e-5
                )
            seen = model.decoder.logits(hidden[video]).softmax(-1)
            assert torch.tensor(lens.ids[layer]).shape == (len(video), 5)
            ours = torch.tensor(lens.probabilities[layer])
            torch.testing.assert_close(ours, seen.topk(5).values, atol=1e-5, rtol=1e-4)
            at_ids = seen.gather(-1, torch.tensor(lens.ids[layer]))
            torch.testing.assert_close(ours, at_ids, atol=1e-5, rtol=1e-4)
    effective, full = (traces[questions[0].question_id, name] for name in reversed(NAMES))
    assert effective.p_answers != full.p_answers


def test_frames_of_video_tokens(runs, model):
    (question,) = load_questions(TASK, limit=1)
    layout = model.prepare(question).layout
    record = next(
        r for r in read_records(runs["lens"], LensRecord) if r.question_id == question.question_id
    )
    for frame in range(layout.n_frames):
        own = [i for i, each in enumerate(record.frames) if each == frame]
        assert (
            layout.positions("video")[own].tolist() == layout.positions(f"frame[{frame}]").tolist()
        )


def test_the_table_and_summary_are_means(runs, capsys):
    assert mapflow("trace", runs["trace"]) == 0
    table = capsys.readouterr().out
    records = read_records(runs["trace"], TraceRecord)
    summary = json.loads((runs["trace"] / "summary.json").read_text())
    for name in NAMES:
        own = [record for record in records if record.intervention == name]
        assert summary[name]["n"] == summary[name]["n_false"] == len(own) == 2
        for layer in range(len(own[0].p_answers)):
            true = sum(record.p_targets[layer] for record in own) / 2
            assert summary[name]["p_targets"][layer] == pytest.approx(true)
            false = 0.0
            for record in own:
                assert record.p_options is not None
                wrong = [record.p_options[letter][layer] for letter in record.false_options]
                false += sum(wrong) / len(wrong) / 2
            assert summary[name]["p_false"][layer] == pytest.approx(false)
            assert f"{100 * true:.2f}" in table and f"{100 * false:.2f}" in table


def test_variants_differ_only_where_they_should(runs, tmp_path):
    one = ("--task", TASK, "--limit", "1")
    assert mapflow("trace", tmp_path / "t", *one, "--no-norm") == 0
    (bare,) = read_records(tmp_path / "t", TraceRecord)
    normed = next(r for r in read_records(runs["trace"], TraceRecord) if r.key == bare.key)
    assert bare.p_answers[-1] == pytest.approx(normed.p_answers[-1], abs=1e-6)
    assert bare.p_answers[:-1] != normed.p_answers[:-1]
    assert not bare.norm
    assert mapflow("lens", tmp_path / "l", *one, "--raw-embeddings", "--topk", "3") == 0
    (raw,) = read_records(tmp_path / "l", LensRecord)
    assert raw.raw_embeddings
    assert {len(token) for layer in raw.ids for token in layer} == {3}


def test_an_early_exit_ends_the_trace(runs, tmp_path, capsys):
    """Its last layer is the baseline run's; the table leaves layers that do not run empty."""
    words = ("--task", TASK, "--limit", "1", "--intervention", "early-exit@3,full")
    assert mapflow("trace", tmp_path / "t", *words) == 0
    early, full = sorted(
        read_records(tmp_path / "t", TraceRecord), key=lambda record: record.intervention
    )
    assert early.p_targets == pytest.approx(full.p_targets[:3], abs=1e-6)
    last = next(line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["4"])
    assert last.split()[1:4] == ["–"] * 3


@pytest.mark.parametrize("command", KINDS)
def test_a_second_start_adds_what_is_missing(command, runs, tmp_path, monkeypatch):
    whole = (runs[command] / KINDS[command].FILE).read_text()
    first, second, _ = whole.split("\n", 2)
    folder = tmp_path / "taken_up"
    folder.mkdir()
    (folder / "manifest.json").write_bytes((runs[command] / "manifest.json").read_bytes())
    (folder / KINDS[command].FILE).write_text(f"{first}\n{second[:40]}")
    assert mapflow(command, folder) == 0
    assert (folder / KINDS[command].FILE).read_text() == whole


def test_a_continued_folder_reports_what_was_asked_last(runs, tmp_path, capsys):
    folder = tmp_path / "trace"
    shutil.copytree(runs["trace"], folder)
    assert mapflow("trace", folder, "--task", TASK, "--limit", "1") == 0
    shown = capsys.readouterr().out.splitlines()
    assert next(line for line in shown if line.split()[:1] == ["n"]).split()[1] == "1"
    assert json.loads((folder / "summary.json").read_text())["full"]["n"] == 1
    assert len({one.question_id for one in read_records(folder, TraceRecord)}) == 2


@pytest.mark.parametrize("command", KINDS)
def test_two_processes_give_the_same_records(command, runs, tmp_path, monkeypatch):
    """One after the other; the second finds the folder complete and writes what the first could
    not.
    """
    folder, written = tmp_path / "two", "frequency.csv" if command == "lens" else "summary.json"
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        assert mapflow(command, folder) == 0
        assert (folder / written).exists() == bool(rank)
    for name in (KINDS[command].FILE, written):
        assert (folder / name).read_text() == (runs[command] / name).read_text()


@pytest.mark.parametrize("command", KINDS)
def test_a_broken_video_is_a_record_and_exit_3(command, tmp_path, monkeypatch):
    first, second = load_questions(TASK, limit=2)
    absent = replace(second, clip=Clip(str(tmp_path / "absent.mp4")))
    monkeypatch.setattr("mapflow.tasks.registry.load_questions", lambda *_: [first, absent])
    assert mapflow(command, tmp_path / "b", "--task", TASK) == 3
    broken = [r for r in read_records(tmp_path / "b", KINDS[command]) if r.error]
    assert {r.question_id for r in broken} == {absent.question_id}


def test_logits_that_are_not_finite_are_an_error_of_the_question(tmp_path, monkeypatch):
    original = readout.top_k

    def broken(*arguments):
        ids, found = original(*arguments)
        return ids, found * float("nan")

    monkeypatch.setattr(readout, "top_k", broken)
    assert mapflow("lens", tmp_path / "n", "--task", TASK, "--limit", "1") == 3
    (record,) = read_records(tmp_path / "n", LensRecord)
    assert record.error == "the model's logits are not finite" and not record.ids


def lens_record(name: str, ids, words) -> LensRecord:
    return LensRecord(name, "v", "t", "full", "paper", False, (0, 0), ids, (), words)


def test_frequencies_count_entries():
    """Two questions; one layer with two tokens of two words each, one without any listed word."""
    words = {"1": "Left", "2": "then", "3": "le", "4": "·"}
    records = [
        lens_record("a", (((1, 2), (3, 1)), ((3, 4), (4, 3))), words),
        lens_record("b", (((1, 1), (2, 4)), ((3, 4), (3, 4))), words),
        LensRecord("c", "v", "t", "full", "paper", False, error="unreadable"),
    ]
    lists = {"space": frozenset({"left", "right"}), "time": frozenset({"then"})}
    first, second = frequencies(records, ["full"], lists)
    assert (first.layer, first.entries, first.hits) == (1, 8, {"space": 4, "time": 2})
    assert first.common == ("Left", "le", "then")
    assert (second.layer, second.entries, second.hits) == (2, 8, {"space": 0, "time": 0})
    rows = list(csv.DictReader(frequency_csv([first, second]).splitlines()))
    assert [(row["layer"], row["words"], float(row["share"])) for row in rows] == [
        ("1", "space", 0.5),
        ("1", "time", 0.25),
        ("2", "space", 0.0),
        ("2", "time", 0.0),
    ]


def test_word_lists_can_be_replaced_without_asking_again(runs, tmp_path, monkeypatch):
    """Each record's own words put into a list: everything is found."""
    records = read_records(runs["lens"], LensRecord)
    everything = {
        word.strip().lower() for record in records for word in (record.words or {}).values()
    } - {""}
    (tmp_path / "words.yaml").write_text(json.dumps({"mine": sorted(everything), "none": ["qqq"]}))
    monkeypatch.setattr(readout, "top_k", None)
    assert mapflow("lens", runs["lens"], *COMMAND, "--words", str(tmp_path / "words.yaml")) == 0
    rows = list(csv.DictReader((runs["lens"] / "frequency.csv").read_text().splitlines()))
    assert {row["words"] for row in rows} == {"mine", "none"}
    assert all(float(row["share"]) == 0 for row in rows if row["words"] == "none")
    assert all(float(row["share"]) > 0.9 for row in rows if row["words"] == "mine")
    assert mapflow("lens", runs["lens"], *COMMAND) == 0, "back to the shipped lists"


def test_the_shipped_lists_are_apart():
    lists = read_word_lists(SHIPPED_WORDS)
    assert set(lists) == {"spatial", "temporal"}
    assert not lists["spatial"] & lists["temporal"]


def test_open_questions_have_no_false_options():
    record = TraceRecord(
        "q", "v", "t", "full", "open", True, False, "left", "left", (0.5,), (0.5,), {}
    )
    summary = summarize_trace([record], "full")
    assert (summary.n, summary.n_false, summary.p_false, summary.p_targets) == (1, 0, (), (0.5,))


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("trace", ("--limit", "0"), "must be a whole number of at least 1"),
        ("trace", ("--intervention", "nothing-such"), "nothing-such"),
        ("trace", ("--intervention", "video->last@99"), "99"),
        (
            "trace",
            ("--intervention", "frame[99]->last"),
            "cannot be traced: this prompt has no 'frame[99]'",
        ),
        ("trace", ("--model", "mapflow_hf"), "has no bundled checkpoint"),
        ("lens", ("--topk", "0"), "--topk 0 must be at least 1"),
        ("lens", ("--topk", "9999999"), "is more than the vocabulary's"),
        (
            "lens",
            ("--intervention", "frame[99]->last"),
            "cannot be read: this prompt has no 'frame[99]'",
        ),
        ("lens", ("--words", "absent.yaml"), "word lists 'absent.yaml' cannot be read"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(command, words, said, tmp_path, capsys):
    assert mapflow(command, tmp_path / "x", "--task", TASK, "--limit", "1", *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no word lists"),
        ("[left]", "holds no word lists"),
        ("spatial: left", "'spatial' is not a list of words"),
        ("spatial: []", "'spatial' is not a list of words"),
        ("spatial: [on, left]", "True in 'spatial' is not a word"),
        ("spatial: [", "cannot be read"),
    ],
)
def test_word_lists_that_are_none(text, said, tmp_path, capsys):
    (tmp_path / "words.yaml").write_text(text)
    assert mapflow("lens", tmp_path / "x", "--words", str(tmp_path / "words.yaml")) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", KINDS)
def test_another_variant_does_not_go_into_the_same_folder(command, runs, capsys):
    other = {"trace": "--no-norm", "lens": "--raw-embeddings"}[command]
    assert mapflow(command, runs[command], *COMMAND, other) == 2
    assert "holds another run" in capsys.readouterr().err
