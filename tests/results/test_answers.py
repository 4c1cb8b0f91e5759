"""Every form of answer that models give, and those that must not be guessed at."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapflow.results.contract.answers import parse_answer
from mapflow.results.contract.question import LETTERS

SIDES = (
    "Up and to the right.",
    "Up and to the left.",
    "Down and to the left.",
    "Down and to the right.",
)
COUNTS = ("2", "3", "5", "4")
MOVES = ("Left.", "Right.", "First to the left then to the right.", "Not moving at all")
SEVEN = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta")


@pytest.mark.parametrize(
    ("text", "options", "index"),
    [
        ("B", SIDES, 1),
        ("b", SIDES, 1),
        ("B.", SIDES, 1),
        ("(B)", SIDES, 1),
        ("（Ｂ）", SIDES, 1),  # full-width signs
        ("**B**", SIDES, 1),
        ("B)", SIDES, 1),
        ("Option B", SIDES, 1),
        ("B. Up and to the left.", SIDES, 1),
        ("(b) up and to the left", SIDES, 1),
        ("B: Up", SIDES, 1),
        ("B\nIt moves up.", SIDES, 1),
        ("Answer: B", SIDES, 1),
        ("answer is b.", SIDES, 1),
        ("The answer is B because it goes left", SIDES, 1),
        ("Best option:(B", SIDES, 1),
        ("Best option: (B) Up and to the left.", SIDES, 1),
        ("The correct option is D. Down and to the right.", SIDES, 3),
        ("Let me think. Option (A) is no. Answer: B", SIDES, 1),
        ("B) Up and to the left.\nExplanation: (A) is not it", SIDES, 1),
        ("up and to the LEFT", SIDES, 1),
        ("Answer: up and to the left", SIDES, 1),
        ("The hand moves first to the left then to the right.", MOVES, 2),
        ("not moving at all", MOVES, 3),
        ("4", COUNTS, 3),
        ("4.", COUNTS, 3),
        ("(4)", COUNTS, 3),
        ("Answer: 4", COUNTS, 3),
        ("It repeated 3 times", COUNTS, 1),
        ("G", SEVEN, 6),
        ("Answer: (G)", SEVEN, 6),
        ("x", ("x", "x", "y"), 0),
        ("B", ("x", "x", "y"), 1),
        ("A. x", ("x", "x", "y"), 0),
        ("A", ("B", "A"), 0),  # a letter is a letter, also where options are letters
        ("a cat", ("A dog", "A cat"), 1),
    ],
)
def test_reads(text, options, index):
    assert parse_answer(text, options) == index


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", SIDES),
        ("I cannot tell.", SIDES),
        ("A man walks by", SIDES),
        ("the answer is a man", SIDES),
        ("G", SIDES),
        ("Answer: G", SIDES),
        ("A or B", SIDES),
        ("A, B", SIDES),
        ("B/C", SIDES),
        ("Answer: B or C", SIDES),
        ("(A) (B)", SIDES),
        ("A\nB", SIDES),
        ("A. Up and to the right.\nB. Up and to the left.", SIDES),
        ("Answer: A. Later: answer: B", SIDES),
        ("B. Up and to the right.", SIDES),  # the letter of one, the text of another
        ("Option A is wrong", SIDES),
        ("(A) is not right", SIDES),
        ("It is not left", ("Left.", "Right.")),
        ("left or right", ("Left.", "Right.")),
        ("1", COUNTS),  # digits are texts, not indices
        ("14", COUNTS),
        ("4.5", COUNTS),
        ("-4", COUNTS),
        ("e.g. this", SEVEN),
        ("I", SEVEN),
        ("The answer isB", SEVEN),  # found by the fuzzer, as the next one
        ("Optionb.", SEVEN),
        ("B", ()),
    ],
)
def test_does_not_guess(text, options):
    assert parse_answer(text, options) is None


WORDS = st.lists(
    st.sampled_from(["red", "cube", "sphere", "moves", "slowly", "upward", "twice"]),
    min_size=2,
    max_size=4,
)


@given(st.lists(WORDS.map(" ".join), min_size=2, max_size=7), st.data())
def test_letter_and_text_agree(options, data):
    """Whatever the options, a letter with its own text is read; with a text that no option shares
    with it, never as that other option."""
    index = data.draw(st.integers(0, len(options) - 1))
    other = data.draw(st.integers(0, len(options) - 1))
    own = parse_answer(f"({LETTERS[index]}) {options[index]}", options)
    assert own is not None and options[own] == options[index]
    mixed = parse_answer(f"({LETTERS[index]}) {options[other]}", options)
    assert mixed is None or options[index] == options[other]


@given(st.text(max_size=60), st.lists(st.text(min_size=1, max_size=12), max_size=7))
def test_any_text_is_an_option_or_none(text, options):
    index = parse_answer(text, options)
    assert index is None or 0 <= index < len(options)
