"""A family as another package writes it: one class on the public contract, nothing of the four
bundled families.

`test_families.py` copies this file into a package, announces it by an entry point and
runs it from there. The network sees four colours per frame, and its weights are random: what counts
is that the instrument can run it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from mapflow.model_adapters.conversation import Text, Video, load_tokenizer, tokenize, user_pieces
from mapflow.model_adapters.interventions import Decoder, DecoderInputs, Segment
from mapflow.model_adapters.video.reader import read_frames
from mapflow.model_adapters.video.sampling import segment_midpoints
from mapflow.model_adapters.video_llm import Prepared, VideoLLM

PLACEHOLDER = "<image>"
N_FRAMES, TOKENS_PER_FRAME = 4, 4


class LabNetwork(nn.Module):
    """Four mean colours per frame, projected to the width of a small Llama."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.language_model = LlamaForCausalLM(config)
        self.projector = nn.Linear(3, config.hidden_size)

    def encode_video(self, pixels: torch.Tensor) -> torch.Tensor:
        """Video tokens [frames * 4, hidden] of pixels [frames, 3, height, width]."""
        colours = nn.functional.adaptive_avg_pool2d(pixels, 2)
        return self.projector(colours.flatten(2).transpose(1, 2)).flatten(0, 1)


class LabVideo(VideoLLM):
    """A checkpoint is a folder with config.json and tokenizer.json."""

    family = "lab"
    prompt_style = "completion"
    architectures = ("LabVideoModel",)

    def __init__(self, network: LabNetwork, folder: Path) -> None:
        self.model = self.network = network
        self.tokenizer = load_tokenizer(folder)
        self.decoder = Decoder(network.language_model)
        self.name, self.digest, self.pathways = folder.name, "0" * 64, None

    @classmethod
    def load(
        cls,
        path: str | Path,
        dtype: str | torch.dtype = "auto",
        device_map: Any = "cpu",
        lora: str | Path | None = None,
        seed: int | str = 0,
    ) -> LabVideo:
        torch.manual_seed(int(seed))
        network = LabNetwork(LlamaConfig.from_pretrained(path))
        return cls(network.to(device_map).eval().requires_grad_(False), Path(path))

    def prepare(self, question) -> Prepared:
        sampled = read_frames(question.clip, segment_midpoints, N_FRAMES)
        runs = tuple((Segment("frame", index), TOKENS_PER_FRAME) for index in range(N_FRAMES))
        conversation = tokenize(
            self.tokenizer,
            [
                Text("USER: ", Segment("system")),
                Video(PLACEHOLDER, runs),
                *user_pieces(question, self.prompt_style),
                Text(" ASSISTANT:(", Segment("template")),
            ],
            question,
        )
        pixels = torch.tensor(sampled.pixels).permute(0, 3, 1, 2) / 255
        return self.prepared(question, conversation, {"pixels": pixels}, sampled.indices)

    @torch.inference_mode()
    def embed(self, prepared) -> list[DecoderInputs]:
        placeholder = self.tokenizer.get_vocab()[PLACEHOLDER]
        inputs = []
        for item in prepared:
            ids = item.input_ids.to(self.decoder.device)
            embeds = self.decoder.core.get_input_embeddings()(ids)
            video = self.network.encode_video(item.vision["pixels"].to(embeds))
            embeds[ids == placeholder] = video
            inputs.append(DecoderInputs(embeds))
        return inputs
