"""A sweep's curves in a report: the library's bands, and drawings that show them."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from mapflow.results.figures.route_curves import (
    RESOLUTION,
    RoutePanel,
    route_panels,
    shared_scale,
)
from mapflow.results.records.sweep import SweepRecord
from mapflow.results.report.drawings import route_svg
from mapflow.results.statistics import simultaneous_bands

RNG = np.random.default_rng(3)
CHANGE = RNG.normal(0, 3, (40, 12))
CHANGE[:, 4:7] -= 25


def a_sweep_record(question, route="video->question", change=None, **changes):
    fields = {
        "question_id": f"motion/one/{question:04d}",
        "video_id": f"one/{question // 2}.mp4",
        "task": "t_one",
        "route": route,
        "style": "center",
        "window": 3,
        "protocol": "paper",
        "n_options": 4,
        "target": "A",
        "change_answer": None if change is None else tuple(change),
    }
    return SweepRecord(**(fields | changes))


def test_bands_are_the_librarys_and_questions_without_a_change_count_for_none():
    records = [a_sweep_record(i, change=row) for i, row in enumerate(CHANGE)]
    records += [a_sweep_record(50, error="no video"), a_sweep_record(51, tiny=("p_answer",))]
    records += [a_sweep_record(52, change=(9.0, 9.0), error="no video")]  # counts for nothing
    (curve,) = route_panels(records)
    videos = np.unique([f"one/{i // 2}.mp4" for i in range(40)], return_inverse=True)[1]
    found = simultaneous_bands(CHANGE, videos, resolution=RESOLUTION)
    assert curve.n == 40
    assert curve.mean == pytest.approx(CHANGE.mean(axis=0).tolist())
    assert curve.low == pytest.approx(found.low.tolist()) and curve.high == pytest.approx(
        found.high.tolist()
    )
    assert [layer for layer, marked in enumerate(curve.significant) if marked] == [4, 5, 6]


def test_one_video_has_a_curve_without_a_band_and_says_why():
    (curve,) = route_panels([a_sweep_record(i, change=CHANGE[i], video_id="v") for i in range(3)])
    assert curve.low == () and curve.significant == () and "at least two videos" in curve.note
    assert route_panels([a_sweep_record(0, error="no video")]) == []


def test_a_panel_draws_every_layer_and_marks_the_significant_ones():
    curve = RoutePanel(
        "a<b->c", 9, (-10, -20, 0), (-15, -25, -5), (-5, -15, 5), (True, True, False)
    )
    scale = shared_scale([curve])
    assert scale == (-25, 5)
    root = ElementTree.fromstring(route_svg(curve, *scale))
    assert len(root.findall("circle")) == 2
    points = [tuple(map(float, p.split(","))) for p in root.find("polyline").get("points").split()]
    heights = [y for _, y in points]
    # a straight scale: −20, −10 and 0 lie evenly apart, and lower values lower in the picture
    assert heights[1] - heights[0] == pytest.approx(heights[0] - heights[2], abs=0.11)
    assert heights[1] > heights[0] > heights[2]
    assert len(root.find("polygon").get("points").split()) == 6
    assert root.find("title").text.startswith("a<b->c")


def test_wide_bands_do_not_flatten_the_curves():
    wide = RoutePanel("r", 3, (-30.0, 2.0), (-900.0, -800.0), (700.0, 900.0), (False, False))
    assert shared_scale([wide]) == (-100, 20)
    heights = [
        float(p.split(",")[1]) for p in re.findall(r"[\d.]+,[\d.]+", route_svg(wide, -100, 20))
    ]
    assert min(heights) >= 0 and max(heights) <= 180
    assert shared_scale([RoutePanel("r", 3, (10.0, 300.0))]) == (0, 300)


def test_a_flat_curve_has_a_scale():
    bottom, top = shared_scale([RoutePanel("r", 1, (0.0, 0.0))])
    assert bottom < top
    assert re.search("polyline", route_svg(RoutePanel("r", 1, (0.0, 0.0)), bottom, top))
