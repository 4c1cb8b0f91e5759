"""The published numbers hang together, and agree with what is known about them elsewhere."""

from collections import Counter
from importlib.resources import files

import pytest
import yaml

from mapflow.results.tables.published import published, published_for


def test_every_row_says_where_it_comes_from():
    for row in published():
        assert "arXiv" in row.source and "Table" in row.source
        assert row.accuracy or row.accuracy_drop or row.relative_change
        assert all(0 <= value <= 100 for value in row.accuracy.values())


def test_no_row_twice():
    keys = Counter((row.table, row.model, row.intervention) for row in published())
    assert set(keys.values()) == {1}


def test_edge_shares_are_the_edges():
    """As printed: rounded to a percent, but for the 13B row that its note speaks of."""
    full = {
        (row.table, row.model): row.edges
        for row in published()
        if row.intervention == "full" and row.edges
    }
    for row in published():
        if row.edges is None or "13B" in row.model:
            continue
        share = 100 * row.edges / full[row.table, row.model]
        assert share == pytest.approx(row.edges_share, abs=1)
        assert row.edges_share is not None


def test_random_blocking_spends_what_the_pathways_spend():
    table = [row for row in published() if row.table == "map-the-flow-3"]
    budget = {(row.model, row.intervention): row.edges for row in table}
    for model in {row.model for row in table}:
        assert budget[model, "effective"] == budget[model, "random"] < budget[model, "full"]


FIELDS = {
    "cross-frame": "cross_frame",
    "video->question": "video_to_question",
    "question->last": "question_to_last",
}
LAYERS = {"LLaVA-NeXT-13B-Video-FT": 40, "VideoLLaMA3-7B": 28}
ROWS = [row for row in published() if row.table == "map-the-flow-E"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.model} {row.intervention}")
def test_bins_below_minus_five_are_the_effective_ranges(row):
    """Table E (b) must yield Table E (a), which the pathways files hold."""
    file = files("mapflow.model_adapters").joinpath("pathways", f"{row.model}.yaml")
    shipped = yaml.safe_load(file.read_text(encoding="utf-8"))[FIELDS[row.intervention]]
    bins = [number for number, change in enumerate(row.relative_change) if change < -5]
    assert f"{5 * bins[0] + 1}-{min(5 * bins[-1] + 5, LAYERS.get(row.model, 32))}" == shipped


def test_looked_up_by_task_and_model():
    rows = published_for("mapflow_tvbench", "byminji/LLaVA-NeXT-7B-Video-FT")
    assert [row.intervention for row in rows] == ["full", "effective", "random"]
    assert published_for("mapflow_tvbench", "nobody/nothing") == []
    assert published_for("mapflow_tomato", table="tarsier2-3")
