"""What is fuzzed: one function a parser, which takes a generator of randomness and makes and judges one input.

A target returns when its input was refused with a MapflowError or taken rightly, and raises otherwise: any other
exception is a crash, an AssertionError a wrong acceptance. The judgements are written from the documentation alone.
"""

from __future__ import annotations

import json
import os.path
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from mapflow.model_adapters.conversation import Text, Video, tokenize, user_pieces
from mapflow.model_adapters.interventions import Segment, parse_intervention, parse_interventions
from mapflow.model_adapters.interventions.grammar import is_file_name, split_interventions
from mapflow.results.answers import parse_answer
from mapflow.results.errors import MapflowError
from mapflow.results.question import LETTERS, Clip, Prompt, Question
from mapflow.results.record import Record
from mapflow.results.sweep_record import SweepRecord
from mapflow.tasks.data_folder import VideoFile
from mapflow.tasks.documents import candidates_to_document
from mapflow.tasks.rows import answer_index_of, file_name_of, options_of, parse_rows

from .mutation import CHARACTERS, mutated

Target = Callable[[Random], Any]

# --- interventions ---------------------------------------------------------------------------------------------------

INTERVENTIONS = [
    "full",
    "effective",
    "effective-strict",
    "effective:cross_frame=6-15,video_to_question=6-20,question_to_last=16-25",
    "effective:scale=LLaVA-NeXT-7B-Video-FT",
    "random:ratio=0.58,seed=3",
    "random",
    "random:scale=x,seed=1",
    "video->question@6-20",
    "frame[3]→option[0]@7",
    "cross-frame",
    "knockout:video->last@center=12,window=9",
    "knockout:cross-frame@bottom-up=3;full",
    "knockout:stem->last@inverse=2,window=3",
    "knockout:true_option->last@top-down=2",
    "keep:video->question@6-20+all->system",
    "keep:cross-frame+knockout:all->last@center=2",
    "early-exit@20",
    "effective+video->template",
    "full,effective,random:ratio=.5;seed=9,video->last",
]
INTERVENTION_TOKENS = [
    *"->@+,;:=[]. 0123456789-x",
    *[
        "full",
        "effective",
        "effective-strict",
        "random:",
        "knockout:",
        "keep:",
        "video",
        "last",
        "question",
        "all",
        "frame[",
        "ratio=",
        "seed=",
    ],
    *[
        "center=",
        "inverse=",
        "top-down=",
        "bottom-up=",
        "window=",
        "cross-frame",
        "scale=",
        "cross_frame=1",
        "early-exit@",
        "1e999",
        "nan",
    ],
    *(
        "video_to_question=1-2",
        "question_to_last=3",
        "true_option",
        "false_options",
        "template",
        "->",
        "@1-2",
        "9" * 30,
    ),
]


def interventions(random: Random) -> Any:
    """A text of interventions is refused, or each of them printed and parsed again is itself."""
    text = mutated(random, INTERVENTIONS, INTERVENTION_TOKENS)
    if any(is_file_name(piece) for piece in split_interventions(text)):
        return None
    found = parse_interventions([text])
    assert found
    for one in found:
        said = str(one)
        again = parse_intervention(said)
        assert again == one and str(again) == said, (text, said)
        assert parse_interventions([said]) == [one], (text, said)
    return found


# --- answers ---------------------------------------------------------------------------------------------------------

