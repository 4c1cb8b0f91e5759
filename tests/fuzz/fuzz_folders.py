"""Manifests and whole run folders: every reader accepts the same records or refuses in one line.

Records that are accepted belong to the run that the manifest describes.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from mapflow.harness.analyses.registry import asked_names
from mapflow.harness.api.runs import read_run
from mapflow.results.contract.errors import MapflowError
from mapflow.results.figures import (
    answer_panels,
    answer_rows,
    attention_panels,
    attention_rows,
    lens_panels,
    lens_rows,
    route_panels,
    route_rows,
)
from mapflow.results.records.attention import AttentionRecord
from mapflow.results.records.base import JsonlRecord
from mapflow.results.records.lens import LensRecord
from mapflow.results.records.record import Record
from mapflow.results.records.sweep import SweepRecord
from mapflow.results.records.trace import TraceRecord
from mapflow.results.runs.asked import ASKED
from mapflow.results.runs.folder import (
    SUMMARY,
    RunFolder,
    read_records,
    reported_records,
    sort_records,
)
from mapflow.results.runs.manifest import MANIFEST, read_manifest, run_digest
from mapflow.results.runs.provenance import disagreements, provenance
from mapflow.results.runs.run import labels, read_runs
from mapflow.results.tables.ablation import ablation_tables
from mapflow.results.tables.comparison import compare_groups, comparison_tables
from mapflow.results.tables.formats import render
from mapflow.results.tables.leaderboard import leaderboards
from tests.results.run_folders import ABOUT, IDENTITY, KINDS, write_folder

from .fuzz_records import RECORD_TOKENS
from .mutation import altered, mutated

TABLES = 0.1
"""The share of executions that make tables."""
WORDS = {"spatial": frozenset({"left"})}
DRAWN = {
    SweepRecord: lambda records, names: route_rows(route_panels(records)),
    TraceRecord: lambda records, names: answer_rows(answer_panels(records, names)),
    LensRecord: lambda records, names: lens_rows(lens_panels(records, WORDS, names)),
    AttentionRecord: lambda records, names: attention_rows(attention_panels(records, names)),
}
MANIFEST_TOKENS = [*RECORD_TOKENS, '"identity":', '"interventions":{},', '"digest":"x",', "\ufeff"]


@cache
def place() -> Path:
    """A folder of this process, in memory where there is room for it."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() else None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def whole(kind: type[JsonlRecord] | None, name: str = "tiny") -> dict[str, str]:
    """File → its text, of the folder of a run or an analysis."""
    folder = place() / "whole"
    write_folder(folder, kind, {**IDENTITY, "checkpoint": name})
    files = {one.name: one.read_text() for one in folder.iterdir() if not one.name.startswith(".")}
    shutil.rmtree(folder)
    return files


def changed(random: Random, text: str, tokens: list[str]) -> str:
    """Other characters, or another value in the JSON."""
    if random.random() < 0.5:
        return mutated(random, [text], tokens)
    return json.dumps(altered(random, json.loads(text)))


def changed_lines(random: Random, text: str, other: str) -> str:
    """Lines changed, doubled, moved, lost, cut, glued together and of another run."""
    lines = text.splitlines(keepends=True)
    for _ in range(1 + int(random.random() * 2)):
        at, to = (int(random.random() * len(lines)) for _ in range(2))
        match int(random.random() * 9):
            case 0:
                lines.insert(to, lines[at])
            case 1:
                lines[at] = lines[at][: int(random.random() * len(lines[at]))]
            case 2:
                lines.insert(to, random.choice(other.splitlines(keepends=True)))
            case 3:
                lines = lines[:at] or lines
            case 4:
                values = {**json.loads(text.splitlines()[0]), "error": "no video"}
                lines.insert(to, json.dumps(values) + "\n")
            case 5:
                lines[at] = mutated(random, [lines[at]], RECORD_TOKENS)
            case _:
                try:
                    lines[at] = json.dumps(altered(random, json.loads(lines[at]))) + "\n"
                except ValueError:  # cut or glued before
                    lines[at] += "\n"
    return "".join(lines)


def manifests(random: Random) -> Any:
    """A manifest is refused, or everything that shows it does, and its records are its own."""
    files = dict(whole(None))
    files[MANIFEST] = changed(random, files[MANIFEST], MANIFEST_TOKENS)
    return _read(_written(files), None, random.random() < TABLES)


