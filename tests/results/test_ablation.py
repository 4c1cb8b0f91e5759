"""A grid against its baseline: seeds are one condition, and the numbers are the statistics
library's."""

import argparse
import re
from dataclasses import replace

import numpy as np
import pytest
from torch.distributed.run import get_args_parser

from mapflow.harness.commands import ablate
from mapflow.results.contract.errors import MapflowError
from mapflow.results.runs.run import read_runs
from mapflow.results.statistics import PairedDifference, holm, seed_condition
from mapflow.results.tables.ablation import ablation_table, condition_of
from tests.results.run_folders import answers, write_run

RNG = np.random.default_rng(5)
FULL = [1] * 70 + [0] * 30
SEEDS = [RNG.permutation([1] * (40 + k) + [0] * (60 - k)).tolist() for k in range(3)]


def a_grid(folder, **changes):
    records = answers("full", FULL, **changes) + answers("effective", [*FULL[:-2], 1, 1], **changes)
    for seed, correct in enumerate(SEEDS):
        records += answers(f"random:seed={seed}", correct, seed=seed, **changes)
    return read_runs(write_run(folder, records))


def test_the_way_to_several_processes_in_the_help_passes_torchruns_parser():
    """torchrun takes `--run` behind a module for one of its own flags, as `--run-path`."""
    parser = argparse.ArgumentParser()
    ablate.add_arguments(parser)
    (shown,) = re.findall(r"torchrun (.*) …", parser.epilog)
    words = shown.replace(" N ", " 2 ").replace(" DIR", " DIR -- --limit 1").split()
    read = get_args_parser().parse_args(words)
    assert (read.module, read.training_script) == (True, "mapflow")
    assert read.training_script_args == ["ablate", "--run", "DIR", "--", "--limit", "1"]


