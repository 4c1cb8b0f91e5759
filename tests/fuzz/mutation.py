"""Makes hostile text: parts of a corpus, changed, cut, doubled and spliced.

Deterministic in the state of the generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

CHARACTERS = (
    "".join(map(chr, range(32, 127)))
    + "\0\t\n\r\x1b\x7f\x85 \u200b\u202e\u2028\ufeff٣²→−ﬀＡé日İß\ud800😀"
)


def mutated(random: Random, corpus: Sequence[str], tokens: Sequence[str]) -> str:
    """One text of the corpus after up to six random changes."""
    text = random.choice(corpus)
    for _ in range(int(random.random() ** 2 * 7)):
        start = int(random.random() * (len(text) + 1))
        end = min(len(text), start + int(random.random() ** 3 * 12))
        match int(random.random() * 6):
            case 0:
                text = text[:start] + random.choice(tokens) + text[start:]
            case 1:
                text = text[:start] + text[end:]
            case 2:
                text = text[:end] + text[start:]
            case 3:
                text = text[:start] + random.choice(CHARACTERS) + text[end:]
            case 4:
                other = random.choice(corpus)
                text = text[:start] + other[int(random.random() * len(other)) :]
            case _:
                text = text[:start] + random.choice(tokens) + text[end:]
    return text


VALUES = (
    *(None, True, -1, 0, 3, 0.5, 1e300, 10**30, "", "x", "\x1b\n"),
    *([], [1], ["x"], [[0.5]], {}, {"a": 1}),
)


def altered(random: Random, value: Any) -> Any:
    """JSON content with one value replaced, left out, doubled or added, anywhere in it."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        name = random.choice(list(value))
        match int(random.random() * 12):
            case 0:
                return {key: one for key, one in value.items() if key != name}
            case 1:
                return {**value, "new": random.choice(VALUES)}
            case _:
                return {**value, name: altered(random, value[name])}
    if isinstance(value, list) and value and random.random() < 0.9:
        at = int(random.random() * len(value))
        match int(random.random() * 6):
            case 0:
                return [*value[:at], *value[at + 1 :]]
            case 1:
                return [*value[:at], value[at], *value[at:]]
            case _:
                return [*value[:at], altered(random, value[at]), *value[at + 1 :]]
    return random.choice(VALUES)
