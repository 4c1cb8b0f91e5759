"""Broken, torn and foreign folders: every command that reads them heals or refuses them alike.

Refused means: exit code 2 and one line that names the file (and the line in it).
"""

import json
import os
import shutil
from pathlib import Path

import pytest

import mapflow
from mapflow.harness.cli.main import main
from mapflow.results.contract.errors import MapflowError
from mapflow.results.records.attention import AttentionRecord
from mapflow.results.records.lens import LensRecord
from mapflow.results.records.sweep import SweepRecord
from mapflow.results.records.trace import TraceRecord
from mapflow.results.runs.folder import MANIFEST, RECORDS, RunFolder
from mapflow.results.runs.manifest import run_digest
from tests.results.run_folders import ABOUT, IDENTITY, KINDS, RUN_RECORDS, write_folder

COMMANDS = ("compare", "leaderboard", "ablate", "power", "report", "export")
EARLIER = Path(__file__).with_name("earlier_runs")


def readers(folder, kind=None):
    """What reads the folder, by name: returns the exit code, or raises MapflowError."""
    output = str(folder.parent / "page.html")
    commands = {name: [name, str(folder)] for name in COMMANDS}
    table = str(folder.parent / "records.csv")
    commands["export"] = ["export", str(folder), "--to", "csv", "-o", table]
    if kind:
        figure = ["figure", str(folder), "-o", str(folder.parent / "figure.png")]
        commands = {"export": commands["export"], "figure": figure}
    if kind is SweepRecord:
        if not (whole := folder.parent / "whole").exists():
            write_folder(whole)
        commands["report"] = ["report", str(whole), str(folder)]
    commands["export"] = ["export", str(folder), "--to", "csv", "-o", str(folder.parent / "x.csv")]
    if "report" in commands:
        commands["report"] += ["-o", output]
    found = {name: lambda words=words: main(words) for name, words in commands.items()}
    found["read_run"] = lambda: bool(mapflow.read_run(folder).to_pandas().empty)
    found["resume"] = lambda: len(
        RunFolder(folder, IDENTITY, ABOUT, *([kind] if kind else [])).answered
    )
    return found


def refusal(name, read, capsys):
    """The one line with which a reader refuses."""
    capsys.readouterr()
    try:
        code = read()
    except MapflowError as error:
        return str(error)
    printed = capsys.readouterr()
    assert code == 2, (name, code, printed)
    assert printed.out == "" and len(printed.err.splitlines()) == 1, (name, printed)
    return printed.err.strip()


MANIFESTS = {
    "a list": b"[]",
    "null": b"null",
    "empty": b"",
    "a byte order mark": b'\xef\xbb\xbf{"identity": {}}',
    "binary": bytes(range(256)),
    "100,000 brackets": b"[" * 100_000,
    "a deep entry": b'{"identity": ' + b'{"a":' * 100_000,
    "a list for a mapping": b'{"identity": ["model"]}',
    "text for a mapping": b'{"identity": "model"}',
    "a list for the interventions": b'{"interventions": ["full"]}',
    "numbers for text": b'{"identity": {"model": 1}}',
    "a number for an expression": b'{"interventions": {"full": 1}}',
    "a number for a command": b'{"command": 3}',
    "a list for versions": b'{"identity": {"versions": ["torch"]}}',
    "text for a number": b'{"frames_per_segment": "many"}',
    "text for the layers": b'{"layers": "many"}',
    "NaN": b'{"checks": {"max": NaN}}',
    "half of a surrogate pair": b'{"device": "\\ud800"}',
}


@pytest.mark.parametrize("kind", [None, *KINDS], ids=lambda kind: kind.__name__ if kind else "run")
def test_a_broken_manifest_is_one_line_in_every_command(kind, tmp_path, capsys):
    folder = write_folder(tmp_path / "folder", kind)
    for case, content in MANIFESTS.items():
        (folder / MANIFEST).write_bytes(content)
        for name, read in readers(folder, kind).items():
            line = refusal(f"{case}: {name}", read, capsys)
            assert str(folder / MANIFEST) in line and len(line) < 1000, (case, name, line)


