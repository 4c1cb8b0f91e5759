"""Training data: scenes and conversations about them, as arrays, made in parallel processes.

A training row is a scene, rendered later on the GPU, and one conversation about it: tokens with the
segment of each. All rows share one prefix, which ends with the video's `<image>` token; rows hold
the tokens after it. Held-out questions are excluded by their fingerprints.
"""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from mapflow.model_adapters.mini.planted import ANSWER, LAST, QUESTION, SYSTEM, TEMPLATE
from mapflow.model_adapters.mini.tokenizer import IMAGE_TOKEN, train_tokenizer
from mapflow.results.contract.question import LETTERS, Clip, Prompt, Question
from mapflow.tasks import motion
from mapflow.tasks.motion.build import held_out_fingerprints
from mapflow.tasks.motion.captions import DESCRIBE, caption
from mapflow.tasks.motion.render import SceneBatch, batch_scenes
from mapflow.tasks.motion.scenes import SUBTASKS, Ask, Scene, fingerprint, sample

Format = Literal["caption", "open", "choice"]
FORMATS: tuple[Format, ...] = get_args(Format)
END_OF_TEXT = "</s>"
SUFFIX_LENGTH = 69
"""Tokens after the video, padding included."""

Mix = Mapping[Format, float]
FIRST_MIX: Mix = {"caption": 0.3, "open": 0.3, "choice": 0.4}
"""Dense targets come first: with letters only, accuracy was at chance after 1.7 million rows."""
SECOND_MIX: Mix = {"caption": 0.05, "open": 0.1, "choice": 0.85}
ONLY_CHOICES: Mix = {"choice": 1.0}


class Piece(NamedTuple):
    """A part of the conversation and the segment of its tokens."""

    segment: int
    text: str


def load_prompt(protocol: str = "paper") -> Prompt:
    """The benchmark's prompt for completion models."""
    return motion.BENCHMARK.protocol(protocol).prompts["completion"]


def converse(prompt: Prompt, scene: Scene, ask: Ask, fmt: Format) -> list[Piece]:
    """A conversation of the LLaVA family, including the answer and the end of text.

    The joined texts read `{system}\\n USER: <image>\\n USER: {turn}
    ASSISTANT:{prefix}{answer}</s>`. The last token of the prompt belongs to the template here;
    `encode` moves it to its own segment.
    """
    pieces = [Piece(SYSTEM, f"{prompt.system} USER: {IMAGE_TOKEN}"), Piece(TEMPLATE, "\n USER: ")]
    if fmt == "caption":
        pieces += [Piece(QUESTION, DESCRIBE), Piece(TEMPLATE, " ASSISTANT:")]
        return [*pieces, Piece(ANSWER, f" {caption(scene)}{END_OF_TEXT}")]
    if fmt == "open":
        pieces += [
            Piece(QUESTION, f"{prompt.stem_label}{ask.stem}"),
            Piece(TEMPLATE, " ASSISTANT:"),
        ]
        return [*pieces, Piece(ANSWER, f" {ask.answer}.{END_OF_TEXT}")]
    for part in as_question(prompt, ask).user_turn("completion"):
        pieces.append(Piece(TEMPLATE if part.kind == "template" else QUESTION, part.text))
    pieces.append(Piece(TEMPLATE, f" ASSISTANT:{prompt.answer_prefix}"))
    return [*pieces, Piece(ANSWER, f"{LETTERS[ask.target]}) {ask.answer}{END_OF_TEXT}")]


def as_question(prompt: Prompt, ask: Ask) -> Question:
    """The benchmark's `Question`, so that training and evaluation share one wording."""
    return Question(
        question_id="",
        video_id="",
        task=ask.subtask,
        clip=Clip(""),
        stem=ask.stem,
        options=ask.options,
        target=ask.target,
        protocol="paper",
        prompts={"completion": prompt},
    )


@dataclass(frozen=True)
class Rows:
    """Training rows.

    ids: tokens after the video, padded with `<pad>`.
    segments: segment codes of these tokens (`planted`); padding has `ANSWER`.
    choices: 1 for multiple choice, 0 for captions and open questions.
    subtasks: index into `SUBTASKS`.
    """

    scenes: SceneBatch
    ids: Int[Tensor, "rows suffix"]
    segments: Int[Tensor, "rows suffix"]
    choices: Int[Tensor, " rows"]
    subtasks: Int[Tensor, " rows"]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: Tensor | slice) -> Rows:
        return Rows(*(getattr(self, field.name)[index] for field in fields(self)))

    def to(self, device: torch.device | str) -> Rows:
        return Rows(*(getattr(self, field.name).to(device) for field in fields(self)))


def questions(rng: random.Random, avoid: frozenset[str]) -> Iterator[tuple[Scene, Ask]]:
    """Yields scenes with one question each, uniform over subtasks, no fingerprint in `avoid`."""
    subtasks = tuple(SUBTASKS)
    while True:
        scene, asks = sample(rng, rng.choice(subtasks))
        ask = rng.choice(asks)
        if fingerprint(scene, ask) not in avoid:
            yield scene, ask


