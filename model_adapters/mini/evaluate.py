"""Accuracy of a network during training, in full and under interventions.

Questions are rendered anew; the committed clips are left to the benchmark, which reads them as
video files. A question counts as right where the most probable token of the whole vocabulary is the
right letter, as in the benchmark.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mapflow.model_adapters.families.llava.network import LlavaNetwork
from mapflow.model_adapters.interventions import Intervention, TokenLayout, parse_intervention
from mapflow.model_adapters.interventions.language.policies import RandomBlocking
from mapflow.model_adapters.mini import planted
from mapflow.model_adapters.mini.network import forward
from mapflow.model_adapters.mini.pixels import look, reduction, sampled_times
from mapflow.model_adapters.mini.samples import Rows
from mapflow.tasks.motion.scenes import SUBTASKS

BATCH = 250
KNOCKOUTS = (
    f"cross-frame@{planted.RANGES.cross_frame}",
    "cross-frame",
    "video->question",
    "question->last",
    "video->last",
    "video->template",
    "template->last",
)
VARIANTS = {
    "effective": planted.EFFECTIVE,
    "planted": planted.PLANTED,
    **{f"no {route.replace('@', ' ')}": parse_intervention(route) for route in KNOCKOUTS},
    "random": parse_intervention("random:seed=0"),
}
"""The interventions of `report`, by their names in `metrics.json`."""


@torch.no_grad()
def accuracy(
    network: LlavaNetwork,
    prefix: Int[Tensor, " prefix"],
    rows: Rows,
    intervention: Intervention = planted.FULL,
) -> dict[str, float]:
    """Share of right letters under an intervention, overall ("all") and by subtask."""
    right = torch.cat(
        [
            _right(network, prefix, rows[start : start + BATCH], intervention, start)
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
    intervention: Intervention,
    first: int,
) -> Bool[Tensor, " rows"]:
    """`first`: the number of the first row, which selects the edges of random blocking."""
    device = rows.ids.device
    n_layers = network.language_model.config.num_hidden_layers
    codes = planted.segment_codes(len(prefix), rows.segments)
    masks = layer_masks(intervention, codes, n_layers, first)
    pixels = look(rows.scenes, sampled_times().to(device), reduction().to(device), artefacts=False)
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        hidden = forward(network, pixels, prefix, rows.ids.long(), masks)
        last = (rows.segments == planted.LAST).long().argmax(1)
        logits = network.language_model.lm_head(
            hidden[torch.arange(len(rows), device=device), last]
        )
    letters = rows.ids.long().gather(1, last[:, None] + 1)[:, 0]
    return logits.argmax(-1) == letters


def layer_masks(
    intervention: Intervention, codes: Int[Tensor, "rows n"], n_layers: int, first: int = 0
) -> list[Bool[Tensor, "rows 1 n n"]] | list[None]:
    """The mask of every layer, or None for full attention.

    `first` is the number of the first row, which selects the edges of random blocking.
    """
    if not intervention.policies:
        return [None] * n_layers
    kinds = torch.zeros(len(codes), dtype=torch.long, device=codes.device)
    allowed = planted.allowed_segments(intervention, n_layers).to(codes.device)
    masks = planted.token_masks(allowed[None], kinds, codes)
    if intervention.random:
        for row, layout in enumerate(planted.prompt_layouts(codes)):
            compiled = intervention.compile(layout, n_layers, planted.RANGES, str(first + row))
            for layer, mask in enumerate(masks):
                blocked = compiled.blocked(layer, codes.device)
                if blocked is not None:
                    mask[row, 0, : len(layout), : len(layout)] &= ~blocked
    return masks


def report(
    network: LlavaNetwork, prefix: Int[Tensor, " prefix"], rows: Rows
) -> dict[str, dict[str, float]]:
    """Accuracy in full and under `VARIANTS`, and the share of edges that the policy cuts."""
    n_layers = network.language_model.config.num_hidden_layers
    scores = {"full": accuracy(network, prefix, rows)}
    scores |= {name: accuracy(network, prefix, rows, one) for name, one in VARIANTS.items()}
    codes = planted.segment_codes(len(prefix), rows[:BATCH].segments)
    scores["share of edges cut"] = edge_shares(planted.prompt_layouts(codes), n_layers)
    return scores


def edge_shares(layouts: list[TokenLayout], n_layers: int) -> dict[str, float]:
    """The edges that `effective` cuts, as shares of all edges and of those `random` may cut."""
    effective = [planted.EFFECTIVE.compile(each, n_layers, planted.RANGES) for each in layouts]
    everything = RandomBlocking(ratio=1.0)
    eligible = sum(sum(everything.budget(each, n_layers, None)) for each in layouts)
    total = sum(one.edges_total for one in effective)
    cut = total - sum(one.edges_kept for one in effective)
    return {"of all": cut / total, "of those random may cut": cut / eligible}
