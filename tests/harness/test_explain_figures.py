"""Policy diagrams and edge maps: every drawn number against the masks themselves."""

import csv
import xml.etree.ElementTree as ET
from itertools import pairwise

import numpy as np
import pytest

from mapflow.harness.cli.main import main
from mapflow.harness.reporting.edge_maps import changing_layers, compiled_edge_map, named_runs
from mapflow.harness.reporting.policies import diagram
from mapflow.model_adapters.interventions import parse_intervention
from mapflow.model_adapters.interventions.language.layout import example_layout
from mapflow.results.contract.errors import MapflowError
from mapflow.results.figures import (
    edge_map,
    edge_rows,
    kept_edges,
    kept_rows,
    policy_diagram,
    policy_rows,
    save_figure,
)

LAYOUT, LAYERS = example_layout(3, 10), 6
NAMES = ("full", "video->question@2-3", "random:ratio=0.4", "video->last+early-exit@4")


def compiled(name: str):
    return parse_intervention(name).compile(LAYOUT, LAYERS, key="example")


@pytest.mark.parametrize("name", NAMES)
def test_blocks_hold_the_share_of_edges_kept(name):
    one = compiled(name)
    found = compiled_edge_map(name, one, (1, 3, 6), blocks=20)
    n, b = len(LAYOUT), found.block
    assert b == -(-n // 20) and found.kept.shape == (3, -(-n // b), -(-n // b))
    for shares, layer in zip(found.kept, (1, 3, 6), strict=True):
        mask = one.token_mask(layer - 1).numpy()
        for i in range(len(shares)):
            for j in range(len(shares)):
                edges = [
                    mask[q, k]
                    for q in range(i * b, min((i + 1) * b, n))
                    for k in range(j * b, min((j + 1) * b, n))
                    if k <= q
                ]
                assert (
                    shares[i, j] == pytest.approx(np.mean(edges))
                    if edges
                    else np.isnan(shares[i, j])
                )
    by_layer = [one.token_mask(layer).sum() / (n * (n + 1) / 2) for layer in range(LAYERS)]
    assert found.by_layer == pytest.approx([float(share) for share in by_layer])
    rows = edge_rows([found])
    assert len(rows) == 3 * len(found.kept[0]) * (len(found.kept[0]) + 1) // 2
    assert rows[-1]["query_last"] == rows[-1]["key_last"] == n - 1
    assert not any(np.isnan(row["kept"]) for row in rows)
    assert [row["kept"] for row in kept_rows([found])] == list(found.by_layer)


def test_layers_are_chosen_where_the_mask_changes():
    assert changing_layers(compiled("full")) == (1,)
    assert changing_layers(compiled("video->question@2-3")) == (1, 2, 4)
    many = "+".join(f"video->last@{layer}" for layer in (1, 3, 5))
    chosen = changing_layers(compiled(many))
    assert len(chosen) == 4 and chosen[0] == 1 and chosen[-1] == 6
    with pytest.raises(MapflowError, match="layer 7 is not one of the model's 6"):
        compiled_edge_map("full", compiled("full"), (7,))


def test_parts_of_the_prompt_tile_it():
    runs = named_runs(LAYOUT)
    assert [name for name, _, _ in runs] == [
        "system", "frame[0]", "frame[1]", "frame[2]", "template", "question", "template", "last",
    ]  # fmt: skip
    assert runs[0][1] == 0 and runs[-1][2] == len(LAYOUT)
    assert all(a[2] == b[1] for a, b in pairwise(runs))


def test_maps_and_lines_are_those_asked_for():
    maps = [compiled_edge_map(name, compiled(name)) for name in NAMES]
    panels = [axes for axes in edge_map(maps).axes if axes.images]
    assert len(panels) == sum(len(one.layers) for one in maps)
    drawn = [axes.images[0].get_array().filled(np.nan) for axes in panels]
    expected = [kept for one in maps for kept in one.kept]
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(drawn, expected, strict=True))
    (panel,) = kept_edges(maps).axes
    assert [len(line.get_ydata()) for line in panel.lines] == [LAYERS] * len(NAMES)
    for draw in (edge_map, kept_edges):
        with pytest.raises(MapflowError, match="at least one intervention"):
            draw([])


def test_policy_diagrams_draw_the_shares_of_open_pairs(tmp_path):
    policies = [diagram(f"_${n}$<i>", parse_intervention(n), n, 3, LAYERS, None) for n in NAMES]
    figure = policy_diagram(policies)
    assert len(figure.axes) == 3, "random blocking has no segment cuts to show"
    for axes, policy in zip(figure.axes, [one for one in policies if one.flows], strict=True):
        alphas = [bar.get_facecolor()[3] for bar in axes.patches]
        assert alphas == pytest.approx([share for _, _, shares in policy.flows for share in shares])
    cut = {
        row["layer"]: row["open"]
        for row in policy_rows(policies)
        if (row["intervention"], row["target"], row["source"])
        == (f"_${NAMES[1]}$<i>", "question", "video")
    }
    assert cut == {1: 1, 2: 0, 3: 0, 4: 1, 5: 1, 6: 1}
    svg = save_figure(figure, tmp_path / "p", policy_rows(policies))[1]
    text = "".join(ET.parse(svg).getroot().itertext())
    assert f"_${NAMES[1]}$<i>" in text and "question ← video" in text
    with pytest.raises(MapflowError, match="no intervention cuts attention between segments"):
        policy_diagram([policies[2]])


def test_the_command_draws_what_it_explains(tmp_path, capsys):
    small = ["--layers", "32", "--frames", "2", "--tokens-per-frame", "4"]
    out = str(tmp_path / "p.svg")
    words = ["explain", "effective,random", *small, "--figure", out, "--map-layers", "7,1"]
    assert main(words) == 0
    assert "random:seed=0: not in the policy diagram" in capsys.readouterr().out
    files = {
        f"p{part}.{kind}" for part in ("", "-edges", "-kept") for kind in ("png", "svg", "csv")
    }
    assert {file.name for file in tmp_path.iterdir()} == files
    with (tmp_path / "p-edges.csv").open() as file:
        found = {(row["intervention"], row["layer"]) for row in csv.DictReader(file)}
    assert found == {
        (name, layer) for name in ("effective", "random:seed=0") for layer in ("1", "7")
    }
    for more, said in (
        (["--figure", out, "--map-layers", "0"], "must be layers from 1 to 32"),
        (["--figure", out, "--map-layers", "1,x"], "must be layers from 1 to 32"),
        (["--map-layers", "1"], "--map-layers is for --figure"),
    ):
        assert main(["explain", "full", *small, *more]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
