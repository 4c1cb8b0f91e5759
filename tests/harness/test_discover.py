"""Discovery: planted curves are found, halves share no video, and the command's files are read by
those they are for.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mapflow.harness.analyses.discovery.output import Sample, Scored, describe
from mapflow.harness.analyses.discovery.rules import (
    PATHWAYS,
    RULES,
    Found,
    changes,
    discover,
    fold_of_videos,
    hull,
    marginal_costs,
)
from mapflow.harness.analyses.discovery.run import Discovery, _judged
from mapflow.harness.analyses.sweep import Sweep
from mapflow.harness.cli.main import main
from mapflow.harness.reporting.bundled_figures import pathway_table
from mapflow.model_adapters.checkpoints.pathways import named_pathways, scaled_pathways
from mapflow.model_adapters.families.registry import BUNDLED
from mapflow.model_adapters.interventions import LayerSpan, read_interventions
from mapflow.results.contract.errors import FAILED, MapflowError
from mapflow.results.records.record import Record
from mapflow.results.records.sweep import SweepRecord
from mapflow.results.runs.folder import RunFolder, read_records
from mapflow.results.statistics import RunOutcomes, compare_runs

from .test_discover_team import in_process

N_LAYERS = 28


def records(style: str, curves: dict[str, np.ndarray], per_video: int = 2) -> list[SweepRecord]:
    """`curves[route]` holds a row a question."""
    return [
        SweepRecord(
            question_id=f"q/{i:03d}",
            video_id=f"v{i // per_video}",
            task=f"t{i // per_video % 3}",
            route=route,
            style=style,
            window=1,
            protocol="paper",
            n_options=4,
            target="A",
            change_answer=tuple(row.tolist()),
        )
        for route, rows in curves.items()
        for i, row in enumerate(rows)
    ]


def planted(spans: dict[str, tuple[int, int]], depth: float, n: int = 40, noise: float = 1.0):
    """A centre sweep that loses `depth` percent inside each route's span."""
    rng = np.random.default_rng(1)
    curves = {}
    for route, (first, last) in spans.items():
        curves[route] = rng.normal(0, noise, (n, N_LAYERS))
        curves[route][:, first - 1 : last] -= depth
    return {"center": records("center", curves)}


SPANS = {"cross-frame": (1, 15), "video->question": (6, 20), "question->last": (21, 28)}


@pytest.mark.parametrize("rule", ["paper", "confidence"])
def test_planted_bins_are_found_the_short_last_one_too(rule):
    found = discover(planted(SPANS, 12), rule, -5, 5)
    assert str(found.ranges) == "cross_frame=1-15,video_to_question=6-20,question_to_last=21-28"


def test_a_bin_counts_by_its_mean_and_the_threshold_matters():
    """Layers 9 and 10 lose 12 %: the bin 6-10 loses 4.8 % on average."""
    sweeps = planted({route: (9, 10) for route in SPANS}, 12, noise=0)
    assert discover(sweeps, "paper", -5, 5).ranges is None
    assert discover(sweeps, "paper", -4, 5).spans["cross_frame"] == LayerSpan(6, 10)
    assert discover(sweeps, "paper", -5, 1).spans["cross_frame"] == LayerSpan(9, 10)


def test_what_luck_explains_passes_the_papers_rule_and_not_the_bands():
    """One video of twenty loses everything in layer 9: −10 % on average."""
    curve = np.zeros((40, N_LAYERS))
    curve[:4, 8] = -100
    sweeps = {"center": records("center", dict.fromkeys(SPANS, curve), per_video=4)}
    assert discover(sweeps, "paper", -5, 1).spans["cross_frame"] == LayerSpan(9, 9)
    assert discover(sweeps, "confidence", -5, 1).spans["cross_frame"] is None


