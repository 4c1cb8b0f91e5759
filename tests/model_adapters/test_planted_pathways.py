"""The masks of the mini training against reference matrices that are written out here."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import islice

import pytest
import torch

from mapflow.model_adapters.interventions import Intervention, parse_intervention
from mapflow.model_adapters.mini import planted
from mapflow.model_adapters.mini.evaluate import KNOCKOUTS, VARIANTS, edge_shares, layer_masks
from mapflow.model_adapters.mini.network import mini_config, new_network
from mapflow.model_adapters.mini.samples import (
    FORMATS,
    benchmark_tokenizer,
    converse,
    encode,
    load_prompt,
    questions,
)
from mapflow.model_adapters.mini.train import KINDS, Settings, Trainer

N_LAYERS = 12
EVERYWHERE = range(N_LAYERS)
FRAMES, QUESTION, TEMPLATE, LAST, ANSWER = (
    planted.FRAMES,
    planted.QUESTION,
    planted.TEMPLATE,
    planted.LAST,
    planted.ANSWER,
)
CROSS_FRAME, TO_QUESTION, TO_LAST = range(1, 6), range(1, 8), range(8, 12)
"""The bundled model's layer ranges, 0-based."""


@pytest.fixture(scope="module")
def codes() -> torch.Tensor:
    """Segments of a few rows of every format: `[row, position]`."""
    tokenizer, prompt = benchmark_tokenizer(), load_prompt()
    drawn = list(islice(questions(random.Random("masks"), frozenset()), 4))
    pieces = [converse(prompt, *pair, fmt) for pair in drawn for fmt in FORMATS]
    prefix, _, segments = encode(tokenizer, pieces)
    return planted.segment_codes(len(prefix) - 1, segments)


def full() -> torch.Tensor:
    return torch.ones(N_LAYERS, ANSWER + 1, ANSWER + 1, dtype=torch.bool)


def without(
    allowed: torch.Tensor, targets: Iterable[int], sources: Iterable[int], layers: Iterable[int]
) -> torch.Tensor:
    """A copy with these edges cut; answer positions follow the last prompt position."""
    cut = allowed.clone()
    for layer in layers:
        for target in targets:
            for source in sources:
                cut[layer, target, source] = False
    cut[:, ANSWER, :ANSWER] = cut[:, LAST, :ANSWER]
    return cut


def without_cross_frame(allowed: torch.Tensor, layers: Iterable[int]) -> torch.Tensor:
    layers = list(layers)
    for frame in FRAMES:
        allowed = without(allowed, [frame], [other for other in FRAMES if other != frame], layers)
    return allowed


def effective() -> torch.Tensor:
    everywhere = set(EVERYWHERE)
    allowed = without(full(), [LAST], [*FRAMES, LAST], everywhere)
    allowed = without_cross_frame(allowed, everywhere - set(CROSS_FRAME))
    allowed = without(allowed, [QUESTION], FRAMES, everywhere - set(TO_QUESTION))
    allowed = without(allowed, [LAST], [QUESTION], everywhere - set(TO_LAST))
    allowed = without(allowed, FRAMES, FRAMES, range(TO_QUESTION.stop, N_LAYERS))
    return without(allowed, [QUESTION], [QUESTION], range(TO_LAST.stop, N_LAYERS))


def planted_only() -> torch.Tensor:
    allowed = without(effective(), [TEMPLATE], [*FRAMES, QUESTION], EVERYWHERE)
    return without(allowed, [QUESTION], FRAMES[:-1], EVERYWHERE)


REFERENCE = {
    "effective": effective(),
    "planted": planted_only(),
    "no cross-frame 2-6": without_cross_frame(full(), CROSS_FRAME),
    "no cross-frame": without_cross_frame(full(), EVERYWHERE),
    "no video->question": without(full(), [QUESTION], FRAMES, EVERYWHERE),
    "no question->last": without(full(), [LAST], [QUESTION], EVERYWHERE),
    "no video->last": without(full(), [LAST], FRAMES, EVERYWHERE),
    "no video->template": without(full(), [TEMPLATE], FRAMES, EVERYWHERE),
    "no template->last": without(full(), [LAST], [TEMPLATE], EVERYWHERE),
}


@pytest.mark.parametrize("name", REFERENCE)
def test_masks_are_those_of_the_written_out_matrices(codes, name):
    """The instrument's compiled segments gathered over a batch, against one row at a time."""
    causal = torch.ones(codes.shape[1], codes.shape[1]).tril().bool()
    masks = layer_masks(VARIANTS[name], codes, N_LAYERS)
    for layer, mask in enumerate(masks):
        assert mask is not None
        for row, segment_of in enumerate(codes):
            reference = REFERENCE[name][layer][segment_of][:, segment_of] & causal
            assert torch.equal(mask[row, 0], reference), f"row {row}, layer {layer + 1}"


def test_every_variant_but_random_has_a_reference():
    assert REFERENCE.keys() == VARIANTS.keys() - {"random"}
    assert len(VARIANTS) == len(KNOCKOUTS) + 3


