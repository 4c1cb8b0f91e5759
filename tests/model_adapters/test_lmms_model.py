"""Our models as lmms-eval calls them: foreign tasks, videos that cannot be read, arguments that do
not exist."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from mapflow.model_adapters.lmms.models import model_class
from mapflow.results.contract.answers import NOT_ASKED
from mapflow.results.contract.errors import MapflowError
from mapflow.results.runs.folder import read_records

MOTION = Path(__file__).parents[2] / "tasks" / "motion" / "data"
FOREIGN = (
    "Question: {question}\nOptions:\nA. {0}\nB. {1}\n"
    "Answer with the option's letter from the given choices directly."
)


def requests_of(model, documents, prompt, task="other_task"):
    """lmms-eval's requests for documents whose visual is a bare path."""
    model.task_dict = {task: {"test": documents}}
    return [
        SimpleNamespace(
            args=(
                prompt(doc),
                {"max_new_tokens": 3},
                lambda doc: [doc["video"]],
                number,
                task,
                "test",
            )
        )
        for number, doc in enumerate(documents)
    ]


def test_another_tasks_multiple_choice_prompt_is_asked_under_interventions(tmp_path):
    rows = json.loads((MOTION / "json" / "antonym.json").read_text())[:2]
    documents = [
        {
            "video": str(MOTION / "video" / "antonym" / row["video"]),
            "answer": "AB"[row["candidates"].index(row["answer"])],
            "question": row["question"],
            "candidates": row["candidates"],
        }
        for row in rows
    ]
    model = model_class("mapflow_llava")(
        intervention="full;video->options;question->last@1-3", records=str(tmp_path)
    )
    asked = requests_of(
        model, documents, lambda d: FOREIGN.format(*d["candidates"], question=d["question"])
    )
    answers = model.generate_until(asked)
    records = read_records(tmp_path)
    assert len(records) == 2 * 3
    assert {r.intervention for r in records} == {"full", "video->options", "question->last@1-3"}
    by_key = {r.key: r for r in records}
    for number, answer in enumerate(answers):
        full = by_key[f"other_task/{number:06d}", "full"]
        assert (full.prediction, full.n_options) == (answer, 2)
        # no task object comes with these requests, so nothing can score the answers
        assert (full.target, full.correct, full.p_target) == ("", None, None)
        assert set(full.option_probs) == {"A", "B"}
        cut = by_key[full.question_id, "video->options"]
        assert cut.edges_kept < full.edges_kept == full.edges_total
        assert cut.option_probs != full.option_probs


def test_a_video_that_cannot_be_read_is_a_record_not_an_end(tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"\0" * 100)
    documents = [
        {"video": str(tmp_path / name), "answer": "A"} for name in ("broken.mp4", "missing.mp4")
    ]
    model = model_class("mapflow_llava")(
        intervention="full;effective", records=str(tmp_path / "run")
    )
    answers = model.generate_until(
        requests_of(model, documents, lambda d: FOREIGN.format("x", "y", question="?"))
    )
    assert answers == [NOT_ASKED] * 2
    records = read_records(tmp_path / "run")
    assert len(records) == 4
    for record in records:
        assert record.error is not None
        assert ("broken.mp4" in record.error) or ("missing.mp4" in record.error)
        assert (record.correct, record.p_answer, record.edges_kept) == (None, None, None)


def test_a_video_that_is_there_by_now_is_asked_about_again_and_others_are_not(
    tmp_path, monkeypatch
):
    good = next((MOTION / "video" / "antonym").glob("*.mp4"))
    shutil.copy(good, tmp_path / "good.mp4")
    documents = [
        {"video": str(tmp_path / name), "answer": "A"} for name in ("good.mp4", "late.mp4")
    ]
    asked = []

    def run():
        model = model_class("mapflow_llava")(
            intervention="full;video->options", records=str(tmp_path / "run")
        )
        prepare = model.video_llm.prepare
        monkeypatch.setattr(
            model.video_llm, "prepare", lambda q: (asked.append(q.video_id), prepare(q))[1]
        )
        return model.generate_until(
            requests_of(model, documents, lambda d: FOREIGN.format("x", "y", question="?"))
        )

    first = run()
    assert first[0] != NOT_ASKED and first[1] == NOT_ASKED
    shutil.copy(good, tmp_path / "late.mp4")
    assert run() == [first[0], first[0]]
    assert asked == ["good.mp4", "late.mp4", "late.mp4"]
    assert [record.error for record in read_records(tmp_path / "run")] == [None] * 4
    assert run() == [first[0], first[0]]
    assert len(asked) == 3


CHANGES = {
    "the number of options": ({"options": "x"}, "number of options of question .* was 2 and is 3"),
    "another video": ({"video": "two.mp4"}, "video of question .* was 'one.mp4' and is 'two.mp4'"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_changed_benchmark_does_not_adopt_the_answers_to_another_version(case, tmp_path):
    good = next((MOTION / "video" / "antonym").glob("*.mp4"))
    for name in ("one.mp4", "two.mp4"):
        shutil.copy(good, tmp_path / name)

    def run(video="one.mp4", options=""):
        model = model_class("mapflow_llava")(records=str(tmp_path / "run"))
        more = f"\nC. {options}" if options else ""
        prompt = FOREIGN.format("x", "y", question="?").replace("B. y", f"B. y{more}")
        return model.generate_until(
            requests_of(model, [{"video": str(tmp_path / video)}], lambda _: prompt)
        )

    assert run() == run()
    changes, complaint = CHANGES[case]
    before = (tmp_path / "run" / "records.jsonl").read_bytes()
    with pytest.raises(MapflowError, match=complaint):
        run(**changes)
    assert (tmp_path / "run" / "records.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"pretraind": "x"}, "no argument 'pretraind'"),
        ({"batch_size": "many"}, "batch_size .many. must be"),
        ({"intervention": "video->last@13"}, "layer 13 is outside 1..12"),
        ({"pretrained": "nowhere"}, "nowhere does not exist"),
    ],
)
def test_wrong_arguments_are_named(arguments, complaint, tmp_path):
    with pytest.raises(MapflowError, match=complaint):
        model_class("mapflow_llava")(records=str(tmp_path / "run"), **arguments)
    assert not (tmp_path / "run").exists()


def test_only_one_model_bundles_a_checkpoint():
    with pytest.raises(MapflowError, match="mapflow_hf has no bundled checkpoint"):
        model_class("mapflow_hf")()


def test_likelihoods_are_not_offered():
    with pytest.raises(MapflowError, match="generate_until"):
        model_class("mapflow_llava")().loglikelihood([])
