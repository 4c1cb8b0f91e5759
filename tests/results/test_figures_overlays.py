"""What is laid over frames lies on the right patch: rendered, and looked at pixel by pixel."""

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mapflow.results.contract.errors import MapflowError
from mapflow.results.figures import (
    AttentionOverlay,
    LensOverlay,
    attention_overlay,
    difference_overlay,
    lens_overlay,
    lens_overlay_rows,
    overlay_rows,
    save_figure,
)
from mapflow.results.figures.attention_overlay import differences
from mapflow.results.figures.lens_overlay import LONGEST, drawable
from mapflow.results.figures.pictures import LESS, MORE, colours, top_of_scale

N_FRAMES, ROWS, COLUMNS = 2, 3, 4
HEIGHT, WIDTH = 30, 60


def pictures(n: int = N_FRAMES, grey: int = 128) -> np.ndarray:
    return np.full((n, HEIGHT, WIDTH, 3), grey, np.uint8)


def overlay(
    *maps: np.ndarray, names=("full", "video->last@2", "effective"), title=""
) -> AttentionOverlay:
    return AttentionOverlay(pictures(), (3, 17), dict(zip(names, maps, strict=False)), title)


def lit(*places: tuple[int, int, int]) -> np.ndarray:
    weights = np.zeros((N_FRAMES, ROWS, COLUMNS))
    for place in places:
        weights[place] = 0.04
    return weights


def patches(figure, n_panels: int) -> np.ndarray:
    """The colour in the middle of each patch, as drawn: `[panel, row, column, rgb]`."""
    figure.set_dpi(120)
    figure.canvas.draw()
    image = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
    found = np.zeros((n_panels, ROWS, COLUMNS, 3))
    for number, panel in enumerate(figure.axes[:n_panels]):
        for row, column in np.ndindex(ROWS, COLUMNS):
            point = ((column + 0.5) * WIDTH / COLUMNS, (row + 0.5) * HEIGHT / ROWS)
            x, y = panel.transData.transform(point)
            found[number, row, column] = image[len(image) - 1 - int(y), int(x)]
    return found


def with_canvas(figure):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    return figure


def coloured(found: np.ndarray) -> list[tuple[int, ...]]:
    """Patches that are not grey."""
    return [tuple(place) for place in np.argwhere(np.ptp(found, axis=-1) > 5).tolist()]


@given(st.sets(st.tuples(st.integers(0, 1), st.integers(0, ROWS - 1), st.integers(0, COLUMNS - 1))))
@settings(max_examples=6, deadline=None)
def test_weights_light_up_their_patches_alone(places):
    found = patches(with_canvas(attention_overlay(overlay(lit(*places)))), N_FRAMES)
    assert coloured(found) == sorted(places)
    for place in places:
        red, green, blue = found[place]
        assert red > green > blue, "the colour for more"


def test_a_picture_is_as_it_was_where_nothing_looks():
    """Its left half white, its right half black: the two shades, no colour, in the right places."""
    halves = pictures(grey=255)
    halves[:, :, WIDTH // 2 :] = 0
    figure = attention_overlay(AttentionOverlay(halves, (3, 17), {"full": lit()}))
    found = patches(with_canvas(figure), N_FRAMES)
    assert not coloured(found)
    assert (found[:, :, :2] > 250).all() and (found[:, :, 2:] < 130).all()


def test_a_difference_has_two_colours():
    figure = difference_overlay(overlay(lit((0, 0, 1)), lit((1, 2, 3))))
    found = patches(with_canvas(figure), N_FRAMES)
    assert coloured(found) == [(0, 0, 1), (1, 2, 3)]
    assert found[0, 0, 1, 0] > found[0, 0, 1, 2], "lost"
    assert found[1, 2, 3, 0] < found[1, 2, 3, 2], "gained"
    assert MORE != LESS


def test_rows_columns_and_shares_are_named():
    maps = [np.full((N_FRAMES, ROWS, COLUMNS), weight) for weight in (0.01, 0.0, 0.005)]
    figure = attention_overlay(overlay(*maps, title="$a$_b: layers 2-3"))
    panels = figure.axes[: 3 * N_FRAMES]
    assert [panel.get_title() for panel in panels] == [
        "frame 3: 12.00 %",
        "frame 17: 12.00 %",
        *["0.00 %"] * 2,
        *["6.00 %"] * 2,
    ]
    labels = [panel.get_ylabel() for panel in panels[::N_FRAMES]]
    assert labels[0] == "full\n24.00 %" and labels[1].startswith("video → last@2\n")
    figure = difference_overlay(overlay(*maps))
    assert [panel.get_title() for panel in figure.axes[:2]] == [
        "frame 3: +12.00 %",
        "frame 17: +12.00 %",
    ]
    assert list(differences(overlay(*maps))) == ["full − video->last@2", "full − effective"]


def test_one_scale_for_all_that_one_token_does_not_spoil():
    weights = np.full(500, 0.01)
    weights[0] = 5.0
    assert top_of_scale(weights) == pytest.approx(0.01)
    assert top_of_scale(-weights) == pytest.approx(0.01)
    assert top_of_scale(np.zeros(3)) == 1.0, "nothing looks: any scale"
    figure = attention_overlay(overlay(lit((0, 0, 0)), 0.5 * lit((0, 0, 0))))
    limits = {image.get_clim() for panel in figure.axes[:4] for image in panel.images[1:]}
    assert len(limits) == 1


def test_colours_end_where_they_should():
    assert colours(False)(0.0)[3] == 0 and 0.5 < colours(False)(1.0)[3] < 0.9, (
        "the picture shows through"
    )
    assert (
        colours(True)(0.0)[2] > colours(True)(0.0)[0]
        and colours(True)(1.0)[0] > colours(True)(1.0)[2]
    )
    assert colours(True)(0.5)[3] < 0.02


def test_the_data_beside_it(tmp_path):
    weights = [np.random.default_rng(n).random((N_FRAMES, ROWS, COLUMNS)) for n in range(2)]
    drawn = overlay(*weights)
    files = save_figure(attention_overlay(drawn), tmp_path / "a.png", overlay_rows(drawn))
    with files[2].open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * N_FRAMES * ROWS * COLUMNS
    for row in rows:
        place = ((3, 17).index(int(row["frame"])), int(row["row"]), int(row["column"]))
        name = list(drawn.maps).index(row["intervention"])
        assert float(row["weight"]) == pytest.approx(weights[name][place], rel=1e-5)
        assert float(row["lost"]) == pytest.approx((weights[0] - weights[name])[place], abs=1e-5)
    again = save_figure(attention_overlay(drawn), tmp_path / "b.png", overlay_rows(drawn))
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again]


