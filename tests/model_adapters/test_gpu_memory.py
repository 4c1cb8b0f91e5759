"""Memory of a real GPU that runs out: the same as in test_memory_limit.py, with real allocations.

Skipped without a GPU. The limit is that of torch's allocator, set to a share of what the same work
took without one.
"""

import contextlib
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
import torch

from mapflow.harness.analyses.route_sets import parse_routes
from mapflow.harness.analyses.sweep import Sweep
from mapflow.harness.analyses.trace import Trace
from mapflow.harness.cli.main import main
from mapflow.model_adapters.device_memory import free_memory
from mapflow.model_adapters.families.registry import load_model
from mapflow.model_adapters.inference import memory_limit
from mapflow.model_adapters.inference.batch_size import BatchSize
from mapflow.model_adapters.inference.run_loop import OneByOne, answer_questions, run_questions
from mapflow.model_adapters.interventions import Intervention, parse_interventions
from mapflow.model_adapters.interventions.inspection.noise import NOISE
from mapflow.results.contract.errors import MapflowError
from mapflow.results.records.sweep import SweepRecord
from mapflow.results.runs.folder import RunFolder, read_records
from mapflow.tasks.registry import load_questions

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

FULL = Intervention()
INTERVENTIONS = parse_interventions(["full;random;cross-frame;effective"])
TOO_LARGE = "out of memory: too large for cuda even alone"
MARGIN = 0.25
"""Natural log: two steps of a bfloat16 logit, as in test_determinism.py."""


@pytest.fixture(scope="module")
def model():
    """The bundled model in bfloat16, warmed up: its workspaces are allocated."""
    loaded = load_model(device="cuda", dtype="bfloat16")
    list(answer_questions(loaded, load_questions("mapflow_motion", limit=1)[:2], INTERVENTIONS))
    return loaded


@pytest.fixture(scope="module")
def questions():
    return load_questions("mapflow_motion", limit=13)[:64]


@contextlib.contextmanager
def at_most(extra: float):
    """At most `extra` bytes beside those that are in use."""
    free_memory()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + extra) / total)
    filling = [] if extra else list(_rest())
    try:
        yield
    finally:
        filling.clear()
        torch.cuda.set_per_process_memory_fraction(1.0)


def _rest():
    """Tensors that fill what the allocator holds and nothing uses."""
    for size in (2**24, 2**20, 2**16, 2**12, 512):
        with contextlib.suppress(torch.OutOfMemoryError):
            while True:
                yield torch.empty(size, dtype=torch.uint8, device="cuda")


def needed(work):
    """(result, bytes that the work reserved beside those in use)."""
    free_memory()
    before = torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    return work(), torch.cuda.max_memory_reserved() - before


def answers(model, questions, folder=None, size=None):
    size = size or BatchSize(64)
    found = answer_questions(model, questions, INTERVENTIONS, size, folder)
    return {record.key: record for _, own in found for record in own}


@pytest.mark.parametrize("share", [0.7, 0.4, 0.15])
def test_a_batch_that_does_not_fit_is_halved(model, questions, share, monkeypatch):
    expected, most = needed(lambda: answers(model, questions))
    tries, original = [], memory_limit.begin
    monkeypatch.setattr(
        memory_limit, "begin", lambda *some: tries.append(len(some[1])) or original(*some)
    )
    with at_most(share * most):
        found = answers(model, questions)
    assert len(tries) > 1 and min(tries) < 64, "memory has run out"
    assert found.keys() == expected.keys()
    for key, record in found.items():
        assert record.error is None
        assert record.margin == pytest.approx(expected[key].margin, abs=MARGIN)


def test_auto_finds_the_largest_batch_that_fits(model, questions):
    expected, most = needed(lambda: answers(model, questions))
    size = BatchSize(None)
    with at_most(0.4 * most):
        found = answers(model, questions, size=size)
    assert 1 < size.largest < 64
    for key, record in found.items():
        assert record.error is None
        assert record.margin == pytest.approx(expected[key].margin, abs=MARGIN)


def test_written_answers_that_do_not_fit_are_halved(model, questions):
    longer = [replace(one, max_new_tokens=4) for one in questions]
    expected, most = needed(lambda: answers(model, longer))
    with at_most(0.4 * most):
        found = answers(model, longer)
    assert [one.error for one in found.values()] == [None] * len(expected)


def test_a_question_that_does_not_fit_alone_is_asked_again_when_it_does(model, questions, tmp_path):
    folder = RunFolder(tmp_path, {}, {})
    with at_most(0):
        found = answers(model, questions[:4], folder)
    assert {one.error for one in found.values()} == {TOO_LARGE}
    del folder
    again = answers(model, questions[:4], RunFolder(tmp_path, {}, {}))
    assert {one.error for one in again.values()} == {None}
    assert {one.key: one for one in read_records(tmp_path)} == again


def test_a_sweep_runs_fewer_windows_together(questions):
    model = load_model(device="cuda", dtype="float32")
    sweep = Sweep(tuple(parse_routes(["paper"])), size=3)

    def swept(sweep):
        work = OneByOne(model, sweep.names, lambda one: sweep.measure(model, one), sweep.failed)
        return [r for _, own in run_questions(work, questions[:3]) for r in own]

    expected, most = needed(lambda: swept(sweep))
    with at_most(0.3 * most):
        found = swept(replace(sweep))
    for ours, theirs in zip(found, expected, strict=True):
        assert isinstance(ours, SweepRecord) and ours.error is None
        assert ours.p_answers == pytest.approx(
            theirs.p_answers, abs=NOISE[torch.float32].probability
        )
    with at_most(0):
        assert {one.error for one in swept(replace(sweep))} == {TOO_LARGE}


def test_an_analysis_fails_the_question(model, questions):
    trace = Trace((FULL,))
    work = OneByOne(model, trace.names, lambda one: trace.measure(model, one), trace.failed)
    with at_most(0):
        found = [r for _, own in run_questions(work, questions[:2]) for r in own]
    assert [one.error for one in found] == [TOO_LARGE] * 2


def test_weights_that_do_not_fit_are_refused_in_one_line(model):
    with at_most(0), pytest.raises(MapflowError, match="does not fit into the memory of cuda"):
        load_model(device="cuda")


def test_memory_that_another_process_holds(tmp_path, capsys):
    """The other process leaves too little for the weights."""
    free_memory()
    script = """
        import sys, torch
        torch.ones(1, device="cuda")
        held = []
        for size in (2**32, 2**28, 2**24, 2**20):
            try:
                while True:
                    held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
            except torch.OutOfMemoryError:
                pass
        print("full", flush=True)
        sys.stdin.read()
    """
    words = [sys.executable, "-c", textwrap.dedent(script)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, **pipes) as other:
        assert other.stdout.readline() == b"full\n"
        code = main(["trace", "--limit", "1", "--output_path", str(tmp_path / "t")])
        other.stdin.close()
    error = capsys.readouterr().err
    assert code in (1, 2) and "memory" in error and "Traceback" not in error
    assert main(["trace", "--limit", "1", "--output_path", str(tmp_path / "t")]) == 0
