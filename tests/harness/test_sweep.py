"""`mapflow sweep` as a user runs it: files, exit codes, resumption, several processes, audits."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mapflow.harness.analyses import sweep_windows
from mapflow.harness.analyses.route_sets import check_routes, parse_routes, route_sets
from mapflow.harness.analyses.sweep import Sweep
from mapflow.harness.analyses.sweep_windows import audited_layers
from mapflow.harness.cli.arguments import parse_bytes
from mapflow.harness.cli.main import main
from mapflow.model_adapters.families.llava.model import LlavaVideo
from mapflow.model_adapters.families.registry import BUNDLED
from mapflow.model_adapters.interventions import BatchMasks, apply, parse_intervention
from mapflow.model_adapters.interventions.inspection.noise import NOISE
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Clip
from mapflow.results.records.sweep import SweepRecord, relative_change
from mapflow.results.runs.folder import read_records
from mapflow.tasks.registry import load_questions

TASK = "mapflow_motion_direction"
ROUTES = "video->question,question->last"
COMMAND = ("--task", TASK, "--routes", ROUTES, "--limit", "3")


def sweep(folder: Path, *words: str) -> int:
    return main(["sweep", "--output_path", str(folder), *(words or COMMAND)])


def lines(folder: Path) -> list[str]:
    return (folder / SweepRecord.FILE).read_text().splitlines()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A finished sweep of three questions."""
    folder = tmp_path_factory.mktemp("sweep") / "whole"
    assert sweep(folder) == 0
    return folder


@pytest.fixture(scope="module")
def model() -> LlavaVideo:
    return LlavaVideo.load(BUNDLED, dtype=torch.float32)


@torch.inference_mode()
def test_records_hold_what_one_forward_pass_each_finds(whole, model):
    records = read_records(whole, SweepRecord)
    assert {record.key for record in records} == {
        (question.question_id, route)
        for question in load_questions(TASK, limit=3)
        for route in ROUTES.split(",")
    }
    record = next(r for r in records if r.route == "video->question")
    (question,) = [q for q in load_questions(TASK, limit=3) if q.question_id == record.question_id]
    prepared = model.prepare(question)
    (inputs,) = model.embed([prepared])

    def full_forward(text: str) -> torch.Tensor:
        with apply(
            BatchMasks.of(
                [parse_intervention(text).compile(prepared.layout, model.decoder.n_layers)]
            )
        ):
            hidden = model.decoder.core(
                inputs_embeds=inputs.embeds[None], use_cache=False
            ).last_hidden_state
        return model.decoder.logits(hidden[:, -1])[0].softmax(-1)

    base = full_forward("full")
    answer = int(base.argmax())
    bound = NOISE[torch.float32].probability
    assert record.p_answer == pytest.approx(float(base[answer]), abs=bound)
    assert record.p_target == pytest.approx(float(base[prepared.target_id]), abs=bound)
    assert record.answer == model.tokenizer.decode([answer]).strip()
    assert record.correct == (record.answer == prepared.question.target_text)
    moved = 0.0
    for layer in range(1, model.decoder.n_layers + 1):
        cut = full_forward(f"knockout:video->question@center={layer},window=9")
        moved = max(moved, float((cut - base).abs().max()))
        assert record.p_answers[layer - 1] == pytest.approx(float(cut[answer]), abs=bound)
        assert record.p_targets[layer - 1] == pytest.approx(
            float(cut[prepared.target_id]), abs=bound
        )
        assert record.answers[layer - 1] == model.tokenizer.decode([int(cut.argmax())]).strip()
        change = (record.p_answers[layer - 1] - record.p_answer) / record.p_answer * 100
        assert record.change_answer[layer - 1] == pytest.approx(change)
        letters = sorted((float(cut[i]) for i in prepared.option_ids), reverse=True)
        margin = torch.tensor(letters[0] / letters[1]).log().item()
        assert record.margins[layer - 1] == pytest.approx(margin, rel=1e-2, abs=1e-3)
    assert moved > 0.01


def test_a_second_start_adds_what_is_missing_and_nothing_else(whole, tmp_path, monkeypatch):
    """Half a line at the end, as a killed worker leaves it, and questions without a record."""
    expected = lines(whole)
    torn = (whole / SweepRecord.FILE).read_bytes()[: len(expected[0]) + len(expected[1]) + 2 + 9]
    folder = tmp_path / "taken_up"
    folder.mkdir()
    (folder / "manifest.json").write_bytes((whole / "manifest.json").read_bytes())
    (folder / SweepRecord.FILE).write_bytes(torn)
    asked = []
    original = Sweep.measure
    monkeypatch.setattr(
        Sweep,
        "measure",
        lambda *a: (asked.append(a[2].question.question_id), original(*a))[1],
    )
    assert sweep(folder) == 0
    assert lines(folder) == expected
    assert len(asked) == 2
    assert sweep(folder) == 0
    assert len(asked) == 2, "a finished sweep asks nothing again"


