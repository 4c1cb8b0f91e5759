"""A few thousand executions of every fuzz target, and planted mistakes that must be found."""

from __future__ import annotations

import itertools
import json
import signal
import time
from random import Random

import pytest

from mapflow.model_adapters.conversation import tokenize
from mapflow.model_adapters.interventions import parse_intervention
from mapflow.results.contract import answers
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import LETTERS
from mapflow.results.logs import harness_logs
from mapflow.results.records import base as lines
from mapflow.results.records.record import Record
from mapflow.results.runs import folder, manifest
from mapflow.tasks import rows
from tests import fuzz

from . import fuzz_answers, fuzz_interventions, fuzz_layouts, run, targets
from .fuzz_records import RECORDS
from .mutation import mutated
from .targets import TARGETS

EXECUTIONS = 3000
FOLDERS = 400
"""The same for targets that write files."""


def executions(name):
    return FOLDERS if name in ("manifests", "folders", "logs") else EXECUTIONS


@pytest.fixture(autouse=True)
def alarm():
    before = signal.getsignal(signal.SIGVTALRM)
    run.arm()
    yield
    signal.signal(signal.SIGVTALRM, before)


@pytest.mark.parametrize("name", TARGETS)
def test_no_crash_no_hang_no_wrong_acceptance(name):
    taken, findings = run.fuzz(name, n := executions(name))
    assert not findings
    assert n / 10 < taken < n * 0.95  # some inputs are refused, some accepted


def test_an_execution_is_repeated_by_its_seed():
    for seed in range(50):
        assert mutated(Random(seed), ["abc", "def"], ["x"]) == mutated(
            Random(seed), ["abc", "def"], ["x"]
        )


def guess(text, options):
    """An answer parser that takes the first letter."""
    found = answers.parse_answer(text, options)
    seen = [LETTERS.find(sign) for sign in text.upper() if sign in LETTERS[: len(options)]]
    return found if found is not None or not seen else seen[0]


def doubled(tokenizer, pieces, question):
    """A layout that contains the first piece twice."""
    return tokenize(tokenizer, [pieces[0], *pieces], question)


def misread(text):
    """A parser of interventions that changes a seed."""
    return parse_intervention(text.replace("seed=3", "seed=4"))


def unchecked(data, decode, where):
    """A reader of lines that checks no types."""
    try:
        return Record(**json.loads(data)), None
    except (TypeError, ValueError) as error:
        raise MapflowError(f"{where}: {error}") from None


PLANTED = {
    "interventions": (fuzz_interventions, "parse_intervention", misread),
    "answers": (fuzz_answers, "parse_answer", guess),
    "records": (lines, "checked_json", unchecked),
    "rows": (rows, "_field", lambda row, field, *_: row.get(field, "")),
    "layouts": (fuzz_layouts, "tokenize", doubled),
    "manifests": (manifest, "read_checked", lambda path, kind: json.loads(path.read_text())),
    "folders": (folder, "_membership", lambda place, kind: lambda *_: None),
    "logs": (harness_logs, "right_or_wrong", lambda value: value),
}


@pytest.mark.parametrize("name", TARGETS)
def test_planted_mistakes_are_found(name, monkeypatch):
    monkeypatch.setattr(*PLANTED[name])
    monkeypatch.setattr(run, "MOST_FINDINGS", 1)
    assert run.fuzz(name, 20 * executions(name))[1]


@pytest.mark.parametrize("name", TARGETS)
def test_crashes_and_hangs_are_findings(name, monkeypatch):
    def crash(random):
        raise {0: KeyError, 1: MapflowError}[int(random.random() * 2)]("broken")

    monkeypatch.setitem(targets.TARGETS, name, crash)
    taken, findings = run.fuzz(name, 200)
    assert taken == 0 and len(findings) == run.MOST_FINDINGS and "KeyError" in findings[0]
    monkeypatch.setattr(run, "HANG", 0.05)
    monkeypatch.setattr(run, "MOST_FINDINGS", 1)
    monkeypatch.setitem(targets.TARGETS, name, lambda random: all(True for _ in itertools.count()))
    assert "Hang" in run.fuzz(name, 1)[1][0]


def test_an_import_is_no_hang(tmp_path, monkeypatch):
    (tmp_path / "fuzz_slow.py").write_text(
        "import time\nwhile time.process_time() < %r: pass\ndef slow(random): return 1\n"
        % (time.process_time() + 0.5)
    )
    monkeypatch.setattr(fuzz, "__path__", [*fuzz.__path__, str(tmp_path)])
    monkeypatch.setitem(targets.MODULES, "slow", "fuzz_slow")
    monkeypatch.setitem(targets.TARGETS, "slow", targets.target("slow"))
    monkeypatch.setattr(run, "HANG", 0.05)
    assert run.fuzz("slow", 3) == (3, [])


FOLDER_FINDINGS = {
    459983: 1,  # a carriage return within a line
    276201: 0,  # an intervention without a name and no manifest
    562312: 0,
    790894: 0,
    435424: 0,  # answered right, but no answers under the knockouts
    639244: 0,
}
"""Seed of `folders` → whether the folder is accepted."""


@pytest.mark.parametrize("seed", FOLDER_FINDINGS)
def test_folders_that_once_crashed(seed):
    assert run.fuzz("folders", 1, seed) == (FOLDER_FINDINGS[seed], [])


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        '{"question_id": "q", "prediction": "\\ud800"}',
        RECORDS[0].replace('"intervention": "full"', '"intervention": ""'),
        RECORDS[0].replace("clip", "\ud800"),
        RECORDS[0].replace('"n_options": 4', '"n_options": true'),
        RECORDS[0].replace('"n_options": 4', '"n_options": 1' + "0" * 30),
        RECORDS[0].replace('"p_answer": null', '"p_answer": 1e999'),
        RECORDS[0].replace('"p_answer": null', '"p_answer": "0.5"'),
        RECORDS[0].replace('"option_probs": null', '"option_probs": {"A": null}'),
        RECORDS[0].replace('"frame_indices": null', '"frame_indices": [[1]]'),
        json.dumps({"question_id": ["q"]}),
    ],
)
def test_lines_that_were_once_accepted_are_refused(line):
    """Found by the fuzzer: each line was accepted or caused a crash."""
    assert line != RECORDS[0]
    with pytest.raises(MapflowError, match="here: not a record"):
        Record.from_line(line, "here")
