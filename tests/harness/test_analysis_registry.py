"""The registry of analyses: instant to load, enough for a new analysis, and asked by figures."""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from mapflow.harness.analyses.analysis import Drawing, QuestionAnalysis
from mapflow.harness.analyses.registry import ANALYSES
from mapflow.harness.analyses.run import run_analysis
from mapflow.harness.cli.main import main
from mapflow.model_adapters.inference.subject import Subject
from mapflow.results.contract.errors import QUESTIONS_MISSING, MapflowError
from mapflow.results.contract.question import Clip, Question
from mapflow.results.records.attention import PARTS, AttentionRecord
from mapflow.results.records.base import JsonlRecord
from mapflow.results.runs.folder import RunFolder, read_records


def test_all_analyses_and_their_flags_load_without_torch_or_matplotlib():
    code = (
        "import argparse, sys\n"
        "from mapflow.harness.analyses.registry import ENTRIES\n"
        "for entry in ENTRIES: entry.load().add_arguments(argparse.ArgumentParser())\n"
        "assert not {'torch', 'transformers', 'matplotlib'} & set(sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_figure_draws_attention_folders(tmp_path, capsys):
    shares = {part: (0.1, 0.2) for part in PARTS}
    weights = {"weights": ((0.1,), (0.2,)), "by_frame": ((0.1,), (0.2,)), "frames": (0,)}
    RunFolder(tmp_path, {}, {}, AttentionRecord).append(
        AttentionRecord(f"q{i}", f"v{i}", "t", "full", "paper", "last", 1, shares=shares, **weights)
        for i in range(3)
    )
    assert main(["figure", str(tmp_path)]) == 0
    assert "attention.png" in capsys.readouterr().out
    assert (tmp_path / "attention.csv").read_text().count("\n") > 2


@dataclass(frozen=True)
class LengthRecord(JsonlRecord):
    FILE: ClassVar[str] = "length.jsonl"
    RUN: ClassVar[str] = "lengths"

    question_id: str
    video_id: str
    task: str
    intervention: str
    protocol: str
    unit: str
    length: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Lengths(QuestionAnalysis[LengthRecord]):
    """The smallest analysis: the length of a question's text."""

    unit: str = "letters"

    RECORD = LengthRecord
    FIGURE = "lengths"
    VERB = "measured"
    names = ("full",)
    note = "lengths"

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--unit", default="letters")

    @classmethod
    def from_options(cls, options: argparse.Namespace) -> Lengths:
        return cls(options.unit)

    @property
    def settings(self) -> dict[str, Any]:
        return {"unit": self.unit}

    def fields(self, question: Question) -> dict[str, Any]:
        return self.settings

    def measure(self, model, prepared) -> list[LengthRecord]:
        number = torch.tensor(float(len(prepared.question.stem)) or float("nan"))
        values = {"length": float(number)}
        return [self.checked(prepared.question, "full", [number], values)]

    def summarize(self, records):
        return [sum(record.length or 0 for record in records)]

    def table(self, summary) -> str:
        return f"{summary[0]:g} letters"

    def save(self, summary, folder: Path) -> None:
        (folder / "sum.txt").write_text(str(summary[0]))

    @classmethod
    def figure(cls, records, names, title="", words=None) -> Drawing:
        raise NotImplementedError


def question(name: str, stem: str) -> Question:
    return Question(name, "v", "t", Clip("v.mp4"), stem, ("a", "b"), 0, "paper", {})


def subject(*questions: Question) -> Subject:
    def prepare(one: Question) -> Any:
        if one.stem == "broken":
            raise MapflowError("no such file")
        return SimpleNamespace(question=one, layout=range(3))

    decoder = SimpleNamespace(device=torch.device("cpu"))
    model: Any = SimpleNamespace(
        model=torch.nn.Linear(1, 1),
        decoder=decoder,
        prepare=prepare,
        name="tiny",
        digest="0",
        arguments={},
    )
    return Subject("mapflow_llava", model, questions)


def test_a_new_analysis_needs_its_measurement_alone(tmp_path, capsys):
    asked = subject(question("b", "xyz"), question("a", "broken"), question("c", ""))
    assert Lengths().run(asked, tmp_path) == QUESTIONS_MISSING
    assert "3 letters" in capsys.readouterr().out
    broken, whole, empty = read_records(tmp_path, LengthRecord)
    assert (whole.length, whole.unit, whole.error) == (3, "letters", None)
    assert (broken.length, broken.unit, broken.error) == (None, "letters", "no such file")
    assert (empty.length, empty.error) == (None, "the model's logits are not finite")
    mended = subject(question("b", "xyz"), question("a", "mended"), question("c", "!"))
    records = run_analysis(Lengths(), mended, tmp_path)
    assert [record.length for record in records or []] == [6, 3, 1]
    with pytest.raises(MapflowError, match="holds another run: its unit is 'letters'"):
        Lengths("words").run(mended, tmp_path)


def test_a_subject_has_one_protocol():
    one = question("a", "x")
    assert subject(one, one).protocol == "paper"
    with pytest.raises(MapflowError, match="official and paper: ask one at a time"):
        subject(one, replace(one, protocol="official")).protocol  # noqa: B018
    with pytest.raises(MapflowError, match="no questions were selected"):
        subject().protocol  # noqa: B018


def test_every_analysis_has_a_command_and_help(capsys):
    for name in ANALYSES:
        with pytest.raises(SystemExit) as stop:
            main([name, "--help"])
        assert stop.value.code == 0
        assert "--output_path DIR" in capsys.readouterr().out
