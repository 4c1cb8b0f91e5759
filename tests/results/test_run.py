"""A folder becomes columns; what is broken or contradictory is refused by name, never counted."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mapflow.results.contract.errors import MapflowError
from mapflow.results.runs.model_names import model_name
from mapflow.results.runs.run import labels, model_names, read_runs
from mapflow.results.tables.ablation import ablation_table
from mapflow.results.tables.comparison import compare_groups, comparison_tables
from mapflow.results.tables.leaderboard import leaderboard
from tests.results.records import a_record
from tests.results.run_folders import answers, write_run


def test_every_intervention_and_benchmark_is_a_run_in_the_manifests_order(tmp_path):
    records = answers("full", [1, 0, None]) + answers("effective", [1, 1, None])
    records += answers("full", [0, 0], question_id="tomato/two/{:04d}", task="t_two")
    runs = read_runs(write_run(tmp_path, records), {"tvbench": "TVBench"})
    assert [(run.intervention, run.benchmark, run.n, run.errors) for run in runs] == [
        ("full", "tvbench", 2, 1),
        ("full", "tomato", 2, 0),
        ("effective", "tvbench", 2, 1),
    ]
    assert runs[0].correct.tolist() == [True, False, False]
    assert runs[0].failed.tolist() == [False, False, True]
    assert runs[0].edges_share == pytest.approx(0.25)
    assert (runs[0].title, runs[1].title) == ("TVBench", "tomato") and runs[0].model == "tiny"


def test_videos_are_clusters_only_where_two_questions_share_one(tmp_path):
    shared, apart = (
        read_runs(write_run(tmp_path / name, answers("full", [1, 0, 1], **changes)))[0]
        for name, changes in (("shared", {}), ("apart", {"video_id": "one/{}.mp4"}))
    )
    assert shared.cluster is not None and shared.cluster.tolist() == [0, 0, 1]
    assert apart.cluster is None


def test_the_same_line_twice_counts_once_and_two_answers_to_one_question_are_refused(tmp_path):
    same = write_run(tmp_path / "same", answers("full", [1, 0]) + answers("full", [1, 0]))
    assert read_runs(same)[0].n == 2
    differ = write_run(tmp_path / "differ", answers("full", [1, 0]) + answers("full", [1, 1]))
    with pytest.raises(
        MapflowError, match="'tvbench/one/0001' is answered twice, and differently, under 'full'"
    ):
        read_runs(differ)


def test_two_gold_answers_for_one_question_are_refused(tmp_path):
    records = answers("full", [1]) + answers("full", [1], target="B")
    with pytest.raises(MapflowError, match="answered twice, and differently"):
        read_runs(write_run(tmp_path, records))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("correct", "NaN", "NaN is not a number"),
        ("correct", "null", "are not right or wrong, which comparisons"),
        ("correct", "0.5", "correct is 0.5"),
        ("correct", '"yes"', "correct is 'yes'"),
        ("n_options", "-1", "n_options is -1: expected a whole number >= 0"),
        ("n_options", "null", "n_options is None"),
        ("edges_kept", '"many"', "edges_kept is 'many'"),
        ("target", "null", "target is None: expected text"),
        ("p_target", "Infinity", "Infinity is not a number"),
    ],
)
def test_a_value_that_is_no_measurement_is_refused(tmp_path, field, value, said):
    folder = write_run(tmp_path, answers("full", [1, 0]))
    lines = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    lines[1][field] = "PLACEHOLDER"
    text = "".join(json.dumps(line) + "\n" for line in lines).replace('"PLACEHOLDER"', value)
    (folder / "records.jsonl").write_text(text)
    with pytest.raises(MapflowError, match=said):
        read_runs(folder)


def test_a_question_id_that_is_no_text_is_refused(tmp_path):
    folder = write_run(tmp_path, answers("full", [1]))
    text = (folder / "records.jsonl").read_text().replace('"tvbench/one/0000"', "17")
    (folder / "records.jsonl").write_text(text)
    with pytest.raises(MapflowError, match="question_id is 17: expected text"):
        read_runs(folder)


def test_empty_folders_and_absent_ones_are_refused(tmp_path):
    with pytest.raises(MapflowError, match="holds no answers yet"):
        read_runs(write_run(tmp_path / "empty", []))
    with pytest.raises(MapflowError, match="does not exist"):
        read_runs(tmp_path / "absent")
    with pytest.raises(MapflowError, match=r"no records\.jsonl and no sample logs"):
        (tmp_path / "other").mkdir()
        read_runs(tmp_path / "other")


def test_protocols_must_not_be_mixed(tmp_path):
    records = answers("full", [1, 1]) + answers(
        "full", [1], question_id="tvbench/two/{:04d}", protocol="official"
    )
    with pytest.raises(MapflowError, match="protocols 'paper' and 'official' are mixed"):
        read_runs(write_run(tmp_path, records))


def test_labels_are_as_short_as_they_can_be(tmp_path):
    a = read_runs(write_run(tmp_path / "a", answers("full", [1]) + answers("effective", [1])))
    b = read_runs(write_run(tmp_path / "b", answers("full", [1]), identity={"checkpoint": "big"}))
    c = read_runs(write_run(tmp_path / "c", answers("full", [1])))
    assert labels(a) == ["full", "effective"]
    assert labels([a[0], b[0]]) == ["tiny", "big"]
    assert labels([*a, *b]) == ["tiny full", "tiny effective", "big full"]
    assert labels([a[1], b[0]]) == ["tiny effective", "big full"]  # not "effective" and "full"
    assert labels([a[0], c[0]]) == ["a full", "c full"]
    assert len(set(labels([a[0], a[0]]))) == 1


def test_names_tell_apart_how_a_checkpoint_was_run(tmp_path):
    """Precision and weights are added to a name only where runs of that name differ in them."""
    others = {
        "plain": {},
        "half": {"dtype": "bfloat16"},
        "tuned": {"digest": "f" * 64},
        "other": {"checkpoint": "big", "dtype": "bfloat16"},
    }
    runs = {
        name: read_runs(write_run(tmp_path / name, answers("full", [1, 0]), identity=identity))[0]
        for name, identity in others.items()
    }
    plain, half, tuned, other = runs.values()
    assert model_names([plain, other]) == ["tiny", "big"]
    assert model_names([plain, half]) == ["tiny (float32)", "tiny (bfloat16)"]
    assert model_names([plain, tuned]) == ["tiny (weights 01234567)", "tiny (weights ffffffff)"]
    assert labels([plain, half]) == ["tiny (float32)", "tiny (bfloat16)"]
    rows = leaderboard([plain, half]).rows
    assert [row["model"] for row in rows[:2]] == ["tiny (float32)", "tiny (bfloat16)"]


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ("pretrained=DIR,vision_attention=released", "DIR"),
        ("pretrained=DIR,vision_attention=isolated", "DIR+isolated-vision-attention"),
        ("pretrained=DIR", "DIR+unrecorded-vision-attention"),
    ],
)
def test_sample_logs_name_the_variant_that_was_typed(arguments, name):
    """Logs hold no defaults, and those of VideoLLaMA3 have changed: then it is not known."""
    identity = {"model": "mapflow_videollama3", "checkpoint": "DIR"}
    manifest = {"identity": identity, "model_args": arguments, "logged_by": "lmms-eval"}
    assert model_name(manifest, "folder") == name
    assert model_name({**manifest, "identity": {"model": "mapflow_hf"}}, "folder") == "mapflow_hf"


SAMPLE = {
    "doc_id": 0,
    "target": "A",
    "filtered_resps": ["A"],
    "input": "Question …",
    "doc_hash": "x",
}


def write_samples(folder, task, samples, date="20260101_000000"):
    folder.mkdir(exist_ok=True)
    path = folder / f"{date}_samples_{task}.jsonl"
    path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return folder


def test_our_tasks_sample_logs_pair_with_our_records(tmp_path):
    def answer(i, valid=True):
        identity = {"question_id": f"tvbench/one/{i:04d}", "video_id": f"one/{i // 2}.mp4"}
        return {"answer": {**identity, "prediction": "A", "valid": valid}}

    samples = [
        {**SAMPLE, "doc_id": 0, **answer(0), "accuracy": 1.0, "micro": 1.0},
        {**SAMPLE, "doc_id": 1, **answer(1, False), "accuracy": 0.0, "micro": 0.0},
        {**SAMPLE, "doc_id": 2, **answer(2, None)},
    ]
    write_samples(tmp_path, "t_one", samples)
    (tmp_path / "20260101_000000_results.json").write_text(
        json.dumps(
            {
                "model_name": "llava",
                "config": {"model_args": "pretrained=/x/y,intervention=effective;full"},
            }
        )
    )
    (logged,) = read_runs(tmp_path)
    (own,) = read_runs(write_run(tmp_path / "own", answers("full", [1, 0, None])))
    for name in ("question_id", "video_id", "task", "gold", "correct", "failed"):
        assert getattr(logged, name).tolist() == getattr(own, name).tolist(), name
    assert logged.valid is not None and logged.valid.tolist() == [True, False, False]
    assert logged.intervention == "effective" and logged.model == "/x/y"
    assert np.isnan(logged.edges_kept).all() and logged.edges_share is None


@pytest.mark.parametrize(
    ("metrics", "right"),
    [
        ({"tvbench_acc": 1.0}, True),
        ({"exact_match": 0.0}, False),
        ({"mvbench_accuracy": {"pred_answer": "A", "gt_answer": "B", "score": 0}}, False),
        ({"tomato_score": {"question_id": 3, "score": 1.0, "reason_type": "count"}}, True),
    ],
)
def test_other_tasks_are_read_by_their_one_score(tmp_path, metrics, right):
    (run,) = read_runs(write_samples(tmp_path, "foreign", [{**SAMPLE, "doc_id": 7, **metrics}]))
    assert run.question_id.tolist() == ["foreign/000007"] and run.benchmark == "foreign (lmms-eval)"
    assert run.correct.tolist() == [right] and run.video_id is None and run.valid is None


def test_numbers_in_sample_logs_may_be_text(tmp_path):
    for task in ("one", "two"):
        write_samples(tmp_path, task, [{**SAMPLE, "doc_id": "7", "acc": 1.0}])
    runs = read_runs(tmp_path)
    assert [(run.benchmark, run.question_id.tolist()) for run in runs] == [
        ("one (lmms-eval)", ["one/7"]),
        ("two (lmms-eval)", ["two/7"]),
    ]
    write_samples(
        tmp_path, "one", [{**SAMPLE, "doc_id": number, "acc": 1.0} for number in (7, "000007")]
    )
    with pytest.raises(MapflowError, match="'one/000007' is there twice"):
        read_runs(tmp_path)


@pytest.mark.parametrize(
    "metrics",
    [{}, {"bleu": 0.31}, {"acc": 0.5}, {"a_score": {"score": 1}, "b_score": {"score": 0}}],
)
def test_tasks_without_one_score_are_refused(tmp_path, metrics):
    with pytest.raises(MapflowError, match=r"samples_foreign\.jsonl:1: no single score of 0 or 1"):
        read_runs(write_samples(tmp_path, "foreign", [{**SAMPLE, **metrics}]))


def test_benchmarks_that_are_not_right_or_wrong_are_left_out_with_a_note(tmp_path):
    """In records and in sample logs; refused only if nothing else is there."""
    free = {"question_id": "captions/{:04d}", "task": "captions"}
    records = [
        record
        for name in ("full", "effective")
        for record in (*answers(name, [1, 0, 1, 1]), *answers(name, [1, 0], **free))
    ]
    unscored = [
        replace(one, correct=None) if one.question_id == "captions/0001" else one for one in records
    ]
    runs = read_runs(write_run(tmp_path / "run", unscored))
    assert [(one.intervention, one.benchmark, one.n) for one in runs] == [
        ("full", "tvbench", 4),
        ("effective", "tvbench", 4),
    ]
    said = "captions (lmms-eval), whose answers are not right or wrong"
    tables = [leaderboard(runs), *comparison_tables(compare_groups([runs]))]
    for table in (*tables, ablation_table(runs[0], runs[1:])):
        assert sum(said in note for note in table.notes) == 1
    write_samples(tmp_path / "logs", "captions", [{**SAMPLE, "bleu": 0.3}])
    write_samples(tmp_path / "logs", "foreign", [{**SAMPLE, "acc": 1.0}])
    (run,) = read_runs(tmp_path / "logs")
    assert run.benchmark == "foreign (lmms-eval)" and said in leaderboard([run]).notes[0]
    with pytest.raises(MapflowError, match="'captions' are not right or wrong"):
        read_runs(
            write_run(tmp_path / "alone", [one for one in unscored if one.task == "captions"])
        )


def test_the_newest_log_of_a_task_counts_and_two_folders_are_refused(tmp_path):
    write_samples(tmp_path, "foreign", [{**SAMPLE, "acc": 0}], date="20250101_000000")
    write_samples(tmp_path, "foreign", [{**SAMPLE, "acc": 1}], date="20260101_000000")
    assert read_runs(tmp_path)[0].correct.tolist() == [True]
    write_samples(tmp_path / "other_model", "another", [{**SAMPLE, "acc": 1}])
    with pytest.raises(MapflowError, match="several folders"):
        read_runs(tmp_path)


def test_a_broken_sample_line_is_named(tmp_path):
    path = tmp_path / "20260101_samples_foreign.jsonl"
    for text in ("{", "[]", '{"x": 1}'):
        path.write_text(text + "\n")
        with pytest.raises(MapflowError, match=r"foreign\.jsonl:1: not a sample"):
            read_runs(tmp_path)


def test_a_record_of_todays_code_survives(tmp_path):
    assert read_runs(write_run(tmp_path, [a_record(0)]))[0].n == 1
