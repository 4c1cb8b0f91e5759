"""Prompts of lmms-eval's own tasks, taken apart without a letter lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapflow.results.contract.foreign_prompt import foreign_question, split_prompt
from mapflow.results.contract.question import Clip

DIRECTLY = "Answer with the option's letter from the given choices directly."
VIDEOMME = (
    "Select the best answer to the following multiple-choice question based on the video and the"
    " subtitles. Respond with only the letter (A, B, C, or D) of the correct option.\n"
)


def texts(prompt, kind):
    return [part.text for part in split_prompt(prompt) if part.kind == kind]


@pytest.mark.parametrize(
    ("prompt", "stem", "options"),
    [
        (
            f"Where is it?\nA. here\nB. there\nC. nowhere\n{DIRECTLY}\n",
            "Where is it?",
            ["A. here", "B. there", "C. nowhere"],
        ),
        (
            f"{VIDEOMME}Who?\nA. He.\nB. She.\nC. They.\nD. Us.\n\n{DIRECTLY}",
            "Who?",
            ["A. He.", "B. She.", "C. They.", "D. Us."],
        ),
        (
            "Question:Who?\nOption:\n(A) he\n(B) she\nOnly give the best option.",
            "Who?",
            ["(A) he", "(B) she"],
        ),
        (
            "Question: Who?\nOptions:\n(A) he\n(B) she \nOnly give the best option.",
            "Who?",
            ["(A) he", "(B) she"],
        ),
        ("Who?\nA) he\nB) she", "Who?", ["A) he", "B) she"]),
        ("Who? (A) he (B) she\nPick one.", "Who?", ["(A) he", "(B) she"]),
        (
            "One line.\nWho?\nA. he\n  or him\nB. she",
            "One line.\nWho?",
            ["A. he\n  or him", "B. she"],
        ),
        ("Which option is right?\nA. x\nB. y", "Which option is right?", ["A. x", "B. y"]),
        (
            f"This video's subtitles are listed below: \nA. nobody\nB. knows\n{VIDEOMME}"
            "Who?\nA. x\nB. y\nC. z\nThe best answer is:",
            "Who?",
            ["A. x", "B. y", "C. z"],
        ),
    ],
)
def test_stem_and_options(prompt, stem, options):
    assert texts(prompt, "stem") == [stem]
    assert texts(prompt, "option") == options
    assert "".join(part.text for part in split_prompt(prompt)) == prompt
    assert [part.option for part in split_prompt(prompt) if part.kind == "option"] == list(
        range(len(options))
    )


@pytest.mark.parametrize(
    "prompt", ["Describe the video.", "A. only one", "Answer yes or no: is it red?\n", "B. x\nC. y"]
)
def test_without_options_everything_is_the_stem(prompt):
    assert [(part.kind, part.text) for part in split_prompt(prompt)] == [("stem", prompt)]


def test_what_follows_the_options_is_template():
    parts = split_prompt(f"Who?\nA. he\nB. she\n{DIRECTLY}")
    assert (parts[-1].kind, parts[-1].text) == ("template", f"\n{DIRECTLY}")


LINES = st.sampled_from(
    [
        "A. x",
        "B. y",
        "C. z",
        "(A) x",
        "(B) y",
        "A) q",
        "B) r",
        "Question: who?",
        "Options:",
        "",
        "  ",
        "text (A) b (B) c",
        DIRECTLY,
    ]
)


@given(st.lists(LINES | st.text(max_size=20), max_size=12).map("\n".join))
def test_nothing_is_lost_or_added(prompt):
    parts = split_prompt(prompt)
    assert "".join(part.text for part in parts) == prompt
    assert all(part.text for part in parts)
    numbers = [part.option for part in parts if part.kind == "option"]
    assert numbers == list(range(len(numbers))) and len(numbers) != 1


@given(st.text(), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
def test_nothing_is_lost_or_added_in_any_text(text, letter):
    prompt = f"{text}\nA. {text}\n{letter}. {text}"
    assert "".join(part.text for part in split_prompt(prompt)) == prompt


def asked(prompt, target):
    return foreign_question(
        prompt,
        question_id="q",
        video_id="v",
        task="videomme",
        clip=Clip("v.mp4"),
        target=target,
        max_new_tokens=16,
    )


@pytest.mark.parametrize("target", [1, "B", "b", "she"])
def test_as_a_question(target):
    prompt = f"Who?\nA. he\nB. she\n{DIRECTLY}"
    question = asked(prompt, target)
    assert (question.options, question.target, question.stem) == (("he", "she"), 1, "Who?")
    for style in ("completion", "chat"):
        assert "".join(part.text for part in question.user_turn(style)) == prompt
        assert (question.prompt(style).system, question.prompt(style).answer_prefix) == ("", "")


def test_an_open_question():
    question = asked("Describe the video.", "a cat")
    assert (question.options, question.target, question.target_text) == ((), "a cat", "a cat")
