"""The run loop against its reference, one question after another.

Order, batches, failed questions, copies between devices.
"""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mapflow.model_adapters.device_copies import AsyncHostCopy, bytes_held, pinned, to_device
from mapflow.model_adapters.families.registry import checkpoint, family
from mapflow.model_adapters.inference import question_loading
from mapflow.model_adapters.inference.answering import answer
from mapflow.model_adapters.inference.batch_size import BatchSize
from mapflow.model_adapters.inference.question_loading import MOST_THREADS, loading_threads
from mapflow.model_adapters.inference.run_loop import (
    WINDOW,
    answer_questions,
    batches_by_length,
    one_behind,
)
from mapflow.model_adapters.interventions import parse_interventions
from mapflow.results.contract.errors import MapflowError
from mapflow.tasks.registry import load_questions

INTERVENTIONS = parse_interventions(["full;random;video->last"])


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def model(request):
    return family("mapflow_llava").load(checkpoint("mapflow_llava", None), dtype=request.param)


@pytest.fixture(scope="module")
def asked():
    """Questions of different lengths, long and short ones mixed."""
    found = load_questions("mapflow_motion", limit=1)[:5]
    return [replace(q, stem=q.stem + " again" * (5 * i % 7)) for i, q in enumerate(found)]


@pytest.fixture(scope="module")
def one_by_one(model, asked):
    return {q.question_id: answer(model, [model.prepare(q)], INTERVENTIONS)[0] for q in asked}


def test_one_at_a_time_gives_the_references_records_in_order(model, asked, one_by_one):
    found = list(answer_questions(model, asked, INTERVENTIONS))
    assert [q.question_id for q, _ in found] == [q.question_id for q in asked]
    assert [records for _, records in found] == [one_by_one[q.question_id] for q in asked]


def test_batches_answer_every_question_once_and_within_the_precisions_noise(
    model, asked, one_by_one
):
    found = list(answer_questions(model, asked, INTERVENTIONS, batch_size=BatchSize(3)))
    assert sorted(q.question_id for q, _ in found) == sorted(one_by_one)
    for question, records in found:
        for record, alone in zip(records, one_by_one[question.question_id], strict=True):
            if next(model.model.parameters()).dtype == torch.float32:
                assert record == alone
            else:
                assert (record.key, record.edges_kept, record.n_tokens) == (
                    alone.key,
                    alone.edges_kept,
                    alone.n_tokens,
                )
                assert record.option_probs == pytest.approx(alone.option_probs, abs=0.1)


def test_a_question_that_cannot_be_asked_is_an_error_record_among_the_others(
    model, asked, one_by_one
):
    broken = replace(asked[1], clip=replace(asked[1].clip, path="nowhere.mp4"))
    found = list(answer_questions(model, [asked[0], broken, asked[2]], INTERVENTIONS))
    assert len(found) == 3
    by_id = {q.question_id: records for q, records in found}
    assert all("nowhere.mp4" in record.error for record in by_id[broken.question_id])
    assert [r.intervention for r in by_id[broken.question_id]] == [
        str(one) for one in INTERVENTIONS
    ]
    assert by_id[asked[0].question_id] == one_by_one[asked[0].question_id]
    assert by_id[asked[2].question_id] == one_by_one[asked[2].question_id]


def test_what_is_no_fault_of_a_question_ends_the_run_after_what_was_answered(
    model, asked, monkeypatch
):
    original = model.prepare

    def prepare(question):
        if question is asked[2]:
            raise RuntimeError("a mistake in the code")
        return original(question)

    monkeypatch.setattr(model, "prepare", prepare)
    running = answer_questions(model, asked, INTERVENTIONS)
    assert [next(running)[0] for _ in range(2)] == asked[:2]
    with pytest.raises(RuntimeError, match="a mistake in the code"):
        next(running)