OPTION_SETS = [
    ["Up and to the right.", "Up and to the left.", "Down and to the left.", "Down and to the right."],
    ["2", "3", "5", "4"],
    ["Left.", "Right.", "First to the left then to the right.", "Not moving at all"],
    ["yes", "no"],
    ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta"],
    ["-4", "4", "4.0", "1,4"],
    ["the man", "the man", "a woman"],
    ["Straße", "STRASSE", "ﬀ"],
    [],
]
ANSWERS = [
    "B",
    "(B)",
    "b.",
    "B. Up and to the left.",
    "Answer: B",
    "The answer is B because it goes left",
    "Best option:(B",
    "Let me think. Option (A) is no. Answer: B",
    "Up and to the left",
    "(A) or (B)",
    "A and B",
    "It is not A. It is B.",
    "I think that the man went left, then right.",
    "The correct option is D. Down and to the right.",
    "4",
    "-4",
    "it moves up; answer: no",
    "First to the left then to the right.",
    "A\nB\nC",
    "",
]
ANSWER_TOKENS = [
    *"ABCDEGZab().:,!?*_`\"'-/& 4",
    *(
        "Answer: ",
        "answer is ",
        "best option ",
        "Option ",
        " or ",
        " and ",
        " not ",
        "n't",
        " is wrong",
        "\n",
        "（Ｂ）",
    ),
    *(option for options in OPTION_SETS for option in options),
]


def answers(random: Random) -> Any:
    """What is named is an option for which the text has evidence; two letters that are both stated are none."""
    options = random.choice(OPTION_SETS)
    text = mutated(random, ANSWERS, ANSWER_TOKENS)
    found = parse_answer(text, options)
    if found is not None:
        assert 0 <= found < len(options), (text, options, found)
        assert _evident(text, found, options), (text, options, found)
    if len(set(options)) > 2:
        one, other = random.sample(range(len(options)), 2)
        if options[one] != options[other]:
            ambiguous = f"Answer: {LETTERS[one]}.\n{text}\nAnswer: {LETTERS[other]}."
            assert parse_answer(ambiguous, options) is None, (ambiguous, options)
    beyond = LETTERS[len(options)]
    stated = f"Answer: ({beyond})"
    if not any(beyond.casefold() in option.casefold().split() for option in options):
        assert parse_answer(stated, options) is None, (stated, options)
    return found


def _evident(text: str, index: int, options: list[str]) -> bool:
    """Its letter stands alone somewhere, or its words stand somewhere, of an option that has this text."""
    plain = unicodedata.normalize("NFKC", text)
    squeezed = " ".join(plain.casefold().split())
    return any(
        re.search(rf"(?<![A-Za-z]){LETTERS[k]}(?![A-Za-z])", plain, re.IGNORECASE)
        or " ".join(unicodedata.normalize("NFKC", option).casefold().split()).strip(" .") in squeezed
        for k, option in enumerate(options)
        if option == options[index]
    )


# --- records ---------------------------------------------------------------------------------------------------------

RECORDS = [
    Record(
        "tvbench/one/0000", "one/clip.mp4", "mapflow_tvbench_one", "full", None, "paper", 4, "A"
    ).to_line(),
    Record(
        question_id="q\n\u2028\x1b",
        video_id="v",
        task="t",
        intervention="random:seed=3",
        seed=3,
        protocol="paper",
        n_options=2,
        target="B",
        prediction="B\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
        correct=True,
        valid=True,
        p_answer=0.25,
        p_target=1e-300,
        option_probs={"A": 0.5, "B": 0.25},
        option_prediction="A",
        margin=0.1,
        edges_kept=10,
        edges_total=20,
        n_tokens=5,
        frame_indices=(0, 3, 9),
        repeated_frames=0,
    ).to_line(),
    Record("a", "b", "c", "full", None, "paper", 0, "left", error="no such video").to_line(),
]
SWEEPS = [
    SweepRecord(
        "q",
        "v",
        "t",
        "video->last",
        "center",
        9,
        "paper",
        2,
        "A",
        "B",
        False,
        0.5,
        0.25,
        0.1,
        (0.5, 0.25),
        (0.1, 0.2),
    ).to_line(),
]
RECORD_TOKENS = [
    *'{}[],:"\\0123456789.-eE ',
    *(
        "null",
        "true",
        "false",
        "NaN",
        "Infinity",
        "1e999",
        "-0",
        "9" * 30,
        "[" * 50,
        "\\u0000",
        "\\ud800",
        "\\n",
    ),
    *(
        '"seed":1,',
        '"correct":',
        '"error":"x",',
        '"extra":1,',
        '"frame_indices":[1],',
        '"option_probs":{"A":1},',
    ),
]