def test_nothing_to_draw_is_refused():
    with pytest.raises(MapflowError, match="an attention overlay needs at least one intervention"):
        attention_overlay(overlay())
    with pytest.raises(MapflowError, match="needs a second intervention; only 'full' was given"):
        difference_overlay(overlay(lit()))


def words(*rows: tuple[str, ...]) -> LensOverlay:
    table = tuple(rows)
    shape = (1, len(table), len(table[0]))
    return LensOverlay(
        pictures(1), (5,), (table,), np.linspace(0, 1, int(np.prod(shape))).reshape(shape)
    )


def test_every_word_stands_in_the_middle_of_its_patch():
    drawn = words(("left", "right", "up"), ("ball", "", "then"))
    (panel,) = lens_overlay(drawn).axes
    found = {text.get_text(): text.get_position() for text in panel.texts}
    assert found == {
        "left": (10, 7.5),
        "right": (30, 7.5),
        "up": (50, 7.5),
        "ball": (10, 22.5),
        "·": (30, 22.5),
        "then": (50, 22.5),
    }
    assert panel.get_title() == "frame 5"
    greys = [float(text.get_color()) for text in panel.texts]
    assert greys == sorted(greys, reverse=True) and greys[-1] == 0, "the more probable the blacker"
    assert [row["word"] for row in lens_overlay_rows(drawn)] == [
        "left",
        "right",
        "up",
        "ball",
        "",
        "then",
    ]


@pytest.mark.filterwarnings("error")
def test_hostile_words_are_drawn_and_saved_safely(tmp_path):
    hostile = words(("$x$", "=1+2", "右边"), ("\u202eabc", "a very long word", "_\x00"))
    files = save_figure(lens_overlay(hostile), tmp_path / "w", lens_overlay_rows(hostile))
    with files[2].open(encoding="utf-8") as file:
        found = [row["word"] for row in csv.DictReader(file)]
    assert found == ["$x$", "'=1+2", "右边", "\\u202eabc", "a very long word", "_\\x00"], (
        "whole, and none acts"
    )
    assert all(file.stat().st_size for file in files)


@given(st.text())
def test_what_is_drawn_fits(word):
    assert 1 <= len(drawable(word)) <= LONGEST


def test_what_the_font_lacks_is_a_box():
    assert (
        drawable("右b") == "□b"
        and drawable("left") == "left"
        and drawable("abcdefghi") == "abcdefg…"
    )


@pytest.mark.parametrize(("n", "rows", "columns"), [(8, 12, 12), (16, 2, 3), (1, 1, 1), (3, 20, 4)])
def test_all_frames_have_a_panel_of_a_size_that_prints(n, rows, columns):
    table = tuple(tuple(("w",) * columns for _ in range(rows)) for _ in range(n))
    drawn = LensOverlay(pictures(n), tuple(range(n)), table, np.ones((n, rows, columns)))
    figure = lens_overlay(drawn)
    assert [panel.get_title() for panel in figure.axes] == [f"frame {i}" for i in range(n)]
    assert figure.get_figwidth() < 16
