"""`--samples`: the questions that analyses measure, against the paper's definition; what they drop.

The bundled model answers two of these three questions right.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import mapflow
from mapflow.harness.analyses.samples import is_right
from mapflow.harness.cli.main import main
from mapflow.model_adapters.video_llm import VideoLLM
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Clip, Question
from mapflow.results.records.attention import AttentionRecord
from mapflow.results.records.lens import LensRecord
from mapflow.results.records.sweep import SweepRecord
from mapflow.results.records.trace import TraceRecord
from mapflow.results.runs.folder import read_records
from mapflow.results.tables.sweeps import accuracy_drops

TASK = "mapflow_motion_direction"
EARLIER = Path(__file__).with_name("earlier_runs")


@pytest.fixture(scope="module")
def right() -> dict[str, bool]:
    """Question id → the decoded argmax is the decoded gold token, by the model's own forward."""
    model = mapflow.load().video_llm
    found = {}
    for question in mapflow.load_questions(TASK, limit=3):
        prepared = model.prepare(question)
        token = int(model.plain_logits(prepared).argmax())
        said, gold = (model.tokenizer.decode([one]) for one in (token, prepared.target_id))
        found[question.question_id] = said.lower() == gold.lower()
    assert sorted(found.values()) == [False, True, True]
    return found


@pytest.mark.parametrize(
    ("command", "kind", "samples"),
    [
        (("trace",), TraceRecord, "wrong"),
        (("lens", "--topk", "1"), LensRecord, "correct"),
        (("attention", "--intervention", "full,effective"), AttentionRecord, "correct"),
    ],
)
def test_every_analysis_measures_the_questions_of_the_paper(
    command, kind, samples, right, tmp_path, capsys
):
    words = ["--task", TASK, "--limit", "3", "--samples", samples, "--output_path", str(tmp_path)]
    assert main([*command, *words]) == 0
    records = read_records(tmp_path, kind)
    wanted = {name for name, one in right.items() if one == (samples == "correct")}
    assert {r.question_id for r in records if r.measured} == wanted
    assert {r.question_id for r in records if r.left_out} == right.keys() - wanted
    n, left = len(wanted), len(right) - len(wanted)
    assert f"questions ({samples}): {n} measured, {left} left out, 0 failed" in (
        capsys.readouterr().out
    )
    identity = json.loads((tmp_path / "manifest.json").read_text())["identity"]
    assert identity["samples"] == samples
    assert main(["figure", str(tmp_path)]) == 0
    other = "wrong" if samples == "correct" else "correct"
    words[words.index(samples)] = other
    assert main([*command, *words]) == 2, "a folder holds one kind of sample"
    assert "its samples is" in capsys.readouterr().err


def test_the_api_takes_samples_and_refuses_other_words(right):
    model, questions = mapflow.load(), mapflow.load_questions(TASK, limit=3)
    result = mapflow.attention(model, questions, samples="correct")
    assert result.summary[0].n == 2 and result.summary[0].left_out == 1
    wrong: Any = "right"
    with pytest.raises(MapflowError, match="samples='right' must be correct or wrong or all"):
        mapflow.trace(model, questions, samples=wrong)
    with pytest.raises(MapflowError, match="samples='right'"):
        mapflow.discover(model, questions, "unused", samples=wrong)


def test_an_answer_is_right_in_any_case_and_by_the_option_s_text():
    """Paper: the decoded argmax, in lower case, equals the decoded gold token in lower case."""
    words = ["A", "a", "B", "C", "Left", "left", "right", ""]
    model: Any = SimpleNamespace(text=lambda ids: words[ids[0]])
    model.begins_right = partial(VideoLLM.begins_right, model)
    options = ("up", "down", "up")
    choice = Question("q", "v", "t", Clip("v.mp4"), "?", options, 0, "paper", {})
    open_ended = Question("q", "v", "t", Clip("v.mp4"), "?", (), "left", "paper", {})

    def said(question: Question, target_id: int) -> list[str]:
        prepared: Any = SimpleNamespace(question=question, target_id=target_id)
        return [word for i, word in enumerate(words) if is_right(model, prepared, i)]

    assert said(choice, 0) == ["A", "a", "C"]  # C is A's text once more
    assert said(open_ended, 5) == ["Left", "left"]
    assert said(open_ended, 7) == [""]  # the token itself; no other token without a text


