"""Figures: what is drawn is the data, three files of one name, the same bytes every time."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread

from mapflow.harness.cli.main import main
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import check_figure
from mapflow.results.figures import RoutePanel, route_curves, route_panels, route_rows, save_figure
from mapflow.results.figures.panels import PENS, pen
from mapflow.results.records.sweep import SweepRecord
from mapflow.results.runs.folder import RunFolder, write_json
from mapflow.results.statistics import simultaneous_bands

CURVES = [
    RoutePanel(
        "video->question",
        9,
        (-10.0, -20.0, 0.0),
        (-15.0, -25.0, -5.0),
        (-5.0, -15.0, 5.0),
        (True, True, False),
    ),
    RoutePanel("cross-frame", 1, (-1.0, 2.0, 3.0), note="at least two videos"),
]


def test_every_panel_draws_its_curve_band_and_marks():
    figure = route_curves(CURVES, "a title")
    first, second = figure.axes
    assert [panel.get_title() for panel in figure.axes] == ["video → question", "cross-frame"]
    assert first.get_ylim() == second.get_ylim() == (-25, 5)
    _, curve, marked, unmarked = first.lines
    assert list(zip(*curve.get_data(), strict=True)) == [(1, -10), (2, -20), (3, 0)]
    assert list(marked.get_xdata()) == [1, 2] and list(unmarked.get_xdata()) == [3]
    assert unmarked.get_markerfacecolor() == "white"
    assert to_hex(marked.get_markerfacecolor()) == PENS[0].colour.lower()
    (band,) = first.collections
    corners = {tuple(point) for point in band.get_paths()[0].vertices}
    assert {(1, -15), (2, -25), (3, -5), (1, -5), (2, -15), (3, 5)} <= corners
    assert len(second.collections) == 0, "a curve without a band has none"


def test_pens_differ_in_more_than_colour():
    assert len({p.colour for p in PENS}) == len({p.marker for p in PENS}) == len(PENS)
    assert pen(len(PENS)) == pen(0)


def test_three_files_of_one_name_the_same_every_time(tmp_path):
    texts = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        files = save_figure(route_curves(CURVES), tmp_path / name / "f.png", route_rows(CURVES))
        assert [file.name for file in files] == ["f.png", "f.svg", "f.csv"]
        texts.append([file.read_bytes() for file in files])
    assert texts[0] == texts[1]
    assert imread(tmp_path / "a" / "f.png").std() > 0.05, "not a blank sheet"
    assert "video → question" in (tmp_path / "a" / "f.svg").read_text(encoding="utf-8"), (
        "text stays text"
    )
    with (tmp_path / "a" / "f.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["mean"]) for row in rows] == [*CURVES[0].mean, *CURVES[1].mean]
    assert rows[0]["significant"] == "True" and rows[-1]["low"] == "" and rows[-1]["n"] == "1"


def test_nothing_to_draw_and_unwritable_paths_are_refused(tmp_path):
    with pytest.raises(MapflowError, match="no route has a change"):
        route_curves([])
    (tmp_path / "file").write_text("")
    with pytest.raises(MapflowError, match="cannot be written"):
        save_figure(route_curves(CURVES), tmp_path / "file" / "f", route_rows(CURVES))


def test_matplotlib_is_not_imported_before_it_is_needed():
    code = (
        "import sys, mapflow.results.figures, mapflow.harness.commands.figure;"
        " sys.exit('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_command_draws_a_sweep_in_the_order_it_was_asked_for(tmp_path, capsys):
    rng = np.random.default_rng(0)
    records = [
        SweepRecord(
            f"q{i}",
            f"v{i // 2}",
            "t",
            route,
            "center",
            1,
            "paper",
            4,
            "A",
            change_answer=tuple(rng.normal(-9, 3, 6)),
        )
        for i in range(10)
        for route in ("a->b", "b->c")
    ]
    RunFolder(tmp_path / "s", {}, {}, SweepRecord).append(records)
    write_json(tmp_path / "s" / "summary.json", {"b->c": {}, "a->b": {}})
    assert main(["figure", str(tmp_path / "s")]) == 0
    assert "routes.png" in capsys.readouterr().out
    with (tmp_path / "s" / "routes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["route"] for row in rows] == ["b->c"] * 6 + ["a->b"] * 6
    expected = {(c.route, i + 1): c.low[i] for c in route_panels(records) for i in range(6)}
    assert {(row["route"], int(row["layer"])): float(row["low"]) for row in rows} == pytest.approx(
        expected
    )
    assert main(["figure", str(tmp_path / "absent")]) == 2


def test_resolution_keeps_silent_layers_from_widening_all_bands():
    """One layer loses 50 %; in the others a single question changes by a negligible amount."""
    rng = np.random.default_rng(2)
    change = rng.normal(0, 1e-6, (40, 12))
    change[np.arange(12), np.arange(12)] += 1e-2
    change[:, 11] += rng.normal(-50, 20, 40)
    video = np.arange(40) // 2
    plain = simultaneous_bands(change, video)
    resolved = simultaneous_bands(change, video, resolution=5)
    assert plain.critical_value > 100 and not plain.significant.any()
    assert resolved.critical_value < 5 and resolved.significant.tolist() == [False] * 11 + [True]
    assert (resolved.mean == plain.mean).all()


def test_resolution_zero_changes_nothing_and_more_of_it_never_finds_more():
    change = np.random.default_rng(4).normal(-1, 3, (30, 8))
    assert (simultaneous_bands(change).low == simultaneous_bands(change, resolution=0).low).all()
    errors = [
        (b.high - b.low) / b.critical_value
        for b in (simultaneous_bands(change, resolution=r) for r in (0, 1, 5))
    ]
    assert (errors[0] < errors[1]).all() and (errors[1] < errors[2]).all()
    # one question a cluster: the error is the textbook's with the resolution added in quadrature
    spread = np.sqrt(change.var(axis=0, ddof=1) + 25)
    assert errors[2] == pytest.approx(2 * spread / np.sqrt(30))


def test_figures_do_not_make_folders_and_refuse_other_formats(tmp_path):
    figure = Figure()
    with pytest.raises(MapflowError, match=r"curve\.png' cannot be written: its folder does not"):
        save_figure(figure, tmp_path / "absent" / "curve", [{"a": 1}])
    assert not (tmp_path / "absent").exists()
    with pytest.raises(MapflowError, match=r"'\.pdf' is not one of \.png, \.svg, \.csv"):
        check_figure(Path("curve.pdf"))
    for name in ("curve", "curve.png", "curve.CSV"):
        check_figure(Path(name))