def benchmark_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer, trained on the benchmark's conversations."""
    prompt, stream = load_prompt(), questions(random.Random("vocabulary"), frozenset())
    texts = []
    for scene, ask in islice(stream, 1500):
        for fmt in FORMATS:
            text = "".join(piece.text for piece in converse(prompt, scene, ask, fmt))
            texts += [f" {half}" for half in text.removesuffix(END_OF_TEXT).split(IMAGE_TOKEN)]
    return train_tokenizer(texts)


def encode(
    tokenizer: PreTrainedTokenizerFast, conversations: list[list[Piece]]
) -> tuple[list[int], Int[Tensor, "rows suffix"], Int[Tensor, "rows suffix"]]:
    """Returns the prefix up to and including `<image>`, and the ids and segments after it.

    A token belongs to the piece of its last character; the last token of the prompt gets the
    segment `LAST`. Raises ValueError for a conversation with more than `SUFFIX_LENGTH` tokens after
    the video.
    """
    texts = ["".join(piece.text for piece in pieces) for pieces in conversations]
    encoded = tokenizer(texts, return_offsets_mapping=True)
    shape = (len(conversations), SUFFIX_LENGTH)
    ids, segments = np.full(shape, tokenizer.pad_token_id), np.full(shape, ANSWER)
    prefix: list[int] = []
    tokens = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    for row, (pieces, (row_ids, offsets)) in enumerate(zip(conversations, tokens, strict=True)):
        prefix = row_ids[: row_ids.index(tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)) + 1]
        suffix = np.array(row_ids[len(prefix) :])
        if len(suffix) > SUFFIX_LENGTH:
            raise ValueError(
                f"a conversation has {len(suffix)} tokens after the video,"
                f" more than {SUFFIX_LENGTH}"
            )
        lengths = [len(piece.text) for piece in pieces]
        segment_of_character = np.repeat([piece.segment for piece in pieces], lengths)
        ends = np.array([end for _, end in offsets[len(prefix) :]])
        named = segment_of_character[ends - 1]
        named[np.argmax(named == ANSWER) - 1] = LAST
        ids[row, : len(suffix)], segments[row, : len(suffix)] = suffix, named
    return prefix, torch.from_numpy(ids), torch.from_numpy(segments)


def make_rows(
    seed: str, n_rows: int, mix: Mix, tokenizer: PreTrainedTokenizerFast, avoid: frozenset[str]
) -> Rows:
    """`n_rows` rows with formats drawn from `mix`. Equal seeds give equal rows."""
    rng, prompt = random.Random(seed), load_prompt()
    drawn = list(islice(questions(rng, avoid), n_rows))
    formats = rng.choices(list(mix), list(mix.values()), k=n_rows)
    pieces = [converse(prompt, *pair, fmt) for pair, fmt in zip(drawn, formats, strict=True)]
    _, ids, segments = encode(tokenizer, pieces)
    subtasks = [list(SUBTASKS).index(ask.subtask) for _, ask in drawn]
    return Rows(
        batch_scenes([scene for scene, _ in drawn]),
        ids.to(torch.int32),
        segments.to(torch.int8),
        torch.tensor([fmt == "choice" for fmt in formats]).long(),
        torch.tensor(subtasks),
    )


class RowFactory:
    """Makes rows in `workers` background processes. The rows depend on the seed only."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, workers: int, chunk: int = 4000) -> None:
        self.tokenizer, self.chunk = tokenizer, chunk
        self.avoid = held_out_fingerprints()
        self.pool = multiprocessing.get_context("fork").Pool(workers, initializer=_one_thread)

    def order(self, seed: str, n_rows: int, mix: Mix) -> Callable[[], Rows]:
        """Starts making rows. The returned function waits for them and returns them."""
        sizes = [min(self.chunk, n_rows - start) for start in range(0, n_rows, self.chunk)]
        jobs = [
            (f"{seed} {index}", size, mix, self.tokenizer, self.avoid)
            for index, size in enumerate(sizes)
        ]
        result = self.pool.starmap_async(_make_arrays, jobs, chunksize=1)
        return lambda: _join(result.get())

    def close(self) -> None:
        self.pool.terminate()


Arrays = tuple[list[np.ndarray], list[np.ndarray]]


def _make_arrays(*job: Any) -> Arrays:
    """`make_rows` as arrays: each tensor sent between processes would hold a file descriptor."""
    rows = make_rows(*job)
    scenes = [getattr(rows.scenes, field.name).numpy() for field in fields(SceneBatch)]
    return scenes, [getattr(rows, field.name).numpy() for field in fields(Rows)[1:]]


def _join(parts: list[Arrays]) -> Rows:
    scenes, rest = (
        [torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*group, strict=True)]
        for group in zip(*parts, strict=True)
    )
    return Rows(SceneBatch(*scenes), *rest)


def _one_thread() -> None:
    torch.set_num_threads(1)


def prefix_ids(tokenizer: PreTrainedTokenizerFast, prompt: Prompt) -> list[int]:
    """The tokens before the video, without `<image>`."""
    scene, ask = next(questions(random.Random(0), frozenset()))
    return encode(tokenizer, [converse(prompt, scene, ask, "choice")])[0][:-1]