def test_a_killed_run_is_taken_up(whole, tmp_path):
    folder = tmp_path / "killed"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "mapflow.harness.cli.main",
            "sweep",
            "--output_path",
            str(folder),
            *COMMAND,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end:
        if (folder / SweepRecord.FILE).exists() and lines(folder):
            process.kill()
        time.sleep(0.01)
    process.wait()
    assert sweep(folder) == 0
    assert lines(folder) == lines(whole)


def test_four_processes_give_the_same_records_byte_for_byte(whole, tmp_path):
    """As torchrun starts them: three questions, so one of the four may have none."""
    folder = tmp_path / "four"
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "4"]
    done = subprocess.run(
        [*run, "-m", "mapflow.harness.cli.main", "sweep", "--output_path", str(folder), *COMMAND],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for file in (SweepRecord.FILE, "summary.json"):
        assert (folder / file).read_bytes() == (whole / file).read_bytes()
    assert "video->question" in done.stdout


def test_samples_of_one_kind(whole, tmp_path):
    records = read_records(whole, SweepRecord)
    for kind, right in (("correct", True), ("wrong", False)):
        assert sweep(tmp_path / kind, *COMMAND, "--samples", kind) == 0
        chosen = read_records(tmp_path / kind, SweepRecord)
        measured = {r.key for r in chosen if r.measured}
        assert measured == {r.key for r in records if r.correct == right}
        others = [r for r in chosen if not r.measured]
        assert others and all("by the plain run" in str(r.left_out) for r in others)


def test_the_audit_passes_and_says_so(tmp_path, capsys):
    assert sweep(tmp_path / "a", *COMMAND[:-1], "1", "--audit", "0.3") == 0
    (record,) = [
        r for r in read_records(tmp_path / "a", SweepRecord) if r.route == "video->question"
    ]
    assert record.audited == audited_layers(
        0.3, record.question_id, record.route, len(record.answers)
    )
    assert record.audited and record.audit_difference <= NOISE[torch.float32].probability
    assert "within the noise of float32" in capsys.readouterr().out


def test_the_audit_catches_a_planted_error(tmp_path, monkeypatch, capsys):
    """An executor that places a route's windows from the wrong end."""
    original = sweep_windows.answer_logits

    def wrong(*arguments):
        logits = original(*arguments)
        return logits[[0, *reversed(range(1, len(logits)))]]

    monkeypatch.setattr(sweep_windows, "answer_logits", wrong)
    words = ("--task", TASK, "--routes", "question->last", "--limit", "1", "--window", "1")
    assert sweep(tmp_path / "a", *words, "--audit", "1") == 1
    assert "BEYOND the noise" in capsys.readouterr().out
    assert sweep(tmp_path / "a", *words, "--audit", "1") == 1, "a failure is not forgotten"


def test_a_small_memory_budget_is_met_one_window_at_a_time_and_said(whole, tmp_path, capsys):
    assert sweep(tmp_path / "s", *COMMAND[:-1], "1", "--memory-budget", "1K") == 0
    assert "one at a time" in capsys.readouterr().err
    ours = read_records(tmp_path / "s", SweepRecord)
    whole_ones = {r.key: r for r in read_records(whole, SweepRecord)}
    for record in ours:
        assert record.p_answers == pytest.approx(
            whole_ones[record.key].p_answers, abs=NOISE[torch.float32].probability
        )


def test_memory_that_runs_out_halves_the_windows_that_run_together(whole, tmp_path, monkeypatch):
    original, planned = sweep_windows._probabilities, []

    def scarce(model, inputs, compiled, plan):
        planned.append(plan)
        if any(len(one.interventions) > 8 for one in plan.passes):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(model, inputs, compiled, plan)

    monkeypatch.setattr(sweep_windows, "_probabilities", scarce)
    assert sweep(tmp_path / "s", *COMMAND[:-1], "2") == 0
    halvings = [b.bytes <= a.bytes for a, b in itertools.pairwise(planned)]
    assert len(planned) > 3 and all(halvings), "less and less memory, which is not tried again"
    assert all(len(one.passes) > 1 for one in planned[-2:])
    whole_ones = {r.key: r for r in read_records(whole, SweepRecord)}
    for record in read_records(tmp_path / "s", SweepRecord):
        assert record.p_answers == pytest.approx(
            whole_ones[record.key].p_answers, abs=NOISE[torch.float32].probability
        )


def test_a_question_whose_single_window_does_not_fit_has_failed(tmp_path, monkeypatch):
    def none_at_all(model, inputs, compiled, plan):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(sweep_windows, "_probabilities", none_at_all)
    words = ("--task", TASK, "--routes", "question->last", "--limit", "1")
    assert sweep(tmp_path / "s", *words) == 3
    (record,) = read_records(tmp_path / "s", SweepRecord)
    assert record.error == "out of memory: too large for cpu even alone"


def test_another_window_does_not_go_into_the_same_folder(whole, capsys):
    assert sweep(whole, *COMMAND, "--window", "5") == 2
    assert "its window is 9, this one's 5" in capsys.readouterr().err


@pytest.mark.parametrize("style", ["top-down", "bottom-up"])
def test_a_style_without_a_window_refuses_one(tmp_path, style, capsys):
    words = ("--task", TASK, "--routes", "question->last", "--limit", "1", "--style", style)
    assert sweep(tmp_path / "s", *words) == 0
    assert json.loads(lines(tmp_path / "s")[0])["window"] is None
    assert sweep(tmp_path / "t", *words, "--window", "3") == 2
    assert f"--window 3 cannot act on --style {style}" in capsys.readouterr().err


@pytest.mark.parametrize(("samples", "runs"), [("all", 1), ("correct", 2)])
def test_the_plain_run_is_the_windows_trunk_unless_it_decides_first(model, samples, runs):
    """`all`: one forward of the decoder for the base and all windows."""
    (question,) = load_questions(TASK, limit=1)
    wanted = Sweep(tuple(parse_routes(["question->last"])), samples=samples)
    prepared = model.prepare(question)
    (first,) = wanted.left_out(model, prepared) or wanted.measure(model, prepared)
    assert first.correct, "a question that both kinds sweep"
    counted = []
    first_layer = model.decoder.layers[0]

    def count(*_):
        if "forward" not in vars(first_layer):  # reading the model's masks runs no layer
            counted.append(1)

    hook = model.decoder.core.register_forward_pre_hook(count)
    try:
        (record,) = wanted.left_out(model, prepared) or wanted.measure(model, prepared)
    finally:
        hook.remove()
    assert record == first
    assert len(counted) == runs


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--routes", "video->answer"), "unknown segment 'answer'"),
        (("--routes", "vql-to-q"), "or a set of routes: cross-frame, vql-to-ql"),
        (("--routes", "cross-frame,video-"), "the shell took '>…' as a redirect; write video:TARG"),
        (("--routes", "video->option[7]"), "names 'option[7]', but question"),
        (("--routes", "frame[99]->last"), "cannot be swept: this prompt has no 'frame[99]'"),
        (("--window", "0"), "--window 0 must be at least 1"),
        (("--limit", "0"), "must be a whole number of at least 1"),
        (("--audit", "1.5"), "--audit 1.5 is outside 0..1"),
        (("--memory-budget", "lots"), "--memory-budget 'lots' is not a size"),
        (("--task", "mapflow_nothing"), "unknown task 'mapflow_nothing'"),
        (("--model", "mapflow_hf"), "has no bundled checkpoint"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(tmp_path, words, said, capsys):
    task = () if "--task" in words else ("--task", TASK)
    assert sweep(tmp_path / "x", "--limit", "1", *task, *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_routes_into_options_do_not_fit_open_questions():
    question = replace(load_questions(TASK, limit=1)[0], options=(), target="left")
    for route in ("true_option->last", "video->options", "false_options->last", "option[0]->last"):
        with pytest.raises(MapflowError, match="open-ended and has no options"):
            check_routes(parse_routes([route]), [question])
    check_routes(parse_routes(["vql-to-ql", "video->stem"]), [question])


def test_route_sets_of_the_paper():
    assert all(parse_routes([name]) for name in route_sets())
    assert len(parse_routes(["paper"])) == len(set(parse_routes(["paper"]))) == 11
    assert parse_routes(["vql-to-ql,video:last", "video→stem"]) == parse_routes(
        ["vql-to-ql", "video->stem"]
    )


def test_relative_change_of_tiny_probabilities_is_left_out():
    assert relative_change(0.5, [0.25, 0.75]) == (-50.0, 50.0)
    assert relative_change(9e-7, [0.25]) is None


def test_tiny_probabilities_are_flagged_and_counted(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweep_windows, "TINY", 2.0)
    monkeypatch.setattr(sweep_windows, "relative_change", lambda base, found: None)
    assert sweep(tmp_path / "t", "--task", TASK, "--routes", "question->last", "--limit", "2") == 0
    records = read_records(tmp_path / "t", SweepRecord)
    assert all(
        record.tiny == ("p_answer", "p_target") and record.change_answer is None
        for record in records
    )
    summary = json.loads((tmp_path / "t" / "summary.json").read_text())["question->last"]
    assert (summary["tiny_answer"], summary["tiny_target"], summary["n"]) == (2, 2, 2)
    assert summary["change_answer"] == []
    assert "2 / 2" in capsys.readouterr().out


def test_a_broken_video_is_a_record_and_exit_3(tmp_path, monkeypatch):
    first, second = load_questions(TASK, limit=2)
    absent = replace(second, clip=Clip(str(tmp_path / "absent.mp4")))
    monkeypatch.setattr("mapflow.tasks.registry.load_questions", lambda *_: [first, absent])
    assert sweep(tmp_path / "b") == 3
    broken = [r for r in read_records(tmp_path / "b", SweepRecord) if r.error]
    assert {r.question_id for r in broken} == {absent.question_id}


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("2G", 2**31), ("1.5 KiB", 1536), ("512mb", 2**29)]
)
def test_sizes(text, size):
    assert parse_bytes(text) == size