def records(random: Random) -> Any:
    """A line is refused, or a record that can be written, is what was written, and has the types of its fields."""
    kind, corpus = (Record, RECORDS) if random.random() < 0.8 else (SweepRecord, SWEEPS)
    line = mutated(random, corpus, RECORD_TOKENS)
    record = kind.from_line(line, "here")
    written = record.to_line()
    written.encode()
    assert "\n" not in written
    assert kind.from_line(written, "there") == record, line
    assert all(isinstance(part, str) for part in record.key), line
    for name, value in vars(record).items():
        if name in ("question_id", "video_id", "task", "protocol", "target"):
            assert type(value) is str, line
        elif name in ("n_options", "edges_kept", "edges_total", "n_tokens", "seed", "window"):
            assert type(value) is int or (value is None and name != "n_options"), line
        elif name in ("prediction", "answer", "error", "option_prediction", "left_out"):
            assert value is None or type(value) is str, line
        elif name in ("correct", "valid"):
            assert value in (None, True, False) and type(value) is not int, line
    return record


# --- rows of datasets ------------------------------------------------------------------------------------------------

ROWS = [
    json.dumps(
        [
            {
                "video": "a/b.mp4",
                "question": "Which way?",
                "candidates": ["Left.", "Right."],
                "answer": "Right.",
            }
        ]
    ),
    json.dumps(
        [
            {
                "video": "b.mp4",
                "question": "?",
                "candidates": ["2", 3, 4.5],
                "answer": 3,
                "start": 0,
                "end": 2.5,
            }
        ]
    ),
    json.dumps({"0": {"key": "0001-00", "question": "How many?", "options": ["1", "2"], "answer": 1}}),
    json.dumps({"7": {"video": "é日.avi", "question": "😀", "candidates": ["x", "x"], "answer": "x"}}),
]
ROW_TOKENS = [
    *'{}[],:"\\0123456789.-eE /~',
    *(
        "null",
        "true",
        "NaN",
        "Infinity",
        "-1",
        "1e999",
        "1e308",
        "9" * 400,
        "../",
        "..",
        "\\u0000",
        "\\ud800",
        "C:",
    ),
    *(
        "\\\\",
        "\\u202e",
        "\\u001b",
        '"start": 1, ',
        '"end": 0.5, ',
        '"answer": 0, ',
        '"video": "/x", ',
        "[[",
        "{}",
    ),
]
ROOT = "/data/video"


def rows(random: Random) -> Any:
    """A question file is refused, or its questions are whole: text, options, an answer among them, a file inside."""
    text = mutated(random, ROWS, ROW_TOKENS)
    found = []
    for number, row in parse_rows(text, "here.json"):
        if "key" in row:
            options = options_of(row, "options", number)
            assert 0 <= answer_index_of(row, "answer", options, number) < len(options), text
            name = file_name_of(row, "key", number)
        else:
            document = candidates_to_document(
                row,
                benchmark="tvbench",
                subtask="action_count",
                number=number,
                video=lambda name: VideoFile(Path(name)),
            )
            options = document["options"]
            assert options[document["target"]] == document["target_text"], text
            start, end = document["start"], document["end"]
            assert (start is None and end is None) or (
                start is not None and end is not None and 0 <= start < end
            ), text
            assert document["stem"].strip(), text
            name = document["video_id"].partition("/")[2]
            json.dumps(document, ensure_ascii=False).encode()
        assert 2 <= len(options) <= len(LETTERS) and all(
            isinstance(one, str) and one.strip() for one in options
        ), text
        inside = os.path.normpath(f"{ROOT}/{name}")
        assert inside.startswith(ROOT + "/") and "\0" not in inside, text
        found.append(options)
    assert found
    return found


# --- the prompt's layout ---------------------------------------------------------------------------------------------

