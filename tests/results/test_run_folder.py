"""A run's folder keeps what was written, refuses what does not belong, and survives a worker's
death."""

import errno
import json
import multiprocessing
import os
import resource
from pathlib import Path

import pytest

from mapflow.harness.evaluation.run_output import RunOutput
from mapflow.results.contract.errors import MapflowError
from mapflow.results.records.record import Record
from mapflow.results.runs import folder as run_folder
from mapflow.results.runs.folder import (
    MANIFEST,
    RECORDS,
    RunFolder,
    read_records,
    sort_records,
    write_json,
)
from tests.results.records import a_record

FULL = "No space left on device"
IDENTITY = {"model": "m", "digest": "d", "versions": {"torch": "2"}}


def test_records_come_back_as_they_were_written(tmp_path):
    run = RunFolder(tmp_path, IDENTITY, {"command": ["x"]})
    written = [
        a_record(1),
        a_record(0),
        a_record(0, "effective"),
        a_record(2, error="no video", prediction=None),
    ]
    run.append(written[:2])
    run.append(written[2:])
    assert read_records(tmp_path) == sorted(written, key=lambda record: record.key)
    assert json.loads((tmp_path / MANIFEST).read_text())["identity"] == IDENTITY


def test_a_second_start_knows_what_is_answered_and_drops_a_torn_line(tmp_path):
    RunFolder(tmp_path, IDENTITY, {}).append([a_record(0), a_record(1)])
    whole = (tmp_path / RECORDS).read_bytes()
    (tmp_path / RECORDS).write_bytes(whole[:-7])
    run = RunFolder(tmp_path, IDENTITY, {})
    assert run.answered == {a_record(0).key}
    run.append([a_record(1)])
    assert (tmp_path / RECORDS).read_bytes() == whole


@pytest.mark.parametrize("name", IDENTITY)
def test_another_identity_is_refused_with_both_values(tmp_path, name):
    RunFolder(tmp_path, IDENTITY, {}).append([a_record(0)])
    before = (tmp_path / MANIFEST).read_bytes()
    with pytest.raises(MapflowError, match=f"{name} is .*, this one's 'other'"):
        RunFolder(tmp_path, {**IDENTITY, name: "other"}, {})
    assert (tmp_path / MANIFEST).read_bytes() == before


def _append_many(folder, worker):
    os.environ.update(WORLD_SIZE="4", RANK=str(worker), MASTER_PORT="29513")  # workers of one job
    run = RunFolder(folder, IDENTITY, {})
    for question in range(worker, 400, 4):
        run.append([a_record(question), a_record(question, "effective")])


def test_four_writers_lose_nothing_and_the_sorted_file_does_not_tell_them_apart(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_append_many, args=(tmp_path / "many", w)) for w in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    single = RunFolder(tmp_path / "one", IDENTITY, {})
    for question in range(400):
        single.append([a_record(question), a_record(question, "effective")])
    sort_records(tmp_path / "many")
    sort_records(tmp_path / "one")
    assert (tmp_path / "many" / RECORDS).read_bytes() == (tmp_path / "one" / RECORDS).read_bytes()


def test_a_torn_line_longer_than_a_block_is_dropped_and_nothing_else(tmp_path):
    RunFolder(tmp_path, IDENTITY, {}).append([a_record(0), a_record(1, target="x" * 200_000)])
    whole = (tmp_path / RECORDS).read_bytes()
    (tmp_path / RECORDS).write_bytes(whole[:-1])
    assert RunFolder(tmp_path, IDENTITY, {}).answered == {a_record(0).key}
    assert (tmp_path / RECORDS).read_bytes() == whole[: whole.index(b"\n") + 1]


def test_the_half_line_of_a_killed_worker_is_removed_by_the_next_line(tmp_path):
    run = RunFolder(tmp_path, IDENTITY, {})
    run.append([a_record(0)])
    with (tmp_path / RECORDS).open("ab") as file:
        file.write(b'{"question_id": "x')
    run.append([a_record(1)])
    assert read_records(tmp_path) == [a_record(0), a_record(1)]


@pytest.mark.parametrize("tail", [b"\0" * 70_000, b'{"question_id": "\xc3', b"\xff"])
def test_whatever_a_power_cut_left_behind_the_last_line_is_dropped(tmp_path, tail):
    RunFolder(tmp_path, IDENTITY, {}).append([a_record(0)])
    whole = (tmp_path / RECORDS).read_bytes()
    (tmp_path / RECORDS).write_bytes(whole + tail)
    assert read_records(tmp_path) == [a_record(0)], "a reader passes over it"
    RunFolder(tmp_path, IDENTITY, {})
    assert (tmp_path / RECORDS).read_bytes() == whole
    (tmp_path / RECORDS).write_bytes(tail)
    assert not RunFolder(tmp_path, IDENTITY, {}).answered


