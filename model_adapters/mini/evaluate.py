"""How often the model picks the right letter, whole or with pathways cut: the evidence that training worked.

Rendered questions, not the committed clips: the benchmark itself goes through video files and the instrument. Scores
as the benchmark does: the most probable token of the whole vocabulary must be the right letter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mapflow.model_adapters.families.llava.network import LlavaNetwork
from mapflow.model_adapters.mini import planted
from mapflow.model_adapters.mini.network import N_VIDEO_TOKENS, forward
from mapflow.model_adapters.mini.pixels import look, reduction, sampled_times
from mapflow.model_adapters.mini.samples import Rows
from mapflow.tasks.motion.scenes import SUBTASKS

BATCH = 250
Reads = Bool[Tensor, "layer target source"]


def segments_of_prompt(
    n_prefix: int, segments: Int[Tensor, "rows suffix"]
) -> Int[Tensor, "rows n"]:
    """The segment of every position: system, frames, then the rows' own."""
    head = [planted.SYSTEM] * n_prefix
    for frame in planted.FRAMES:
        head += [frame] * (N_VIDEO_TOKENS // planted.N_FRAMES)
    before = torch.tensor(head, device=segments.device).expand(len(segments), -1)
    return torch.cat([before, segments.long()], 1)


@torch.no_grad()
def accuracy(
    network: LlavaNetwork,
    prefix: Int[Tensor, " prefix"],
    rows: Rows,
    reads: Reads | None = None,
    random_share: float = 0.0,
) -> dict[str, float]:
    """Share of right letters, overall ("all") and by subtask.

    `reads` cuts pathways; `random_share` instead cuts that share of the edges from the first frame on, in every layer
    anew, seeded.
    """
    right = torch.cat(
        [
            _right(network, prefix, rows[start : start + BATCH], reads, random_share)
            for start in range(0, len(rows), BATCH)
        ]
    )
    scores = {"all": right.float().mean().item()}
    for index, subtask in enumerate(SUBTASKS):
        if (rows.subtasks == index).any():
            scores[subtask] = right[rows.subtasks == index].float().mean().item()
    return {name: round(score, 4) for name, score in scores.items()}


def _right(
    network: LlavaNetwork,
    prefix: Int[Tensor, " prefix"],
    rows: Rows,
    reads: Reads | None,
    random_share: float,
) -> Bool[Tensor, " rows"]:
    device = rows.ids.device
    n_layers = network.language_model.config.num_hidden_layers
    segments = segments_of_prompt(len(prefix), rows.segments)
    masks: Sequence[Tensor | None] = [None] * n_layers
    if reads is not None:
        kinds = torch.zeros(len(rows), dtype=torch.long, device=device)
        masks = planted.token_masks(reads.to(device)[None], kinds, segments)
    elif random_share:
        masks = _random_masks(segments, random_share, n_layers)
    pixels = look(rows.scenes, sampled_times().to(device), reduction().to(device), blemished=False)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        hidden = forward(network, pixels, prefix, rows.ids.long(), masks)
        last = (rows.segments == planted.LAST).long().argmax(1)
        logits = network.language_model.lm_head(
            hidden[torch.arange(len(rows), device=device), last]
        )
    letters = rows.ids.long().gather(1, last[:, None] + 1)[:, 0]
    return logits.argmax(-1) == letters


def _random_masks(segments: Int[Tensor, "rows n"], share: float, n_layers: int) -> list[Tensor]:
    eligible = planted.random_eligible(segments)
    n = segments.shape[1]
    causal = torch.ones(n, n, dtype=torch.bool, device=segments.device).tril()
    generator = torch.Generator(segments.device).manual_seed(0)
    draws = (
        torch.rand(eligible.shape, generator=generator, device=segments.device)
        for _ in range(n_layers)
    )
    return [causal & ~(eligible & (draw < share)) for draw in draws]


def report(
    network: LlavaNetwork, prefix: Int[Tensor, " prefix"], rows: Rows
) -> dict[str, dict[str, float]]:
    """Accuracy in full, under the policy, under equally many random cuts, and with one thing knocked out at a time."""
    n_layers = network.language_model.config.num_hidden_layers
    full, policy = planted.full(n_layers), planted.effective(n_layers)
    everywhere, frames = range(n_layers), planted.FRAMES
    segments = segments_of_prompt(len(prefix), rows[:BATCH].segments)
    share_of_all, share_of_eligible = planted.cut_shares(policy.to(segments.device), segments)
    early = planted.layers(*planted.RANGES["cross_frame"])
    variants: dict[str, Reads] = {
        "effective": policy,
        "planted": planted.planted(n_layers),
        "no cross-frame 2-6": planted.without_cross_frame(full, early),
        "no cross-frame": planted.without_cross_frame(full, everywhere),
        "no video->question": planted.without(full, [planted.QUESTION], frames, everywhere),
        "no question->last": planted.without(full, [planted.LAST], [planted.QUESTION], everywhere),
        "no video->last": planted.without(full, [planted.LAST], frames, everywhere),
        "no video->template": planted.without(full, [planted.TEMPLATE], frames, everywhere),
        "no template->last": planted.without(full, [planted.LAST], [planted.TEMPLATE], everywhere),
    }
    scores = {"full": accuracy(network, prefix, rows)}
    scores |= {name: accuracy(network, prefix, rows, reads) for name, reads in variants.items()}
    scores["random"] = accuracy(network, prefix, rows, random_share=share_of_eligible)
    scores["share of edges cut"] = {
        "of all": share_of_all,
        "of those random may cut": share_of_eligible,
    }
    return scores