PLACEHOLDER = "<video>"
STEMS = [
    "Which way does the ball move?",
    "How many {letter} are <image> there?\n(A) none",
    "?",
    "日本 😀 (B)",
    PLACEHOLDER,
]
PIECES = ["Left.", "Right and {text}", "4", "", " ", "(A)", "\n", "USER:", "<video", "{0}", "ü\u0308"]


class Cutter:
    """In place of a tokenizer: cuts text anywhere, names every token by its number; placeholders are usually whole."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def __call__(self, text: str, return_offsets_mapping: bool) -> dict[str, list[Any]]:
        random, at, ids = self._random, 0, [2]
        offsets: list[tuple[int, int]] = [(0, 0)]
        respects = random.random() < 0.9
        while at < len(text):
            if respects and text.startswith(PLACEHOLDER, at):
                end, token = at + len(PLACEHOLDER), 1
            else:
                end, token = min(len(text), at + 1 + int(random.random() ** 2 * 5)), 3 + len(ids)
                if respects and (place := text.find(PLACEHOLDER, at, end + len(PLACEHOLDER))) >= 0:
                    end = min(end, place)
            offsets += [(at, end)] * (
                2 if random.random() < 0.03 else 1
            )  # bytes of one character share its offsets
            ids += [token] * (len(offsets) - len(ids))
            at = end
        return {"input_ids": ids, "offset_mapping": offsets}


def layouts(random: Random) -> Any:
    """A conversation is refused, or every token of it has exactly one name, and the name of a piece that it touches."""

    def text(corpus: list[str]) -> str:
        return mutated(random, corpus, [*CHARACTERS, PLACEHOLDER, "\n"])

    n_options = int(random.random() * 5)
    question = Question(
        question_id="q",
        video_id="v",
        task="t",
        clip=Clip("v.mp4"),
        stem=text(STEMS),
        options=tuple(text(PIECES) for _ in range(n_options)),
        target=int(random.random() * n_options) if n_options else "left",
        protocol="paper",
        prompts={
            "chat": Prompt(
                "", "Question: ", "\nOptions:\n", "({letter}) {text}", "\n", " Answer.", "", "Watch. "
            )
        },
    )
    n_frames, per_frame = 1 + int(random.random() * 3), 1 + int(random.random() * 4)
    frames = tuple((Segment("frame", index), per_frame) for index in range(n_frames))
    pieces = [
        Text(text(["You help.", "a"]) or "a", Segment("system")),
        Video(PLACEHOLDER, frames),
        *user_pieces(question, "chat"),
        Text(text(["ASSISTANT:", "(", ""]), Segment("template")),
    ]
    cutter = Cutter(random)
    conversation = tokenize(cutter, pieces, question)  # pyright: ignore[reportArgumentType]
    layout, ids = conversation.layout, conversation.input_ids.tolist()
    names = [layout.segments[index] for index in layout.segment_of.tolist()]
    assert conversation.text == "".join(piece.text for piece in pieces)
    assert len(ids) == len(names) == len(layout) == int(layout.sizes.sum())
    assert len(set(layout.segments)) == len(layout.segments)
    assert names[-1] == Segment("last") and names.count(Segment("last")) == 1
    for index in range(n_frames):
        assert names.count(Segment("frame", index)) == per_frame
    first = names.index(Segment("frame", 0))
    assert [name.index for name in names[first : first + n_frames * per_frame]] == [
        index for index in range(n_frames) for _ in range(per_frame)
    ]
    assert all((token == 1) == (name.kind == "frame") for token, name in zip(ids, names, strict=True))
    assert all(Segment("option", index) in names for index in range(n_options))
    assert layout.true_option == (question.target if n_options else None)
    return layout


TARGETS: dict[str, Target] = {
    "interventions": interventions,
    "answers": answers,
    "records": records,
    "rows": rows,
    "layouts": layouts,
}


def accepted(target: Target, random: Random) -> bool:
    """One execution: True where the input was taken, False where it was refused in one line."""
    try:
        return target(random) is not None
    except MapflowError as error:
        assert str(error).strip() and "\n" not in str(error), error
        return False
