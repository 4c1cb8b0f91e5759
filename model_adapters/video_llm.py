"""VideoLLM: the contract between a model family and everything that runs it.

A family turns a question into named positions (`prepare`: frames, tokens, layout; CPU work that may
run in a background thread) and the video into decoder inputs (`embed`). Running the decoder under
an intervention, reading probabilities and generating are the same for all families: see
`inference/answering.py` and `interventions/`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mapflow.model_adapters.conversation import (
    Conversation,
    letter_ids,
    next_token_id,
    user_pieces,
)
from mapflow.model_adapters.frame_grid import View
from mapflow.model_adapters.interventions import (
    Compiled,
    Decoder,
    DecoderInputs,
    Intervention,
    PathwayRanges,
    TokenLayout,
)
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import PromptStyle, Question


@dataclass(frozen=True)
class Prepared:
    """One question, ready for the model: CPU tensors only.

    Attributes:
        input_ids: the expanded prompt, one id per position; video positions hold the family's
            placeholder id.
        layout: the name of every position.
        vision: inputs of the vision tower, such as `pixel_values`.
        frame_indices: the source frames that are shown.
        repeated_frames: how many of them repeat another one because the clip is too short.
        option_ids: the token of each option's letter right after the prompt.
        target_id: the first token of the correct answer, -1 if that is not known.
    """

    question: Question
    input_ids: Int[Tensor, " n"]
    layout: TokenLayout
    vision: Mapping[str, Tensor]
    frame_indices: tuple[int, ...]
    repeated_frames: int
    option_ids: tuple[int, ...]
    target_id: int


def longest_sequence(config: Any) -> int | None:
    """The longest sequence that a language model's config declares; None if it declares none.

    That is `max_position_embeddings`. Rotary scaling that stretches a shorter training length
    multiplies it: "linear" and "dynamic" the declared length, "yarn" the original one. For other
    types ("longrope", "llama3") the declared length is already the stretched one.
    """
    config = config.get_text_config(decoder=True)
    declared = getattr(config, "max_position_embeddings", None)
    if not isinstance(declared, int) or declared <= 0:
        return None
    rope = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in rope.values() if isinstance(value, Mapping)]  # by layer type
    return max(_stretched(declared, one) for one in nested or [rope])


def _stretched(declared: int, rope: Mapping[str, Any]) -> int:
    factor = rope.get("factor") or 1.0
    match rope.get("rope_type"):
        case "linear" | "dynamic":
            return int(declared * max(factor, 1.0))
        case "yarn":
            return max(declared, int((rope.get("original_max_position_embeddings") or 0) * factor))
    return declared


class VideoLLM(ABC):
    """One loaded checkpoint of a family.

    Attributes:
        family: short name of the family, used in messages.
        prompt_style: which wording of a protocol the family was trained on.
        architectures: entries of a config.json's `architectures` that `load` accepts.
        model: the whole network.
        decoder: runs the language model under interventions.
        pathways: the checkpoint's effective layer ranges, None if none have been published.
        digest: SHA-256 over the checkpoint's weight files.
        name: the checkpoint's name in records; `registry.load_model` adds the arguments that
            differ from the family's defaults.
        arguments: the family's own arguments (`--model_args`) with their values, defaults included.
        frames_per_segment: source frames per `frame` segment; greater than 1 if the model merges
            frames.
    """

    family: ClassVar[str]
    prompt_style: ClassVar[PromptStyle]
    architectures: ClassVar[tuple[str, ...]] = ()

    model: torch.nn.Module
    tokenizer: PreTrainedTokenizerBase
    decoder: Decoder
    pathways: PathwayRanges | None
    digest: str
    name: str
    arguments: Mapping[str, Any] = MappingProxyType({})
    frames_per_segment: int = 1

    @classmethod
    def reads(cls, architecture: str) -> bool:
        """Whether `load` accepts checkpoints of this architecture (config.json's
        `architectures`)."""
        return architecture in cls.architectures

    @classmethod
    @abstractmethod
    def load(
        cls,
        path: str | Path,
        dtype: str | torch.dtype = "auto",
        device_map: str | Mapping[str, Any] = "cpu",
        lora: str | Path | None = None,
    ) -> VideoLLM:
        """Loads a checkpoint folder, with a LoRA folder on top if one is given.

        `network_loading.py` describes `dtype` and `device_map`. Arguments that a family adds are
        options of `--model_args`. Raises MapflowError for a folder that is missing, incomplete, of
        another family, or whose tensors do not fit.
        """

    @abstractmethod
    def prepare(self, question: Question) -> Prepared:
        """Decodes the clip's frames, renders and tokenizes the conversation, names every position.

        Raises VideoError for an unreadable clip and MapflowError if an option cannot be located in
        the prompt.
        """

    @abstractmethod
    def embed(self, prepared: Sequence[Prepared]) -> list[DecoderInputs]:
        """Decoder inputs of each prompt, with the video tokens in place; every clip is encoded
        once."""

    def continued(
        self, prepared: Prepared, inputs: DecoderInputs, tokens: Sequence[int]
    ) -> DecoderInputs:
        """Decoder inputs of the prompt followed by text tokens, as if they had been generated."""
        table = self.decoder.core.get_input_embeddings()
        return inputs.followed_by(table(torch.tensor(tokens, device=self.decoder.device)))

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a generated answer. A family adds those that close a turn."""
        end = self.tokenizer.eos_token_id
        return (end,) if isinstance(end, int) else ()

    def text(self, ids: Sequence[int]) -> str:
        """Decoded tokens without special ones and without surrounding space."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    def begins_right(self, prepared: Prepared, token: int) -> bool:
        """Whether a token is the first one of an open-ended question's expected answer.

        Both are decoded and compared in lower case, as in the authors' code.
        """
        if prepared.target_id < 0:  # no expected answer is known
            return False
        text, right = (self.text([one]).lower() for one in (token, prepared.target_id))
        return token == prepared.target_id or (text == right and text != "")

    def token_grid(self, prepared: Prepared) -> Int[Tensor, "frame row column"]:
        """Positions of each frame segment's tokens, as they lie on the part of the picture that
        `view` returns.

        Raises MapflowError if that is unknown for this model.
        """
        raise MapflowError(f"where the video tokens of {self.name} lie on a frame is not known")

    def view(self, height: int, width: int) -> View:
        """The part that the model sees of source frames of this size (pixels): by default all of
        it."""
        return View(0, 0, height, width)

    def answer_ids(self, prompt: str, letters: Sequence[str]) -> tuple[int, ...]:
        """The token of each option's letter right after the prompt. Raises MapflowError if one has
        none."""
        return letter_ids(self.tokenizer, letters)

    def prepared(
        self,
        question: Question,
        conversation: Conversation,
        vision: Mapping[str, Tensor],
        frame_indices: Sequence[int],
    ) -> Prepared:
        """Assembles a tokenized conversation, the vision inputs and the ids of the answers.

        Raises MapflowError for a prompt that is longer than the model takes.
        """
        self.check_length(question, len(conversation.input_ids))
        option_ids = self.answer_ids(conversation.text, question.letters)
        return Prepared(
            question=question,
            input_ids=conversation.input_ids,
            layout=conversation.layout,
            vision=vision,
            frame_indices=tuple(frame_indices),
            repeated_frames=len(frame_indices) - len(set(frame_indices)),
            option_ids=option_ids,
            target_id=option_ids[question.target]
            if isinstance(question.target, int)
            else next_token_id(self.tokenizer, conversation.text, question.target)
            if question.target
            else -1,
        )

    def compile(
        self, intervention: Intervention, prepared: Prepared, inputs: DecoderInputs
    ) -> Compiled:
        """The intervention on one prompt, whose decoder inputs tell the edges that the model has.

        Raises MapflowError if it does not fit the prompt or the model.
        """
        (one,) = self.compile_all([intervention], prepared, inputs)
        return one

    def compile_all(
        self, interventions: Sequence[Intervention], prepared: Prepared, inputs: DecoderInputs
    ) -> list[Compiled]:
        """As `compile`; the interventions share the model's edges."""
        own, n_layers = self.decoder.own_edges(inputs), self.decoder.n_layers
        key = prepared.question.question_id
        return [
            one.compile(prepared.layout, n_layers, self.pathways, key, own) for one in interventions
        ]

    @property
    def most_positions(self) -> int | None:
        """The longest sequence that the language model was made for; None if it has no limit."""
        return longest_sequence(self.decoder.core.config)

    def check_text(self, question: Question) -> None:
        """Raises MapflowError if the text of the user's turn alone is longer than the model takes.

        For `prepare` to call before it reads the video.
        """
        text = "".join(piece.text for piece in user_pieces(question, self.prompt_style))
        self.check_length(question, len(self.tokenizer(text)["input_ids"]), "tokens of text alone")

    def check_length(self, question: Question, n: int, what: str = "prompt tokens") -> None:
        """Raises MapflowError if `n` tokens and the answer's take more positions than there are.

        The last token of an answer is not read again, so it takes none.
        """
        most, new = self.most_positions, question.max_new_tokens
        if most is not None and n + new - 1 > most:
            answer = f" and up to {new:,} new ones" if new > 1 else ""
            raise MapflowError(
                f"question {question.question_id!r} has {n:,} {what}{answer}, but {self.name} takes"
                f" {most:,} positions (max_position_embeddings): shorten the question or show fewer"
                " frames"
            )

    @torch.inference_mode()
    def plain_logits(self, prepared: Prepared) -> Float[Tensor, " vocab"]:
        """Float32 logits at the last position by the model's own forward pass, without
        interventions.

        The start of every run and `mapflow verify` compare the intervention `full` with them. A
        family whose model runs from pixels to logits in one call overrides this with that call.
        """
        (inputs,) = self.embed([prepared])
        if not inputs.plain:
            raise NotImplementedError(f"{type(self).__name__} must override plain_logits")
        return (
            self.decoder.model(inputs_embeds=inputs.embeds[None], use_cache=False)
            .logits[0, -1]
            .float()
        )