def test_each_row_of_a_batch_follows_its_own_kind(codes):
    kinds = torch.arange(len(codes)) % 3
    stacked = torch.stack([full(), effective(), planted_only()])
    compiled = torch.stack(
        [
            planted.allowed_segments(one, N_LAYERS)
            for one in (planted.FULL, planted.EFFECTIVE, planted.PLANTED)
        ]
    )
    for mask, reference in zip(
        planted.token_masks(compiled, kinds, codes),
        planted.token_masks(stacked, kinds, codes),
        strict=True,
    ):
        assert torch.equal(mask, reference)


def test_random_cuts_as_many_edges_of_each_prompt_as_the_policy(codes):
    causal = torch.ones(codes.shape[1], codes.shape[1]).tril().bool()
    masks = layer_masks(VARIANTS["random"], codes, N_LAYERS)
    others = layer_masks(VARIANTS["random"], codes[1:], N_LAYERS, first=1)
    cut = torch.stack([(causal & ~mask[:, 0]).sum((1, 2)) for mask in masks if mask is not None])
    for row, layout in enumerate(planted.prompt_layouts(codes)):
        policy = planted.EFFECTIVE.compile(layout, N_LAYERS, planted.RANGES)
        assert int(cut[:, row].sum()) == policy.edges_total - policy.edges_kept
    for mask, other in zip(masks, others, strict=True):
        assert mask is not None and other is not None
        assert torch.equal(mask[1:], other)
        assert mask[:, 0, 0].equal(causal[0].expand(len(codes), -1)), "the system text is not cut"


def test_edge_shares_are_counts_of_the_masks(codes):
    shares = edge_shares(planted.prompt_layouts(codes), N_LAYERS)
    prompt, later = codes != ANSWER, codes != planted.SYSTEM
    causal = torch.ones(codes.shape[1], codes.shape[1]).tril().bool()
    edges = causal & prompt[:, :, None] & prompt[:, None]
    eligible = edges & later[:, :, None] & later[:, None]
    masks = layer_masks(planted.EFFECTIVE, codes, N_LAYERS)
    cut = sum(int((edges & ~mask[:, 0]).sum()) for mask in masks if mask is not None)
    assert shares["of all"] == pytest.approx(cut / (N_LAYERS * int(edges.sum())))
    assert shares["of those random may cut"] == pytest.approx(
        cut / (N_LAYERS * int(eligible.sum()))
    )


def test_planted_pathways_are_the_only_ones():
    """Walks along allowed edges: without one pathway, the first frame cannot reach the answer."""
    both = planted.allowed_segments(planted.PLANTED, N_LAYERS)
    assert not (both & ~planted.allowed_segments(planted.EFFECTIVE, N_LAYERS)).any()
    first, *_, last_frame = FRAMES
    assert reaches(planted.PLANTED, first)
    knockouts = (f"cross-frame@{planted.RANGES.cross_frame}", "video->question", "question->last")
    cut = {route: parse_intervention(f"{planted.PLANTED}+{route}") for route in knockouts}
    assert {route: reaches(one, first) for route, one in cut.items()} == dict.fromkeys(cut, False)
    assert reaches(cut[knockouts[0]], last_frame), "the question attends to the last frame itself"
    detour = parse_intervention(f"{planted.EFFECTIVE}+question->last")
    assert reaches(detour, first), "the policy itself leaves the detour through the template open"


def reaches(intervention: Intervention, source: int) -> bool:
    """Does anything lead from `source` to the last position? Template and question interleave."""
    place = [*range(TEMPLATE + 1), TEMPLATE, LAST, ANSWER]
    informed = {source}
    for layer in planted.allowed_segments(intervention, N_LAYERS).tolist():
        informed |= {
            target
            for target, sources in enumerate(layer)
            if any(sources[key] and place[key] <= place[target] for key in informed)
        }
    return LAST in informed


@pytest.mark.parametrize("intervention", [planted.FULL, planted.EFFECTIVE, planted.PLANTED])
def test_answer_positions_attend_to_the_prompt_as_the_last_position_does(intervention):
    allowed = planted.allowed_segments(intervention, N_LAYERS)
    assert torch.equal(allowed[:, ANSWER, :ANSWER], allowed[:, LAST, :ANSWER])
    assert allowed[:, ANSWER, ANSWER].all()


def test_layers_with_equal_cuts_share_a_mask():
    network = new_network(mini_config(benchmark_tokenizer()))
    settings = Settings(1, 1.0, 1, 1, pathways=True, seed=0, learning_rate=0.0)
    trainer = Trainer(network, [0], settings, torch.device("cpu"))
    assert trainer.allowed.shape[1] < N_LAYERS
    kinds = torch.stack([planted.allowed_segments(kind, N_LAYERS) for kind in KINDS])
    assert torch.equal(trainer.allowed[:, trainer.mask_of_layer], kinds)
