"""Publishers' question files, as far as they are here: counts, gold, bounds and answers."""

import json
from functools import partial
from pathlib import Path

import pytest

from mapflow.results.contract.answers import grade, parse_answer
from mapflow.tasks.benchmark import chance_level
from mapflow.tasks.data_folder import local_folder
from mapflow.tasks.lmms_functions import process_results
from mapflow.tasks.registry import BENCHMARKS
from mapflow.tasks.tvbench_open import FORMS as OPEN

ALL = [(name, subtask) for name in ("tvbench", "tomato") for subtask in BENCHMARKS[name].counts]
FORMS = (
    "{letter}",
    "({letter})",
    "({letter}) {text}",
    "{letter}. {text}",
    "{letter}: {text}",
    "Answer: {letter}",
    "The answer is ({letter}).",
    "Best option:({letter}",
    "Best option: ({letter}) {text}",
    "{text}",
    "Answer: {text}",
    "{lower_text}",
    "{lower_letter}",
    "({lower_letter}) {lower_text}",
    "answer: {lower_letter}",
    "{letter}. {text}\nThat is what I saw.",
)


@pytest.fixture(params=ALL, ids="/".join)
def real(request, real_data, monkeypatch):
    """(benchmark, subtask, raw rows by number, a function from a protocol to the questions)."""
    name, subtask = request.param
    benchmark = BENCHMARKS[name]
    folder = local_folder(benchmark.layout, real_data)
    path = folder.questions(subtask)
    if not path.is_file():
        pytest.skip(f"no {path.name}")
    raw = json.loads(path.read_text(encoding="utf-8"))
    rows = raw if isinstance(raw, list) else list(raw.values())
    monkeypatch.setenv("MAPFLOW_DATA", str(real_data))
    return benchmark, subtask, rows, partial(benchmark.questions, folder, subtask)


def test_as_many_as_published(real):
    benchmark, subtask, rows, questions = real
    assert len(questions()) == len(rows) == benchmark.counts[subtask]
    assert len({question.question_id for question in questions()}) == len(rows)


def right_texts(row):
    """Options and the right one's text: TVBench gives its text, TOMATO its index."""
    if "candidates" in row:
        return [str(text) for text in row["candidates"]], str(row["answer"])
    return row["options"], [*row["options"]][row["answer"]]


def test_gold(real):
    """In the prompt, the letter that counts as right stands before the right text."""
    _, _, rows, questions = real
    for protocol in ("paper", "official"):
        for row, question in zip(rows, questions(protocol), strict=True):
            options, right = right_texts(row)
            assert question.options == tuple(options)
            assert question.options["ABCDEFG".index(question.target_text)] == right
            if protocol == "paper":
                turn = "".join(part.text for part in question.user_turn("chat"))
                assert f"({question.target_text}) {right}" in turn.split("\n")


def test_bounds_and_videos(real):
    _, _, rows, questions = real
    for row, question in zip(rows, questions(), strict=True):
        assert (question.clip.start, question.clip.end) == (row.get("start"), row.get("end"))
        name = row["video"] if "video" in row else f"{row['demonstration_type']}/{row['key']}.mp4"
        assert Path(question.clip.path).as_posix().endswith("/" + name)


def test_every_option_in_every_form(real):
    """Read as the option that was meant, by its text, and by no other."""
    _, _, _, questions = real
    for options in {question.options for question in questions()}:
        for letter, text in zip("ABCDEFG", options, strict=False):
            words = {
                "letter": letter,
                "text": text,
                "lower_letter": letter.lower(),
                "lower_text": text.lower(),
            }
            for form in FORMS:
                answer = form.format(**words)
                index = parse_answer(answer, options)
                assert index is not None and options[index] == text, (answer, options)


def test_letters_beyond_and_mixtures_are_invalid(real):
    _, _, _, questions = real
    for options in {question.options for question in questions()}:
        assert parse_answer("ABCDEFGH"[len(options)], options) is None
        if options[0] != options[1]:
            assert parse_answer(f"A. {options[1]}", options) is None
            assert parse_answer("A or B", options) is None
        assert parse_answer("I do not know.", options) is None


def test_only_the_right_text_is_scored_right(real, monkeypatch):
    """Every letter is right exactly if its text is; a duplicate of the right text is right too."""
    _, _, rows, questions = real
    for protocol in ("paper", "official"):
        monkeypatch.setenv("MAPFLOW_PROTOCOL", protocol)
        for row, question in zip(rows, questions(), strict=True):
            options, right = right_texts(row)
            document = {"task": question.task, "question_id": question.question_id}
            for letter, text in zip("ABCDEFG", options, strict=False):
                assert process_results(document, [letter])["accuracy"] == float(text == right)


def test_a_guess_scores_chance(real):
    _, _, rows, questions = real
    shares = [sum(1 for _ in right_texts(row)[0]) for row in rows]
    assert chance_level(questions()) == pytest.approx(sum(1 / n for n in shares) / len(shares))


@pytest.mark.parametrize("subtask", OPEN)
def test_open_questions(subtask, real_data):
    """The sentence is the subtask's, and the expected answer is in the right candidate."""
    benchmark = BENCHMARKS["tvbench"]
    folder = local_folder(benchmark.layout, real_data)
    if not folder.questions(subtask).is_file():
        pytest.skip(f"no {subtask}.json")
    opened = BENCHMARKS["tvbench_open"].questions(folder, subtask)
    choices = benchmark.questions(folder, subtask)
    fixed = {
        "action_sequence": "The action the person is doing first is to",
        "object_count": "The number of moving objects is",
        "scene_transition": "The scene in the video changes from the",
    }
    for question, choice in zip(opened, choices, strict=True):
        assert isinstance(choice.target, int)
        right_option = choice.options[choice.target]
        begin = question.prompt("completion").answer_prefix.removeprefix("\n")
        assert begin == question.prompt("chat").answer_prefix and question.options == ()
        assert begin == fixed.get(subtask, begin)
        if subtask != "object_count":
            assert question.target_text in right_option.lower()
        if subtask == "action_localization":
            assert begin.split("'")[1] in choice.stem and begin.endswith("' occurs at the")
        if subtask == "moving_direction":
            assert begin.removesuffix(" moves to the").lower() in choice.stem
        first = question.target_text.split()[0]
        assert grade(question, first) == (True, True) and grade(question, "") == (False, False)


def test_both_benchmarks_have_both_protocols():
    for name in ("tvbench", "tomato"):
        assert set(BENCHMARKS[name].protocols) == {"paper", "official"}
