"""lmms-eval's own tasks with our models: their own scoring for every intervention, or a refusal."""

import importlib
import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from lmms_eval.tasks import TaskManager, get_task_dict

from mapflow.model_adapters.lmms.foreign_tasks import TaskScoring
from mapflow.model_adapters.lmms.generation import (
    Generation,
    read_generation,
    task_generation,
)
from mapflow.model_adapters.lmms.models import with_generation
from mapflow.model_adapters.lmms.network_guard import network_client
from mapflow.model_adapters.lmms.requested import Request, requesting
from mapflow.results.contract.answers import NOT_ASKED
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.foreign_prompt import foreign_question
from mapflow.results.contract.question import Clip
from mapflow.results.records.record import Record
from mapflow.results.runs.folder import read_records
from mapflow.results.runs.run import read_runs
from mapflow.tasks.registry import load_questions

from . import foreign_folder as foreign

COMMAND = [sys.executable, "-m", "mapflow.harness.evaluation.lmms_eval", "--model", "mapflow_llava"]


def run(tmp_path, tasks, documents, *more):
    folder = foreign.write_tasks(tmp_path, documents)
    foreign.write_videos(tmp_path / "hf")
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "OPENAI_API_KEY": "none"}
    arguments = ["--include_path", str(folder), "--tasks", ",".join(f"own_{one}" for one in tasks)]
    return subprocess.run(
        [*COMMAND, *arguments, *more],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


RECORD = Record(
    question_id="x/000000",
    video_id="v",
    task="x",
    intervention="full",
    seed=None,
    protocol="task",
    n_options=0,
    target="",
    valid=True,
)

DOCUMENTS = {
    "mvbench": [
        foreign.mvbench("clip0", ["l", "a", "b"], "b"),
        foreign.mvbench("clip1", ["1", "2", "3", "4"], "2"),
        foreign.mvbench("gone", ["1", "2"], "2"),
    ],
    "longvideobench": [
        foreign.longvideobench("clip0", ["1", "2", "3"], 1),
        foreign.longvideobench("clip1", ["1", "2"], 0),
        foreign.longvideobench("gone", ["1", "2"], 0),
    ],
    "videomme": [foreign.videomme("clip0", "C"), foreign.videomme("gone", "A")],
    "yes_no": [foreign.yes_no("clip0", "yes"), foreign.yes_no("gone", "no")],
}


def test_other_tasks_are_scored_by_their_own_rules_under_every_intervention(tmp_path):
    """As a user runs them, without the package decord, each with a video that does not exist."""
    out = tmp_path / "out"
    more = ["--intervention", "full,effective", "--output_path", str(out)]
    done = run(tmp_path, DOCUMENTS, DOCUMENTS, *more)
    assert done.returncode == 3, done.stderr[-2000:]
    records = read_records(out)
    gone = [record for record in records if record.error is not None]
    assert len(gone) == 2 * 4 and all(("gone" in one.error) for one in gone)
    full = {one.question_id: one for one in records if one.intervention == "full"}
    gold = {"own_mvbench/000000": "C", "own_mvbench/000001": "B", "own_videomme/000000": "C"}
    gold |= {"own_longvideobench/000000": "B", "own_longvideobench/000001": "A"}
    for question, target in gold.items():
        record = full[question]
        assert record.target == target
        assert record.p_target == record.option_probs[target]
        assert record.scores is not None and record.correct is not None
    judged = full["own_yes_no/000000"]  # neither yes nor no: lmms-eval would ask a judge
    assert (judged.scores, judged.correct, judged.p_target) == (None, None, None)
    summary = json.loads((out / "summary.json").read_text())
    assert summary.keys() == {f"own_{name} (lmms-eval)" for name in DOCUMENTS}
    for title, by_intervention in summary.items():
        task = title.partition(" ")[0]
        for name in ("full", "effective"):
            own = by_intervention[name]
            judged = task == "own_yes_no"
            assert (task in own.get("scores", {})) != judged
            assert (own["micro"] is None) == judged and own["errors"] == 1
    theirs = {
        path.parent.name: json.loads(path.read_text())["results"]
        for path in out.rglob("*_results.json")
    }
    assert theirs.keys() == {"full", "effective"}
    for name, results in theirs.items():
        assert "avg_accuracy,none" not in results.get("own_yes_no", {})
        for title, by_intervention in summary.items():
            for task, scores in by_intervention[name].get("scores", {}).items():
                assert scores == {metric: results[task][f"{metric},none"] for metric in scores}
                assert task in done.stdout and title.startswith(task)
    runs = read_runs(out)
    assert {run.benchmark for run in runs} == summary.keys() - {"own_yes_no (lmms-eval)"}
    assert runs[0].left_out == ("own_yes_no (lmms-eval)",)


@pytest.fixture
def scorings(tmp_path, monkeypatch):
    """A function from documents by task to the tasks' scorings, as lmms-eval loads them."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setitem(sys.modules, "decord", SimpleNamespace(VideoReader=None, cpu=None))

    def load(documents):
        folder = foreign.write_tasks(tmp_path, documents)
        manager = TaskManager(include_path=[str(folder)], include_defaults=False)
        tasks = get_task_dict([f"own_{name}" for name in documents], manager, "simple")
        return {name: TaskScoring(tasks[f"own_{name}"]) for name in documents}

    return load


def question_of(scoring, document):
    return foreign_question(
        scoring.task.doc_to_text(document),
        question_id="q",
        video_id="v",
        task=scoring.name,
        clip=Clip("v.mp4"),
        document=document,
        max_new_tokens=4,
    )


def test_the_right_option_is_the_one_that_the_task_counts(scorings):
    expected = {"mvbench": [[2], [1], [1]], "longvideobench": [[1], [0], [0]]}
    expected["videomme"] = [[2], [0]]
    documents = {name: DOCUMENTS[name] for name in expected}
    documents["longvideobench"] = [
        *documents["longvideobench"],
        foreign.longvideobench("clip0", ["1", "2"], -1),  # as in the test split: not published
    ]
    expected["longvideobench"].append([])
    for name, scoring in scorings(documents).items():
        rows = [scoring.document(f"{name}/{number}") for number in range(len(documents[name]))]
        questions = [question_of(scoring, row) for row in rows]
        found = [
            scoring.right_options(row, question.letters, question.options)
            for row, question in zip(rows, questions, strict=True)
        ]
        assert found == expected[name]


def test_documents_that_contradict_their_scoring_are_refused(scorings):
    """lmms-eval's TVBench takes the answer "2" for an index and "A" for a letter."""
    directions = ["left", "up", "right", "down"]
    cases = [
        (["1", "2", "3", "4"], "2", False),
        (["0", "3", "2", "1"], "3", False),
        (["C", "A", "B"], "A", False),
        (["zero", "3 balls", "2 balls"], "3 balls", True),
        (directions, "right", True),
        (["A", "B", "C"], "B", True),
    ]
    for candidates, answer, agrees in cases:
        rows = [
            foreign.mvbench("clip0", directions, "up"),
            foreign.mvbench("c", candidates, answer),
        ]
        scoring = scorings({"tvbench": rows})["tvbench"]
        if agrees:
            scoring.check()
            continue
        refused = rf"^task 'own_tvbench' is refused: where a document's 'answer' is '{answer}',"
        with pytest.raises(MapflowError, match=refused):
            scoring.check()
    # an answer field that holds letters elsewhere holds letters here, too
    rows = [foreign.mvbench("clip0", directions, "B"), foreign.mvbench("c", ["B", "A"], "A")]
    scorings({"tvbench": rows})["tvbench"].check()


def test_tasks_that_are_not_right_or_wrong_have_no_accuracy_even_where_scores_are_zero(scorings):
    """EgoTempo's score is a similarity that is exactly 0 for weak answers; the name is no help."""
    rows = [{"question": "What does he take?", "answer": "a big cup", "question_type": "x"}]
    found = scorings({"egotempo": rows, "yes_no": DOCUMENTS["yes_no"]})
    assert (found["egotempo"].exact, found["yes_no"].exact) == (False, True)
    graded = {}
    for name, right_or_wrong in (("egotempo", False), ("yes_no", True)):
        document = found[name].document("x/0")
        for answer in ("yes", "a big cup", "no"):
            record = replace(RECORD, prediction=answer)
            scored = found[name].score(record, document, right_or_wrong=right_or_wrong)
            graded[name, answer] = scored.correct, scored.scores
    assert graded["egotempo", "no"] == (None, {"egotempo_anls": 0.0})
    assert graded["egotempo", "a big cup"] == (None, {"egotempo_anls": 1.0})
    assert graded["yes_no", "yes"][0] is True and graded["yes_no", "no"][0] is False
    scoring = found["egotempo"]
    scoring.task.aggregation = lambda: {"egotempo_accuracy": lambda items: items[0]["score"]}
    process = scoring._process
    scoring._process = lambda *given: {"egotempo_accuracy": process(*given)["egotempo_anls"]}
    vars(scoring).pop("exact")
    assert not scoring.exact


def test_a_judge_is_never_asked(scorings):
    rows = DOCUMENTS["yes_no"]
    found = scorings({"yes_no": rows, "captioning": rows, "activitynetqa": rows})
    yes_no = found["yes_no"]
    yes_no.check()
    assert yes_no.scores(rows[0], "Yes, it does.") == {"avg_accuracy": 100, "order_accuracy": 100}
    assert yes_no.scores(rows[0], "no") == {"avg_accuracy": 0, "order_accuracy": 0}
    assert yes_no.scores(rows[0], "The ball moves.") is None
    for name in ("captioning", "activitynetqa"):
        with pytest.raises(MapflowError, match=rf"'own_{name}' is refused: .* network \(requests"):
            found[name].check()


def test_scores_depend_on_the_question_alone_and_failed_questions_have_none(scorings):
    """LongVideoBench's parser draws a random letter for text that it cannot read."""
    scoring = scorings({"longvideobench": DOCUMENTS["longvideobench"]})["longvideobench"]
    document = scoring.document("x/0")
    drawn = set()
    for seed in range(8):
        random.seed(seed)
        state = random.getstate()
        drawn.add(scoring.metrics(document, "nothing")["lvb_acc"]["parsed_pred"])
        assert random.getstate() == state
    assert len(drawn) == 1
    assert scoring.task.process_results(document, [NOT_ASKED]) == {}
    assert scoring.task.process_results(document, ["B"])["lvb_acc"]["parsed_pred"] == "B"


@pytest.mark.parametrize(
    ("module", "function", "judged"),
    [
        ("mmvu", "mmvu_process_results", True),  # through a verifier, in open questions
        ("videoevalpro", "videoevalpro_process_results", True),
        ("capability", "capability_aggregate_precision", True),  # through a class
        ("videochatgpt", "videochatgpt_aggregate_consistency", True),
        ("egoschema", "egoschema_aggregate_mc", True),  # submits to a server
        ("egoschema", "egoschema_aggregate_score", False),
        ("mlvu", "mlvu_process_results", False),
        ("perceptiontest.val", "perceptiontest_val_process_results_mc", False),
        ("nextqa", "nextqa_mc_process_results", False),
    ],
)
def test_functions_that_reach_the_network_are_found(monkeypatch, module, function, judged):
    monkeypatch.setenv("HF_HOME", "x")
    found = importlib.import_module(f"lmms_eval.tasks.{module}.utils")
    assert (network_client(getattr(found, function)) is not None) == judged


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"max_new_tokens": 20, "do_sample": False, "temperature": 0}, Generation(20)),
        ({"max_new_tokens": "7", "num_beams": 1, "top_p": 1.0, "top_p_": None}, Generation(7)),
        ({"until": ["\n", "</s>"]}, Generation(None, ("\n", "</s>"))),
        ({"until": "."}, Generation(None, (".",))),
        ({}, Generation()),
    ],
)
def test_settings_of_generation_that_act(settings, expected):
    assert read_generation(settings, "--gen_kwargs") == expected