def test_records_reach_the_disk_after_seconds_not_after_hours(tmp_path, monkeypatch):
    clock, synced = [100.0], []
    monkeypatch.setattr(run_folder.time, "monotonic", lambda: clock[0])
    run = RunFolder(tmp_path, IDENTITY, {})
    with monkeypatch.context() as only_here:
        only_here.setattr(run_folder.os, "fsync", lambda _: synced.append(clock[0]))
        for question in range(100):
            clock[0] += 1.0
            run.append([a_record(question)])
    assert synced == [100.0 + n * run_folder.SYNC_SECONDS for n in range(1, 21)]


def test_a_name_that_stands_for_another_intervention_now_is_refused(tmp_path):
    RunFolder(tmp_path, IDENTITY, {"interventions": {"effective": "layers 2-6", "full": "full"}})
    with pytest.raises(
        MapflowError, match=r"its effective is 'layers 2-6', this one's 'layers 2-8'"
    ):
        RunFolder(tmp_path, IDENTITY, {"interventions": {"effective": "layers 2-8"}})


def test_a_full_disk_is_an_error_and_leaves_whole_lines(tmp_path, monkeypatch):
    run = RunFolder(tmp_path, IDENTITY, {})
    run.append([a_record(0)])
    with monkeypatch.context() as full:
        full.setattr(
            run_folder.os, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, FULL))
        )
        with pytest.raises(MapflowError, match=f"cannot be written: {FULL}"):
            run.append([a_record(1)])
    assert len(read_records(tmp_path)) == 1


def test_what_could_not_be_answered_is_asked_again_and_the_answer_takes_the_errors_place(tmp_path):
    RunFolder(tmp_path, IDENTITY, {}).append([a_record(0, error="no video"), a_record(1)])
    run = RunFolder(tmp_path, IDENTITY, {})
    assert run.answered == {a_record(1).key}
    run.append([a_record(0, error="half a video")])
    assert [record.error for record in read_records(tmp_path)] == ["half a video", None]
    assert a_record(0).key in run.answered, "but not twice in one run"
    RunFolder(tmp_path, IDENTITY, {}).append([a_record(0), a_record(0, error="too late")])
    assert sort_records(tmp_path) == [a_record(0), a_record(1)]


def test_sorting_opens_the_records_once_while_it_holds_their_lock(tmp_path, monkeypatch):
    """Where flock acts as lockf does, closing a second opening would end the lock."""
    RunFolder(tmp_path, IDENTITY, {}).append([a_record(1), a_record(0)])
    opened: list[str] = []
    original = Path.open

    def counted(path, mode="r", **options):
        opened.append(path.name)
        return original(path, mode, **options)

    monkeypatch.setattr(Path, "open", counted)
    assert sort_records(tmp_path) == [a_record(0), a_record(1)]
    assert opened.count(RECORDS) == 1


def _append_slowly(folder, ready, go):
    os.environ.update(WORLD_SIZE="2", RANK="1", MASTER_PORT="29513")
    run = RunFolder(folder, IDENTITY, {})
    ready.set()
    for question in range(200):
        run.append([a_record(question)])
        go.wait(0.001)


def test_sorting_while_another_worker_appends_loses_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, go = context.Event(), context.Event()
    (worker := context.Process(target=_append_slowly, args=(tmp_path, ready, go))).start()
    assert ready.wait(120)
    while worker.is_alive():
        sort_records(tmp_path)
    worker.join()
    assert worker.exitcode == 0
    assert read_records(tmp_path) == [a_record(question) for question in range(200)]


def _fill_the_disk(folder, pipe):
    """Files may grow by half a record only; then the kernel writes what fits and refuses the
    rest."""
    run = RunFolder(folder, IDENTITY, {})
    size = (folder / RECORDS).stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, size + 100))
    try:
        run.append([a_record(1)])
    except MapflowError as error:
        pipe.send(str(error))
    pipe.send("no error")


