"""The choice of an executor changes no number, and rows that no answer depends on are left out
where there are many.
"""

from __future__ import annotations

import torch
from hypothesis import given
from strategies import few
from test_attention import TOLERANCE, families
from test_decoder import grids
from test_incremental import Meter, decoder_of
from tiny_models import embeddings, tiny, twin_logits

from mapflow.model_adapters.interventions import (
    Decoder,
    DecoderInputs,
    LayerSpan,
    PathwayRanges,
    Segment,
    TokenLayout,
    parse_intervention,
)
from mapflow.model_adapters.interventions.execution.answers import answer_logits
from mapflow.model_adapters.interventions.language.liveness import live_row_layers

LAYERS = 6
RANGES = PathwayRanges(LayerSpan(1, 2), LayerSpan(1, 3), LayerSpan(3, 6))
LAYOUT = TokenLayout.from_runs(
    [
        (Segment("system"), 2),
        *[(Segment("frame", i), 8) for i in range(3)],
        (Segment("stem"), 3),
        (Segment("template"), 2),
        (Segment("last"), 1),
    ]
)


@given(families, grids(min_interventions=1))
@few
def test_every_prompt_and_intervention_equals_a_forward_of_its_own(family, grid):
    n_layers, rows = grid
    decoder = Decoder(tiny(family, n_layers))
    found = answer_logits(
        decoder,
        [DecoderInputs(embeds) for embeds, _, _ in rows],
        [compiled for _, compiled, _ in rows],
    )
    for logits, (embeds, _, masks) in zip(found, rows, strict=True):
        assert len(logits) == len(masks)
        for own, mask in zip(logits, masks, strict=True):
            torch.testing.assert_close(
                own.double(), twin_logits(decoder.model, embeds, mask)[-1], **TOLERANCE
            )


def rows_run(text: str) -> int:
    decoder = decoder_of("llama-gqa", LAYERS)
    compiled = parse_intervention(text).compile(LAYOUT, LAYERS, RANGES)
    meter = Meter(decoder)
    answer_logits(decoder, [DecoderInputs(embeddings(len(LAYOUT), 3).double())], [[compiled]])
    meter.stop()
    return meter.rows


def test_unused_video_is_not_computed():
    strict = parse_intervention("effective-strict").compile(LAYOUT, LAYERS, RANGES)
    text = len(LAYOUT) - len(LAYOUT.positions("video"))
    assert rows_run("full") > len(LAYOUT) * (LAYERS - 1)
    assert live_row_layers(strict) <= rows_run("effective-strict") <= 2 * len(LAYOUT) + 4 * text


def test_a_model_that_cannot_be_run_row_by_row_answers_all_the_same():
    decoder = decoder_of("llama-gqa", LAYERS)
    compiled = [parse_intervention("effective-strict").compile(LAYOUT, LAYERS, RANGES)]
    inputs = [DecoderInputs(embeddings(len(LAYOUT), 3).double())]
    hook = decoder.layers[1].register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    try:
        (found,) = answer_logits(decoder, inputs, [compiled])
        (slow,) = decoder.answer_logits(inputs, [compiled])
    finally:
        hook.remove()
    assert torch.equal(found, slow)
