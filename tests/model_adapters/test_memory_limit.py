"""Memory that runs out: batches and interventions halve, what fits is answered, the rest is an
error record.
"""

import itertools
import shutil
import time
import weakref
from dataclasses import replace

import pytest
import torch

from mapflow.model_adapters.device_memory import out_of_memory
from mapflow.model_adapters.families.llava.model import LlavaVideo
from mapflow.model_adapters.families.registry import checkpoint, family, load_model
from mapflow.model_adapters.inference.answering import answer, failed
from mapflow.model_adapters.inference.memory_limit import answer_within_memory
from mapflow.model_adapters.inference.run_loop import OneByOne, answer_questions, run_questions
from mapflow.model_adapters.interventions import Intervention, parse_interventions
from mapflow.results.contract.errors import MapflowError
from mapflow.results.runs.folder import RunFolder, read_records
from mapflow.results.runs.temporary import remove_abandoned, shared_temporary
from mapflow.tasks.registry import load_questions

CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you"
    " tried to allocate 9 bytes."
)
ERRORS = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    "cpu": RuntimeError(CPU),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 9 GiB)"),
    "cublas": RuntimeError(
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
    ),
    "python": MemoryError(),
}
FULL, TOO_LARGE = Intervention(), "out of memory: too large for cpu even alone"
INTERVENTIONS = parse_interventions(["full;random;cross-frame"])  # no rows to leave out: one batch


@pytest.fixture(scope="module")
def model():
    return family("mapflow_llava").load(checkpoint("mapflow_llava", None))


@pytest.fixture(scope="module")
def prepared(model):
    found = [model.prepare(question) for question in load_questions("mapflow_motion", limit=1)]
    return sorted(found, key=lambda one: len(one.layout))[-3:]


@pytest.fixture(scope="module")
def expected(model, prepared):
    return answer(model, prepared, INTERVENTIONS)


@pytest.fixture
def memory_for(model, monkeypatch):
    """Let the decoder fail above so many prompts × interventions, or for one question; returns the
    sizes it was asked.
    """
    original = model.decoder.answer_logits

    def limit(rows, error, never=None):
        asked = []

        def answer_logits(inputs, compiled):
            asked.append((len(inputs), len(compiled[0])))
            if sum(map(len, compiled)) > rows or any(
                len(own[0].layout) == never for own in compiled
            ):
                raise type(error)(*error.args)  # a new one: tracebacks hold tensors
            return original(inputs, compiled)

        monkeypatch.setattr(model.decoder, "answer_logits", answer_logits)
        return asked

    return limit


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_every_device_s_way_to_say_it_is_understood(error):
    assert out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("shape mismatch"), ValueError("out of memory"), KeyError("x")]
)
def test_other_errors_are_not(error, model, prepared, memory_for):
    assert not out_of_memory(error)
    memory_for(0, error)
    with pytest.raises(type(error)):
        answer_within_memory(model, prepared, INTERVENTIONS)


@pytest.mark.parametrize("rows", [1, 4, 9])
def test_whatever_fits_is_answered_as_if_memory_had_sufficed(
    rows, model, prepared, expected, memory_for
):
    asked = memory_for(rows, ERRORS["cuda"])
    found = answer_within_memory(model, prepared, INTERVENTIONS)
    assert len(prepared) == 3
    assert (rows >= 9) == (len(asked) == 1)
    for theirs, ours in zip(expected, found, strict=True):
        assert [r.key for r in ours] == [r.key for r in theirs]
        for one, other in zip(ours, theirs, strict=True):
            assert one.error is None
            assert one.prediction == other.prediction
            assert one.p_answer == pytest.approx(other.p_answer, abs=1e-5)
            assert one.option_probs == pytest.approx(other.option_probs, abs=1e-5)


@pytest.mark.parametrize("error", [ERRORS["cuda"], ERRORS["cpu"]], ids=["cuda", "cpu"])
def test_a_question_that_does_not_even_fit_alone_is_an_error_record_and_the_others_are_answered(
    error, model, prepared, memory_for
):
    sizes = [len(one.layout) for one in prepared]
    largest = max(sizes)
    memory_for(100, error, never=largest)
    found = answer_within_memory(model, prepared, INTERVENTIONS)
    assert 0 < sizes.count(largest) < len(sizes)
    for size, records in zip(sizes, found, strict=True):
        for intervention, record in zip(INTERVENTIONS, records, strict=True):
            assert record.intervention == str(intervention)
            if size == largest:
                assert record.error == TOO_LARGE
                assert (record.prediction, record.correct, record.p_answer) == (None, None, None)
            else:
                assert record.error is None


