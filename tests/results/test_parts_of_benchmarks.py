"""Runs over a part of a benchmark, and over several benchmarks: what tables make of them."""

import json

import pytest

from mapflow.harness.analyses.trace import Trace
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.visible_text import counted
from mapflow.results.records.trace import TraceRecord
from mapflow.results.runs.asked import ASKED
from mapflow.results.runs.folder import RunFolder, read_records, reported_records
from mapflow.results.runs.run import read_runs
from mapflow.results.tables.ablation import ablation_table
from mapflow.results.tables.comparison import compare_groups, comparison_tables
from mapflow.results.tables.formats import render
from mapflow.results.tables.leaderboard import leaderboard, leaderboards
from mapflow.results.tables.subtasks import subtask_tables
from mapflow.results.tables.summary import summaries_json, summarize, summary_blocks
from mapflow.tasks.registry import benchmark_sizes, task_sizes
from tests.results.run_folders import IDENTITY, answers, write_run

MOTION = {"question_id": "motion/one/{:04d}", "task": "mapflow_motion_one"}
TVBENCH = {"question_id": "tvbench/one/{:04d}", "task": "mapflow_tvbench_one"}


def ask(folder, records, *commands):
    """The folder after these commands, each of which asks so many questions of the task."""
    for n in commands:
        run = RunFolder(folder, IDENTITY, {"interventions": {"full": "full"}})
        run.append(one for one in records[:n] if one.key not in run.answered)
        run.note_asked([(one.task, one.question_id) for one in records[:n]], {records[0].task: 80})
    return folder


def test_a_folder_reports_what_was_asked_last(tmp_path):
    records = answers("full", [1, 0, 0, 1], **MOTION)
    ask(tmp_path, records, 3, 1)
    assert len(read_records(tmp_path)) == 3  # the answers are kept
    assert [one.question_id for one in reported_records(tmp_path)] == ["motion/one/0000"]
    (run,) = read_runs(tmp_path)
    assert (run.n, run.total, run.complete) == (1, 80, False)
    ask(tmp_path, records, 4)
    assert read_runs(tmp_path)[0].n == 4


def test_a_task_that_is_not_asked_again_stays(tmp_path):
    ask(tmp_path, answers("full", [1, 0, 0], **MOTION), 3)
    ask(tmp_path, answers("full", [1, 0, 0], **TVBENCH), 2)
    assert {run.benchmark: run.n for run in read_runs(tmp_path)} == {"motion": 3, "tvbench": 2}


def test_processes_of_one_job_add_up(tmp_path):
    records = answers("full", [1, 0, 0, 1], **MOTION)
    run = RunFolder(tmp_path, IDENTITY, {"interventions": {"full": "full"}})
    run.append(records)
    for part in (records[:2], records[2:]):
        run.note_asked([(one.task, one.question_id) for one in part], {records[0].task: 4})
    (found,) = read_runs(tmp_path)
    assert (found.n, found.complete) == (4, True)


@pytest.mark.parametrize("content", ["[]", '{"t": 1}', '{"t": {"questions": 3, "of": 1}}'])
def test_a_broken_list_of_what_was_asked_is_refused(tmp_path, content):
    write_run(tmp_path, answers("full", [1, 0]))
    (tmp_path / ASKED).write_text(content)
    with pytest.raises(MapflowError, match=r"asked\.json"):
        read_runs(tmp_path)


def test_incomplete_runs_stand_below_and_are_not_ranked(tmp_path):
    """20 right answers of 20 do not beat 200 of 320; published rows stand above them."""
    sizes, titles = {"tvbench": 320}, {"tvbench": "TVBench"}
    runs = [
        *read_runs(write_run(tmp_path / "part", answers("full", [1] * 20)), titles, sizes),
        *read_runs(write_run(tmp_path / "more", answers("full", [0] * 30)), titles, sizes),
        *read_runs(write_run(tmp_path / "all", answers("full", [1, 0] * 160)), titles, sizes),
        *read_runs(
            write_run(tmp_path / "failed", answers("full", [1] * 319 + [None])), titles, sizes
        ),
    ]
    table = leaderboard(runs)
    order = [row["source"] for row in table.rows if "source" in row and not row.get("paper")]
    assert order == ["all", "failed", "more", "part"]
    paper = [i for i, row in enumerate(table.rows) if row.get("paper")]
    assert paper and max(paper) < [row.get("source") for row in table.rows].index("failed")
    text = render([table], "terminal")
    assert "20 of 320" in text and text.count("(incomplete)") == 3
    assert "full is incomplete: 20 of 320 questions (6.2 %); it is not ranked." in text
    assert [row["ties"] for row in table.rows if row.get("complete") is False] == ["", "", ""]


