"""Video models of transformers: Qwen-VL, LLaVA-OneVision, InternVL, Gemma, Molmo and others.

The checkpoint's processor and chat template make the tokens, character offsets name them
(`chat.py`), and the model's own forward computes the decoder inputs (`capture.py`). Models that do
not fit are refused; `mapflow verify` checks the others.

Two differences from the processor's own treatment of videos: frames are chosen by the paper's rule
for LLaVA and InternVL (8, or the protocol's number), and times told to the model count from the
clip's start.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mapflow.model_adapters.checkpoints.declared import checkpoint_identity, find_base
from mapflow.model_adapters.checkpoints.network_loading import resolve_dtype
from mapflow.model_adapters.conversation import Conversation, next_token_id
from mapflow.model_adapters.families.hf.capture import decoder_inputs, holds_tensors
from mapflow.model_adapters.families.hf.chat import Chat, chat_layout, render, tokens_per_frame
from mapflow.model_adapters.families.hf.loading import (
    empty_model,
    is_native,
    load_model,
    load_processor,
    native_config,
)
from mapflow.model_adapters.frame_grid import View, centred_view, token_grid
from mapflow.model_adapters.interventions import Decoder, DecoderInputs, PathwayRanges
from mapflow.model_adapters.video.reader import SampledFrames, read_frames
from mapflow.model_adapters.video.sampling import segment_midpoints
from mapflow.model_adapters.video_llm import Prepared, VideoLLM
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Clip, Question
from mapflow.results.runs.model_names import variant

N_FRAMES = 8  # if the protocol asks for no number
PLACEHOLDERS = ("video_token_id", "video_token_index", "image_token_id", "image_token_index")
"""Settings that hold the ids of visual positions; several models treat videos as images."""

ROW_BY_ROW = {"llava_next_video": 0, "llava_onevision": 1, "internvl": 0}
"""Model types without a grid in their inputs, whose frames are square and row by row → number of
tokens after the last frame (a line end)."""


class HfVideo(VideoLLM):
    """One checkpoint of a model that transformers itself has."""

    family = "hf"
    prompt_style = "chat"

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Any,
        *,
        name: str,
        digest: str,
        pathways: PathwayRanges | None = None,
    ) -> None:
        self.model: PreTrainedModel = model
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.decoder = Decoder(model)
        self.name, self.digest, self.pathways = name, digest, pathways
        self.frames_per_segment = int(
            getattr(processor.video_processor, "temporal_patch_size", 1) or 1
        )

    @classmethod
    def reads(cls, architecture: str) -> bool:
        """All image-text-to-text models that transformers itself has."""
        return is_native(architecture)

    @classmethod
    def load(
        cls,
        path: str | Path,
        dtype: str | torch.dtype = "auto",
        device_map: str | Mapping[str, Any] = "cpu",
        lora: str | Path | None = None,
    ) -> HfVideo:
        """From a folder as `save_pretrained` writes it, with the processor's files.

        Raises MapflowError for a folder that is missing or incomplete, and for pickled weights.
        Also for a model that needs code from the checkpoint, or whose attention bypasses
        transformers' attention interface.
        """
        folder, adapter = find_base(path, lora)
        config = native_config(folder)
        processor = load_processor(folder)
        empty = empty_model(folder, config)
        precision = resolve_dtype(dtype, config.to_dict(), device_map)
        model = load_model(folder, precision, device_map, adapter, empty)
        loaded = cls(model, processor, **checkpoint_identity(folder, adapter))
        if config.model_type == "video_llama_3":
            # The paper's numbers of this model were made with frames that mix in the tower, which
            # transformers' own tower does not offer: see mapflow_videollama3.
            loaded.name += variant("vision_attention", "isolated")
        return loaded

    def prepare(self, question: Question) -> Prepared:
        """Decodes the clip's frames and encodes the question."""
        self.check_text(question)
        sampled = read_frames(question.clip, segment_midpoints, question.n_frames or N_FRAMES)
        return self.encode(
            question, sampled.pixels, sampled.indices, clip_times(sampled, question.clip)
        )

    def encode(
        self,
        question: Question,
        frames: UInt8[np.ndarray, "frames height width 3"],
        indices: Sequence[int] = (),
        times: Mapping[str, Any] | None = None,
    ) -> Prepared:
        """The question with these RGB frames.

        Args:
            indices: the frames' numbers in the source; default 0, 1, ….
            times: video metadata for the processor (`clip_times`); default one frame per second.
        """
        indices = tuple(indices) or tuple(range(len(frames)))
        times = times or {
            "fps": 1.0,
            "total_num_frames": len(frames),
            "frames_indices": [*range(len(frames))],
        }
        chat = render(self.processor, question, self.prompt_style)
        text, vision = self._process(chat, frames, times)
        ids = vision.pop("input_ids")[0]
        shown = torch.isin(ids, self._placeholder_ids())
        merge = int(getattr(self.processor.video_processor, "merge_size", 1) or 1)
        sizes = tokens_per_frame(shown, vision, len(frames), merge)
        layout = chat_layout(chat, text, ids, self.tokenizer, shown, sizes, question)
        return self.prepared(question, Conversation(chat.text, ids, layout), vision, indices)

    @torch.inference_mode()
    def embed(self, prepared: Sequence[Prepared]) -> list[DecoderInputs]:
        """The decoder inputs that the model's own forward computes, clip by clip."""
        return [self._embedded(item) for item in prepared]

    def _embedded(self, item: Prepared) -> DecoderInputs:
        """Raises MapflowError if what reaches the decoder is not the prompt that was named."""
        inputs = decoder_inputs(self.model, self._inputs(item))
        text = torch.ones(len(item.layout), dtype=torch.bool)
        text[item.layout.positions("video")] = False
        if len(inputs) == len(text):
            table = self.decoder.core.get_input_embeddings()
            expected = table(item.input_ids[text].to(self.decoder.device))
            if torch.equal(
                inputs.embeds[text.to(inputs.embeds.device)], expected.to(inputs.embeds)
            ):
                return inputs
        raise MapflowError(
            f"the decoder of {type(self.model).__name__} receives {len(inputs)} positions for"
            f" {len(text)} tokens, or other embeddings than its own of the text, so no position can"
            " be named; write an adapter for this model (model_adapters/README.md)"
        )

    @torch.inference_mode()
    def continued(
        self, prepared: Prepared, inputs: DecoderInputs, tokens: Sequence[int]
    ) -> DecoderInputs:
        """A mask or arguments of the model's own are computed for the longer prompt."""
        if not inputs.special:
            return super().continued(prepared, inputs, tokens)
        shape = (1, len(prepared.input_ids))
        vision = {
            name: pad(value, (0, len(tokens)), value=int(name == "attention_mask"))
            if tuple(value.shape) == shape  # one number for each position; 0 is text
            else value
            for name, value in prepared.vision.items()
        }
        ids = torch.cat([prepared.input_ids, torch.tensor(tokens)])
        longer = replace(prepared, input_ids=ids, vision=vision)
        return decoder_inputs(self.model, self._inputs(longer))

    @torch.inference_mode()
    def plain_logits(self, prepared: Prepared) -> Float[Tensor, " vocab"]:
        """transformers' own forward from pixels to logits."""
        return self.model(**self._inputs(prepared), use_cache=False).logits[0, -1].float()

    def token_grid(self, prepared: Prepared) -> Int[Tensor, "frame row column"]:
        """The processor's grid (`video_grid_thw`), or a square for types in `ROW_BY_ROW`."""
        grid = prepared.vision.get("video_grid_thw")
        trailing, ids = ROW_BY_ROW.get(self.model.config.model_type), self._placeholder_ids()
        if grid is not None:
            rows, columns = (grid[0, 1:] // self.processor.video_processor.merge_size).tolist()
        elif trailing is not None:
            first = prepared.layout.positions("frame[0]")
            rows = columns = math.isqrt(int(torch.isin(prepared.input_ids[first], ids).sum()))
        else:
            return super().token_grid(prepared)
        return token_grid(prepared.layout, prepared.input_ids, ids, rows, columns, trailing or 0)

    def view(self, height: int, width: int) -> View:
        """A crop in the middle if the processor crops, else the whole frame."""
        video: Any = self.processor.video_processor
        if not getattr(video, "do_center_crop", False):
            return super().view(height, width)
        size, crop = video.size, video.crop_size
        edge = size["shortest_edge"] if "shortest_edge" in size else (size["height"], size["width"])
        return centred_view(height, width, edge, (crop["height"], crop["width"]))

    def _inputs(self, item: Prepared) -> dict[str, Tensor]:
        """The processor's output on the model's device and in its precision."""
        device, dtype = self.decoder.device, self.model.dtype
        return {
            name: value.to(device=device, dtype=dtype if value.is_floating_point() else None)
            for name, value in {"input_ids": item.input_ids[None], **item.vision}.items()
        }

    def _process(
        self,
        chat: Chat,
        frames: UInt8[np.ndarray, "frames height width 3"],
        times: Mapping[str, Any],
    ) -> tuple[str, dict[str, Tensor]]:
        """The text that the processor gives to its tokenizer, and the model's inputs."""
        processor = copy.copy(self.processor)  # other threads use the original
        processor.tokenizer = listening = _Listening(self.tokenizer)
        bos: Any = self.tokenizer.bos_token
        video = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
        try:
            batch = processor(
                text=[chat.text],
                videos=[[video]],  # one list of videos per text, as in transformers' chat calls
                # some templates write the start token themselves
                add_special_tokens=not (bos and chat.text.startswith(bos)),
                truncation=False,  # which tokenizer.json may ask for
                do_sample_frames=False,
                video_metadata=[[dict(times)]],
                return_tensors="pt",
            )
        except Exception as error:  # processors raise exceptions of many kinds
            reason = " ".join(str(error).split())
            raise MapflowError(
                f"the processor of {self.name} refuses the clip: {reason}"
            ) from error
        if not listening.texts:
            raise MapflowError(
                f"{type(self.processor).__name__} makes ids without its tokenizer, so no token can"
                " be named; write an adapter for this model (model_adapters/README.md)"
            )
        inputs = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
        if lost := sorted(
            name for name in batch.keys() - inputs.keys() if holds_tensors(batch[name])
        ):
            raise MapflowError(
                f"{type(self.processor).__name__} returns {', '.join(lost)} in several tensors,"
                " which this adapter does not hand on; write an adapter for this model"
                " (model_adapters/README.md)"
            )
        return listening.texts[-1], inputs

    def _placeholder_ids(self) -> Tensor:
        config = self.model.config
        ids = [
            getattr(config, name)
            for name in PLACEHOLDERS
            if isinstance(getattr(config, name, None), int)
        ]
        return torch.tensor(sorted(set(ids)))

    def answer_ids(self, prompt: str, letters: Sequence[str]) -> tuple[int, ...]:
        """For this prompt: what a letter becomes depends on the chat template's last token."""
        ids = tuple(next_token_id(self.tokenizer, prompt, letter) for letter in letters)
        if len(set(ids)) < len(ids):
            raise MapflowError(f"the tokenizer of {self.name} gives two options' letters one token")
        return ids


class _Listening:
    """A tokenizer that keeps the texts that it is called with."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self.texts: list[str] = []

    def __call__(self, text: Any = None, *args: Any, **kwargs: Any) -> Any:
        self.texts += [text] if isinstance(text, str) else text
        return self._tokenizer(text, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def clip_times(sampled: SampledFrames, clip: Clip) -> dict[str, Any]:
    """Video metadata for a processor. The clip counts as the whole video: it starts at 0 s."""
    fps = sampled.fps or None
    first, last = 0, sampled.n_source - 1
    if fps and clip.start is not None:
        first = min(max(0, round(clip.start * fps)), min(sampled.indices))
    if fps and clip.end is not None:
        last = max(min(round(clip.end * fps), last), max(sampled.indices))
    total = last - first + 1
    return {
        "fps": fps,
        "total_num_frames": total,
        "duration": total / fps if fps else None,
        "frames_indices": [index - first for index in sampled.indices],
    }
