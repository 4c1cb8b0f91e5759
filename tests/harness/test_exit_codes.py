"""The table of exit codes in harness/cli/README.md holds for every command.

What a command computes is replaced where another test runs it in full; what is tested here is the
way from an outcome to the exit code, which users' scripts rely on.
"""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from mapflow.harness.analyses.registry import ANALYSES
from mapflow.harness.cli import main as cli
from mapflow.harness.cli.endings import OutputLost
from mapflow.harness.cli.main import COMMANDS, main
from mapflow.harness.commands import ablate, analysis
from mapflow.harness.commands import verify as verify_command
from mapflow.harness.evaluation import lmms_eval as evaluation
from mapflow.results.contract import errors
from tests.results.run_folders import answers, write_run

EVERY = [*COMMANDS, "lmms_eval"]
MAIN_JOB = ("run", "lmms_eval")
MODEL = ["--model", "mapflow_llava"]


def run(command: str, words: list[str]) -> int | str | None:
    """The exit code of a command in this process."""
    try:
        if command == "lmms_eval":
            return evaluation.main(words)
        return main([command, *words])
    except SystemExit as stop:  # argparse, after --help
        return stop.code


@pytest.fixture
def folders(tmp_path):
    """A run, the folder of an analysis, and a folder with half of a benchmark."""
    records = [*answers("full", [1, 1, 1, 0]), *answers("effective", [1, 0, 1, 0])]
    write_run(tmp_path / "run", records)
    (tmp_path / "data" / "json").mkdir(parents=True)
    (tmp_path / "data" / "json" / "action_count.json").write_text("[]")
    return tmp_path


@pytest.fixture
def outcome(monkeypatch, folders):
    """A function that lets everything that needs a model end with a code."""

    def ends_with(code: int) -> None:
        for entry in ANALYSES.values():
            monkeypatch.setattr(entry.load(), "run", lambda *_: code)
        model = SimpleNamespace(name="tiny", decoder=SimpleNamespace(n_layers=1, device="cpu"))
        monkeypatch.setattr(analysis, "chosen_model", lambda _: model)
        monkeypatch.setattr(verify_command, "chosen_model", lambda _: model)
        monkeypatch.setattr("mapflow.model_adapters.inference.subject.weights_dtype", str)
        finding = SimpleNamespace(passed=code == 0, check="layers")
        monkeypatch.setattr("mapflow.harness.verification.verify", lambda *_, **__: [finding])
        monkeypatch.setattr(evaluation.CheckedRun, "run", lambda _: code)
        monkeypatch.setattr(ablate, "_run_grid", lambda *_: code)

    return ends_with


def words_of(command: str, place: Path) -> list[str]:
    """Arguments with which a command does its work."""
    made = {
        "explain": ["full", "--layers", "2"],
        "verify": ["mapflow_llava"],
        "data": ["check", "tvbench", "--data_dir", str(place / "data")],
        "report": [str(place / "run"), "-o", str(place / "report.html"), "--frames", "0"],
        "export": [str(place / "run"), "--to", "csv", "-o", str(place / "run.csv")],
        "ablate": ["--run", str(place / "run"), "--", "--limit", "1"],
        "figure": [str(earlier("trace")), "-o", str(place / "figure.png")],
        "tasks-path": [],
        **dict.fromkeys(MAIN_JOB, MODEL),
        **{name: ["--output_path", str(place / "new"), "--limit", "1"] for name in ANALYSES},
    }
    return made.get(command, [str(place / "run")])


def earlier(name: str) -> Path:
    return Path(__file__).parent / "earlier_runs" / name


def test_the_codes_are_those_that_are_written_down():
    table = Path(cli.__file__).with_name("README.md").read_text()
    for name, code in {"FAILED": 1, "USAGE_ERROR": 2, "QUESTIONS_MISSING": 3}.items():
        assert getattr(errors, name) == code
    for code in (0, 1, 2, 3, 130, 141, 143):
        assert f"| {code} |" in table


@pytest.mark.parametrize("command", EVERY)
def test_done_is_0(command, folders, outcome, capsys):
    outcome(0)
    assert run(command, words_of(command, folders)) == (1 if command == "data" else 0)
    assert run(command, ["--help"]) == 0


@pytest.mark.parametrize("command", ["verify", "ablate", *MAIN_JOB, "sweep", "data"])
def test_what_failed_is_1(command, folders, outcome, capsys):
    """A check, lmms-eval, an audit, a benchmark's files; the others cannot fail."""
    outcome(1)
    assert run(command, words_of(command, folders)) == 1


@pytest.mark.parametrize("command", EVERY)
@pytest.mark.parametrize("words", [["--nonsense"], ["--quiet=maybe"]])
def test_misuse_is_2_and_one_line(command, words, folders, outcome, capsys):
    outcome(0)
    assert run(command, [*words, *words_of(command, folders)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("command", ["ablate", *MAIN_JOB, *ANALYSES])
def test_failed_questions_are_3(command, folders, outcome, capsys):
    outcome(3)
    assert run(command, words_of(command, folders)) == 3


@pytest.mark.parametrize("command", EVERY)
@pytest.mark.parametrize(
    ("ending", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (OutputLost(BrokenPipeError()), 141)],
    ids=["SIGINT", "SIGTERM", "closed pipe"],
)
def test_interruptions_and_closed_pipes_have_the_codes_of_shells(
    command, ending, code, monkeypatch, capsys
):
    def body(*_: object) -> int:
        if isinstance(ending, OutputLost):
            raise ending
        signal.raise_signal(ending)
        return 0

    stub = SimpleNamespace(add_arguments=lambda _: None, run=body)
    monkeypatch.setattr(cli, "_command", lambda _: stub)
    monkeypatch.setattr(evaluation, "_run", body)
    assert run(command, []) == code
    said = capsys.readouterr().err
    name = "lmms_eval" if command == "lmms_eval" else f"mapflow {command}"
    expected = (
        f"\n{name}: interrupted by {signal.Signals(code - 128).name}\n" if code != 141 else ""
    )
    assert said == expected