def test_without_a_complete_run_the_share_is_beside_the_published_numbers(tmp_path):
    (run,) = read_runs(write_run(tmp_path, answers("full", [1] * 252)), None, {"tvbench": 2525})
    table = leaderboard([run])
    assert [row.get("paper", False) for row in table.rows][-1] is False
    assert "252 of 2,525 questions (10.0 %)" in render([table], "markdown")


def test_comparisons_and_ablations_name_the_share(tmp_path):
    records = [*answers("full", [1, 0] * 10), *answers("effective", [1, 1] * 10)]
    runs = read_runs(write_run(tmp_path, records), None, {"tvbench": 320})
    for tables in (
        comparison_tables(compare_groups([runs])),
        [ablation_table(runs[0], runs[1:])],
    ):
        text = render(tables, "terminal")
        assert "20 of 320" in text
        assert (
            "Incomplete on tvbench: full 20 of 320 questions (6.2 %);"
            " effective 20 of 320 questions (6.2 %)." in text
        )
    whole = read_runs(tmp_path, None, {"tvbench": 20})
    assert "ncomplete" not in render(comparison_tables(compare_groups([whole])), "terminal")


def both(names=("full", "effective")):
    return [
        record
        for name in names
        for record in (
            *answers(name, [1, 0, 1, 1], n_options=2, **MOTION),
            *answers(name, [0, 0, 0, 1], n_options=4, **TVBENCH),
        )
    ]


def test_summaries_do_not_pool_benchmarks():
    summaries = summarize(both(["full"]), {"motion": 320, "tvbench": 4})
    assert [(one.benchmark, one.macro, one.chance_micro) for one in summaries] == [
        ("motion", 3 / 4, 1 / 2),
        ("tvbench", 1 / 4, 1 / 4),
    ]
    content = summaries_json(summaries)
    assert content["motion"]["full"]["of"] == 320 and content["tvbench"]["full"]["micro"] == 1 / 4
    text = summary_blocks(summaries, {"tvbench": "TVBench"})
    assert text.startswith("motion\n") and "\n\nTVBench\n" in text and "4 of 320" in text
    assert set(summaries_json(summarize(answers("full", [1])))) == {"full"}  # one: as before


def test_comparisons_and_leaderboards_have_a_table_per_benchmark(tmp_path):
    runs = read_runs(write_run(tmp_path, both()))
    groups = [[run for run in runs if run.benchmark == name] for name in ("motion", "tvbench")]
    pairs = compare_groups(groups)
    tables = comparison_tables(pairs, {"tvbench": "Both at once."})
    assert [table.title for table in tables] == [
        "Comparisons with the baseline: motion",
        "Comparisons with the baseline: tvbench",
    ]
    assert [len(table.rows) for table in tables] == [1, 1]
    assert ["Both at once." in table.notes for table in tables] == [False, True]
    assert len(subtask_tables(pairs)) == 2
    boards = leaderboards(runs)
    assert [board.title for board in boards] == ["Leaderboard: motion", "Leaderboard: tvbench"]
    assert all(len({row["benchmark"] for row in board.rows}) == 1 for board in boards)


def test_analyses_do_not_pool_benchmarks(tmp_path):
    def traced(name, p):
        fields = {"video_id": "v", "task": "t", "intervention": "full", "protocol": "paper"}
        about = {"norm": True, "released": False, "target": "A", "answer": "A"}
        return TraceRecord(
            question_id=f"{name}/one/0000", **fields, **about, p_answers=(p,), p_targets=(p,)
        )

    trace = Trace.__new__(Trace)
    object.__setattr__(trace, "interventions", ("full",))
    summaries = trace.summaries([traced("motion", 0.25), traced("tvbench", 0.75)])
    assert {name: one[0].p_targets for name, one in summaries.items()} == {
        "motion": (0.25,),
        "tvbench": (0.75,),
    }
    assert trace.tables(summaries).count("base answer") == 2
    (tmp_path / "summary.json").write_text("of an earlier command")
    trace.save_all(summaries, tmp_path)
    assert not (tmp_path / "summary.json").exists()
    for name in ("motion", "tvbench"):
        assert json.loads((tmp_path / name / "summary.json").read_text())["full"]["n"] == 1


def test_sizes_are_the_published_ones():
    assert benchmark_sizes()["tvbench"] == 2525 and benchmark_sizes()["tomato"] == 1484
    assert task_sizes()["mapflow_tvbench_action_count"] == 536


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 questions"), (1, "1 question"), (2525, "2,525 questions")]
)
def test_one_is_singular(n, text):
    assert counted(n, "question") == text and counted(n, "entry", "entries")[-3:] in ("try", "ies")