def test_seeds_are_one_condition_with_the_librarys_interval(tmp_path):
    baseline, *treatments = a_grid(tmp_path)
    table = ablation_table(baseline, treatments)
    assert [(row["condition"], row["seeds"]) for row in table.rows] == [
        ("effective", []),
        ("random", [0, 1, 2]),
    ]
    row = table.rows[1]
    expected = seed_condition(np.array(FULL, bool), np.array(SEEDS, bool), np.arange(100) // 2)
    assert row["accuracy"] == pytest.approx((40 + 41 + 42) / 300)
    assert row["difference"] == pytest.approx(expected.difference.estimate)
    limits = (expected.difference.low, expected.difference.high)
    assert (row["difference_low"], row["difference_high"]) == pytest.approx(limits, rel=1e-12)
    assert row["between_seeds"] == pytest.approx(expected.between_seeds)
    assert row["verdict"] == "inferior" and row["n"] == 100
    lost = [sum(b > a for b, a in zip(FULL, seed, strict=True)) for seed in SEEDS]
    gained = [sum(b < a for b, a in zip(FULL, seed, strict=True)) for seed in SEEDS]
    assert (row["lost"], row["gained"]) == pytest.approx((sum(lost) / 3, sum(gained) / 3))


def test_a_condition_of_one_run_is_compared_as_such_and_p_values_are_corrected_together(tmp_path):
    baseline, *treatments = a_grid(tmp_path, video_id="one/{}.mp4")
    rows = ablation_table(baseline, treatments).rows
    assert (rows[0]["lost"], rows[0]["gained"]) == (0, 2)
    assert rows[0]["p"] == PairedDifference.of_counts(2, 0, 100).p_value()
    assert [row["p_holm"] for row in rows] == holm(np.array([row["p"] for row in rows])).tolist()


@pytest.mark.parametrize(
    ("intervention", "seed", "condition"),
    [
        ("full", None, "full"),
        ("random:seed=0", 0, "random"),
        ("random:ratio=0.58,seed=3", 3, "random:ratio=0.58"),
        ("random:seed=12+video->last@1-4", 12, "random+video->last@1-4"),
        ("named", 3, "named"),
        ("random:seed=31", 3, "random:seed=31"),
    ],
)
def test_a_condition_is_the_intervention_without_its_seed(tmp_path, intervention, seed, condition):
    (run,) = read_runs(write_run(tmp_path, answers(intervention, [1], seed=seed)))
    assert condition_of(run) == condition


def test_one_seed_twice_is_refused(tmp_path):
    baseline, *treatments = a_grid(tmp_path)
    with pytest.raises(MapflowError, match="seed 2 of condition 'random' is there more than once"):
        ablation_table(baseline, [*treatments, treatments[-1]])
    with pytest.raises(MapflowError, match="condition 'effective' is there more than once"):
        ablation_table(baseline, [*treatments, treatments[0]])


def test_other_models_and_the_baselines_own_intervention_are_refused(tmp_path):
    """The difference of two models was presented as that of an intervention."""
    baseline, *treatments = a_grid(tmp_path / "one")
    for about, said in (
        ({"checkpoint": "big"}, "model tiny and big"),
        ({"digest": "f" * 64}, "weights 0123"),
        ({"model": "mapflow_hf"}, "adapter mapflow_llava and mapflow_hf"),
        ({"model_args": {"vision_attention": "isolated"}}, "argument vision_attention"),
    ):
        records = answers("effective", FULL)
        place = write_run(tmp_path / said.split()[1], records, identity=about)
        if "model_args" in about:
            args = {"vision_attention": "released"}
            full = write_run(
                tmp_path / "args", answers("full", FULL), identity={"model_args": args}
            )
            (baseline,) = read_runs(full)
        with pytest.raises(MapflowError, match=f"of one model, but .*{said}.*mapflow compare"):
            ablation_table(baseline, read_runs(place))
    baseline, *treatments = a_grid(tmp_path / "two")
    (again,) = read_runs(write_run(tmp_path / "again", answers("full", FULL[::-1])))
    with pytest.raises(MapflowError, match="baseline 'full' is there more than once"):
        ablation_table(baseline, [*treatments, again])


def test_protocols_that_differ_are_warned_of(tmp_path):
    (full,) = read_runs(write_run(tmp_path / "a", answers("full", FULL)))
    cut = write_run(tmp_path / "b", answers("effective", FULL, protocol="official"))
    notes = "\n".join(ablation_table(full, read_runs(cut)).notes)
    assert "effective: Warning: protocols differ (paper and official)" in notes


def test_questions_left_out_and_few_videos_are_noted(tmp_path):
    """Only `compare` said so; `ablate --intersect` left questions out without a word."""
    right = [1] * 30 + [0] * 10
    records = answers("full", right) + answers("effective", [None, *right[1:-4]])
    for seed in (0, 1):
        records += answers(f"random:seed={seed}", right[: 40 - 2 * seed], seed=seed)
    full, *others = read_runs(write_run(tmp_path, records))
    notes = "\n".join(ablation_table(full, others, intersect=True).notes)
    for said in (
        "effective: 1 question could not be asked in one run or another and is left out",
        "effective: only 35 questions that all its runs answered are compared; left out: 4 of full",
        "random: only 38 questions that all its runs answered are compared; left out: 2 of full"
        " and 2 of random:seed=0.",
        "random: Only 19 videos: intervals allow for that",
    ):
        assert said in notes


def test_a_condition_of_several_seeds_has_a_macro_verdict(tmp_path):
    """With subtasks of one size the macro average is the plain one; else each counts the same."""
    for tasks, equal in ((lambda i: i % 4, True), (lambda i: i % 10 > 7, False)):
        records = [
            replace(one, task=f"t_{int(tasks(int(one.question_id[-4:])))}")
            for name, correct in (
                ("full", FULL),
                ("effective", [0, *FULL[1:]]),
                *((f"random:seed={k}", own) for k, own in enumerate(SEEDS)),
            )
            for one in answers(name, correct, seed=int(name[-1]) if name[-1].isdigit() else None)
        ]
        baseline, *treatments = read_runs(write_run(tmp_path / str(equal), records))
        table = ablation_table(baseline, treatments)
        row = table.rows[1]
        code = np.array([int(tasks(i)) for i in range(100)])
        shares = np.array(SEEDS).mean(0) - FULL
        expected = np.mean([shares[code == one].mean() for one in np.unique(code)])
        assert row["macro_difference"] == pytest.approx(expected)
        assert row["macro_low"] < expected < row["macro_high"]
        assert row["macro_verdict"] == "inferior"
        if equal:
            found = (row["macro_low"], row["macro_high"], row["p_macro"])
            plain = (row["difference_low"], row["difference_high"], row["p"])
            assert found == pytest.approx(plain)
        p_values = np.array([one["p_macro"] for one in table.rows])
        assert [one["p_macro_holm"] for one in table.rows] == holm(p_values).tolist()
        assert "macro verdict" in [column.head for column in table.columns]
        assert any(
            note.startswith("Macro average over subtasks: random is") for note in table.notes
        )


def test_nothing_to_compare_is_refused(tmp_path):
    baseline, *_ = a_grid(tmp_path)
    with pytest.raises(MapflowError, match="nothing to compare"):
        ablation_table(baseline, [])
