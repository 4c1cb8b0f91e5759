"""VideoLLM: what every model family offers, and nothing else about it leaks out.

A family turns a question into positions with names (`prepare`: frames, tokens, layout; CPU work that may run in a
background thread) and video into what the decoder receives (`embed`). Everything after that, running the decoder under an
intervention, reading probabilities, generating, is the same for all families and lives in `answering.py` and in the
instrument. Knows no benchmark and nothing of lmms-eval.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mapflow.model_adapters.conversation import Conversation, letter_ids, next_token_id
from mapflow.model_adapters.frame_grid import View
from mapflow.model_adapters.interventions import Decoder, DecoderInputs, PathwayRanges, TokenLayout
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import PromptStyle, Question


@dataclass(frozen=True)
class Prepared:
    """One question, ready for the model: CPU tensors only.

    `input_ids` is the expanded prompt, one id per position (video positions hold the family's placeholder id).
    `vision` holds what the vision side needs (e.g. `pixel_values`). `frame_indices` are the source frames that were
    shown, `repeated_frames` how many of them repeat another because the clip is too short. `option_ids` is the token
    that each option's letter becomes right after the prompt; `target_id` is the right answer's first token.
    """

    question: Question
    input_ids: Int[Tensor, " n"]
    layout: TokenLayout
    vision: Mapping[str, Tensor]
    frame_indices: tuple[int, ...]
    repeated_frames: int
    option_ids: tuple[int, ...]
    target_id: int


class VideoLLM(ABC):
    """One loaded checkpoint of a family.

    Attributes: `decoder` runs the language model under interventions; `pathways` are the checkpoint's effective layer
    ranges (None where nobody has published any); `digest` identifies the weights (SHA-256 over the checkpoint files);
    `frames_per_segment` is how many source frames a `frame` segment stands for, where the model merges some into one.
    """

    family: ClassVar[str]
    prompt_style: ClassVar[PromptStyle]

    model: torch.nn.Module
    tokenizer: PreTrainedTokenizerBase
    decoder: Decoder
    pathways: PathwayRanges | None
    digest: str
    name: str
    frames_per_segment: int = 1

    def text(self, ids: Sequence[int]) -> str:
        """Tokens as a reader sees them: without special ones and space around."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)).strip()

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a written answer: the tokenizer's end, and what else closes a turn of the family."""
        end = self.tokenizer.eos_token_id
        return (end,) if isinstance(end, int) else ()

    @classmethod
    @abstractmethod
    def load(
        cls,
        path: str | Path,
        dtype: str | torch.dtype = "auto",
        device_map: str | Mapping[str, Any] = "cpu",
        lora: str | Path | None = None,
    ) -> VideoLLM:
        """From a checkpoint folder (`network_loading.py` says what dtype and device_map may be), LoRA adapters too.

        Raises MapflowError for a folder that is missing, incomplete, of another family, or whose tensors do not fit.
        """

    @abstractmethod
    def prepare(self, question: Question) -> Prepared:
        """Decode the clip's frames, render the conversation, tokenize, name every position.

        Raises VideoError for an unreadable clip and MapflowError where an option cannot be located.
        """

    @abstractmethod
    def embed(self, prepared: Sequence[Prepared]) -> list[DecoderInputs]:
        """What the decoder receives for each prompt, the video tokens in place; every clip is encoded once."""

    def token_grid(self, prepared: Prepared) -> Int[Tensor, "frame row column"]:
        """Positions of every frame segment's tokens as they lie on the picture, on what `view` leaves of it.

        Raises MapflowError where that is not known, which says why.
        """
        raise MapflowError(f"where the video tokens of {self.name} lie on a frame is not known")

    def view(self, height: int, width: int) -> View:
        """What the model sees of source frames of this size: all of them, unless they are cropped."""
        return View(0, 0, height, width)

    def prepared(
        self,
        question: Question,
        conversation: Conversation,
        vision: Mapping[str, Tensor],
        frame_indices: Sequence[int],
    ) -> Prepared:
        """A tokenized conversation with what the vision side needs, and the ids that answer it."""
        option_ids = letter_ids(self.tokenizer, question.letters)
        return Prepared(
            question=question,
            input_ids=conversation.input_ids,
            layout=conversation.layout,
            vision=vision,
            frame_indices=tuple(frame_indices),
            repeated_frames=len(frame_indices) - len(set(frame_indices)),
            option_ids=option_ids,
            target_id=next_token_id(self.tokenizer, conversation.text, question.target)
            if isinstance(question.target, str)
            else option_ids[question.target],
        )

    @torch.inference_mode()
    def plain_logits(self, prepared: Prepared) -> Float[Tensor, " vocab"]:
        """Float32 logits at the last position by the model's own forward, without the instrument: what `full` must equal.

        A family whose model runs from pixels to logits in one call overrides this with that call.
        """
        (inputs,) = self.embed([prepared])
        if not inputs.plain:
            raise NotImplementedError(f"{type(self).__name__} has to run its own forward")
        hidden = self.decoder.core(
            inputs_embeds=inputs.embeds[None], use_cache=False
        ).last_hidden_state
        return self.decoder.logits(hidden[0, -1:])[0]