ASKED = {
    "a list": b"[]",
    "text": b'{"t_one": "x"}',
    "no questions": b'{"t_one": {"job": "j", "of": 3}}',
    "a number for questions": b'{"t_one": {"job": "j", "of": 3, "questions": 3}}',
    "a number for a question": b'{"t_one": {"job": "j", "of": 3, "questions": [3]}}',
    "fewer than were asked": b'{"t_one": {"job": "j", "of": 1, "questions": ["a", "b"]}}',
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("kind", [None, TraceRecord], ids=["run", "trace"])
def test_a_broken_list_of_what_was_asked_is_one_line_in_every_command(kind, tmp_path, capsys):
    folder = write_folder(tmp_path / "folder", kind)
    for case, content in ASKED.items():
        (folder / "asked.json").write_bytes(content)
        for name, read in readers(folder, kind).items():
            line = refusal(f"{case}: {name}", read, capsys)
            assert str(folder / "asked.json") in line, (case, name, line)


NO_FILES = {
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("kind", [None, TraceRecord], ids=["run", "trace"])
@pytest.mark.parametrize("file", [MANIFEST, "asked.json"])
def test_what_is_no_file_is_not_taken_for_a_missing_one(file, kind, tmp_path, capsys):
    folder = write_folder(tmp_path / "folder", kind)
    for case, put in NO_FILES.items():
        (folder / file).rename(folder / "kept")
        put(folder / file)
        for name, read in readers(folder, kind).items():
            line = refusal(f"{case}: {name}", read, capsys)
            assert f"{folder / file}' is not a file" in line, (case, name, line)
        (folder / file).rmdir() if case == "a folder" else (folder / file).unlink()
        (folder / "kept").rename(folder / file)


def _with(line, **changes):
    return json.dumps({**json.loads(line), **changes}).encode() + b"\n"


def _without_name(line):
    name = "route" if "route" in json.loads(line) else "intervention"
    return _with(line, **{name: " "})


def _at(lines, *more):
    """The lines with others after the second."""
    return [*lines[:2], *more, *lines[2:]]


REFUSED = {
    "binary garbage": lambda lines: _at(lines, b"\xff\x00\xfe garbage\n"),
    "zeros": lambda lines: _at(lines, b"\0" * 5000 + b"\n"),
    "an empty line": lambda lines: _at(lines, b"\n"),
    "half a line": lambda lines: _at(lines, lines[0][:40] + b"\n"),
    "half a line glued to the next": lambda lines: _at(lines, lines[0][:40] + lines[0]),
    "two lines in one": lambda lines: _at(lines, lines[0][:-1] + lines[1]),
    "another run's": lambda lines: _at(lines, _with(lines[0], run="0123456789ab")),
    "without a run": lambda lines: _at(lines, _with(lines[0], run=None)),
    "another task's": lambda lines: _at(lines, _with(lines[0], task="t_two")),
    "another field": lambda lines: _at(lines, _with(lines[0], more=1)),
    "an absurd number": lambda lines: _at(lines, _with(lines[0], protocol=10**30)),
    "no name": lambda lines: _at(lines, _without_name(lines[0])),
    "another answer": lambda lines: _at(lines, _with(lines[0], target="C")),
}
OF_RUNS = {
    "another intervention's": lambda lines: _at(lines, _with(lines[0], intervention="random")),
}


@pytest.mark.parametrize("kind", [None, *KINDS], ids=lambda kind: kind.__name__ if kind else "run")
def test_a_broken_or_foreign_line_is_named_by_every_command(kind, tmp_path, capsys):
    folder = write_folder(tmp_path / "folder", kind)
    file = folder / (kind.FILE if kind else RECORDS)
    lines = file.read_bytes().splitlines(keepends=True)
    cases = REFUSED if kind else {**REFUSED, **OF_RUNS}
    for case, change in cases.items():
        if case == "another answer" and kind in (LensRecord, AttentionRecord):
            continue  # they have no right answer
        file.write_bytes(b"".join(change(lines)))
        for name, read in readers(folder, kind).items():
            line = refusal(f"{case}: {name}", read, capsys)
            assert f"{file}:3: " in line and len(line) < 1000, (case, name, line)


def _shorter(record):
    """All sequences over layers without their last."""
    return {
        name: {part: one[:-1] for part, one in value.items()}
        if isinstance(value, dict)
        else value and value[:-1]
        for name, value in record.items()
        if name in PER_LAYER
    }


PER_LAYER = {
    *("p_answers", "p_targets", "p_options", "change_answer", "change_target", "answers"),
    *("rights", "ids", "probabilities", "weights", "by_frame", "shares"),
}
LAYERS = {
    "fewer layers than others": (KINDS, _shorter),
    "no answers under the knockouts": (
        [SweepRecord], lambda record: {"answers": None, "rights": None},
    ),
    "no probabilities in a layer": (
        [LensRecord], lambda record: {"probabilities": record["probabilities"][:1]},
    ),
    "two probabilities of one word": (
        [LensRecord], lambda record: {"probabilities": [[[0.5, 0.1]], [[0.5]]]},
    ),
    "no weights in a layer": ([AttentionRecord], lambda record: {"weights": [[0.1]]}),
    "weights of other tokens": ([AttentionRecord], lambda record: {"weights": [[0.1], [0, 0]]}),
}  # fmt: skip


@pytest.mark.parametrize("case", LAYERS)
def test_layers_that_do_not_fit_are_named_by_every_command(case, tmp_path, capsys):
    kinds, change = LAYERS[case]
    for kind in kinds:
        folder = write_folder(tmp_path / kind.__name__, kind)
        lines = (folder / kind.FILE).read_bytes().splitlines(keepends=True)
        lines[2] = _with(lines[2], **change(json.loads(lines[2])))
        (folder / kind.FILE).write_bytes(b"".join(lines))
        for name, read in readers(folder, kind).items():
            line = refusal(f"{kind.__name__}: {name}", read, capsys)
            assert f"{folder / kind.FILE}:3: " in line and len(line) < 1000, (kind, name, line)


HEALED = {
    "an error, then its answer": lambda lines: [_failed(lines[0]), *lines],
    "an answer, then its error": lambda lines: [*lines, _failed(lines[0])],
    "an error, another, then the answer": lambda lines: [
        _failed(lines[0]), _failed(lines[0], "later"), *lines,
    ],
    "a carriage return in a line": lambda lines: [lines[0][:-2] + b"\r}\r\n", *lines[1:]],
    "the same line twice": lambda lines: _at(lines, lines[0]),
    "half a line at the end": lambda lines: [*lines, lines[0][:40]],
    "binary half a line at the end": lambda lines: [*lines, b"\xff\0"],
}  # fmt: skip


def _failed(line, error="no video"):
    return _with(line, error=error, prediction=None, correct=None, valid=None)


def test_what_is_healed_is_healed_by_every_command(tmp_path, capsys):
    folder = write_folder(tmp_path / "folder")
    lines = (folder / RECORDS).read_bytes().splitlines(keepends=True)

    def said():
        found = {}
        for name, read in readers(folder).items():
            (folder / RECORDS).write_bytes(b"".join(change(lines)))
            code = read()
            found[name] = (code, capsys.readouterr().out)
            if name == "report":
                found["page"] = (folder.parent / "page.html").read_text()
            if name == "read_run":
                found["records"] = mapflow.read_run(folder).records
        return found

    change = list
    whole = said()
    for case, healing in HEALED.items():
        change = healing
        assert said() == whole, case


def test_records_and_manifest_that_disagree_are_refused_with_both(tmp_path, capsys):
    folder = write_folder(tmp_path / "folder")
    other = write_folder(tmp_path / "other", identity={**IDENTITY, "checkpoint": "big"})
    (folder / MANIFEST).write_bytes((other / MANIFEST).read_bytes())
    both = run_digest(IDENTITY), run_digest({**IDENTITY, "checkpoint": "big"})
    for name in (*COMMANDS, "read_run"):
        line = refusal(name, readers(folder)[name], capsys)
        assert all(one in line for one in (*both, f"{folder / RECORDS}:1: ", "big")), line


def test_answers_without_a_manifest_are_not_adopted(tmp_path):
    folder = write_folder(tmp_path / "folder")
    (folder / MANIFEST).unlink()
    for identity in (IDENTITY, {**IDENTITY, "checkpoint": "big"}):
        with pytest.raises(MapflowError, match=r"records\.jsonl but no manifest\.json.*bring it"):
            RunFolder(folder, identity, ABOUT)
    assert not (folder / MANIFEST).exists()
    old = tmp_path / "old"  # of a version without digests
    old.mkdir()
    (old / RECORDS).write_text("".join(one.to_line() + "\n" for one in RUN_RECORDS))
    with pytest.raises(MapflowError, match="but no manifest"):
        RunFolder(old, IDENTITY, ABOUT)
    assert mapflow.read_run(old).manifest == {}


DISCOVERIES = {
    "a list": "[]",
    "no rules": '{"model": "m"}',
    "text for rules": '{"found": "paper"}',
    "text for a threshold": '{"found": [{"threshold": "five"}]}',
    "a list for ranges": '{"found": [{"ranges": []}]}',
    "two numbers of three": '{"found": [{"difference": [1, 2]}]}',
    "binary": "\x00\x01",
}


def test_a_broken_discovery_is_one_line_in_a_report(tmp_path, capsys):
    folder = tmp_path / "discover"
    shutil.copytree(EARLIER / "discover", folder)
    words = ["report", str(folder), "-o", str(tmp_path / "page.html")]
    assert main(words) == 0
    for case, text in DISCOVERIES.items():
        (folder / "discovery.json").write_text(text)
        line = refusal(case, lambda: main(words), capsys)
        assert str(folder / "discovery.json") in line and len(line) < 1000, (case, line)
