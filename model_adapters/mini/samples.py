"""Training rows: many scenes and conversations as arrays, made by all cores at once.

A row is a scene (to be rendered later, on the GPU) and one conversation about it in tokens with the segment of each.
The video's `<image>` token is the last of the prefix, which is the same for every row; rows hold what follows it.
Held-out questions are dropped here, by fingerprint.
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
Mix = Mapping[Format, float]
FIRST_MIX: Mix = {"caption": 0.3, "open": 0.3, "choice": 0.4}
"""Letters alone teach nothing for a long time: dense targets first (design.md, The bundled model)."""
SECOND_MIX: Mix = {"caption": 0.05, "open": 0.1, "choice": 0.85}
ONLY_CHOICES: Mix = {"choice": 1.0}


class Piece(NamedTuple):
    """A stretch of the conversation and the segment that its tokens belong to."""

    segment: int
    text: str


def load_prompt(protocol: str = "paper") -> Prompt:
    """The benchmark's wording for completion models."""
    return motion.BENCHMARK.protocol(protocol).prompts["completion"]


def converse(prompt: Prompt, scene: Scene, ask: Ask, fmt: Format) -> list[Piece]:
    """A whole conversation of the LLaVA family, answer and end of text included.

    The pieces' texts joined are `{system}\\n USER: <image>\\n USER: {turn} ASSISTANT:{prefix}{answer}</s>`. The prompt's last
    token is still part of the template here (`samples` names it).
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
    """The ask in the terms that benchmarks and adapters share, so that training cannot drift from evaluation."""
    return Question(
        question_id="", video_id="", task=ask.subtask, clip=Clip(""), stem=ask.stem, options=ask.options,
        target=ask.target, protocol="paper", prompts={"completion": prompt},
    )  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """`ids` and `segments` after the video, padded with `<pad>` and `ANSWER`; `choices` is 1 for choices, else 0."""

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
    """Endless scenes with a question each, all subtasks alike, none of whose fingerprints is in `avoid`."""
    subtasks = tuple(SUBTASKS)
    while True:
        scene, asks = sample(rng, rng.choice(subtasks))
        ask = rng.choice(asks)
        if fingerprint(scene, ask) not in avoid:
            yield scene, ask


def benchmark_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of the benchmark's conversations."""
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
    """(the prefix up to and with `<image>`, ids after it, segments after it).

    A token belongs to the piece of its last character; the prompt's last token becomes segment `LAST`.
    Raises ValueError if a conversation is longer than `SUFFIX_LENGTH` after the video.
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
                f"a conversation has {len(suffix)} tokens after the video, more than {SUFFIX_LENGTH}"
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
    """`n_rows` rows whose formats are drawn from `mix`; equal seeds give equal rows."""
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
    """Makes rows on `workers` processes, in the background; the rows depend on the seed alone."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, workers: int, chunk: int = 4000) -> None:
        self.tokenizer, self.chunk = tokenizer, chunk
        self.avoid = held_out_fingerprints()
        self.pool = multiprocessing.get_context("fork").Pool(workers, initializer=_one_thread)

    def order(self, seed: str, n_rows: int, mix: Mix) -> Callable[[], Rows]:
        """Starts making rows; the returned function waits for them."""
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
    """As arrays, because tensors sent between processes hold a file descriptor each."""
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
    """The tokens before the video, `<image>` excluded."""
    scene, ask = next(questions(random.Random(0), frozenset()))
    return encode(tokenizer, [converse(prompt, scene, ask, "choice")])[0][:-1]