def test_memory_is_given_back_between_tries(model, prepared, memory_for, monkeypatch):
    """Nothing of a failed try is alive when the next one begins, and torch's store is emptied."""
    alive, emptied = [], []

    def embed(batch):
        assert all(reference() is None for reference in alive), (
            "tensors of a failed try still lie in memory"
        )
        inputs = original(batch)
        alive.extend(weakref.ref(one.embeds) for one in inputs)
        return inputs

    original = model.embed
    monkeypatch.setattr(model, "embed", embed)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    memory_for(2, torch.OutOfMemoryError("CUDA out of memory"))
    answer_within_memory(model, prepared, INTERVENTIONS)
    assert len(emptied) >= 4


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@torch.inference_mode()
def test_logits_that_are_not_finite_are_an_error_never_an_answer(
    value, model, prepared, monkeypatch
):
    original = model.decoder.answer_logits

    def broken(inputs, compiled):
        logits = [rows.clone() for rows in original(inputs, compiled)]
        logits[0][1, 7] = value
        return logits

    monkeypatch.setattr(model.decoder, "answer_logits", broken)
    first, *others = answer(model, prepared, INTERVENTIONS)
    assert [r.error for r in first] == [None, "the model's logits are not finite", None]
    assert first[1].correct is None and first[1].prediction is None
    assert not any(r.error for records in others for r in records)


@pytest.mark.parametrize(
    "error", [ERRORS["cpu"], RuntimeError("shape mismatch")], ids=["memory", "other"]
)
def test_an_analysis_fails_one_question_for_memory_and_stops_for_anything_else(
    error, model, tmp_path
):
    asked = []

    def ask(one):
        asked.append(one.question.question_id)
        if len(asked) == 2:
            raise error
        return [failed(one.question, FULL, "answered")]

    def give_up(question, why):
        return [failed(question, FULL, why)]

    questions = load_questions("mapflow_motion", limit=1)[:3]
    folder = RunFolder(tmp_path, {}, {})
    run = run_questions(OneByOne(model, [str(FULL)], ask, give_up), questions, folder)
    if error is ERRORS["cpu"]:
        assert [question for question, _ in run] == questions
        by_question = {record.question_id: record.error for record in read_records(tmp_path)}
        assert [by_question[name] for name in asked] == ["answered", TOO_LARGE, "answered"]
    else:
        with pytest.raises(RuntimeError, match="shape mismatch"):
            list(run)


def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line(monkeypatch):
    def load(cls, *arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(LlavaVideo, "load", classmethod(load))
    with pytest.raises(MapflowError, match="does not fit into the memory of cpu: free it, or"):
        load_model(device="cpu")


def test_a_clock_that_jumps_changes_nothing(model, tmp_path, monkeypatch):
    """As after suspending a machine, or a correction of its clock by a day."""
    questions = load_questions("mapflow_motion", limit=2)
    (expected,) = [[r for _, own in answer_questions(model, questions, [FULL]) for r in own]]
    now, days = time.time, itertools.cycle((-1, 1, 0))
    monkeypatch.setattr(time, "time", lambda: now() + 86_400 * next(days))
    folder, held = shared_temporary()
    run = RunFolder(folder, {}, {})
    found = [r for _, own in answer_questions(model, questions, [FULL], folder=run) for r in own]
    for _ in range(3):
        remove_abandoned()
    assert found == expected == read_records(folder)
    del held
    shutil.rmtree(folder)


def test_a_written_answer_whose_later_logits_are_not_finite_is_no_answer(
    model, prepared, monkeypatch
):
    original, calls = model.decoder.logits, []

    def broken(hidden):
        logits = original(hidden).clone()
        calls.append(len(logits))
        if len(calls) == 2:
            logits[1, 7] = torch.nan
        return logits

    monkeypatch.setattr(model.decoder, "logits", broken)
    monkeypatch.setattr(type(model), "stop_ids", ())
    writing = replace(prepared[0], question=replace(prepared[0].question, max_new_tokens=3))
    with torch.inference_mode():
        (records,) = answer(model, [writing], INTERVENTIONS)
    assert len(calls) == 3
    assert [r.error for r in records] == [None, "the model's logits are not finite", None]
