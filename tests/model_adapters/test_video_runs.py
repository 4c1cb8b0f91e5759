"""One experiment with several interventions decodes and encodes each video once.

Its records equal those of separate experiments.
"""

import pytest
import torch

from tests.benchmarks.procedures import Size
from tests.benchmarks.several_interventions import Bench
from tests.benchmarks.video_runs import Scene, questions, random_llava, write_clips

TINY = Size(64, 128, 4, 2, 8, 4, 1000, 2, 28)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    place = tmp_path_factory.mktemp("several")
    clips = write_clips(Scene(TINY, 160, 120, 1, 2), place)
    return Bench(random_llava(TINY, "cpu", torch.float32), questions(clips, 3), place)


def test_one_run_decodes_and_encodes_a_question_s_video_once_three_runs_thrice(bench):
    assert bench.counts() == {"together": (3, 3), "separately": (9, 9)}


def test_one_run_s_records_are_those_of_three_runs(bench):
    assert bench.largest_difference() <= 1e-5
    together = bench.together()
    assert len({tuple(record.option_probs.values()) for record in together}) == len(together), (
        "the cuts change records"
    )