def test_layers_that_stand_in_for_one_another_are_seen_by_the_marginal_rule_alone():
    """A channel that any single layer of 6-10 can carry, and one that needs each of them."""
    span = set(range(6, 11))
    for lost in (
        lambda cut: -80.0 if span <= cut else 0.0,  # any one suffices
        lambda cut: -16.0 * len(span & cut),  # each carries a share
    ):
        windows = {
            "center": [{layer} for layer in range(1, 13)],
            "top-down": [set(range(layer, 13)) for layer in range(1, 13)],
            "bottom-up": [set(range(1, layer + 1)) for layer in range(1, 13)],
        }
        sweeps = {
            style: records(
                style, {route: np.tile([lost(cut) for cut in cuts], (4, 1)) for route in SPANS}
            )
            for style, cuts in windows.items()
        }
        assert discover(sweeps, "marginal", -5, 1).spans["cross_frame"] == LayerSpan(6, 10)
    assert windows["center"][5] == {6} and discover(sweeps, "paper", -5, 1).ranges is not None
    redundant = {"center": records("center", {route: np.zeros((4, 12)) for route in SPANS})}
    assert discover(redundant, "paper", -5, 1).ranges is None


def test_the_marginal_threshold_is_that_of_five_layers():
    """Layers 6-10 cost 1.5 % each: as much a layer as 7.5 % for five of them."""
    lost = -1.5 * np.array([min(max(layer - 5, 0), 5) for layer in range(1, 13)])
    sweeps = {
        "top-down": records(
            "top-down", dict.fromkeys(SPANS, np.tile(lost[-1] - np.append(0, lost[:-1]), (4, 1)))
        ),
        "bottom-up": records("bottom-up", dict.fromkeys(SPANS, np.tile(lost, (4, 1)))),
    }
    for size in (1, 5):
        assert discover(sweeps, "marginal", -7, size).spans["cross_frame"] == LayerSpan(6, 10)
        assert discover(sweeps, "marginal", -8, size).spans["cross_frame"] is None


@given(arrays(float, (3, 13), elements=st.floats(-100, 100)), st.integers(1, 14))
def test_marginal_costs_sum_to_the_cost_of_cutting_everything(curve, size):
    top_down = curve
    bottom_up = np.roll(
        curve, -1, axis=1
    )  # its last entry is the first of top_down: all layers cut
    later, earlier = marginal_costs(top_down, bottom_up, size)
    assert later.shape == earlier.shape == (3, -(-13 // size))
    assert later.sum(1) == pytest.approx(curve[:, 0], abs=1e-9)
    assert earlier.sum(1) == pytest.approx(curve[:, 0], abs=1e-9)


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.integers(1, 7), st.data())
def test_a_hull_is_the_smallest_range_of_whole_bins(bins, size, data):
    n_layers = data.draw(st.integers((len(bins) - 1) * size + 1, len(bins) * size))
    found = hull(np.array(bins), size, n_layers)
    layers = [layer for layer in range(1, n_layers + 1) if bins[(layer - 1) // size]]
    assert found == (LayerSpan(layers[0], layers[-1]) if layers else None)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), min_size=2, max_size=60),
    st.randoms(),
)
def test_halves_share_no_video_are_even_and_do_not_depend_on_order(pairs, random):
    found = [
        SweepRecord(f"q{i}", f"v{video}", f"t{video % 3}", "r", "center", 1, "paper", 4, "A")
        for i, (video, _) in enumerate(pairs)
    ]
    fold = fold_of_videos(found)
    assert set(fold) == {r.video_id for r in found} and set(fold.values()) <= {0, 1}
    assert abs(2 * sum(fold.values()) - len(fold)) <= 1
    for task in {r.task for r in found}:
        own = [fold[video] for video in {r.video_id for r in found if r.task == task}]
        assert abs(2 * sum(own) - len(own)) <= 1
    random.shuffle(found)
    assert fold_of_videos(found) == fold


def test_a_route_without_any_change_is_an_error_that_names_it():
    with pytest.raises(MapflowError, match="relative change for video->last"):
        changes(records("center", {"cross-frame": np.zeros((2, 3))}), "video->last")
    assert Found("paper", -5, dict.fromkeys(PATHWAYS)).ranges is None