def folders(random: Random) -> Any:
    """A folder is refused by all readers in the same words, or read by all."""
    kind = random.choice([None, None, None, *KINDS])
    files = dict(whole(kind))
    lines = (kind or Record).FILE
    if random.random() < 0.8:
        files[lines] = changed_lines(random, files[lines], whole(kind, "big")[lines])
    if random.random() < 0.2:
        name = random.choice([MANIFEST, ASKED, SUMMARY])
        files[name] = changed(random, files[name], MANIFEST_TOKENS)
    if random.random() < 0.1:
        del files[random.choice(list(files))]
    return _read(_written(files), kind, random.random() < TABLES)


def _written(files: dict[str, str]) -> Path:
    folder = place() / "folder"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    return folder


def _read(folder: Path, kind: type[JsonlRecord] | None, tables: bool) -> Any:
    """The records that all readers agree on. Raises MapflowError where they refuse."""
    own: Any = kind or Record
    try:
        records = read_records(folder, own)
    except MapflowError as error:
        for reader in (lambda: read_run(folder), lambda: reported_records(folder, own)):
            _refused(reader, str(error) if (folder / own.FILE).exists() else "")
        there = (folder / MANIFEST).exists() and (folder / own.FILE).exists()
        _refused(lambda: _resumed(folder, kind), "" if there else None)
        raise
    assert read_run(folder).records == records
    _check_origin(folder, own)
    shown = reported_records(folder, own)
    assert {one.key for one in shown} <= {one.key for one in records}
    try:
        if kind:
            order = asked_names(folder)
            assert DRAWN[kind](shown, order) is not None
        else:
            _show(folder, tables)
    finally:
        _resume(folder, kind, records)
    return records


def _refused(reader: Any, said: str | None) -> None:
    """The reader refuses too, in the same words where they are given; None: it may go on."""
    try:
        reader()
    except MapflowError as error:
        assert said in ("", None, str(error)), (said, str(error))
    else:
        assert said is None, said


def _check_origin(folder: Path, kind: Any) -> None:
    """Every complete line names the run that the manifest describes, or all name none."""
    content = (folder / kind.FILE).read_bytes()
    # not splitlines(): a carriage return is white space of JSON and ends no line
    found = {json.loads(line).get("run") for line in content.split(b"\n")[:-1]}
    manifest = read_manifest(folder)
    assert len(found) <= 1, found
    assert not manifest or found <= {None, run_digest(manifest.get("identity") or {})}, found


def _show(folder: Path, tables: bool) -> None:
    """What compare, leaderboard, ablate and report print; `tables` too, which take longest."""
    runs = read_runs(folder)
    assert all(labels(runs)) and provenance(runs)
    groups: dict[str, list[Any]] = {}
    for run in runs:
        groups.setdefault(run.benchmark, []).append(run)
        disagreements(runs[0], run)
    if not tables:
        return
    shown = leaderboards(runs)
    several = [group for group in groups.values() if len(group) > 1]
    if several:
        shown += comparison_tables(compare_groups(several, intersect=True))
        shown += ablation_tables(several, intersect=True)
    assert render(shown, "markdown")


def _resumed(folder: Path, kind: Any) -> RunFolder[Any]:
    return RunFolder(folder, {**IDENTITY, "checkpoint": "tiny"}, ABOUT, *([kind] if kind else []))


def _resume(folder: Path, kind: Any, records: list[Any]) -> None:
    """Going on is refused, or knows the answers; the sorted file holds the same records."""
    manifest = read_manifest(folder)
    identity = {**IDENTITY, "checkpoint": "tiny"}
    try:
        resumed = _resumed(folder, kind)
    except MapflowError:
        assert not manifest or manifest.get("identity") != identity or _renamed(manifest)
        return
    assert not records or manifest["identity"] == identity
    assert resumed.answered == {one.key for one in records if one.error is None}
    assert sort_records(folder, kind or Record) == records == read_records(folder, kind or Record)


def _renamed(manifest: dict[str, Any]) -> bool:
    """Whether a name of an intervention means something else now."""
    named = manifest.get("interventions") or {}
    return any(named.get(name, text) != text for name, text in ABOUT["interventions"].items())
