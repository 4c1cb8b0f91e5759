"""Captions of whole scenes: dense training targets, used before multiple-choice questions."""

from __future__ import annotations

from mapflow.tasks.motion.scenes import Knot, Scene, Thing

DESCRIBE = "Describe the video."


def caption(scene: Scene) -> str:
    """One sentence per thing (where it starts, what it does) and one about the background."""
    sentences = [_sentence(thing) for thing in scene.things]
    before, after = scene.backgrounds
    sentences.append(
        f"The background is {before}." if before == after else f"From {before} to {after}."
    )
    return " ".join(sentences)


def _sentence(thing: Thing) -> str:
    start, middle, end = thing.knots
    first, last = _act(start, middle), _act(middle, end)
    acts = first if first == last else f"first {first} last {last}"
    return f"The {thing.name} {_place(start)} {acts}."


def _place(knot: Knot) -> str:
    """The third of the frame, from top to bottom and from left to right."""
    row = "top" if knot.y < 0.4 else "bottom" if knot.y > 0.6 else "middle"
    column = "left" if knot.x < 0.4 else "right" if knot.x > 0.6 else "middle"
    return f"{row} {column}"


def _act(start: Knot, end: Knot) -> str:
    dx, dy, growth = end.x - start.x, end.y - start.y, end.radius - start.radius
    if max(abs(dx), abs(dy), abs(growth)) < 0.01:
        return "stays"
    if abs(growth) > max(abs(dx), abs(dy)):
        return "grows" if growth > 0 else "shrinks"
    if abs(dx) > abs(dy):
        return "moves right" if dx > 0 else "moves left"
    return "moves down" if dy > 0 else "moves up"