DEPTH = 12
BY_FOLD = (
    {"cross-frame": (2, 3), "video->question": (2, 5), "question->last": (6, 12)},
    {"cross-frame": (2, 4), "video->question": (3, 8), "question->last": (7, 12)},
)


def curves_of(span: tuple[int, int], style: str) -> list[float]:
    """−20 % for every layer of `span` that is cut."""
    cuts = {"center": (0, 0), "top-down": (0, DEPTH), "bottom-up": (DEPTH, 0)}[style]
    return [
        -20.0
        * sum(layer - cuts[0] <= one <= layer + cuts[1] for one in range(span[0], span[1] + 1))
        / 2
        for layer in range(1, DEPTH + 1)
    ]


def a_planted_sweep(sweep, subject, folder) -> int:
    """Replaces `Sweep.run`: the halves of the videos say different things.

    The last question is answered wrong; cuts make its answer much more probable.
    """
    questions = subject.questions
    fold = fold_of_videos(
        [planted_record(one, "cross-frame", sweep.style, (1, 1)) for one in questions]
    )
    planted = [
        planted_record(one, str(route), sweep.style, BY_FOLD[fold[one.video_id]][str(route)])
        for one in questions
        for route in sweep.routes
    ]
    last = max(one.question_id for one in questions)
    wrong = (
        {"change_answer": None, "left_out": "answered wrong by the plain run"}
        if sweep.samples == "correct"
        else {"change_answer": (1000.0,) * DEPTH}
    )
    identity = {**subject.identity, **sweep.settings, "samples": sweep.samples}
    RunFolder(folder, identity, {}, SweepRecord).append(
        replace(one, **wrong) if one.question_id == last else one for one in planted
    )
    return 0


