"""Every form of answer that models give, and those that must not be guessed at."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapflow.results.contract.answers import grade, parse_answer
from mapflow.results.contract.question import LETTERS
from mapflow.tasks.registry import load_questions
from tests.tasks.folders import tomato_row, tvbench_row, write_tomato, write_tvbench

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


@pytest.mark.parametrize(
    "text",
    [
        "The answer is option D.",
        "Therefore D",
        "It's D.",
        "I would choose D.",
        "The answer is A, but the correct answer is D",
        "Let me look again. The best description is (D).",
    ],
)
def test_sentences_that_choose(text):
    assert parse_answer(text, SIDES) == 3


@pytest.mark.parametrize(
    "text",
    [
        "<answer>C</answer>",
        "$C$",
        "\\boxed{C}",
        "C</s>",
        "C<|im_end|>",
        '{"answer": "C"}',
        "<b>C</b>",
    ],
)
def test_markup_and_special_tokens_mean_nothing(text):
    assert parse_answer(text, SIDES) == 2


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("<think>Option A? The answer is A.</think>B", 1),
        ("so it is A</think>B", 1),
        ("<think>The answer is B", None),
        ("<think>The answer is B</think>", None),
        ("[THINK]A[/THINK]B", 1),
    ],
)
def test_thoughts_do_not_count(text, index):
    assert parse_answer(text, SIDES) == index


@pytest.mark.parametrize(
    ("after", "index"), [("", None), ("\nBest option: (C", 2), ("\n\nC", 2), (" I choose B.", 1)]
)
def test_an_echo_of_all_options_names_none(after, index):
    for separator in (" ", "\n", ", "):
        pairs = zip("ABCD", SIDES, strict=True)
        echo = separator.join(f"({letter}) {option}" for letter, option in pairs)
        assert parse_answer(echo + after, SIDES) == index
    assert parse_answer("A) B) C) D)", SIDES) is None


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("A is incorrect; B is correct", 1),
        ("A is wrong, B is right.", 1),
        ("It is not A but B.", 1),
        ("B rather than A", 1),
        ("A, B and C are wrong, so it is D.", 3),
        ("Neither A nor B", None),
        ("I would not choose B.", None),
        ("anything but B", None),
        ("It could be A. It could also be B.", None),
        ("A is correct. B is also correct.", None),
    ],
)
def test_denied_options_are_not_chosen(text, index):
    assert parse_answer(text, SIDES) == index


@pytest.mark.parametrize(
    "text",
    [
        "答案是B",
        "选择B。",
        "La respuesta es B.",
        "A resposta é B.",
        "Die Antwort ist B.",
        "Ответ: B",
        "答えはBです。",
        "정답은 B입니다.",
        "सही उत्तर B है",
        "الإجابة هي B",
        "不是A，而是B。",
        "Nicht A, sondern B.",
    ],
)
def test_answers_in_other_languages(text):
    assert parse_answer(text, SIDES) == 1


@pytest.mark.parametrize(
    ("text", "options", "index"),
    [
        ("three", COUNTS, 1),
        ("There are three cubes.", COUNTS, 1),
        ("3", ("two", "three"), 1),
        ("two hundred", COUNTS, None),
        ("2-3", COUNTS, None),
        ("No one knows", ("1", "2"), None),
    ],
)
def test_numbers_in_words(text, options, index):
    assert parse_answer(text, options) == index


def test_a_lower_case_letter_that_is_another_options_text_is_ambiguous():
    assert parse_answer("b", ("l", "a", "b")) is None
    assert parse_answer("B", ("l", "a", "b")) == 1


ASIDE = ("left", "right", "up", "down")


@pytest.mark.parametrize(
    ("text", "options", "index"),
    [
        ("The right answer is A.", ASIDE, 0),
        ("The right option is D", ASIDE, 3),
        ("A is right.", ASIDE, 0),
        ("The right answer is right.", ASIDE, 1),
        ("A isn't right.", ASIDE, None),
        ("The correct answer is B", ("correct", "incorrect"), 1),
        ("The true answer is B", ("True", "False"), 1),
    ],
)
def test_an_options_text_that_describes_the_answer_is_no_mention(text, options, index):
    assert parse_answer(text, options) == index


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("I have no idea", None),
        ("No comment", None),
        ("There is no way to tell", None),
        ("A no", None),
        ("B) yes", None),
        ("Yes, there is no ball", 0),
        ("No, there is no ball.", 1),
    ],
)
def test_no_before_a_noun_is_not_the_option_no(text, index):
    assert parse_answer(text, ("yes", "no")) == index


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("twenty-two", None),
        ("one hundred and two", None),
        ("two dozen", None),
        ("minus two", None),
        ("two out of three", None),
        ("In frame 3", None),
        ("1+1", None),
        ("1 + 2 = 3", 1),
        ("two red and one blue, so 3", 1),
    ],
)
def test_a_part_of_a_larger_number_or_sum_is_no_mention(text, index):
    assert parse_answer(text, COUNTS) == index


@pytest.mark.parametrize("text", ["B", "The answer is B", "(B)", "b"])
def test_a_letter_that_is_another_options_text_is_ambiguous(text):
    assert parse_answer(text, ("B", "A", "C")) is None
    assert parse_answer("A. B", ("B", "A", "C")) == 0


@pytest.mark.parametrize(
    "text",
    [
        "I doubt it's B",
        "B is improbable",
        "B is a distractor",
        "B can be dismissed",
        "B är fel",
        "less likely B",
        "A+B",
        "B left",
        "B is moving left",
    ],
)
def test_an_option_of_which_something_unknown_is_said_is_not_chosen(text):
    assert parse_answer(text, ASIDE) is None


@pytest.mark.parametrize(
    "text",
    [
        "<SUMMARY>A</SUMMARY><CAPTION>A</CAPTION><REASONING>A</REASONING><CONCLUSION>C</CONCLUSION>",
        "<seed:think>A</seed:think>C",
        "<inner_thoughts>A</inner_thoughts>C",
        "<unused94>thought\nA<unused95>C",
        "&lt;think&gt;A&lt;/think&gt;C",
        "C[EOS]",
        "Options: A, B, C, D. I choose C.",
        "Option A: left. Option B: right. Option C: up. Option D: down. It goes up. So it is C",
        "The answer is (A) or (C), but I would go with (C).",
        "Both A and C could fit; C is the most likely.",
        "A? No. C? Yes.",
        "Svaret er C",
        "התשובה היא C",
    ],
)
def test_common_forms_of_chats_and_other_models_are_read(text):
    assert parse_answer(text, ASIDE) == 2


@pytest.mark.parametrize(
    ("text", "of_tvbench"),
    [("B\nA", (True, True)), ("\n(B) Right.\nAnswer: A", (True, True)), ("Hm.\nB", (False, False))],
)
def test_protocols_that_score_the_first_line_score_it(tmp_path, text, of_tvbench):
    """TVBench's own code keeps the first line of the stripped answer; TOMATO's reads all of it."""
    write_tvbench(tmp_path, {"action_count": [tvbench_row()]})
    write_tomato(tmp_path, {"count": [tomato_row()]})
    tvbench, tomato = (
        load_questions(task, "official", tmp_path)[0]
        for task in ("mapflow_tvbench_action_count", "mapflow_tomato_count")
    )
    assert grade(tvbench, text) == of_tvbench
    assert grade(tomato, "Hm.\nB") == (True, True) and grade(tomato, "B\nA") == (False, False)


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


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("It rotates counter clockwise.", 1),
        ("Counterclockwise", 1),
        ("anti-clockwise", 1),
        ("B. anticlockwise", 1),
        ("clockwise", 0),
        ("un-clockwise", None),
    ],
)
def test_a_prefix_makes_another_word_of_an_options_text(text, index):
    assert parse_answer(text, ["Clockwise", "Counter-clockwise"]) == index
    assert parse_answer("It is non-moving", ["moving", "falling"]) is None
