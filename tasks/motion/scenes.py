"""Scenes of coloured shapes that move, grow, stop or change, and questions about them.

A scene is a few numbers; time is continuous from 0 to 1, so any frame rate shows the same clip.
Every question needs more than one frame, as in TVBench: which way, which of two opposite changes,
what first and what last, how many at the start and at the end, from which background to which.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

COLORS = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 230),
    "yellow": (230, 210, 50),
    "purple": (150, 60, 190),
    "white": (240, 240, 240),
}
BACKGROUNDS = {
    "black": (15, 15, 15),
    "gray": (110, 110, 110),
    "navy": (10, 10, 70),
    "brown": (90, 55, 25),
}
SHAPES = ("circle", "square", "triangle")
DIRECTIONS = {"up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0)}
ACTS = (*(f"moves {direction}" for direction in DIRECTIONS), "grows", "shrinks")
OPPOSITES = (("moves up", "moves down"), ("moves left", "moves right"), ("grows", "shrinks"))
SPOTS = ((0.27, 0.3), (0.73, 0.3), (0.5, 0.72))
KNOT_TIMES = (0.0, 0.5, 1.0)
MAX_THINGS = 3
GRID = 0.05


@dataclass(frozen=True)
class Knot:
    """Centre and radius, in units of the frame's side; y points down."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Thing:
    """A coloured shape that passes `knots` at `KNOT_TIMES`, in straight lines between them."""

    color: str
    shape: str
    knots: tuple[Knot, Knot, Knot]

    @property
    def name(self) -> str:
        return f"{self.color} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """Things, the first in front, on a background that changes its colour at time `cut`."""

    things: tuple[Thing, ...]
    backgrounds: tuple[str, str]
    cut: float


@dataclass(frozen=True)
class Ask:
    """A question about a scene; `target` indexes `options`."""

    subtask: str
    stem: str
    options: tuple[str, ...]
    target: int

    @property
    def answer(self) -> str:
        return self.options[self.target]


def sample(rng: random.Random, subtask: str) -> tuple[Scene, tuple[Ask, ...]]:
    """A random scene of `subtask` and its questions: two for sequence and count, else one.

    Equal states of `rng` give equal scenes.
    """
    return SUBTASKS[subtask](rng)


def fingerprint(scene: Scene, ask: Ask) -> str:
    """A question's digest, with places rounded to 1/20 of the frame.

    Near-duplicates of a held-out question share its fingerprint, and so do other orders of its
    options.
    """
    things = [(thing.name, *(_cells(knot) for knot in thing.knots)) for thing in scene.things]
    seen = (
        things,
        scene.backgrounds,
        round(scene.cut / GRID),
        ask.stem,
        sorted(ask.options),
        ask.answer,
    )
    return sha256(repr(seen).encode()).hexdigest()[:16]


def _cells(knot: Knot) -> tuple[int, int, int]:
    return round(knot.x / GRID), round(knot.y / GRID), round(knot.radius / GRID)


def _direction(rng: random.Random) -> tuple[Scene, tuple[Ask, ...]]:
    looks = _looks(rng)
    things, answers = [], []
    for look in looks[: rng.choice((1, 2))]:
        direction, distance = rng.choice(tuple(DIRECTIONS)), rng.uniform(0.35, 0.6)
        centre = Knot(rng.uniform(0.35, 0.65), rng.uniform(0.35, 0.65), 0.1)
        start = _moved(centre, direction, -distance / 2)
        things.append(_steady(look, start, _moved(centre, direction, distance / 2)))
        answers.append(direction)
    stem = f"Which direction does the {things[0].name} move?"
    options = [direction.capitalize() for direction in DIRECTIONS]
    ask = _shuffled(rng, "direction", stem, options, answers[0].capitalize())
    return Scene(tuple(things), _still_background(rng), 1.0), (ask,)


def _antonym(rng: random.Random) -> tuple[Scene, tuple[Ask, ...]]:
    pair = rng.choice(OPPOSITES)
    act = rng.choice(pair)
    middle = Knot(
        rng.uniform(0.35, 0.65), rng.uniform(0.35, 0.65), 0.13 if act in OPPOSITES[2] else 0.1
    )
    if act in OPPOSITES[2]:
        change = rng.uniform(0.04, 0.06) * (1 if act == "grows" else -1)
        ends = [Knot(middle.x, middle.y, middle.radius + sign * change) for sign in (-1, 1)]
    else:
        distance = rng.uniform(0.4, 0.6)
        ends = [_moved(middle, act.split()[1], sign * distance / 2) for sign in (-1, 1)]
    thing = _steady(_looks(rng)[0], ends[0], ends[1])
    ask = _shuffled(
        rng,
        "antonym",
        f"What does the {thing.name} do in the video?",
        _titles(pair),
        act.capitalize(),
    )
    return Scene((thing,), _still_background(rng), 1.0), (ask,)


def _sequence(rng: random.Random) -> tuple[Scene, tuple[Ask, ...]]:
    first, last, never = rng.sample(ACTS, 3)
    start = Knot(rng.uniform(0.4, 0.6), rng.uniform(0.4, 0.6), 0.11)
    middle = _after(first, start, rng.uniform(0.24, 0.32))
    end = _after(last, middle, rng.uniform(0.24, 0.32))
    thing = Thing(*_looks(rng)[0], (start, middle, end))
    options = _titles((first, last, never))
    asks = tuple(
        _shuffled(
            rng, "sequence", f"What does the {thing.name} do {when}?", options, act.capitalize()
        )
        for when, act in (("first", first), ("last", last))
    )
    return Scene((thing,), _still_background(rng), 1.0), asks


def _count(rng: random.Random) -> tuple[Scene, tuple[Ask, ...]]:
    numbers = (rng.randint(0, 3), rng.randint(0, 3))
    moving = [rng.sample(range(MAX_THINGS), number) for number in numbers]
    things = []
    for index, (look, (x, y)) in enumerate(zip(_looks(rng), SPOTS, strict=True)):
        direction = rng.choice(tuple(DIRECTIONS))
        knots = [Knot(x + rng.uniform(-0.04, 0.04), y + rng.uniform(-0.04, 0.04), 0.09)]
        for movers in moving:
            step = rng.uniform(0.14, 0.18) if index in movers else 0.0
            knots.append(_moved(knots[-1], direction, step))
        things.append(Thing(*look, (knots[0], knots[1], knots[2])))
    options = [str(number) for number in range(MAX_THINGS + 1)]
    asks = tuple(
        _shuffled(
            rng,
            "count",
            f"How many objects are moving when the video {when}?",
            options,
            str(number),
        )
        for when, number in zip(("begins", "ends"), numbers, strict=True)
    )
    return Scene(tuple(things), _still_background(rng), 1.0), asks


def _scene(rng: random.Random) -> tuple[Scene, tuple[Ask, ...]]:
    old, new, never = rng.sample(tuple(BACKGROUNDS), 3)
    place = Knot(rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.7), rng.uniform(0.1, 0.14))
    thing = _steady(_looks(rng)[0], place, place)
    shared = rng.choice((old, new))
    # Each pair both ways around one shared colour: the options alone do not give the answer away.
    changes = [(old, new), (new, old), (shared, never), (never, shared)]
    options = [f"From {before} to {after}" for before, after in changes]
    ask = _shuffled(rng, "scene", "How does the background change?", options, options[0])
    return Scene((thing,), (old, new), rng.uniform(0.35, 0.62)), (ask,)


SUBTASKS: dict[str, Callable[[random.Random], tuple[Scene, tuple[Ask, ...]]]] = {
    "direction": _direction,
    "antonym": _antonym,
    "sequence": _sequence,
    "count": _count,
    "scene": _scene,
}


def _looks(rng: random.Random) -> list[tuple[str, str]]:
    """Colour and shape of up to three things; no colour twice, so that it names a thing."""
    return [(color, rng.choice(SHAPES)) for color in rng.sample(tuple(COLORS), MAX_THINGS)]


def _still_background(rng: random.Random) -> tuple[str, str]:
    color = rng.choice(tuple(BACKGROUNDS))
    return color, color


def _steady(look: tuple[str, str], start: Knot, end: Knot) -> Thing:
    middle = Knot((start.x + end.x) / 2, (start.y + end.y) / 2, (start.radius + end.radius) / 2)
    return Thing(*look, (start, middle, end))


def _moved(knot: Knot, direction: str, distance: float) -> Knot:
    dx, dy = DIRECTIONS[direction]
    return Knot(knot.x + dx * distance, knot.y + dy * distance, knot.radius)


def _after(act: str, knot: Knot, distance: float) -> Knot:
    """The place and size of a thing after half a clip of `act`."""
    if act.startswith("moves"):
        return _moved(knot, act.split()[1], distance)
    return Knot(knot.x, knot.y, knot.radius * (1.8 if act == "grows" else 0.5))


def _titles(acts: tuple[str, ...]) -> list[str]:
    return [act.capitalize() for act in acts]


def _shuffled(rng: random.Random, subtask: str, stem: str, options: list[str], answer: str) -> Ask:
    order = rng.sample(options, len(options))
    return Ask(subtask, stem, tuple(order), order.index(answer))
