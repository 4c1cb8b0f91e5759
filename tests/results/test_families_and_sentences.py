"""Verdicts of several comparisons are one family's; sentences say what holds, and nothing else."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mapflow.harness.cli.main import main
from mapflow.harness.reporting.contents import report_contents
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import MOST_ID_BYTES, Clip, Question, coded
from mapflow.results.runs.run import read_runs
from mapflow.results.statistics import (
    RunOutcomes,
    accuracy,
    compare_runs,
    holm,
    judge,
    judge_together,
    non_inferiority,
    paired_difference,
    sentence,
)
from mapflow.results.tables.ablation import ablation_table
from mapflow.results.tables.comparison import (
    compare_groups,
    compare_with_baseline,
    comparison_table,
)
from mapflow.results.tables.formats import render
from mapflow.results.tables.leaderboard import leaderboard
from mapflow.results.tables.subtasks import subtask_table
from tests.results.run_folders import answers, write_run

N = 2000
FULL = [1] * 1200 + [0] * 800


def flipped(lost, gained):
    return [0] * lost + [1] * (1200 - lost) + [1] * gained + [0] * (800 - gained)


def runs_of(folder, *, video_id="v/{}.mp4", **interventions):
    records = [
        record
        for name, correct in interventions.items()
        for record in answers(name, correct, video_id=video_id)
    ]
    return read_runs(write_run(folder, records), {"tvbench": "TVBench"})


def text_of(pairs):
    return "\n".join(comparison_table(pairs).notes)


def test_ten_treatments_at_the_margin_are_rarely_called_non_inferior():
    """Uncorrected, one of ten was called non-inferior in 17.5-20 % of families."""
    rng = np.random.default_rng(0)
    wrong = alone = 0
    for _ in range(400):
        found = []
        for _ in range(10):
            cells = rng.multinomial(N, [0.04, 0.06, 0.9])
            found.append(paired_difference(np.repeat([1, -1, 0], cells)))
        claims = [non_inferiority(one) for one in found]
        p_values = [one.p_value() for one in found]
        _, judged = judge([one.estimate for one in found], p_values, claims)
        alone += any(claim.verdict == "non-inferior" for claim in claims)
        wrong += any(claim.verdict == "non-inferior" for claim in judged)
    assert wrong / 400 <= 0.05 < 0.15 < alone / 400


def test_verdicts_in_tables_are_corrected_for_the_family_that_the_table_names(tmp_path):
    cuts = {f"cut{i}": flipped(57 + i, 40) for i in range(10)}
    full, *others = runs_of(tmp_path, full=FULL, **cuts)
    (alone,) = compare_with_baseline(full, others[:1])
    assert alone.comparison.non_inferiority.verdict == "non-inferior"
    assert "nothing is corrected" in text_of([alone])
    pairs = compare_with_baseline(full, others)
    rows = comparison_table(pairs).rows
    assert [row["p_non_inferior_holm"] for row in rows] == pytest.approx(
        holm(np.array([row["p_non_inferior"] for row in rows])).tolist()
    )
    assert [row["p_inferior_holm"] for row in rows] == pytest.approx(
        holm(np.array([row["p_inferior"] for row in rows])).tolist()
    )
    for row in rows:
        assert (row["verdict"] == "non-inferior") == (row["p_non_inferior_holm"] < 0.025)
        assert row["family"] == 10
    assert rows[0]["verdict"] == "inconclusive" and rows[0]["low"] > -0.02
    assert "family of all 10 comparisons" in text_of(pairs)
    assert "(inconclusive as one of 10 comparisons)" in text_of(pairs)
    table = ablation_table(full, others)
    assert [row["verdict"] for row in table.rows] == [row["verdict"] for row in rows]
    assert "family of all 10 conditions" in "\n".join(table.notes)


def test_families_span_benchmarks_and_inferior_verdicts_are_corrected_too(tmp_path):
    groups = []
    for name in ("one", "two"):
        worse = {f"cut{i}": flipped(131 + i, 60) for i in range(3)}
        groups.append(runs_of(tmp_path / name, full=FULL, **worse))
    pairs = compare_groups(groups)
    assert {pair.comparison.non_inferiority.family for pair in pairs} == {6}
    (alone,) = compare_with_baseline(groups[0][0], groups[0][-1:])
    assert alone.comparison.non_inferiority.verdict == "inferior"
    again = pairs[2].comparison.non_inferiority
    assert again.p_inferior == alone.comparison.non_inferiority.p_inferior
    assert again.verdict == "inconclusive" and again.p_inferior_holm > 0.025


def both_benchmarks(folder, task="t_{}"):
    """A folder whose `cut` is inferior on TVBench alone, but not as one of two comparisons."""
    records = []
    for ids, cut in (("tvbench/one/{:04d}", flipped(129, 60)), ("tomato/one/{:04d}", FULL)):
        for name, correct in (("full", FULL), ("cut", cut)):
            own = answers(name, correct, video_id="v/{}.mp4", question_id=ids)
            records += [replace(one, task=task.format(i % 4)) for i, one in enumerate(own)]
    return write_run(folder, records)


def test_compare_ablate_and_report_give_one_datum_one_verdict(tmp_path, capsys):
    """`ablate` judged each benchmark alone: "inferior", where `compare` said "inconclusive"."""
    folder = both_benchmarks(tmp_path / "run")
    (alone,) = compare_groups([[run for run in read_runs(folder) if run.benchmark == "tvbench"]])
    assert alone.comparison.non_inferiority.verdict == "inferior"
    rows, said = {}, {}
    for command in ("compare", "ablate"):
        assert main([command, str(folder), "--format", "json"]) == 0
        tables = json.loads(capsys.readouterr().out)
        rows[command] = [table["rows"][0] for table in tables]
        said[command] = str(tables[0]["notes"])
    for one, other in zip(rows["compare"], rows["ablate"], strict=True):
        for name in ("p", "p_holm", "verdict", "family", "macro_verdict", "p_macro_holm"):
            assert one[name] == other[name]
    assert rows["compare"][0]["verdict"] == "inconclusive" and rows["ablate"][0]["family"] == 2
    assert rows["ablate"][0]["macro_verdict"] == "inconclusive"
    assert "family of all 2 comparisons" in said["compare"] and "on all bench" in said["compare"]
    assert "family of all 2 conditions on TVBench and TOMATO" in said["ablate"]
    contents = report_contents(
        read_runs(folder),
        title="",
        baseline=None,
        margin=0.02,
        intersect=False,
        data=None,
        n_pictured=0,
    )
    (reported,) = [one for one in contents.comparisons[0].rows if one["treatment"] == "cut"]
    assert (reported["verdict"], reported["family"]) == ("inconclusive", 2)


def test_subtasks_of_all_treatments_are_one_family(tmp_path):
    records = []
    for name, correct in (("full", FULL), ("a", flipped(12, 0)), ("b", flipped(0, 7))):
        for i, record in enumerate(answers(name, correct, video_id="v/{}")):
            records.append(type(record)(**{**vars(record), "task": f"t_{i % 4}"}))
    full, *others = read_runs(write_run(tmp_path, records))
    table = subtask_table(compare_with_baseline(full, others))
    p_values = np.array([row["p"] for row in table.rows])
    assert len(p_values) == 8
    assert [row["p_holm"] for row in table.rows] == holm(p_values).tolist()
    assert "family of all 8 rows" in table.notes[-1]


def test_the_macro_average_has_a_corrected_verdict(tmp_path):
    records = []
    for name, correct in (("full", FULL), ("a", flipped(4, 3)), ("b", flipped(300, 0))):
        for i, record in enumerate(answers(name, correct, video_id="v/{}")):
            records.append(type(record)(**{**vars(record), "task": f"t_{i % 10}"}))
    full, *others = read_runs(write_run(tmp_path, records), {"tvbench": "TVBench"})
    table = comparison_table(compare_with_baseline(full, others))
    assert [row["macro_verdict"] for row in table.rows] == ["non-inferior", "inferior"]
    assert [row["macro_difference"] for row in table.rows] == pytest.approx([-0.0005, -0.15])
    assert "macro verdict" in [column.head for column in table.columns]
    assert any(
        note.startswith("Macro average over subtasks: a is non-inferior to full on TVBench: −0.1")
        for note in table.notes
    )


def judged(lost, gained, family=1, **columns):
    ids = np.arange(N)
    full = RunOutcomes("full", ids, FULL, **columns)
    found = compare_runs(full, RunOutcomes("cut", ids, flipped(lost, gained), **columns))
    return judge_together([found] * family)[0]


@pytest.mark.parametrize(
    ("lost", "gained", "said"),
    [
        (10, 600, "cut is significantly better than full: +29.5 points"),
        (30, 6, "cut is significantly worse than full, but non-inferior at a margin of 2 points: "),
        (300, 0, "cut is significantly worse than full, and inferior at a margin of 2 points: −15"),
        (70, 40, "cut is significantly worse than full; whether by more than a margin of 2 points"),
        (41, 40, "cut is non-inferior to full: −0.1 points, 95 % CI −0.9…+0.8, margin 2; 41 lost"),
        (240, 210, "it is inconclusive whether cut is inferior to full: −1.5 points"),
    ],
)
def test_sentences_say_the_strongest_claim(lost, gained, said):
    """ "full is non-inferior to random, +42.2 points" was printed; "significantly" never was."""
    assert sentence(judged(lost, gained)).startswith(said)


def test_sentences_use_corrected_claims():
    alone, one_of_many = judged(58, 36), judged(58, 36, family=20)
    assert sentence(alone).startswith("cut is significantly worse")
    assert "significantly" not in sentence(one_of_many)


def test_what_could_have_been_found_is_said_with_and_only_with_an_open_verdict(tmp_path):
    for lost, gained in ((0, 0), (41, 40), (240, 210), (300, 0), (10, 600), (70, 40)):
        found = judged(lost, gained)
        open_verdict = found.non_inferiority.verdict == "inconclusive"
        said = f"A change of {100 * found.detectable:.1f} points would have been found"
        assert any(note.startswith(said) for note in found.notes) == open_verdict
    few = runs_of(tmp_path, full=[1] * 20 + [0] * 20, same=[1] * 20 + [0] * 20)
    (same,) = compare_with_baseline(few[0], few[1:])
    assert same.comparison.non_inferiority.verdict == "inconclusive"
    assert "would have been found with 80 % power" in text_of([same])
    assert "would have been found" in "\n".join(ablation_table(few[0], few[1:]).notes)


def test_a_verdict_is_not_contradicted_by_a_note():
    """ "So little can be said either way" stood beside non-inferior and inferior."""
    assert judged(3, 2).non_inferiority.verdict == "non-inferior"
    assert not any("either way" in note for note in judged(3, 2).notes)
    shared = judged(3, 2, video_id=np.arange(N) // 4)
    assert shared.non_inferiority.verdict == "non-inferior"
    assert any("would not change as a whole" in note for note in shared.notes)


def test_a_video_with_a_loss_and_a_gain_counts_as_changed():
    """ "Only 0 videos changed their score" stood beside "1 lost, 1 gained"."""
    ids, video = np.arange(40), np.arange(40) // 2
    full = RunOutcomes("full", ids, [1, 0] + [1] * 38, video_id=video)
    cut = RunOutcomes("cut", ids, [0, 1] + [1] * 38, video_id=video)
    found = compare_runs(full, cut)
    assert (found.cells.lost, found.cells.gained, found.changed_clusters) == (1, 1, 1)
    said = "Only questions of 1 video changed their score, so little can be said either way."
    assert said in found.notes


def test_one_is_singular(tmp_path):
    full, cut = runs_of(tmp_path / "a", full=[1] * 30 + [0], cut=[0] + [1] * 29 + [None])
    text = text_of(compare_with_baseline(full, [cut]))
    assert "1 question could not be asked in one run or the other and is left out" in text
    assert "Only 1 question changed its score" in text
    for wrong in ("1 questions", "1 videos", "1 tests", "1 comparisons"):
        assert f" {wrong}" not in f" {text}"
    table = ablation_table(full, [cut])
    assert "1 conditions" not in "\n".join(table.notes)


def test_the_leaderboard_warns_of_every_pair_that_was_asked_differently(tmp_path):
    """Only the top run was compared with the others: two worse runs could differ unnoticed."""
    runs = []
    for name, right, frames in (("a", 70, None), ("b", 60, (0, 1)), ("c", 50, (0, 2))):
        records = answers("full", [1] * right + [0] * (80 - right), frame_indices=frames)
        runs += read_runs(write_run(tmp_path / name, records, identity={"checkpoint": name}))
    text = render([leaderboard(runs)], "csv")
    assert "b full and c full: Warning: 80 shared questions were shown with other frames" in text
    assert "a full and" not in text


def test_the_leaderboard_names_every_pair_of_protocols(tmp_path):
    runs = []
    for name, right, protocol in (("a", 70, "x"), ("b", 60, "y"), ("c", 50, "y"), ("d", 40, "z")):
        records = answers("full", [1] * right + [0] * (80 - right), protocol=protocol)
        runs += read_runs(write_run(tmp_path / name, records, identity={"checkpoint": name}))
    text = render([leaderboard(runs)], "csv")
    assert "a full and b full, c full: Warning: protocols differ (x and y)" in text
    for pair in ("a full and d full", "b full and d full", "c full and d full"):
        assert f"{pair}: Warning: protocols differ" in text


def test_conditions_of_an_ablation_that_were_asked_differently_are_warned_of(tmp_path):
    records = answers("full", [1] * 40, frame_indices=None)
    records += answers("one", [1] * 40, frame_indices=(0, 1))
    records += answers("two", [1] * 40, frame_indices=(0, 2))
    full, *others = read_runs(write_run(tmp_path, records))
    assert "one and two: Warning: 40 shared questions were shown with other frames" in "\n".join(
        ablation_table(full, others).notes
    )


@pytest.mark.parametrize("sizes", [[10] * 15, [1, 1, 2, 3, 5, 8, 12, 20, 30], [2] * 10 + [15] * 5])
def test_accuracy_of_few_videos_covers(sizes):
    """15 to 44 videos: intervals covered 82-92 %."""
    rng = np.random.default_rng(1)
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    hits = 0
    for _ in range(600):
        common = (rng.random(len(sizes)) < 0.6)[cluster]
        own = rng.random(len(cluster)) < 0.6
        found = accuracy(np.where(rng.random(len(own)) < 0.3**0.5, common, own), cluster)
        hits += found.low <= 0.6 <= found.high
    assert hits / 600 >= 0.935


def test_few_videos_are_noted_in_the_leaderboard(tmp_path):
    runs = read_runs(write_run(tmp_path, answers("full", [1] * 30 + [0] * 20)))
    assert "Only 25 videos: intervals allow for that" in "\n".join(leaderboard(runs).notes)


LONG = "q" * 20_000


def test_a_long_id_costs_its_own_length_only():
    """One id of 20,000 characters among 120,000 took 9.7 GB: 80 kB for each of the others."""
    import tracemalloc

    ids = ["q" * MOST_ID_BYTES, *map(str, range(12_000))]
    correct = np.ones(12_001, bool)
    tracemalloc.start()
    first = RunOutcomes("a", ids, correct, video_id=ids, gold=ids)
    paired = compare_runs(first, RunOutcomes("b", ids, correct))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert paired.n == 12_001
    assert peak < 20e6, "fixed-width arrays take 49 MB each"


@pytest.mark.parametrize("field", ["question_id", "video_id", "task"])
def test_the_statistics_refuse_long_ids_too(field):
    """Only records, sample logs and questions did."""
    columns = {"question_id": ["a", "b"], "correct": [1, 0]}
    for length, refused in ((MOST_ID_BYTES, False), (MOST_ID_BYTES + 1, True)):
        run = RunOutcomes("full", **{**columns, field: ["q" * length, "b"]})
        if not refused:
            assert compare_runs(run, run).n == 2
            continue
        with pytest.raises(MapflowError, match=rf"run 'full': {field} .*most are 1,024") as error:
            compare_runs(run, run)
        assert "\n" not in str(error.value)
    answer = RunOutcomes("full", **columns, gold=["g" * 2000, "b"])
    assert compare_runs(answer, answer).n == 2  # the text of an answer is not an id


def a_question(**ids):
    given = {"question_id": "q", "video_id": "v", "task": "t", **ids}
    return Question(
        **given,
        clip=Clip("v.mp4"),
        stem="?",
        options=("a", "b"),
        target=0,
        protocol="paper",
        prompts={},
    )


def test_long_ids_are_refused_where_records_are_read_and_questions_made(tmp_path):
    for name in ("question_id", "video_id", "task"):
        long = {"question_id": f"tvbench/{LONG}"} if name == "question_id" else {name: LONG}
        records = answers("full", [1], **long)
        folder = tmp_path / name
        folder.mkdir()
        (folder / "records.jsonl").write_text(
            "".join(record.to_line() + "\n" for record in records), encoding="utf-8"
        )
        with pytest.raises(MapflowError, match=r"bytes, the most are 1,024") as refused:
            read_runs(folder)
        assert "\n" not in str(refused.value) and len(str(refused.value)) < 400
        with pytest.raises(MapflowError, match=r"bytes, the most are 1,024"):
            a_question(**{name: "é" * (MOST_ID_BYTES // 2 + 1)})
    assert a_question(question_id="é" * (MOST_ID_BYTES // 2)).question_id
    samples = tmp_path / "samples_one.jsonl"
    samples.write_text(json.dumps({"doc_id": LONG, "exact_match": 1}) + "\n", encoding="utf-8")
    with pytest.raises(MapflowError, match=r"bytes, the most are 1,024"):
        read_runs(samples)


def test_codes_are_those_of_the_sorted_names():
    names, codes = coded(["b", "a", "b", "c"])
    assert (names, codes) == (["a", "b", "c"], [1, 0, 1, 2])
