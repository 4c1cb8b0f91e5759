"""Prompts of lmms-eval's own tasks, taken apart without a letter lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mapflow.results.contract.errors import MapflowError
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
    try:
        parts = split_prompt(prompt)
    except MapflowError:
        return  # its options are not known
    assert "".join(part.text for part in parts) == prompt
    assert all(part.text for part in parts)
    numbers = [part.option for part in parts if part.kind == "option"]
    assert numbers == list(range(len(numbers))) and len(numbers) != 1


@given(st.text(), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
def test_nothing_is_lost_or_added_in_any_text(text, letter):
    prompt = f"{text}\nA. {text}\n{letter}. {text}"
    assert "".join(part.text for part in split_prompt(prompt)) == prompt


def asked(prompt, **document):
    return foreign_question(
        prompt,
        question_id="q",
        video_id="v",
        task="videomme",
        clip=Clip("v.mp4"),
        document=document,
        max_new_tokens=16,
    )


def test_as_a_question():
    prompt = f"Who?\nA. he\nB. she\n{DIRECTLY}"
    question = asked(prompt, answer="B", options=["he", "she"])
    assert (question.options, question.target, question.stem) == (("he", "she"), "", "Who?")
    for style in ("completion", "chat"):
        assert "".join(part.text for part in question.user_turn(style)) == prompt
        assert (question.prompt(style).system, question.prompt(style).answer_prefix) == ("", "")


def test_an_open_question():
    question = asked("Describe the video.", answer="a cat")
    assert (question.options, question.letters, question.target) == ((), (), "")


@pytest.mark.parametrize(
    ("lines", "marks"),
    [
        ("a. he\nb. she\nc. it", "abc"),
        ("(a) he\n(b) she\n(c) it", "abc"),
        ("A) he\nB) she\nC) it", "ABC"),
        ("a) he\nb) she\nc) it", "abc"),
        ("1. he\n2. she\n3. it", "123"),
        ("1) he\n2) she\n3) it", "123"),
        ("(0) he\n(1) she\n(2) it", "012"),
        ("A、he\nB、she\nC、it", "ABC"),
        ("（A）he\n（B）she\n（C）it", "ABC"),
        ("A：he\nB：she\nC：it", "ABC"),
        ("A．he\nB．she\nC．it".replace("．", "． "), "ABC"),
        ("[A] he\n[B] she\n[C] it", "ABC"),
        ("- A. he\n- B. she\n- C. it", "ABC"),
        ("**A.** he\n**B.** she\n**C.** it", "ABC"),
        ("Option A: he\nOption B: she\nOption C: it", "ABC"),
        ("(a) he (b) she (c) it", "abc"),
    ],
)
def test_options_in_other_forms(lines, marks):
    """Also with a numbered list in the stem, which is longer than the options."""
    stem = "Order?\n1. x\n2. y\n3. z\n4. w"
    for listed in (["he", "she", "it"], ["He.", "She.", "It."]):
        question = asked(f"{stem}\n{lines}\nAnswer.", question=stem, options=listed)
        assert question.options == ("he", "she", "it")
        assert question.letters == tuple(marks) and question.stem == stem


@pytest.mark.parametrize(
    "document",
    [
        {"candidates": ["he", "she"]},
        {"choices": {"A": "he", "B": "she"}},
        {"option0": "he", "option1": "she", "option2": "N/A"},
        {"a0": "he", "a1": "she"},
        {"A": "he", "B": "she"},
    ],
)
def test_options_that_are_not_recognised_are_refused(document):
    assert asked("Who?\nA. he\nB. she", **document).options == ("he", "she")
    for lines in ("- he\n- she", "he, she", "i. he\nii. she", "① he\n② she", "A he\nB she"):
        with pytest.raises(MapflowError, match=r"has the 2 options .*'he'.* not recognised"):
            asked(f"Who?\n{lines}\nAnswer.", **document)
    assert asked("Who is it?", **document).options == ()  # an open-ended form of the question


@pytest.mark.parametrize(
    "stem",
    [
        "Subtitles in the clip say what?\nLook closely.",
        "Options on the menu change.\nWhich one is new?",
        "Letters appear on the sign.\nWhich comes first?",
        "Which choice does he make?\nHe makes one.",
    ],
)
def test_stems_keep_lines_that_begin_like_instructions(stem):
    prompt = f"Select the best option.\n{stem}\nA. x\nB. y\n{DIRECTLY}"
    assert texts(prompt, "stem") == [stem]
    assert asked(prompt, question=stem).stem == stem


def test_the_documents_question_is_the_stem():
    prompt = f"Choose a letter now.\nChoose a letter.\nWhich option?\nA. x\nB. y\n{DIRECTLY}"
    assert asked(prompt, question="Choose a letter.\nWhich option?").stem == (
        "Choose a letter.\nWhich option?"
    )
    inside = asked("Who?\nA. x\nB. y\nAnswer.", question="Who?\nA. x\nB. y")
    assert (inside.stem, inside.options) == ("Who?", ("x", "y"))


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        *(
            (f"Where does it go?\n{lines}\n{asks}", "in a form that is not recognised")
            for lines, asks in (
                ("1. up\n2. down", "Answer with the number of the right option."),
                ("А. up\nБ. down", "Respond with the letter only."),
                ("① up\n② down", DIRECTLY),
                ("A = up\nB = down", DIRECTLY),
                ("Ａ．up\nＢ．down", "Select the correct choice"),
                ("I. up\nII. down", "请选择正确的选项"),
                ("A. up, B. down", "Please answer with one of the options."),
            )
        ),
        (f"Where?\nA. up\nC. left\nB. down\nD. right\n{DIRECTLY}", "a line 'C' in the same"),
        (f"Where?\nA. up\nB. down\nC. left\nE. right\n{DIRECTLY}", "a line 'E' in the same"),
        (
            f"Events:\nA. cut\nB. wash\nC. cook\nWhich order?\nA. ABC\nB. BAC\n{DIRECTLY}",
            "several series of options, the last of 2",
        ),
    ],
)
def test_options_that_would_be_guessed_are_refused_without_a_document_list(prompt, said):
    with pytest.raises(MapflowError, match=said):
        asked(prompt, question=prompt)


def test_options_that_are_not_the_documents_are_refused():
    prompt = f"Who walks?\nA. Smith\nB. Jones\n{DIRECTLY}"
    assert asked(prompt, options=["Smith", "Jones"]).options == ("Smith", "Jones")
    for options in (["Smith", "Jones", "Doe"], ["Jones", "Smith"], ["Brown", "Green"]):
        with pytest.raises(MapflowError, match=r"shows the options .* document lists"):
            asked(prompt, options=options)


def test_open_questions_stay_open():
    for prompt in (
        "Which of the options does he choose?",
        "What does she say?\nAnswer in one sentence.",
        "Events: 1. x\n2. y\nDescribe them.",
        "Is it red?\nPlease answer yes or no:",
    ):
        assert asked(prompt, question=prompt).options == ()
