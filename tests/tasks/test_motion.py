"""The bundled benchmark: scenes, pixels, questions without hints, and the committed files."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mapflow.tasks.motion import build, scenes
from mapflow.tasks.motion.captions import caption
from mapflow.tasks.motion.render import batch_scenes, frame_times, render
from mapflow.tasks.motion.scenes import (
    KNOT_TIMES,
    SUBTASKS,
    Ask,
    Knot,
    Scene,
    Thing,
    fingerprint,
    sample,
)

RED_ON_BLACK = [
    color - black
    for color, black in zip(scenes.COLORS["red"], scenes.BACKGROUNDS["black"], strict=True)
]


def one_thing(*knots: Knot, shape: str = "circle") -> Scene:
    start, middle, end = knots
    return Scene((Thing("red", shape, (start, middle, end)),), ("black", "black"), 1.0)


def red_area(scene: Scene, times: list[float], size: int = 128) -> np.ndarray:
    """Coverage by the red thing, frames × rows × columns, from the red channel alone."""
    frames = render(batch_scenes([scene]), torch.tensor([times]), size)[0, :, 0].numpy()
    return (frames - scenes.BACKGROUNDS["black"][0]) / RED_ON_BLACK[0]


def centroid(area: np.ndarray) -> tuple[float, float]:
    """(x, y) in units of the frame's side."""
    rows, columns = (np.arange(size) + 0.5 for size in area.shape)
    return (
        area.sum(0) @ columns / area.sum() / len(columns),
        area.sum(1) @ rows / area.sum() / len(rows),
    )


def position_at(thing: Thing, time: float) -> tuple[float, float, float]:
    """Where a thing is, by numpy's interpolation."""
    axes = ([getattr(knot, axis) for knot in thing.knots] for axis in ("x", "y", "radius"))
    x, y, radius = (float(np.interp(time, KNOT_TIMES, values)) for values in axes)
    return x, y, radius


subtasks = st.sampled_from(list(SUBTASKS))
seeds = st.integers(0, 10**6)


@given(subtasks, seeds)
def test_equal_seeds_give_equal_scenes(subtask, seed):
    assert sample(random.Random(seed), subtask) == sample(random.Random(seed), subtask)


@given(subtasks, seeds)
def test_a_question_is_well_formed(subtask, seed):
    scene, asks = sample(random.Random(seed), subtask)
    assert 1 <= len(scene.things) <= scenes.MAX_THINGS
    assert len({thing.color for thing in scene.things}) == len(scene.things)
    for ask in asks:
        assert ask.subtask == subtask
        assert 2 <= len(ask.options) == len(set(ask.options)) <= 4
        assert ask.stem.endswith("?") and ask.stem[0].isupper()


@given(st.sampled_from(["direction", "antonym", "sequence", "count", "scene"]), seeds)
def test_answers_follow_from_the_scenes_numbers(subtask, seed):
    """Every answer, worked out again from positions at moments of the clip."""
    scene, asks = sample(random.Random(seed), subtask)
    for ask in asks:
        assert ask.answer == expected_answer(scene, ask)


def expected_answer(scene: Scene, ask: Ask) -> str:
    if ask.subtask == "scene":
        return "From {} to {}".format(*scene.backgrounds)
    if ask.subtask == "count":
        begin, end = (0.0, 0.4) if "begins" in ask.stem else (0.6, 1.0)
        return str(sum(change(thing, begin, end) != "stays" for thing in scene.things))
    (thing,) = [thing for thing in scene.things if thing.name in ask.stem]
    spans = {"first?": (0.0, 0.4), "last?": (0.6, 1.0)}
    act = change(thing, *spans.get(ask.stem.split()[-1], (0.0, 1.0)))
    return (act.removeprefix("moves ") if ask.subtask == "direction" else act).capitalize()


def change(thing: Thing, begin: float, end: float) -> str:
    before, after = (np.array(position_at(thing, time)) for time in (begin, end))
    dx, dy, growth = after - before
    if np.abs(after - before).max() < 1e-6:
        return "stays"
    if abs(growth) > 1e-6:
        return "grows" if growth > 0 else "shrinks"
    if abs(dx) > abs(dy):
        return "moves right" if dx > 0 else "moves left"
    return "moves down" if dy > 0 else "moves up"


