"""The paper's models at their real shapes: time, memory, and the edges that `effective` keeps.

Random weights of the full shapes, bfloat16, on one GPU and, if present, on two
(`device_map="auto"`). The LLaVA models are written to disk as sharded safetensors and loaded
through their adapter, with peak memory of CPU and GPU. The others run as decoders of their
published shape. Every table row gives the edges of full, effective and random on a prompt of the
paper's length, beside the paper's Table 3.

    python -m tests.benchmarks.model_shapes --out shapes.json [--disk DIR]
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, Phi3Config, Qwen2Config

from mapflow.model_adapters.checkpoints.pathways import named_pathways
from mapflow.model_adapters.families.llava.model import LlavaVideo
from mapflow.model_adapters.families.llava.network import LlavaNetwork
from mapflow.model_adapters.families.registry import BUNDLED
from mapflow.model_adapters.interventions import (
    Decoder,
    PathwayRanges,
    Segment,
    TokenLayout,
    parse_interventions,
)
from mapflow.model_adapters.interventions.execution.decoder_inputs import DecoderInputs

GIB = 2**30


@dataclass(frozen=True)
class Shape:
    """`paper_total` and `paper_kept`: millions of edges (Table 3). The total gives the length."""

    name: str
    text: dict[str, Any]
    tokens_per_frame: int
    paper_total: float
    paper_kept: float

    @property
    def n(self) -> int:
        """The n for which n(n+1)/2 × layers is the total."""
        return round((2e6 * self.paper_total / self.text["num_hidden_layers"]) ** 0.5 - 0.5)


LLAMA = {"model_type": "llama", "vocab_size": 32064, "max_position_embeddings": 4096}


def text_config(
    base: dict[str, Any], hidden: int, feed_forward: int, layers: int, heads: int
) -> dict[str, Any]:
    return base | {
        "hidden_size": hidden,
        "intermediate_size": feed_forward,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }


PHI = {"model_type": "phi3", "vocab_size": 32020, "pad_token_id": 0}
QWEN = {"model_type": "qwen2", "vocab_size": 152064, "num_key_value_heads": 4}
SHAPES = [
    Shape("LLaVA-NeXT-7B-Video-FT", text_config(LLAMA, 4096, 11008, 32, 32), 144, 25.7, 10.8),
    Shape("LLaVA-NeXT-13B-Video-FT", text_config(LLAMA, 5120, 13824, 40, 40), 144, 32.2, 14.3),
    Shape("Mini-InternVL-4B-Video-FT", text_config(PHI, 3072, 8192, 32, 32), 256, 74.6, 29.6),
    Shape("VideoLLaMA3-7B", text_config(QWEN, 3584, 18944, 28, 28), 132, 19.9, 11.4),
]
CONFIGS = {"llama": LlamaConfig, "phi3": Phi3Config, "qwen2": Qwen2Config}
VISION = text_config({"image_size": 336, "patch_size": 14}, 1024, 4096, 24, 16)


def paper_layout(shape: Shape) -> TokenLayout:
    """Eight frames, 64 positions of system text and template, the rest for the question."""
    video = 8 * shape.tokens_per_frame
    question = shape.n - video - 45 - 4 - 15 - 1
    options = question // 2
    runs = [
        (Segment("system"), 45),
        *((Segment("frame", i), shape.tokens_per_frame) for i in range(8)),
        (Segment("template"), 4),
        (Segment("stem"), question - options),
        *((Segment("option", i), options // 4 + (i < options % 4)) for i in range(4)),
        (Segment("template"), 15),
        (Segment("last"), 1),
    ]
    return TokenLayout.from_runs(runs, true_option=0)


def run_policies(decoder: Decoder, shape: Shape, pathways: PathwayRanges) -> dict[str, Any]:
    """Edges, median seconds after warm-up and peak GPU memory of each policy on one prompt."""
    layout = paper_layout(shape)
    hidden = decoder.core.config.hidden_size
    embeds = torch.randn(len(layout), hidden, device=decoder.device, dtype=torch.bfloat16)
    rows = {}
    for policy in parse_interventions(["full,effective,random"]):
        compiled = policy.compile(layout, decoder.n_layers, pathways, key=shape.name)
        torch.cuda.reset_peak_memory_stats()
        seconds = []
        for _ in range(7):
            torch.cuda.synchronize()
            begun = time.perf_counter()
            (logits,) = decoder.answer_logits([DecoderInputs(embeds)], [[compiled]])
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begun)
        assert torch.isfinite(logits).all()
        rows[str(policy)] = {
            "edges_kept": compiled.edges_kept,
            "edges_total": compiled.edges_total,
            "share": compiled.edges_kept / compiled.edges_total,
            "seconds": sorted(seconds[2:])[2],
            "gpu_peak_gib": torch.cuda.max_memory_allocated() / GIB,
        }
    paper = {
        "kept": shape.paper_kept,
        "total": shape.paper_total,
        "share": shape.paper_kept / shape.paper_total,
    }
    return {
        "positions": len(layout),
        "layers": decoder.n_layers,
        "paper_millions": paper,
        "policies": rows,
    }


def write_checkpoint(shape: Shape, folder: Path) -> None:
    """Writes random LLaVA weights as published: bfloat16 shards of 4 GiB with an index."""
    folder.mkdir(parents=True)
    config = json.loads((BUNDLED / "config.json").read_text())
    config |= {
        "text_config": shape.text,
        "vision_config": {**VISION, "model_type": "clip_vision_model"},
    }
    config |= {"pooling_shape": [8, 12, 12], "vision_feature_layer": -2, "torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(config))
    preprocessor = json.loads((BUNDLED / "preprocessor_config.json").read_text())
    preprocessor |= {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BUNDLED / name, folder)
    with torch.device("meta"):
        names = {
            name: tensor.shape
            for name, tensor in LlavaNetwork.from_config_dict(config).state_dict().items()
        }
    index, shard, size = {}, {}, 0

    def flush() -> None:
        nonlocal shard, size
        file = f"model-{len(set(index.values())):05d}.safetensors"
        save_file(shard, folder / file)
        index.update(dict.fromkeys(shard, file))
        shard, size = {}, 0

    for name, dimensions in names.items():
        saved = name.replace("vision_tower.", "vision_tower.vision_model.")
        tensor = torch.randn(dimensions, device="cuda", dtype=torch.bfloat16).mul_(0.02).cpu()
        shard[saved] = (
            tensor if "position_ids" not in name else torch.arange(tensor.shape[-1])[None]
        )
        size += tensor.nbytes
        if size > 4 * GIB:
            flush()
    flush()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def load_and_run(shape: Shape, folder: Path, device_map: str) -> dict[str, Any]:
    """Loads through the adapter, answers, and reports memory."""
    for device in range(torch.cuda.device_count()):
        torch.cuda.reset_peak_memory_stats(device)
    before, begun = private_memory(), time.perf_counter()
    model = LlavaVideo.load(folder, dtype="bfloat16", device_map=device_map)
    torch.cuda.synchronize()
    seconds = time.perf_counter() - begun
    loaded = {
        "load_seconds": seconds,
        "cpu_private_gib_added": (private_memory() - before) / GIB,
        "weights_gib": sum(p.nbytes for p in model.model.parameters()) / GIB,
        "gpus": sorted({str(p.device) for p in model.model.parameters()}),
    }
    video = model.network.encode_video(
        torch.randn(1, 8, 3, 336, 336, device=model.decoder.device, dtype=torch.bfloat16)
    )
    assert video.shape[1] == 8 * shape.tokens_per_frame
    result = loaded | run_policies(model.decoder, shape, named_pathways(shape.name))
    result["gpu_peak_gib_each"] = [
        torch.cuda.max_memory_allocated(d) / GIB for d in range(torch.cuda.device_count())
    ]
    return result


def free() -> None:
    """Also frees cycles held by accelerate's hooks, which would count for the next model."""
    gc.collect()
    torch.cuda.empty_cache()


def private_memory() -> int:
    """Anonymous memory of this process in bytes: mapped files can be dropped and do not count."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--disk",
        type=Path,
        default=Path("/tmp/model_shapes"),
        help="folder for temporary checkpoints",
    )
    options = parser.parse_args()
    results: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    for shape in SHAPES:
        if shape.text["model_type"] == "llama":
            folder = options.disk / shape.name
            write_checkpoint(shape, folder)
            results[shape.name] = load_and_run(shape, folder, "cuda:0")
            free()
            if torch.cuda.device_count() > 1 and "13B" in shape.name:
                results[f"{shape.name}, two GPUs"] = load_and_run(shape, folder, "auto")
            shutil.rmtree(folder)
        else:
            config = CONFIGS[shape.text["model_type"]](
                **{k: v for k, v in shape.text.items() if k != "model_type"}
            )
            with torch.device("cuda"):
                lm = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
            results[shape.name] = run_policies(Decoder(lm), shape, named_pathways(shape.name))
            del lm
        free()
        results["cpu_peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
        options.out.write_text(json.dumps(results, indent=2) + "\n")
        print(shape.name, json.dumps(results[shape.name]), flush=True)


if __name__ == "__main__":
    main()
