"""lmms-eval's standard error and its --baseline test beside ours, on the same answers.

Its functions are the independent twin: their source is taken from the installed package, because
importing its module of metrics loads torch and takes seconds.
"""

import ast
import collections
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapflow.results.runs.run import read_runs
from mapflow.results.statistics import (
    RunOutcomes,
    accuracy,
    clustered_standard_error,
    compare_runs,
)
from mapflow.results.tables.comparison import compare_groups, comparison_tables
from mapflow.results.tables.leaderboard import leaderboard


@pytest.fixture(scope="module")
def lmms():
    """`clustered_stderr` and `paired_ttest` of the installed lmms-eval."""
    package = importlib.util.find_spec("lmms_eval")
    assert package is not None and package.submodule_search_locations is not None
    file = Path(package.submodule_search_locations[0]) / "api" / "metrics.py"
    wanted = ("clustered_stderr", "paired_ttest")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    tree.body = [
        one for one in tree.body if isinstance(one, ast.FunctionDef) and one.name in wanted
    ]
    names: dict[str, Any] = {"math": math, "collections": collections, "Any": Any, "List": list}
    exec(compile(tree, str(file), "exec"), names)
    return collections.namedtuple("Lmms", wanted)(*(names[one] for one in wanted))


def drawn(seed, n, videos, flips, right=0.6, towards=0.5):
    """Two runs over questions of videos that are right or wrong more often together."""
    rng = np.random.default_rng(seed)
    video = np.arange(n) * videos // n
    base = np.clip(right + rng.uniform(-0.3, 0.3, videos), 0, 1)[video]
    before = (rng.random(n) < base).astype(int)
    after = np.where(rng.random(n) < flips, rng.random(n) < towards, before).astype(int)
    return before, after, video


def compared(before, after, video=None):
    ids = [f"q{i:05d}" for i in range(len(before))]
    videos = None if video is None else [f"v{one}" for one in video]
    runs = [RunOutcomes(name, ids, one, videos) for name, one in (("a", before), ("b", after))]
    return compare_runs(*runs, resamples=100)


@pytest.mark.parametrize(("n", "videos"), [(4, 2), (7, 3), (320, 80), (2525, 597), (500, 500)])
def test_the_clustered_standard_error_is_lmms_evals(lmms, n, videos):
    """To rounding, of accuracies and of paired differences alike."""
    before, after, video = drawn(n, n, videos, 0.2)
    for values in (before, after - before):
        own = clustered_standard_error(values, video)
        assert own == pytest.approx(
            lmms.clustered_stderr(values.tolist(), video.tolist()), abs=1e-15
        )
    alone = clustered_standard_error(before, None)
    assert alone == pytest.approx(before.std(ddof=1) / np.sqrt(n), rel=1e-12)
    assert clustered_standard_error(before[:1], video[:1]) is None


def test_its_interval_and_ours_agree_where_a_normal_approximation_holds(lmms):
    """Within 0.15 points at TVBench's size; not near 100 %, where its interval leaves [0, 1]."""
    before, _, video = drawn(1, 2525, 597, 0)
    error = lmms.clustered_stderr(before.tolist(), video.tolist())
    own = accuracy(before == 1, video)
    assert abs(own.low - (before.mean() - 1.96 * error)) < 0.0015
    assert abs(own.high - (before.mean() + 1.96 * error)) < 0.0015
    few = np.array([1] * 59 + [0])
    error = lmms.clustered_stderr(few.tolist(), list(range(60)))
    assert few.mean() + 1.96 * error > 1 > accuracy(few == 1).high


def test_its_paired_test_and_ours_agree_without_shared_videos(lmms):
    """Over 200 draws of 1,000 questions with about 50 changed answers."""
    apart, ends = [], []
    for seed in range(200):
        before, after, _ = drawn(seed, 1000, 1000, 0.1, towards=0.6)
        own, theirs = compared(before, after), lmms.paired_ttest(after.tolist(), before.tolist())
        assert own.difference.estimate == pytest.approx(theirs["mean_diff"], abs=1e-12)
        apart.append(abs(own.test.p_value - theirs["p_value"]))
        ends += [own.difference.low - theirs["ci_lower"], own.difference.high - theirs["ci_upper"]]
    assert max(apart) < 0.0015 and np.abs(ends).max() < 0.001