def test_options_alone_do_not_tell_the_answer():
    """Each option of a set is right about equally often: without video, answers are at chance."""
    rng = random.Random(0)
    answers: dict[tuple[str, str, tuple[str, ...]], Counter[str]] = {}
    for _ in range(20000):
        _, asks = sample(rng, rng.choice(["direction", "antonym", "scene", "count"]))
        ask = rng.choice(asks)
        answers.setdefault(
            (ask.subtask, ask.stem.split()[-1], tuple(sorted(ask.options))), Counter()
        )[ask.answer] += 1
    for (*_, options), counts in answers.items():
        assert set(counts) == set(options)
        expected = counts.total() / len(options)
        assert (
            sum((counts[option] - expected) ** 2 / expected for option in options) < 25
        )  # chi-square, 3 degrees


def test_captions_name_every_thing_and_its_acts():
    rng = random.Random(1)
    for _ in range(200):
        scene, _ = sample(rng, rng.choice(list(SUBTASKS)))
        sentences = caption(scene).split(". ")
        assert len(sentences) == len(scene.things) + 1
        for sentence, thing in zip(sentences, scene.things, strict=False):
            halves = [change(thing, 0.0, 0.4), change(thing, 0.6, 1.0)]
            acts = halves[0] if halves[0] == halves[1] else "first {} last {}".format(*halves)
            assert sentence.startswith(f"The {thing.name} ") and sentence.rstrip(".").endswith(acts)


@pytest.mark.parametrize("shape", scenes.SHAPES)
@pytest.mark.parametrize(
    ("direction", "dx", "dy"), [("up", 0, -1), ("down", 0, 1), ("left", -1, 0), ("right", 1, 0)]
)
def test_a_thing_that_moves_up_really_moves_up(shape, direction, dx, dy):
    knots = [Knot(0.5 + dx * step, 0.5 + dy * step, 0.1) for step in (-0.2, 0.0, 0.2)]
    assert scenes.DIRECTIONS[direction] == (dx, dy)
    area = red_area(one_thing(*knots, shape=shape), [0.0, 0.25, 1.0])
    (x0, y0), (x1, y1), (x2, y2) = (centroid(frame) for frame in area)
    assert (x1 - x0, y1 - y0) == pytest.approx((dx * 0.1, dy * 0.1), abs=2e-3)
    assert (x2 - x0, y2 - y0) == pytest.approx((dx * 0.4, dy * 0.4), abs=2e-3)


@pytest.mark.parametrize(
    ("shape", "area_of"),
    [
        ("circle", lambda r: np.pi * r**2),
        ("square", lambda r: (1.8 * r) ** 2),
        ("triangle", lambda r: 1.8 * r * 0.555 * 1.8 * r),
    ],
)
def test_areas_are_those_of_geometry(shape, area_of):
    knots = [Knot(0.5, 0.5, radius) for radius in (0.1, 0.15, 0.25)]
    for radius, frame in zip(
        (0.1, 0.15, 0.2, 0.25),
        red_area(one_thing(*knots, shape=shape), [0, 0.5, 0.75, 1]),
        strict=True,
    ):
        assert frame.sum() / 128**2 == pytest.approx(area_of(radius), rel=0.02)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(subtasks, seeds), min_size=1, max_size=4), st.integers(1, 5), seeds)
def test_a_batch_renders_as_its_scenes_alone(drawn, n_frames, seed):
    batch = [sample(random.Random(each), subtask)[0] for subtask, each in drawn]
    times = torch.rand(len(batch), n_frames, generator=torch.Generator().manual_seed(seed))
    together = render(batch_scenes(batch), times, 32)
    for index, scene in enumerate(batch):
        for frame in range(n_frames):
            alone = render(batch_scenes([scene]), times[index : index + 1, frame : frame + 1], 32)
            assert torch.equal(together[index, frame], alone[0, 0])
    assert together.min() >= 0 and together.max() <= 255


def test_a_frame_depends_on_its_moment_and_not_on_the_frame_rate():
    scene = batch_scenes([sample(random.Random(3), "sequence")[0]])
    slow, fast = (render(scene, frame_times(n)[None], 32)[0] for n in (9, 33))
    assert torch.allclose(slow, fast[::4], atol=1e-3)


def test_the_background_switches_at_the_cut_and_the_first_thing_is_in_front():
    here = (Knot(0.5, 0.5, 0.2),) * 3
    scene = Scene(
        (Thing("red", "square", here), Thing("blue", "square", here)), ("black", "gray"), 0.5
    )
    frames = render(batch_scenes([scene]), torch.tensor([[0.49, 0.5]]))[0]
    for frame, background in zip(frames, ("black", "gray"), strict=True):
        assert frame[:, 0, 0].tolist() == pytest.approx(scenes.BACKGROUNDS[background])
        assert frame[:, 64, 64].tolist() == pytest.approx(scenes.COLORS["red"])