def window(question: int, correct: bool, rights: tuple[bool, ...] | None, **more: Any):
    fields = {
        "style": "center",
        "window": 9,
        "protocol": "paper",
        "n_options": 2,
        "target": "A",
        "answer": "A" if correct else "B",
        "correct": correct,
        "rights": rights,
    }
    return SweepRecord(
        f"q{question}", f"v{question // 2}", "t", "cross-frame", **{**fields, **more}
    )


def test_a_sweep_s_drop_is_that_of_the_questions_answered_right():
    """Paper, Table 2: of 4 right questions about two videos 3 are lost in layer 1, none in 2."""
    records = [
        window(0, True, (False, True)),
        window(1, True, (False, True)),
        window(2, True, (False, True)),
        window(3, True, (True, True)),
        window(4, False, (True, True)),  # gained, which is no drop
        window(5, True, None, left_out="answered right by the plain run"),
        window(6, True, None, error="no video"),
    ]
    n, (first, second) = accuracy_drops(records)
    assert n == 4
    assert (first.estimate, second.estimate) == (-75.0, 0.0)
    # Wilson's equation at the limit, times the design effect of two videos (0 and 1 of 2 kept)
    for share in (1 + first.low / 100, 1 + first.high / 100):
        apart = (1 - share) ** 2 + 3 * share**2
        effect = max(1.0, ((0 - 2 * share) ** 2 + (1 - 2 * share) ** 2) / apart)
        variance = share * (1 - share) / 4 * effect
        assert (0.25 - share) ** 2 == pytest.approx(1.959964**2 * variance, rel=1e-5)
    assert second.high == 0 and second.low < -40  # two videos show little
    assert accuracy_drops([window(4, False, (True, True))]) == (0, ())


def test_a_sweep_from_before_has_its_drop_too(capsys):
    """Without `rights`: what is still the right answer has its text. Counted by hand here."""
    records = read_records(EARLIER / "sweep", SweepRecord)
    assert all(record.rights is None for record in records)
    kept = [
        [text == record.target for text in record.answers or ()]
        for record in records
        if record.correct
    ]
    n, drops = accuracy_drops(records)
    assert n == len(kept) == 2
    expected = 100 * (np.mean(kept, axis=0) - 1)
    assert [one.estimate for one in drops] == pytest.approx(expected.tolist())


def test_the_drop_is_in_terminal_csv_json_and_report(tmp_path, capsys):
    folder, figure = tmp_path / "sweep", tmp_path / "routes.png"
    words = ["--task", TASK, "--limit", "3", "--routes", "question->last", "--window", "3"]
    assert main(["sweep", *words, "--output_path", str(folder)]) == 0
    printed = capsys.readouterr().out
    records = read_records(folder, SweepRecord)
    _, drops = accuracy_drops(records)
    worst = min(range(len(drops)), key=lambda layer: drops[layer].estimate)
    one = drops[worst]
    text = f"{one.estimate:+.1f} [{one.low:+.1f}, {one.high:+.1f}]"
    assert one.estimate in (-50, -100) and text in printed
    summary = json.loads((folder / "summary.json").read_text())["question->last"]
    assert summary["n_right"] == 2 and summary["drops"][worst]["estimate"] == one.estimate
    assert main(["figure", str(folder), "-o", str(figure)]) == 0
    header, *rows = (line.split(",") for line in figure.with_suffix(".csv").read_text().split())
    row = dict(zip(header, rows[worst], strict=True))
    assert float(row["drop"]) == one.estimate and float(row["drop_low"]) == pytest.approx(one.low)
    page = tmp_path / "report.html"
    assert main(["report", str(folder), "-o", str(page)]) == 0
    assert text in page.read_text() and "question-&gt;last (n = 2)" in page.read_text()
    assert torch.tensor([r.correct for r in records]).sum() == 2