def test_a_disk_that_fills_in_the_middle_of_a_line_costs_that_line_and_the_run_goes_on_later(
    tmp_path,
):
    many = [a_record(0, f"knockout:{n}") for n in range(50)]
    RunFolder(tmp_path, IDENTITY, {}).append(many)
    whole = (tmp_path / RECORDS).read_bytes()
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    (writer := context.Process(target=_fill_the_disk, args=(tmp_path, theirs))).start()
    theirs.close()  # so that a child that dies ends the wait
    assert "no space left for records" in ours.recv()
    writer.join()
    assert (tmp_path / RECORDS).read_bytes() == whole
    RunFolder(tmp_path, IDENTITY, {}).append([a_record(1)])
    assert read_records(tmp_path) == sorted([*many, a_record(1)], key=lambda record: record.key)


def test_a_disk_that_is_full_at_the_end_leaves_the_old_files(tmp_path, monkeypatch):
    RunFolder(tmp_path, IDENTITY, {}).append([a_record(1), a_record(0)])
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(_):
        raise OSError(errno.ENOSPC, FULL)

    monkeypatch.setattr(run_folder.os, "fsync", full)
    for job in (sort_records, lambda folder: run_folder.write_json(folder / MANIFEST, {})):
        with pytest.raises(MapflowError, match=f"cannot be written: {FULL}"):
            job(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def _open_read_only(folder, pipe):
    if os.geteuid() == 0:
        os.setuid(65534)  # for root nothing is read-only
    said = []
    for job in (
        lambda: RunFolder(folder / "run", IDENTITY, {}),
        lambda: RunOutput(str(folder / "run")),
    ):
        try:
            job()
        except MapflowError as error:
            said.append(str(error))
    pipe.send(said)


def test_a_read_only_place_is_named(tmp_path):
    tmp_path.chmod(0o555)
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    (opener := context.Process(target=_open_read_only, args=(tmp_path, theirs))).start()
    theirs.close()  # so that a child that dies ends the wait
    said = ours.recv()
    opener.join()
    tmp_path.chmod(0o755)
    assert len(said) == 2
    assert all("cannot be written" in line and str(tmp_path / "run") in line for line in said), said


def test_a_place_that_may_not_be_looked_at_is_named_too(monkeypatch, tmp_path):
    def hidden(path, **_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "stat", hidden)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(MapflowError, match="cannot be written"):
        RunOutput(str(tmp_path / "run"))


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MapflowError, match=r"file/run.*cannot be written"):
        RunFolder(tmp_path / "file" / "run", IDENTITY, {})


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        '"x"',
        '{"question_id": 1, "extra": 2}',
        '{"p_answer": NaN}',
        '{"question_id": "q"}',
    ],
)
def test_a_line_that_is_no_record_is_named_by_file_and_number(tmp_path, line):
    (tmp_path / RECORDS).write_text(a_record(0).to_line() + "\n" + line + "\n")
    with pytest.raises(MapflowError, match=r"records\.jsonl:2: not a record"):
        read_records(tmp_path)


def test_nan_is_never_written():
    with pytest.raises(ValueError):
        a_record(0, p_answer=float("nan")).to_line()


def test_a_line_holds_every_field():
    record = a_record(0)
    assert Record.from_line(record.to_line(), "here") == record


def test_a_run_that_is_taken_up_with_more_interventions_names_all_of_them(tmp_path):
    RunFolder(tmp_path, IDENTITY, {"interventions": {"full": "full"}, "device": "cpu"})
    RunFolder(
        tmp_path, IDENTITY, {"interventions": {"random": "random:seed=0"}, "device": "cuda:0"}
    )
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert manifest["interventions"] == {"full": "full", "random": "random:seed=0"}
    assert list(manifest["interventions"]) == ["full", "random"]
    assert manifest["device"] == "cuda:0"


@pytest.mark.parametrize("name", [".lock", ".job", ".worker-0"])
def test_a_lock_that_is_a_link_is_refused_and_its_target_kept(tmp_path, name):
    precious = tmp_path / "precious"
    precious.write_text("text")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / name).symlink_to(precious)
    with pytest.raises(MapflowError, match=rf"{name}' is a symbolic link: remove it"):
        RunFolder(folder, {}, {})
    assert precious.read_text() == "text"


def test_an_unfinished_file_that_is_a_link_is_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("text")
    (tmp_path / ".summary.json.unfinished").symlink_to(precious)
    write_json(tmp_path / "summary.json", {"a": 1})
    assert precious.read_text() == "text" and not (tmp_path / "summary.json").is_symlink()


def test_a_continued_run_keeps_what_was_described(tmp_path):
    RunFolder(tmp_path, IDENTITY, {"command": ["x"]}).describe({"uncut_layers": "layers 1-2"})
    RunFolder(tmp_path, IDENTITY, {"command": ["y"]})
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert manifest == {"identity": IDENTITY, "uncut_layers": "layers 1-2", "command": ["y"]}
