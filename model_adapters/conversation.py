"""From the named pieces of a conversation to tokens with the same names.

The whole text is tokenized at once, as in the models' training. The fast tokenizer's character
offsets tell which piece each token comes from, so nothing is searched for in decoded text. Offsets
are taken for the ids that the model receives: ids that the text does not have are refused. A family
lists the pieces. A video is one placeholder token that is expanded to as many video tokens as its
runs say.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mapflow.model_adapters.interventions import Segment, TokenLayout
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import PromptStyle, Question
from mapflow.results.contract.visible_text import counted

# Priority of the kinds for a token that lies in two pieces. The authors' code counts such a token
# as question, stem or option if one of its characters lies there. Other kinds (system, template,
# last) come last.
OWNERS = ("stem", "option", "label")


@dataclass(frozen=True)
class Text:
    """Text that belongs to one segment."""

    text: str
    segment: Segment


@dataclass(frozen=True)
class Video:
    """One placeholder token, and the (segment, number of tokens) that replace it."""

    placeholder: str
    runs: tuple[tuple[Segment, int], ...]

    @property
    def text(self) -> str:
        return self.placeholder


@dataclass(frozen=True)
class Conversation:
    """The rendered text, its ids with placeholders expanded, and the name of each position."""

    text: str
    input_ids: Int[Tensor, " n"]
    layout: TokenLayout


def user_pieces(question: Question, style: PromptStyle) -> list[Text]:
    """The pieces of the user's turn: stem, options and the text between them."""
    return [
        Text(part.text, Segment(part.kind, part.option or 0)) for part in question.user_turn(style)
    ]


def tokenize(
    tokenizer: PreTrainedTokenizerBase, pieces: Sequence[Text | Video], question: Question
) -> Conversation:
    """Tokenizes the joined pieces and names every token; the first piece must be text.

    The final token is always `last`. Raises MapflowError if an option has no token of its own, if
    the question contains the video placeholder, if the tokenizer splits the placeholder, or as
    `offsets_of`.
    """
    pieces = [piece for piece in pieces if piece.text]
    text = "".join(piece.text for piece in pieces)
    received = tokenizer(text)["input_ids"]
    offsets = offsets_of(received, text, tokenizer)
    tokens = [*zip(received, owners(pieces, offsets), strict=True)]
    _check_placeholders(tokens, pieces, question)
    ids: list[int] = []
    runs: list[tuple[Segment, int]] = []
    for token, owner in tokens:
        here = owner.runs if isinstance(owner, Video) else ((owner.segment, 1),)
        runs += here
        ids += [token] * sum(size for _, size in here)
    segment, size = runs.pop()
    runs += [(segment, size - 1), (Segment("last"), 1)]
    check_options(runs, question)
    true_option = question.target if isinstance(question.target, int) else None
    return Conversation(
        text, torch.tensor(ids, dtype=torch.long), TokenLayout.from_runs(runs, true_option)
    )


def offsets_of(
    received: Sequence[int], text: str, tokenizer: PreTrainedTokenizerBase
) -> list[tuple[int, int]]:
    """The (start, end) of each received token's characters in `text`.

    The ids are those of the text, with or without special tokens before them, which get (0, 0).
    Raises MapflowError for any others (appended, inserted, changed, truncated), and if characters
    of the text are in no token.
    """
    encoded = backend(tokenizer).encode(text, add_special_tokens=False)
    ids, offsets = encoded.ids, encoded.offsets
    before = len(received) - len(ids)
    if list(received[max(before, 0) :]) != ids or not _special(received[:before], tokenizer):
        place = next(
            (i for i, both in enumerate(zip(received, ids, strict=False)) if both[0] != both[1]), 0
        )
        raise MapflowError(
            f"the model would receive {counted(len(received), 'token')} for a text of {len(ids)}"
            f" (they differ"
            f" from token {place + 1} on: {_shown(received[place:], tokenizer)} instead of"
            f" {_shown(ids[place:], tokenizer)}), so no token can be named: use a processor and a"
            " tokenizer that add special tokens at the beginning only"
        )
    covered = bytearray(len(text))
    for start, end in offsets:
        covered[start:end] = b"\1" * (end - start)
    for place in (place for place, known in enumerate(covered) if not known):
        # white space, control characters and combining marks are often joined or normalized away
        if unicodedata.category(text[place])[0] not in "ZCM":
            around = text[max(0, place - 20) : place + 20]
            raise MapflowError(
                f"the tokenizer drops {text[place]!r} from {around!r}; use the checkpoint's own"
                " tokenizer"
            )
    return [(0, 0)] * before + offsets


