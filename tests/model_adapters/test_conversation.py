"""Which piece each token belongs to: checked by hand where tokens straddle, and as a property
everywhere else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_llava import PLACEHOLDER, WORDS, tiny_question, tiny_tokenizer
from transformers import PreTrainedTokenizerFast

from mapflow.model_adapters.conversation import (
    Conversation,
    Text,
    Video,
    letter_ids,
    load_tokenizer,
    next_token_id,
    tokenize,
    user_pieces,
)
from mapflow.model_adapters.interventions import Segment
from mapflow.results.contract.errors import MapflowError

SYSTEM, LABEL, STEM, TEMPLATE, LAST = (
    Segment(kind) for kind in ("system", "label", "stem", "template", "last")
)
FIRST, SECOND = Segment("option", 0), Segment("option", 1)


def wrap(words=WORDS) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(words), bos_token="<s>", unk_token="<unk>"
    )


TOKENIZER = wrap()
QUESTION = tiny_question()
OPEN = tiny_question(options=(), target="left")


def named(conversation: Conversation, tokenizer=TOKENIZER) -> list[tuple[str, Segment]]:
    tokens = tokenizer.convert_ids_to_tokens(conversation.input_ids.tolist())
    layout = conversation.layout
    return [
        (token, layout.segments[int(index)])
        for token, index in zip(tokens, layout.segment_of, strict=True)
    ]


def test_start_token_goes_with_the_first_piece_and_the_last_token_is_last():
    said = named(tokenize(TOKENIZER, [Text("the", SYSTEM), Text(" ball!", TEMPLATE)], OPEN))
    assert said == [("<s>", SYSTEM), ("▁the", SYSTEM), ("▁ball", TEMPLATE), ("!", LAST)]


@pytest.mark.parametrize(
    ("before", "after", "owner"),
    [
        (LABEL, STEM, STEM),
        (STEM, LABEL, STEM),
        (LABEL, FIRST, FIRST),
        (FIRST, LABEL, FIRST),
        (FIRST, TEMPLATE, FIRST),
        (TEMPLATE, LABEL, LABEL),
        (LABEL, TEMPLATE, LABEL),
        (SYSTEM, TEMPLATE, SYSTEM),
        (FIRST, SECOND, FIRST),
    ],
)
def test_a_straddling_token_belongs_to_what_the_paper_counts_it_to(before, after, owner):
    """ "▁ball" is one token; the border runs through its middle."""
    said = named(
        tokenize(TOKENIZER, [Text("x ba", before), Text("ll!", after), Text(".", TEMPLATE)], OPEN)
    )
    assert dict(said)["▁ball"] == owner


def test_placeholder_becomes_its_runs():
    runs = ((Segment("frame", 0), 2), (Segment("frame", 1), 3))
    conversation = tokenize(
        TOKENIZER, [Text("a", SYSTEM), Video(PLACEHOLDER, runs), Text("\nb", TEMPLATE)], OPEN
    )
    said = named(conversation)
    assert said[:2] == [("<s>", SYSTEM), ("▁", SYSTEM)]
    assert said[3:8] == [(PLACEHOLDER, frame) for frame, size in runs for _ in range(size)]
    # A special token restarts the text: the dummy space in front of "\n" belongs to what follows
    # it.
    assert said[8:] == [("▁", TEMPLATE), ("<0x0A>", TEMPLATE), ("b", LAST)]


def test_several_placeholders():
    frames = [Video(PLACEHOLDER, ((Segment("frame", index), 2),)) for index in range(3)]
    layout = tokenize(TOKENIZER, [Text("a", SYSTEM), *frames, Text("b", TEMPLATE)], OPEN).layout
    assert [layout.positions(f"frame[{index}]").numel() for index in range(3)] == [2, 2, 2]


def test_bytes_of_one_character_stay_together():
    said = named(
        tokenize(TOKENIZER, [Text("a", LABEL), Text("é漢", STEM), Text("😀b", TEMPLATE)], OPEN)
    )
    assert [segment for _, segment in said] == [LABEL] * 3 + [STEM] * 5 + [TEMPLATE] * 4 + [LAST]


def test_parts_of_a_question_keep_their_kind():
    pieces = user_pieces(QUESTION, "completion")
    assert "".join(piece.text for piece in pieces).startswith("Question: Where")
    assert [piece.segment for piece in pieces] == [
        LABEL,
        STEM,
        LABEL,
        FIRST,
        LABEL,
        SECOND,
        TEMPLATE,
    ]


def test_true_option_is_the_target():
    layout = tokenize(
        TOKENIZER, user_pieces(tiny_question(target=1), "completion"), tiny_question(target=1)
    ).layout
    assert layout.true_option == 1
    assert layout.positions("true_option").tolist() == layout.positions("option[1]").tolist()
    assert tokenize(TOKENIZER, user_pieces(OPEN, "completion"), OPEN).layout.true_option is None


pieces = st.lists(
    st.builds(
        Text,
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
        st.sampled_from([LABEL, STEM, TEMPLATE, SYSTEM]),
    ),
    min_size=1,
    max_size=8,
)


@settings(deadline=None, max_examples=60)
@given(pieces)
def test_every_token_lies_in_its_piece(parts):
    """Reference implementation: search, for every token, all pieces that share a character with
    it."""
    conversation = tokenize(TOKENIZER, parts, OPEN)
    offsets = TOKENIZER(conversation.text, return_offsets_mapping=True)["offset_mapping"]
    assert len(conversation.layout) == len(offsets)
    ends = [sum(len(part.text) for part in parts[: index + 1]) for index in range(len(parts))]
    strength = {STEM: 3, LABEL: 2, TEMPLATE: 1, SYSTEM: 1}
    for (_, segment), (start, end) in list(zip(named(conversation), offsets, strict=True))[:-1]:
        touched = [
            part.segment
            for part, stop in zip(parts, ends, strict=True)
            if stop - len(part.text) < max(end, start + 1) and stop > start
        ]
        assert segment in touched
        assert strength[segment] == max(strength[each] for each in touched)


def test_an_option_without_tokens_is_an_error():
    """One token swallows the second option whole."""
    tokenizer = wrap([*WORDS, "ab"])
    question = tiny_question(options=("x", "y"))
    with pytest.raises(MapflowError, match=r"tiny-1.*option B \('y'\)"):
        tokenize(tokenizer, [Text("a", FIRST), Text("b", SECOND), Text("!", TEMPLATE)], question)


def test_an_option_as_last_token_is_an_error():
    with pytest.raises(MapflowError, match="option B"):
        tokenize(TOKENIZER, [Text("x", FIRST), Text("y", SECOND)], QUESTION)


def test_placeholder_in_the_question_is_an_error():
    question = tiny_question(stem=f"What is {PLACEHOLDER}?")
    video = Video(PLACEHOLDER, ((Segment("frame", 0), 2),))
    parts = [Text("a", SYSTEM), video, *user_pieces(question, "completion")]
    with pytest.raises(MapflowError, match=r"tiny-1.*contains '<image>'"):
        tokenize(TOKENIZER, parts, question)


def test_unknown_placeholder_is_an_error():
    with pytest.raises(MapflowError, match="splits the video placeholder '<video>'"):
        tokenize(
            TOKENIZER, [Text("a", SYSTEM), Video("<video>", ((Segment("frame", 0), 2),))], OPEN
        )


def test_letters_are_bare():
    vocabulary = TOKENIZER.get_vocab()
    assert letter_ids(TOKENIZER, "ABG") == tuple(vocabulary[letter] for letter in "ABG")
    with pytest.raises(MapflowError, match="'Ä'"):
        letter_ids(TOKENIZER, ["A", "Ä"])


@pytest.mark.parametrize(
    ("text", "continuation", "token"),
    [
        ("the ball", "left", "▁left"),
        ("the (", "left", "l"),
        ("the\n", "right", "r"),
        ("", "left", "▁left"),
        ("the", "?", "?"),  # the authors' code skips tokens that decode to nothing
    ],
)
def test_first_token_of_an_open_answer(text, continuation, token):
    found = next_token_id(TOKENIZER, text, continuation)
    assert TOKENIZER.convert_ids_to_tokens(found) == token


def test_no_tokenizer(tmp_path):
    with pytest.raises(MapflowError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(MapflowError, match=r"tokenizer\.json cannot be read"):
        load_tokenizer(tmp_path)