def test_an_intervention_that_does_not_fit_ends_the_run(model, asked):
    with pytest.raises(MapflowError):
        list(answer_questions(model, asked[:1], parse_interventions(["frame[99]->last"])))


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 9))
def test_batches_hold_every_prompt_once_neighbours_in_length(lengths, size):
    window = [SimpleNamespace(layout=range(length), place=i) for i, length in enumerate(lengths)]
    batches = list(batches_by_length(window, lambda: size))
    flat = [prepared for batch in batches for prepared in batch]
    assert sorted(prepared.place for prepared in flat) == list(range(len(lengths)))
    assert [len(prepared.layout) for prepared in flat] == sorted(lengths)
    assert all(len(batch) == size for batch in batches[:-1])
    assert not batches or 1 <= len(batches[-1]) <= size
    if (
        len(window) % size == 0
    ):  # else one batch is smaller, and which one should be depends on the lengths
        blind = [window[i : i + size] for i in range(0, len(window), size)]
        assert padding(batches) <= padding(blind)
    assert WINDOW > 1


def padding(batches):
    return sum(
        max(len(p.layout) for p in batch) - len(p.layout) for batch in batches for p in batch
    )


@pytest.mark.parametrize("fails_at", [None, 0, 1, 3])
def test_an_answer_is_read_when_the_next_work_has_begun_and_none_is_lost(fails_at):
    happened = []

    def begin_all():
        for number in range(4):
            if number == fails_at:
                raise LookupError(f"no {number}")
            happened.append(f"begin {number}")
            yield lambda number=number: happened.append(f"read {number}")

    def run():
        for read in one_behind(begin_all()):
            read()

    if fails_at is None:
        run()
    else:
        with pytest.raises(LookupError, match=f"no {fails_at}"):
            run()
    begun = 4 if fails_at is None else fails_at
    expected = [
        step for n in range(begun) for step in ([f"begin {n}"] + ([f"read {n - 1}"] if n else []))
    ]
    assert happened == expected + ([f"read {begun - 1}"] if begun else [])


@pytest.mark.parametrize(
    ("cores", "processes", "threads"),
    [(16, 1, 16), (64, 1, MOST_THREADS), (64, 4, 16), (16, 4, 4), (16, 8, 2), (2, 1, 2), (1, 1, 2),
     (128, 8, 16), (8, 0, 8)],
)  # fmt: skip
def test_threads_are_the_process_s_share_of_the_cores(cores, processes, threads):
    assert loading_threads(cores, processes) == threads


def test_beside_a_gpu_questions_come_pinned_by_as_many_threads_as_the_share_of_cores(
    asked, monkeypatch
):
    """Without a GPU: `pinned` and `prefetch` are watched instead."""
    seen = {}

    def prefetch(items, load, **sizes):
        seen.update(sizes)
        return ((item, load(item)) for item in items)

    monkeypatch.setattr(question_loading, "prefetch", prefetch)
    monkeypatch.setattr(question_loading, "pinned", lambda prepared: ("pinned", prepared))
    monkeypatch.setattr(question_loading.os, "sched_getaffinity", lambda pid: set(range(12)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    fake = SimpleNamespace(
        decoder=SimpleNamespace(device=torch.device("cuda", 0)),
        prepare=lambda question: question.question_id,
    )
    found = list(question_loading.load_ahead(fake, asked[:2]))
    assert found == [(question, ("pinned", question.question_id)) for question in asked[:2]]
    assert (seen["threads"], seen["depth"], seen["weigh"]) == (6, 12, bytes_held)


def test_a_questions_weight_is_its_tensors_bytes(model, asked):
    prepared = model.prepare(asked[0])
    pixels = prepared.vision["pixel_values"]
    assert bytes_held(prepared) == pixels.numel() * 4 + len(prepared.layout) * 8


def test_what_arrives_is_what_was_sent():
    sent = [torch.randn(3, 5), torch.tensor([True, False]), torch.arange(4)]
    assert all(
        torch.equal(here, there)
        for here, there in zip(sent, AsyncHostCopy(sent).wait(), strict=True)
    )
    assert to_device(sent[0], "cpu", torch.bfloat16).dtype == torch.bfloat16
    assert torch.equal(to_device(sent[2], "cpu"), sent[2])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_copies_to_and_from_a_gpu_do_not_wait_and_are_right(model, asked):
    prepared = pinned(model.prepare(asked[0]))
    assert prepared.input_ids.is_pinned() and prepared.vision["pixel_values"].is_pinned()
    there = to_device(prepared.vision["pixel_values"], "cuda")
    (back,) = AsyncHostCopy([there]).wait()
    assert torch.equal(back, prepared.vision["pixel_values"])
