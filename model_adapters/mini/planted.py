"""The pathways that the regularised model is trained to use, as reads between segments.

Coarser than a TokenLayout because a whole training batch shares it: all of the question is one segment, padding and
the answer's tokens are another. `reads[layer, target, source]` says whether target's queries may read source's keys.
Layers are 0-based here; `RANGES` are 1-based and inclusive, as people read them. Knows no tokens and no network.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

N_FRAMES = 8
SYSTEM = 0
FRAMES = tuple(range(1, 1 + N_FRAMES))
TEMPLATE, QUESTION, LAST, ANSWER = range(1 + N_FRAMES, 5 + N_FRAMES)
N_SEGMENTS = ANSWER + 1
RANGES = {"cross_frame": (2, 6), "video_to_question": (2, 8), "question_to_last": (9, 12)}


def layers(first: int, last: int) -> range:
    """1-based inclusive to 0-based."""
    return range(first - 1, last)


def ranges_yaml() -> str:
    """`RANGES` as the file that a checkpoint folder carries."""
    spans = (f"{name}: {first}-{last}\n" for name, (first, last) in RANGES.items())
    return "# Layers of the pathways that training planted (1-based, inclusive).\n" + "".join(spans)


def full(n_layers: int) -> Bool[Tensor, "layer target source"]:
    """Every segment reads every other; causality comes with the token mask."""
    return torch.ones(n_layers, N_SEGMENTS, N_SEGMENTS, dtype=torch.bool)


def without(
    reads: Bool[Tensor, "layer target source"],
    targets: Iterable[int],
    sources: Iterable[int],
    where: Iterable[int],
) -> Bool[Tensor, "layer target source"]:
    """A copy in which `targets` do not read `sources` in the layers `where`; answer rows follow the last row."""
    cut = reads.clone()
    for layer in where:
        for target in targets:
            for source in sources:
                cut[layer, target, source] = False
    cut[:, ANSWER, :ANSWER] = cut[:, LAST, :ANSWER]
    return cut


def without_cross_frame(
    reads: Bool[Tensor, "layer target source"], where: Iterable[int]
) -> Bool[Tensor, "layer target source"]:
    """A copy in which no frame reads another in the layers `where`."""
    where = list(where)
    for frame in FRAMES:
        reads = without(reads, [frame], [other for other in FRAMES if other != frame], where)
    return reads


def effective(n_layers: int) -> Bool[Tensor, "layer target source"]:
    """The paper's policy with `RANGES` (design.md, Interventions): template rows stay free."""
    everywhere = range(n_layers)
    cross_frame, to_question, to_last = (layers(*RANGES[name]) for name in RANGES)
    reads = without(full(n_layers), [LAST], [*FRAMES, LAST], everywhere)
    reads = without_cross_frame(reads, set(everywhere) - set(cross_frame))
    reads = without(reads, [QUESTION], FRAMES, set(everywhere) - set(to_question))
    reads = without(reads, [LAST], [QUESTION], set(everywhere) - set(to_last))
    reads = without(reads, FRAMES, FRAMES, range(to_question.stop, n_layers))
    return without(reads, [QUESTION], [QUESTION], range(to_last.stop, n_layers))


def planted(n_layers: int) -> Bool[Tensor, "layer target source"]:
    """What training enforces: `effective` without its detours, so that the three pathways are the only ones.

    Template rows read neither video nor question, or the answer could travel through them. The question reads the last
    frame alone, or it could compare the frames itself and cross-frame attention would have nothing to do.
    """
    reads = without(effective(n_layers), [TEMPLATE], [*FRAMES, QUESTION], range(n_layers))
    return without(reads, [QUESTION], FRAMES[:-1], range(n_layers))


def distinct_layers(
    reads: Bool[Tensor, "kind layer target source"],
) -> tuple[Bool[Tensor, "kind distinct target source"], list[int]]:
    """The layers of `reads` that differ, and for every layer which of them it is: a mask for each is enough."""
    distinct, which = torch.unique(reads, dim=1, return_inverse=True)
    return distinct, which.tolist()


def token_masks(
    reads: Bool[Tensor, "kind layer target source"],
    kind_of: Int[Tensor, " batch"],
    segment_of: Int[Tensor, "batch n"],
) -> list[Bool[Tensor, "batch 1 n n"]]:
    """Every layer's causal mask, each row of the batch under its own kind of `reads`."""
    n = segment_of.shape[1]
    causal = torch.ones(n, n, dtype=torch.bool, device=segment_of.device).tril()
    target, source = segment_of[:, :, None], segment_of[:, None, :]
    pair = (kind_of[:, None, None] * N_SEGMENTS + target) * N_SEGMENTS + source
    return [(layer.flatten()[pair] & causal)[:, None] for layer in reads.unbind(1)]


def cut_shares(
    reads: Bool[Tensor, "layer target source"], segment_of: Int[Tensor, "batch n"]
) -> tuple[float, float]:
    """(share of the prompts' causal edges that `reads` cuts, the same number as a share of what random may cut)."""
    kinds = torch.zeros(len(segment_of), dtype=torch.long, device=segment_of.device)
    prompt = segment_of != ANSWER
    edges = prompt[:, None, :, None] & prompt[:, None, None, :]
    causal = token_masks(full(1).to(segment_of.device)[None], kinds, segment_of)[0] & edges
    cut = sum(int((causal & ~mask).sum()) for mask in token_masks(reads[None], kinds, segment_of))
    eligible = int((random_eligible(segment_of) & edges).sum())
    return cut / (int(causal.sum()) * len(reads)), cut / (eligible * len(reads))


def random_eligible(segment_of: Int[Tensor, "batch n"]) -> Bool[Tensor, "batch 1 n n"]:
    """Causal edges whose query and key both lie at or after the first video token: those random blocking may cut."""
    n = segment_of.shape[1]
    later = segment_of != SYSTEM
    causal = torch.ones(n, n, dtype=torch.bool, device=segment_of.device).tril()
    return (later[:, :, None] & later[:, None, :] & causal)[:, None]