def planted_record(question, route: str, style: str, span: tuple[int, int]) -> SweepRecord:
    (record,) = records(style, {route: np.array([curves_of(span, style)])})
    return replace(
        record,
        question_id=question.question_id,
        video_id=question.video_id,
        task=question.task,
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> Path:
    """The command on six questions: planted sweeps, real answers of the bundled model."""
    folder = tmp_path_factory.mktemp("discover") / "found"
    words = ["--task", "mapflow_motion_direction", "--limit", "6", "--bin", "1", "--window", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sweep, "run", a_planted_sweep)
        assert main(["discover", *words, "--threshold", "-3", "--output_path", str(folder)]) == 0
    return folder


def test_the_command_scores_each_half_under_the_ranges_found_without_it(found):
    report = json.loads((found / "discovery.json").read_text())
    fold = fold_of_videos(read_records(found / "sweep-center", SweepRecord))
    answers = {(r.question_id, r.intervention): r for r in read_records(found / "scores", Record)}
    questions = {r.question_id: fold[r.video_id] for r in answers.values()}
    assert sorted(questions.values()) == [0, 0, 0, 1, 1, 1]
    row = next(
        row for row in report["found"] if (row["rule"], row["threshold"]) == ("marginal", -3)
    )
    spans = [
        {name: "{}-{}".format(*by[route]) for name, route in PATHWAYS.items()} for by in BY_FOLD
    ]
    assert row["ranges_without"] == spans[::-1], "without the first half: what the second one says"
    names = [
        "effective:" + ",".join(f"{name}={span}" for name, span in one.items())
        for one in spans[::-1]
    ]
    cut = [answers[question, names[half]] for question, half in questions.items()]
    assert all((question, names[1 - half]) not in answers for question, half in questions.items())
    assert row["n"] == len(cut) == 6
    assert row["accuracy_effective"] == pytest.approx(sum(r.correct for r in cut) / 6)
    assert row["accuracy_full"] == pytest.approx(
        sum(answers[q, "full"].correct for q in questions) / 6
    )
    assert row["edges_kept"] == pytest.approx(
        sum(r.edges_kept for r in cut) / sum(r.edges_total for r in cut)
    )
    assert row["ranges"] == {
        "cross_frame": "2-4",
        "video_to_question": "2-8",
        "question_to_last": "6-12",
    }, "handed out: what all questions say"


def test_ranges_are_found_on_questions_answered_right_and_files_say_so(found, capsys):
    """The paper drops the others. Here one that changes by 1000 % would hide every layer."""
    report = json.loads((found / "discovery.json").read_text())
    assert (report["samples"], report["questions"], report["questions_asked"]) == ("correct", 5, 6)
    said = "on 5 of 6 questions, those that the model answers right without a cut"
    assert said in (found / "discovered.yaml").read_text()
    assert said in (found / "marginal" / "pathways.yaml").read_text()
    paper = {row["threshold"]: row for row in report["found"] if row["rule"] == "paper"}
    assert all(paper[-3]["ranges"].values()), "found without the wrong question"


def test_the_default_is_the_setting_of_the_paper():
    """Table E: windows of 9 layers, bins of 5, below −5 %, on questions answered right."""
    parser = argparse.ArgumentParser()
    Discovery.add_arguments(parser)
    found = Discovery.from_options(parser.parse_args(["--output_path", "x"]))
    setting = (found.window, found.bin_size, found.threshold, found.samples)
    assert setting == (9, 5, -5.0, "correct")


def test_a_half_without_a_policy_has_no_score_and_the_table_says_so(found):
    report = json.loads((found / "discovery.json").read_text())
    row = next(row for row in report["found"] if (row["rule"], row["threshold"]) == ("paper", -10))
    assert row["verdict"] is None and row["n"] == 0
    scored = Scored(
        Found("paper", -10, dict.fromkeys(PATHWAYS)),
        (Found("paper", -10, dict.fromkeys(PATHWAYS)),) * 2,
        None,
        None,
    )
    assert "no policy: a pathway was not found" in describe([scored], Sample("correct", 1, 2))


def test_the_table_of_the_bundled_models_holds_what_was_planted_and_what_was_found(found):
    """One discovery in both models' places: the first has planted ranges, the second has none."""
    report = json.loads((found / "discovery.json").read_text())
    header, _, *rows = pathway_table({"pathways": report, "natural": report}).splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in (header, *rows)]
    planted = str(named_pathways(str(BUNDLED)))
    assert cells[1][:2] == ["pathways", "*planted*"]
    assert ",".join(f"{n}={c}" for n, c in zip(PATHWAYS, cells[1][2:5], strict=True)) == planted
    assert [row[:2] for row in cells[2:]] == [
        [model, rule] for model in ("pathways", "natural") for rule in RULES
    ]
    marginal = next(
        row for row in report["found"] if (row["rule"], row["threshold"]) == ("marginal", -3)
    )
    for row in cells[2:]:
        if row[1] == "marginal":
            shares = (marginal[k] for k in ("accuracy_full", "accuracy_effective", "edges_kept"))
            assert row[2:] == [*marginal["ranges"].values(), *(f"{share:.1%}" for share in shares)]


