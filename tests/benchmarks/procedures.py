"""What the sweep and policy benchmarks share: random models of real shapes, the published
procedure, and the clock.

The published procedure is one whole forward pass for every route and layer: the vision tower
again, eager attention, an additive n × n mask repeated over the heads in the layers that cut,
every position projected to the vocabulary. Its masks are made before the clock starts, which is
kinder than the authors' code.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from mapflow.model_adapters.interventions import Compiled, Segment, TokenLayout

VQL_TO_QL = ("video->question", "video->last", "question->last", "last->last")
ELEVEN = (
    "cross-frame",
    *VQL_TO_QL,
    "stem->last",
    "true_option->last",
    "false_options->last",
    "video->stem",
    "stem->true_option",
    "video->true_option",
)


@dataclass(frozen=True)
class Size:
    """A LLaVA-like model and prompt: `frames` of `tokens` positions, 115 of text around them."""

    hidden: int
    feed_forward: int
    layers: int
    heads: int
    frames: int
    tokens: int
    vocabulary: int
    vision_layers: int
    pixels: int

    def layout(self) -> TokenLayout:
        frames = [(Segment("frame", i), self.tokens) for i in range(self.frames)]
        options = [(Segment("option", i), 7) for i in range(4)]
        text = [(Segment("stem"), 27), *options, (Segment("template"), 14), (Segment("last"), 1)]
        return TokenLayout.from_runs([(Segment("system"), 45), *frames, *text], true_option=0)

    @property
    def row_layer_flops(self) -> int:
        """Multiplications and additions of one row in one layer, attention's scores apart."""
        return 2 * (4 * self.hidden**2 + 3 * self.hidden * self.feed_forward)


SIZES = {
    "small": Size(256, 688, 8, 4, 8, 16, 1000, 2, 56),
    "7b": Size(4096, 11008, 32, 32, 8, 144, 32064, 24, 336),
    "7b-64": Size(4096, 11008, 32, 32, 64, 144, 32064, 24, 336),
}


def language_model(size: Size, device: str, dtype: torch.dtype) -> LlamaForCausalLM:
    """Random weights, large enough that cuts show."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=size.feed_forward,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        max_position_embeddings=16384,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = LlamaForCausalLM(config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, 2.2 / size.hidden**0.5)
    return model


def vision_tower(size: Size, device: str, dtype: torch.dtype) -> Callable[[], Tensor]:
    """The frames through a CLIP ViT-L/14 of that many layers: what a call costs, not what it
    says.
    """
    config = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=size.vision_layers,
        num_attention_heads=16,
        image_size=size.pixels,
        patch_size=14,
    )
    with torch.device(device):
        tower = CLIPVisionModel(config).eval().requires_grad_(False).to(dtype)
        pixels = torch.randn(size.frames, 3, size.pixels, size.pixels, dtype=dtype)
    return lambda: tower(pixels).last_hidden_state


def embeddings(size: Size, n: int, device: str, dtype: torch.dtype) -> Tensor:
    """`[n, hidden]`, the same everywhere."""
    return torch.randn(n, size.hidden, generator=torch.Generator().manual_seed(1)).to(device, dtype)


class Published:
    """An answer's probabilities under one intervention, as the authors' code computes them."""

    def __init__(
        self, model: LlamaForCausalLM, vision: Callable[[], Tensor], embeds: Tensor
    ) -> None:
        self.model, self.vision, self.embeds = model, vision, embeds
        self._masks: dict[bytes, Tensor] = {}

    def prepare(self, compiled: Compiled) -> list[Tensor | None]:
        """Each layer's additive mask, where it cuts something."""
        masks: list[Tensor | None] = []
        lowest, heads = torch.finfo(self.embeds.dtype).min, self.model.config.num_attention_heads
        for layer, allowed in enumerate(compiled.allowed):
            key = allowed.tobytes()
            if allowed.all():
                masks.append(None)
                continue
            if key not in self._masks:
                self._masks.clear()  # one at a time: repeated over the heads they are large
                cut = ~compiled.token_mask(layer).to(self.embeds.device)
                mask = cut.to(self.embeds.dtype) * lowest
                self._masks[key] = mask.expand(1, heads, -1, -1).contiguous()
            masks.append(self._masks[key])
        return masks

    @torch.inference_mode()
    def __call__(self, masks: Sequence[Tensor | None]) -> Tensor:
        """Float32 probabilities at the last position."""
        self.vision()
        hooks = []
        for layer, mask in zip(self.model.model.layers, masks, strict=True):
            if mask is not None:

                def put(module: Any, args: Any, kwargs: Any, mask: Tensor = mask) -> Any:
                    return args, {**kwargs, "attention_mask": mask}

                hooks.append(layer.register_forward_pre_hook(put, with_kwargs=True))
        logits = self.model(inputs_embeds=self.embeds[None], use_cache=False).logits
        for hook in hooks:
            hook.remove()
        return logits[0, -1].float().softmax(-1)


def clock(work: Callable[[], Any], repeats: int, warm_up: int = 1) -> tuple[float, Any]:
    """Median seconds by the wall, the device having finished, and what the work returned last."""
    on_gpu = torch.cuda.is_available()
    seconds, found = [], None
    for turn in range(warm_up + repeats):
        if on_gpu:
            torch.cuda.synchronize()
        begun = time.perf_counter()
        found = work()
        if on_gpu:
            torch.cuda.synchronize()
        if turn >= warm_up:
            seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds), found


def peak_gib(work: Callable[[], Any]) -> float:
    """GPU memory that the work takes beyond what lies there before; 0 without a GPU."""
    if not torch.cuda.is_available():
        return 0.0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**30


def profile(work: Callable[[], Any]) -> dict[str, Any]:
    """Where one run's time goes on the GPU: the kernels that take most of it."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as found:
        seconds, _ = clock(work, 1, warm_up=0)
    kernels = [row for row in found.key_averages() if row.self_device_time_total > 0]
    kernels.sort(key=lambda row: -row.self_device_time_total)
    return {
        "seconds_with_profiler": seconds,
        "gpu_seconds": sum(row.self_device_time_total for row in kernels) / 1e6,
        "kernels": [
            {"name": row.key[:90], "calls": row.count, "ms": row.self_device_time_total / 1e3}
            for row in kernels[:16]
        ],
    }


def hardware() -> dict[str, str]:
    """What the figures were measured on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {"device": device, "torch": torch.__version__, "date": time.strftime("%Y-%m-%d")}
