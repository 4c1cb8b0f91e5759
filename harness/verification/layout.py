"""The layout names every position once; `video` is where the video embeddings are."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from mapflow.harness.verification.model_under_test import Finding, ModelUnderTest
from mapflow.model_adapters.interventions import DecoderInputs, TokenLayout
from mapflow.model_adapters.video_llm import Prepared
from mapflow.results.contract.visible_text import counted


def check_layout(subject: ModelUnderTest) -> Iterator[Finding]:
    """Checks tiling, `last`, options, the order of frames, and where video embeddings are."""
    for prepared, inputs in zip(subject.prepared, subject.inputs, strict=True):
        layout, name = prepared.layout, prepared.question.question_id
        lengths = {len(layout), len(prepared.input_ids), len(inputs)}
        owners = torch.stack(
            [layout.positions(str(s)).bincount(minlength=len(layout)) for s in layout.segments]
        )
        n_options = len(prepared.question.options)
        problems = [
            text
            for text, wrong in {
                f"lengths differ: {sorted(lengths)} for layout, ids and embeddings": len(lengths)
                > 1,
                "a position has no segment or several": not bool((owners.sum(0) == 1).all()),
                "`last` is not the last position alone": layout.positions("last").tolist()
                != [len(layout) - 1],
                "not every option has a segment": sum(s.kind == "option" for s in layout.segments)
                != n_options,
                "frames do not come in order": not _in_order(layout),
            }.items()
            if wrong
        ]
        segments = counted(len(layout.segments), "segment")
        detail = f"question {name!r}: {counted(len(layout), 'position')} in {segments}"
        yield Finding("layout", not problems, "; ".join(problems) or f"{detail}, each named once")
        yield _video_finding(subject, prepared, inputs)


def _in_order(layout: TokenLayout) -> bool:
    frames = [s.index for s in layout.segments if s.kind == "frame"]
    starts = [int(layout.positions(f"frame[{index}]")[0]) for index in sorted(frames)]
    return sorted(frames) == list(range(len(frames))) and starts == sorted(starts)


def _video_finding(subject: ModelUnderTest, prepared: Prepared, inputs: DecoderInputs) -> Finding:
    """Text positions hold their own token's embedding; every frame has a position that does not."""
    layout = prepared.layout
    table = subject.model.decoder.core.get_input_embeddings()
    # a placeholder's id may lie outside the table
    rows = len(table.weight)  # pyright: ignore[reportArgumentType]
    ids = prepared.input_ids.to(subject.model.decoder.device)
    own = table(ids.clamp_max(rows - 1)).to(inputs.embeds)
    visual = ((inputs.embeds != own).any(-1) | (ids >= rows).to(inputs.embeds.device)).cpu()
    video = torch.zeros(len(layout), dtype=torch.bool)
    video[layout.positions("video")] = True
    outside = (visual & ~video).nonzero().flatten().tolist()
    blind = [
        index
        for index in range(layout.n_frames)
        if not visual[layout.positions(f"frame[{index}]")].any()
    ]
    name = prepared.question.question_id
    if outside:
        return Finding(
            "video positions", False, f"positions {outside[:5]} hold video but are named otherwise"
        )
    if blind:
        return Finding("video positions", False, f"frames {blind[:5]} hold no video embedding")
    found = f"{int(visual.sum())} video embeddings in {layout.n_frames} frame segments"
    detail = f"question {name!r}: {found}"
    per = subject.model.frames_per_segment
    shown = len(prepared.frame_indices)
    passed = layout.n_frames == -(-shown // per)
    return Finding("video positions", passed, f"{detail}, {shown} source frames, {per} a segment")