def test_its_files_are_read_by_intervention_and_by_effective(found):
    report = json.loads((found / "discovery.json").read_text())
    ours = {row["rule"]: row["ranges"] for row in report["found"] if row["threshold"] == -3}
    complete = {rule: ranges for rule, ranges in ours.items() if None not in ranges.values()}
    policies = {i.name: i for i in read_interventions(found / "discovered.yaml")}
    assert set(policies) == {f"discovered-{rule}" for rule in complete}
    for rule, ranges in ours.items():
        if rule not in complete:
            assert not (found / rule).exists()
            continue
        expected = ",".join(f"{name}={span}" for name, span in ranges.items())
        assert str(named_pathways(str(found / rule))) == expected
        assert str(policies[f"discovered-{rule}"].policies[0].ranges) == expected
        verdict = next(
            r["verdict"] for r in report["found"] if (r["rule"], r["threshold"]) == (rule, -3)
        )
        scored = {
            "non-inferior": "is non-inferior",
            "inferior": "is inferior",
            "inconclusive": "inconclusive whether",
        }
        assert (scored[verdict] if verdict else "not scored") in (
            found / rule / "pathways.yaml"
        ).read_text()
        assert str(scaled_pathways(str(found / rule), report["layers"])) == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--bin", "0"), "--bin 0 must be at least 1"),
        (("--window", "0"), "--window 0 must be at least 1"),
        (("--threshold", "5"), "--threshold 5 must lie between -100 and 0 percent"),
        (("--margin", "0"), "--margin 0 must lie between"),
        (("--task", "mapflow_nothing"), "unknown task 'mapflow_nothing'"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(tmp_path, words, said, capsys):
    task = () if "--task" in words else ("--task", "mapflow_motion_direction")
    assert main(["discover", *task, *words, "--output_path", str(tmp_path / "x")]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_verdicts_of_all_rules_are_one_family():
    """Each rule and threshold was judged alone; equal ranges are one comparison, though."""
    ids = np.arange(2000)
    full = RunOutcomes("full", ids, ids < 1200)

    def scored(rule: str, threshold: float, last: int) -> Scored:
        cut = (ids >= 57) & (ids < 1240)
        spans = dict.fromkeys(PATHWAYS, LayerSpan(1, last))
        found = Found(rule, threshold, spans)
        one = compare_runs(full, RunOutcomes(f"{rule} ({threshold:g} %)", ids, cut))
        return Scored(found, (found, found), one, 0.5)

    alone = scored("paper", -3, 4)
    assert alone.comparison.non_inferiority.verdict == "non-inferior"
    some = [alone, scored("hull", -3, 4), *(scored("marginal", -k, k) for k in (5, 6, 7, 8))]
    judged = _judged([*some, replace(alone, comparison=None)])
    assert [one.comparison.non_inferiority.family for one in judged[:-1]] == [5] * 6
    assert {one.comparison.non_inferiority.verdict for one in judged[:-1]} == {"inconclusive"}
    assert [one.comparison.treatment for one in judged[:2]] == ["paper (-3 %)", "hull (-3 %)"]
    assert judged[-1].comparison is None
    assert "family of all 5 policies" in describe(judged, Sample("correct", 1, 2))


FILES = ("discovery.json", "discovered.yaml", "marginal/pathways.yaml", "scores/records.jsonl")
WORDS = ("--task", "mapflow_motion_direction", "--limit", "6", "--bin", "1", "--window", "1")


def discover_planted(folder):
    import torch

    torch.set_num_threads(1)  # a forked process has none of its parent's threads
    return main(["discover", *WORDS, "--threshold", "-3", "--output_path", str(folder)])


def a_share_of_a_planted_sweep(sweep, subject, folder):
    """The first process plants what both would have measured, later than the other is done."""
    if os.environ["RANK"] == "1":
        return 0
    time.sleep(0.5)
    return a_planted_sweep(sweep, subject, folder)


def test_two_processes_leave_the_files_of_one(found, tmp_path, monkeypatch):
    monkeypatch.setattr(Sweep, "run", a_share_of_a_planted_sweep)
    workers = [in_process(rank, 2, discover_planted, tmp_path) for rank in (0, 1)]
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0]
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (found / name).read_bytes(), name
    left = {one.name for one in tmp_path.iterdir() if one.name.startswith(".")}
    assert left == {".job", ".lock", ".worker-0", ".worker-1"}


def test_after_a_death_the_command_fails_and_one_process_goes_on(
    found, tmp_path, monkeypatch, capsys
):
    def dies(sweep, subject, folder):
        if os.environ.get("RANK") == "1":
            os._exit(9)
        return a_planted_sweep(sweep, subject, folder)

    monkeypatch.setattr(Sweep, "run", dies)
    workers = [in_process(rank, 2, discover_planted, tmp_path) for rank in (0, 1)]
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [FAILED, 9]
    assert not (tmp_path / "discovery.json").exists()
    assert discover_planted(tmp_path) == 0
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (found / name).read_bytes(), name