def test_fingerprints_ignore_option_order_and_small_shifts_and_nothing_else():
    scene, (ask,) = sample(random.Random(5), "direction")
    reordered = Ask(ask.subtask, ask.stem, ask.options[::-1], len(ask.options) - 1 - ask.target)
    assert reordered.answer == ask.answer
    assert fingerprint(scene, reordered) == fingerprint(scene, ask)
    cell = one_thing(*(Knot(0.51, 0.49, 0.1),) * 3), one_thing(*(Knot(0.5, 0.5, 0.1),) * 3)
    assert fingerprint(cell[0], ask) == fingerprint(cell[1], ask)
    moved = one_thing(*(Knot(0.6, 0.5, 0.1),) * 3)
    other_stem = Ask(ask.subtask, "Else?", ask.options, ask.target)
    other_answer = Ask(ask.subtask, ask.stem, ask.options, (ask.target + 1) % len(ask.options))
    names = {fingerprint(cell[1], a) for a in (ask, other_stem, other_answer)} | {
        fingerprint(moved, ask)
    }
    assert len(names) == 4


@pytest.fixture(scope="module")
def committed() -> dict[str, list[dict]]:
    files = {path.stem: path for path in (build.DATA / "json").glob("*.json")}
    assert files.keys() == SUBTASKS.keys()
    return {subtask: json.loads(path.read_text()) for subtask, path in files.items()}


def test_committed_questions_are_what_the_seed_says(committed):
    seed = json.loads((build.DATA / "held_out.json").read_text())["seed"]
    fingerprints = set()
    for subtask, rows in committed.items():
        expected = []
        for index, (scene, asks) in enumerate(build.held_out(seed, subtask, len(rows))):
            for ask in asks:
                fingerprints.add(fingerprint(scene, ask))
                name = f"{subtask}_{index:03d}.mp4"
                expected.append(
                    {
                        "video": name,
                        "question": ask.stem,
                        "candidates": list(ask.options),
                        "answer": ask.answer,
                    }
                )
        assert rows == expected
    assert fingerprints == build.held_out_fingerprints()


def test_committed_questions_are_balanced(committed):
    shared = 0
    for rows in committed.values():
        assert len(rows) >= 60
        positions = Counter(row["candidates"].index(row["answer"]) for row in rows)
        assert max(positions.values()) - min(positions.values()) <= 1
        per_clip = Counter(row["video"] for row in rows)
        assert set(per_clip.values()) <= {1, 2}
        shared += sum(count == 2 for count in per_clip.values())
    clips = sum(len({row["video"] for row in rows}) for rows in committed.values())
    assert 0.05 < shared / clips < 0.2


def test_committed_clips_show_the_rendered_scenes(committed):
    """Decoded with PyAV: frames and rate as built, pixels within h264's loss of the renderer's."""
    av = pytest.importorskip("av")
    seed = json.loads((build.DATA / "held_out.json").read_text())["seed"]
    for subtask, rows in committed.items():
        folder = build.DATA / "video" / subtask
        assert {path.name for path in folder.iterdir()} == {row["video"] for row in rows}
        scene, _ = build.held_out(seed, subtask, len(rows))[0]
        with av.open(str(folder / rows[0]["video"])) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
            assert stream.average_rate == build.FRAMES_PER_SECOND
            frames = np.stack(
                [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
            )
        wanted = build.clip(scene).numpy()
        assert frames.shape == wanted.shape
        assert np.abs(frames.astype(float) - wanted).mean() < 4
    size = sum(path.stat().st_size for path in build.DATA.rglob("*.mp4"))
    assert size < 3e6


def test_building_writes_the_layout(tmp_path: Path):
    pytest.importorskip("av")
    build.build(tmp_path, seed=1, n_questions=4)
    for subtask in SUBTASKS:
        rows = json.loads((tmp_path / "json" / f"{subtask}.json").read_text())
        assert len(rows) == 4
        assert all((tmp_path / "video" / subtask / row["video"]).is_file() for row in rows)
        assert all(row["answer"] in row["candidates"] for row in rows)
    assert not build.held_out_fingerprints(tmp_path) & build.held_out_fingerprints()