def backend(tokenizer: PreTrainedTokenizerBase) -> Any:
    """The tokenizer of the `tokenizers` library. Raises MapflowError if there is none."""
    found = getattr(tokenizer, "backend_tokenizer", None)
    if found is None:
        raise MapflowError(
            f"{type(tokenizer).__name__} tells no characters of its tokens: the checkpoint needs a"
            " fast tokenizer (tokenizer.json)"
        )
    return found


def _special(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> bool:
    return set(ids) <= set(tokenizer.all_special_ids)


def _shown(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    return repr(tokenizer.convert_ids_to_tokens([*ids[:3]])) if len(ids) else "nothing"


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The folder's fast tokenizer, exactly as tokenizer.json describes it.

    Raises MapflowError if that file is missing or broken.
    """
    if not (folder / "tokenizer.json").is_file():
        raise MapflowError(f"checkpoint folder {folder} has no tokenizer.json")
    try:
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise MapflowError(f"{folder / 'tokenizer.json'} cannot be read: {error}") from error


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, n: int, folder: Path) -> None:
    """Raises MapflowError for a token beyond the network's `n` embeddings.

    The token of padding may be: prompts are not padded with tokens.
    """
    numbers = {number: token for token, number in tokenizer.get_vocab().items()}
    beyond = [one for one in numbers if one >= n and numbers[one] != tokenizer.pad_token]
    if beyond:
        raise MapflowError(
            f"{folder}: token {numbers[min(beyond)]!r} has the number {min(beyond)}, but the"
            f" network has embeddings of {n} tokens: use the checkpoint's own tokenizer.json"
        )


def letter_ids(tokenizer: PreTrainedTokenizerBase, letters: Sequence[str]) -> tuple[int, ...]:
    """The token of each bare letter, as it follows "(" or the start of a line, without a space.

    Raises MapflowError for a letter that is not a single token.
    """
    vocabulary = tokenizer.get_vocab()
    absent = [letter for letter in letters if letter not in vocabulary]
    if absent:
        raise MapflowError(f"the tokenizer has no token for the option letter {absent[0]!r}")
    return tuple(vocabulary[letter] for letter in letters)


def next_token_id(tokenizer: PreTrainedTokenizerBase, text: str, continuation: str) -> int:
    """The first token of `continuation` after `text` that decodes to more than whitespace.

    Two words are joined by a space. Raises MapflowError for a continuation without such a token.
    """
    joint = "" if not text or text[-1].isspace() or text[-1] in "([" else " "
    encoded = tokenizer(text + joint + continuation, return_offsets_mapping=True)
    spans = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    for token, (_, end) in spans:
        if end > len(text) and str(tokenizer.decode([token])).strip():
            return token
    raise MapflowError(f"the expected answer {continuation!r} has no token of its own")


def owners(
    pieces: Sequence[Text | Video], offsets: Sequence[tuple[int, int]]
) -> list[Text | Video]:
    """The piece that each token belongs to, from the tokens' character offsets (start, end).

    A token without characters (a start token) belongs to the piece of the next character.
    """
    piece_at = [piece for piece in pieces for _ in piece.text]
    last = len(piece_at) - 1
    return [
        min((piece_at[min(at, last)] for at in range(start, max(end, start + 1))), key=_claim)
        for start, end in offsets
    ]


def _claim(piece: Text | Video) -> int:
    """Rank of a piece for a token that lies in several: the lowest wins, placeholders always."""
    if isinstance(piece, Video):
        return -1
    return OWNERS.index(piece.segment.kind) if piece.segment.kind in OWNERS else len(OWNERS)


def _check_placeholders(
    tokens: Sequence[tuple[int, Text | Video]], pieces: Sequence[Text | Video], question: Question
) -> None:
    videos = [piece for piece in pieces if isinstance(piece, Video)]
    found = [(token, owner) for token, owner in tokens if isinstance(owner, Video)]
    if [id(owner) for _, owner in found] != [id(piece) for piece in videos]:
        raise MapflowError(
            f"the tokenizer splits the video placeholder {videos[0].text!r}; use the checkpoint's"
            " own tokenizer"
        )
    ids = {token for token, _ in found}
    if any(token in ids and isinstance(owner, Text) for token, owner in tokens):
        raise MapflowError(
            f"question {question.question_id!r} contains {videos[0].text!r} in its text; reword it"
        )


def check_options(runs: Sequence[tuple[Segment, int]], question: Question) -> None:
    """Raises MapflowError if an option has no token in the runs of (segment, number of tokens)."""
    located = {segment for segment, size in runs if size}
    for index, (letter, option) in enumerate(zip(question.letters, question.options, strict=True)):
        if Segment("option", index) not in located:
            raise MapflowError(
                f"question {question.question_id!r}: option {letter} ({option!r}) has no token of"
                " its own in the prompt"
            )