def test_where_they_differ(lmms):
    # no changed answer: its interval has no width; ours says how little is known
    same = np.array([1, 0] * 10)
    theirs, own = lmms.paired_ttest(same.tolist(), same.tolist()), compared(same, same)
    assert (theirs["ci_lower"], theirs["ci_upper"], theirs["p_value"]) == (0, 0, 1)
    assert own.difference.low < -0.1 and own.test.p_value == 1
    # two answers, both changed for the better: its variance is 0, and so is its p
    theirs, own = lmms.paired_ttest([1, 1], [0, 0]), compared(same[:2] * 0, same[:2] * 0 + 1)
    assert theirs["p_value"] == 0 and theirs["ci_lower"] == 1
    assert 0.2 < own.test.p_value < 0.3 and own.difference.low < 0.3
    # few changed answers: a t-test takes the net gain for normal
    before, after = np.zeros(100, int), np.repeat([1, 0], [5, 95])
    theirs, own = lmms.paired_ttest(after.tolist(), before.tolist()), compared(before, after)
    assert theirs["p_value"] < own.test.p_value and own.test.p_value < 0.05
    # shared videos: its --baseline test takes questions for independent
    video = np.repeat(np.arange(50), 10)
    before = np.zeros(500, int)
    after = np.isin(video, [1, 2, 3, 4, 5]).astype(int)
    theirs, own = lmms.paired_ttest(after.tolist(), before.tolist()), compared(before, after, video)
    width = own.difference.high - own.difference.low
    assert width > 2 * (theirs["ci_upper"] - theirs["ci_lower"])
    assert theirs["p_value"] < 1e-10 and own.test.p_value > 0.01


def test_its_own_logs_are_compared_by_its_own_clusters(lmms, tmp_path):
    """As `--baseline` reads them, in videomme's layout: a metric with score and cluster key."""
    from lmms_eval.baselines import load_baseline

    before, after, video = drawn(5, 120, 40, 0.3, towards=0.8)
    metric = "videomme_perception_score"
    for name, right in (("old", before), ("new", after)):
        (tmp_path / name).mkdir()
        lines = [
            {
                "doc_id": i,
                "target": "A",
                "filtered_resps": ["A" if one else "B"],
                "doc_hash": "x",
                metric: {
                    "pred_answer": "A" if one else "B",
                    "answer": "A",
                    "score": float(one),
                    "videoID": f"v{video[i]}",
                },
            }
            for i, one in enumerate(right.tolist())
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / name / "20260101_000000_samples_videomme.jsonl").write_text(text)
        about = {"model_name": name, "configs": {"videomme": {"cluster_key": "videoID"}}}
        (tmp_path / name / "20260101_000000_results.json").write_text(json.dumps(about))
    (old,), (new,) = read_runs(tmp_path / "old"), read_runs(tmp_path / "new")
    read, _ = load_baseline(
        str(tmp_path / "old" / "20260101_000000_samples_videomme.jsonl"), "videomme"
    )
    assert [read[i] for i in range(120)] == before.tolist() == old.correct.astype(int).tolist()
    assert old.cluster is not None and len(set(old.cluster.tolist())) == 40
    theirs = lmms.paired_ttest(after.tolist(), [read[i] for i in range(120)])
    (row,) = comparison_tables(compare_groups([[old, new]]))[0].records()
    assert row["difference"] == pytest.approx(theirs["mean_diff"], abs=1e-12)
    expected = lmms.clustered_stderr((after - before).tolist(), video.tolist())
    assert row["standard_error"] == pytest.approx(expected, abs=1e-15)
    rows = {one["model"]: one for one in leaderboard([old, new]).rows}
    expected = lmms.clustered_stderr(before.tolist(), video.tolist())
    assert rows["old"]["standard_error"] == pytest.approx(expected, abs=1e-15)
