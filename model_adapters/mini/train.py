"""Trains the bundled VideoLLM from random weights, in minutes on one GPU.

    python -m mapflow.model_adapters.mini.train --out mini-natural --time-limit 510 python -m
    mapflow.model_adapters.mini.train --out mini-pathways --time-limit 510 --pathways python -m
    mapflow.model_adapters.mini.train --out again --pathways --continue-from mini-pathways \
        --time-limit 60 --learning-rate 3e-4 --rows 100000      # after a change of planted.RANGES

The first part mixes captions, open questions and choices, the second part is mostly choices:
letters alone are too sparse a target (`samples.FIRST_MIX`). The loss covers the whole answer. With
`--pathways`, attention of most rows is restricted to the planted pathways (`planted`), so that the
true pathways of the model are known. Requires neither PyAV, lmms-eval nor a network connection.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from mapflow.model_adapters.families.llava.network import LlavaNetwork
from mapflow.model_adapters.mini import planted
from mapflow.model_adapters.mini.evaluate import accuracy, report
from mapflow.model_adapters.mini.network import (
    forward,
    load_weights,
    mini_config,
    new_network,
    save_checkpoint,
)
from mapflow.model_adapters.mini.pixels import look, reduction, sampled_times
from mapflow.model_adapters.mini.samples import (
    FIRST_MIX,
    ONLY_CHOICES,
    SECOND_MIX,
    RowFactory,
    Rows,
    benchmark_tokenizer,
    load_prompt,
    prefix_ids,
)

FIRST_PART = 0.5
"""Share of the training that goes to `FIRST_MIX`."""
KINDS = (planted.FULL, planted.EFFECTIVE, planted.PLANTED)
CHOICES = (0.15, 0.15, 0.7)
"""Shares of `KINDS` among choices, from the first step on, so that no other path can form."""
EARLY_OTHERS = (0.5, 0.0, 0.5)
"""Shares among captions and open questions in the first part."""


@dataclass(frozen=True)
class Settings:
    """Options of one training.

    Training ends after `steps` steps or `time_limit` seconds, whichever comes first; the learning
    rate follows both. `continue_from` names a checkpoint folder to start from; training then uses
    `SECOND_MIX` only.
    """

    steps: int
    time_limit: float
    batch: int
    rows: int
    pathways: bool
    seed: int
    learning_rate: float
    warmup: int = 300
    weight_decay: float = 0.05
    log_every: int = 500
    continue_from: str | None = None

    @property
    def first_part(self) -> float:
        """Share of the training that goes to `FIRST_MIX`."""
        return 0.0 if self.continue_from else FIRST_PART


class Trainer:
    """Network, optimiser and the training step."""

    def __init__(
        self, network: LlavaNetwork, prefix: list[int], settings: Settings, device: torch.device
    ) -> None:
        self.network, self.settings, self.device = network.to(device), settings, device
        self.prefix = torch.tensor(prefix, device=device)
        self.times, self.reduce = sampled_times().to(device), reduction().to(device)
        n_layers = network.language_model.config.num_hidden_layers
        kinds = torch.stack([planted.allowed_segments(kind, n_layers) for kind in KINDS])
        # Layers with equal cuts share a mask.
        distinct, mask_of_layer = torch.unique(kinds, dim=1, return_inverse=True)
        self.allowed, self.mask_of_layer = distinct.to(device), mask_of_layer.tolist()
        self.optimizer = torch.optim.AdamW(
            network.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            betas=(0.9, 0.98),
            fused=device.type == "cuda",
        )
        on_gpu = device.type == "cuda"
        self._look: Callable[..., Tensor] = torch.compile(look) if on_gpu else look
        self._loss: Callable[..., Tensor] = torch.compile(self.loss) if on_gpu else self.loss

    def step(self, rows: Rows, progress: float, number: int) -> Float[Tensor, ""]:
        """One optimiser step. `progress` is the completed share of the training, from 0 to 1."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(progress, number)
        kinds = self._kinds(rows, progress) if self.settings.pathways else None
        pixels = self._look(rows.scenes, self.times, self.reduce, True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss = self._loss(pixels, rows.ids.long(), rows.segments.long(), kinds)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        return loss.detach()

    def loss(
        self,
        pixels: Float[Tensor, "batch frames 3 size size"],
        ids: Int[Tensor, "batch suffix"],
        segments: Int[Tensor, "batch suffix"],
        kinds: Int[Tensor, " batch"] | None,
    ) -> Float[Tensor, ""]:
        """Cross-entropy of the answer tokens.

        `kinds` holds an index into `KINDS` for each row; None is full attention.
        """
        masks: list[Tensor | None] = [None] * len(self.mask_of_layer)
        if kinds is not None:
            codes = planted.segment_codes(len(self.prefix), segments)
            distinct = planted.token_masks(self.allowed, kinds, codes)
            masks = [distinct[index] for index in self.mask_of_layer]
        hidden = forward(self.network, pixels, self.prefix, ids, masks)[:, :-1]
        padding = self.network.language_model.config.pad_token_id
        taught = (segments[:, 1:] == planted.ANSWER) & (ids[:, 1:] != padding)
        targets = torch.where(taught, ids[:, 1:], -100)
        logits = self.network.language_model.lm_head(hidden)
        return cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    def _learning_rate(self, progress: float, number: int) -> float:
        cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        warm = min(1.0, (number + 1) / self.settings.warmup)
        return self.settings.learning_rate * warm * (0.03 + 0.97 * cosine)

    def _kinds(self, rows: Rows, progress: float) -> Int[Tensor, " batch"]:
        others = EARLY_OTHERS if progress < self.settings.first_part else CHOICES
        shares = torch.tensor([others, CHOICES], device=self.device)[rows.choices]
        return torch.multinomial(shares, 1)[:, 0]


def train(out: Path, settings: Settings, workers: int, device: torch.device) -> dict[str, object]:
    """Trains, writes the checkpoint folder and returns the contents of `metrics.json`.

    The rows depend on the seed only. With a time limit, the number of steps depends on the machine.
    """
    begun = time.monotonic()
    tokenizer = benchmark_tokenizer()
    factory = RowFactory(tokenizer, workers)  # forks, so it must precede the first use of the GPU
    orders = [
        factory.order(f"test {settings.seed}", min(settings.rows, 4000), ONLY_CHOICES),
        *(
            [factory.order(f"train first {settings.seed}", settings.rows, FIRST_MIX)]
            * (settings.first_part > 0)
        ),
        factory.order(f"train second {settings.seed}", settings.rows, SECOND_MIX),
    ]
    torch.manual_seed(settings.seed)
    torch.set_float32_matmul_precision("high")
    config = mini_config(tokenizer)
    network = new_network(config)
    if settings.continue_from:
        load_weights(network, Path(settings.continue_from))
    trainer = Trainer(network, prefix_ids(tokenizer, load_prompt()), settings, device)
    test = orders[0]().to(device)
    rows = orders[1]().to(device)
    print(
        f"{time.monotonic() - begun:.0f} s: {len(rows)} rows, {_size(network):,} parameters",
        flush=True,
    )
    started, number, second = time.monotonic(), 0, settings.first_part == 0
    while (progress := _progress(number, time.monotonic() - started, settings)) < 1:
        if progress >= settings.first_part and not second:
            rows, second = orders[-1]().to(device), True
        chosen = torch.randint(len(rows), (settings.batch,), device=device)
        loss = trainer.step(rows[chosen], progress, number)
        number += 1
        if number % settings.log_every == 0:
            scores = accuracy(network, trainer.prefix, test[:500])
            print(
                f"{number} {time.monotonic() - started:.0f} s loss {loss.item():.4f} {scores}",
                flush=True,
            )
    seconds = time.monotonic() - started
    factory.close()
    metrics = {
        "steps": number,
        "seconds": round(seconds, 1),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        "parameters": _size(network),
        "settings": vars(settings),
        "accuracy": report(network, trainer.prefix, test),
    }
    save_checkpoint(network, config, tokenizer, out)
    if settings.pathways:
        (out / "pathways.yaml").write_text(planted.ranges_yaml())
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    for name, scores in metrics["accuracy"].items():
        print(f"{name:24}", json.dumps(scores), flush=True)
    return metrics


def _progress(number: int, seconds: float, settings: Settings) -> float:
    return max(number / settings.steps, seconds / settings.time_limit)


def _size(network: LlavaNetwork) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the bundled VideoLLM.")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint folder to write")
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--time-limit", type=float, default=510.0, help="seconds of training")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rows", type=int, default=700_000, help="rows of each of the two parts")
    parser.add_argument("--pathways", action="store_true", help="plant the pathways (planted.py)")
    parser.add_argument(
        "--continue-from", metavar="DIR", help="start from the weights of a checkpoint folder"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--log-every", type=int, default=500, help="steps")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = vars(parser.parse_args())
    out, workers = arguments.pop("out"), arguments.pop("workers")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train(out, Settings(**arguments), workers, device)


if __name__ == "__main__":
    main()