@pytest.mark.parametrize(
    "setting",
    [
        {"do_sample": True},
        {"temperature": 0.7},
        {"num_beams": 4},
        {"top_p": 0.9},
        {"top_k": 50},
        {"repetition_penalty": 1.2},
        {"max_new_tokens": 0},
        {"max_new_tokens": "many"},
        {"until": 3},
        {"image_aspect_ratio": "pad"},
        {"max_new_token": 20},
    ],
)
def test_other_settings_are_refused_by_name(setting):
    ((name, value),) = setting.items()
    with pytest.raises(MapflowError, match=f"^--gen_kwargs: {name}={value!r} "):
        read_generation(setting, "--gen_kwargs")


def test_a_tasks_own_settings():
    greedy = {"do_sample": False, "temperature": 1.0, "top_p": 0.9, "max_new_tokens": 5}
    assert read_generation(greedy, "task", from_task=True) == Generation(5)
    with pytest.raises(MapflowError, match=r"temperature=0\.5"):
        read_generation({"temperature": 0.5}, "task", from_task=True)


def test_gen_kwargs_act_on_other_tasks_in_every_spelling():
    """lmms-eval mixes them into the task's own settings."""

    def asked(own, **command):
        with requesting(Request(generation=read_generation(command, "--gen_kwargs"))):
            return task_generation({**own, **command}, "x")

    own = {"max_new_tokens": 16, "until": ["\n"], "temperature": 0}

    assert asked(own) == Generation(16, ("\n",))
    for name in ("max_new_tokens", "max_gen_toks", "max_tokens"):
        assert asked(own, **{name: 64}) == Generation(64, ("\n",))
        assert asked(own, **{name: 4}) == Generation(4, ("\n",))
    for name in ("until", "stop", "stop_sequences"):
        assert asked(own, **{name: "."}) == Generation(16, (".",))
    for source in ("--gen_kwargs", "task"):
        with pytest.raises(MapflowError, match="max_new_tokens=16 and max_tokens=64 name diff"):
            read_generation({"max_new_tokens": 16, "max_tokens": 64}, source)


def test_a_longer_answer_is_scored_as_its_protocol_says():
    paper, other = load_questions("mapflow_motion_count", limit=2)
    longer = with_generation(paper, Generation(20, ("\n",)))
    assert (longer.max_new_tokens, longer.first_token, longer.until) == (20, True, ("\n",))
    assert with_generation(other, Generation()) == other
