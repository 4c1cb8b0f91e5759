"""A cut acts where it was asked for: in the right layer, and on no other position.

Both checks compare hidden states bit by bit, so every run here uses explicit masks and hence the
same kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from jaxtyping import Bool
from torch import Tensor

from mapflow.harness.verification.model_under_test import ExplicitMasks, Finding, ModelUnderTest
from mapflow.model_adapters.inference.start_checks import isolation
from mapflow.model_adapters.interventions import Compiled
from mapflow.model_adapters.interventions.language.own_edges import OwnEdges
from mapflow.results.contract.visible_text import counted

CUT = "video->question"
ROUTES = ("frame[0]->frame[1]", "video->stem", "option[0]->template", "video->last", "stem->last")


def check_layers(subject: ModelUnderTest) -> Iterator[Finding]:
    """Cuts a route in one layer at a time and looks where hidden states change.

    The route is video -> question where the layer's window shows it.

    Layers before the cut must keep their bits, the cut layer must change. Later layers ask for
    their masks themselves, and "layer numbers" checks that each asks for its own. A cut between
    positions that causality separates anyway must change nothing.
    """
    device = subject.model.decoder.device
    attends = sorted(subject.model.decoder.found.attends)
    uncut = ExplicitMasks(subject.compiled("full"), device)
    base = subject.residual(uncut)
    asked = list(dict.fromkeys(uncut.asked))
    in_order = asked == attends
    yield Finding(
        "layer numbers",
        in_order,
        f"each of {counted(len(attends), 'layer')} asks for its own mask"
        if in_order
        else f"layers ask for the masks of {[layer + 1 for layer in asked]}, not of"
        f" {[layer + 1 for layer in attends]}",
    )
    wrong = []
    for layer in attends:
        compiled = _within_reach(subject, layer)
        cut = subject.residual(ExplicitMasks(compiled, device))
        moved = subject.changed(cut, base)
        earlier = [n + 1 for n in range(layer) if moved[n].any()]
        if earlier:
            wrong.append(f"a cut in layer {layer + 1} changes layer {earlier[0]}")
        if not moved[layer].any():
            wrong.append(f"a cut in layer {layer + 1} changes nothing there")
    yield Finding(
        "layers reached",
        not wrong,
        "; ".join(wrong[:3])
        or f"a cut in each of {counted(len(attends), 'layer')} acts there first",
    )
    masks = ExplicitMasks(subject.compiled("question->video+last->question"), device)
    same = not subject.changed(subject.residual(masks), base).any()
    result = "no bit changes" if same else "hidden states change"
    yield Finding("cut without effect", same, f"keys after their queries: {result}")


def check_causality(subject: ModelUnderTest) -> Iterator[Finding]:
    """Cuts single routes in one layer; only positions that the cut can influence may change, in any
    layer.
    """
    device = subject.model.decoder.device
    base = subject.residual(ExplicitMasks(subject.compiled("full"), device))
    attends = sorted(subject.model.decoder.found.attends)
    layer = attends[(len(attends) - 1) // 2]
    names = {str(segment) for segment in subject.prepared[0].layout.segments} | {"video"}
    for route in ROUTES:
        if not names >= set(route.split("->")):
            continue  # a clip with a single frame segment
        compiled = subject.compiled(f"{route}@{layer + 1}")
        if not subject.reaches(compiled, layer):
            continue  # a window hides these keys
        cut = subject.residual(ExplicitMasks(compiled, device))
        changed = subject.changed(cut, base).cpu()
        expected = influenced_positions(compiled)
        unexpected = [
            f"layer {at + 1}, position {int(position)}"
            for at in range(len(expected))
            for position in (changed[at] & ~expected[at]).nonzero().flatten()[:1]
        ]
        where = f"{route} in layer {layer + 1}"
        if unexpected:
            yield Finding("causality", False, f"{where} also changes {unexpected[0]}")
        elif not changed[layer].any():
            yield Finding("causality", False, f"{where} changes nothing there")
        else:
            counts = f"{int(changed[layer].sum())} of {int(expected[layer].sum())} positions there"
            yield Finding("causality", True, f"{where} changes {counts}, and no others later")


def _within_reach(subject: ModelUnderTest, layer: int) -> Compiled:
    """video -> question in this layer; where a window hides that, two neighbouring segments."""
    segments = subject.prepared[0].layout.segments
    neighbours = [f"{one}->{two}" for one, two in pairwise(map(str, segments))]
    for route in (CUT, *neighbours):
        compiled = subject.compiled(f"{route}@{layer + 1}")
        if subject.reaches(compiled, layer):
            return compiled
    return subject.compiled(f"{CUT}@{layer + 1}")


def influenced_positions(compiled: Compiled) -> Bool[Tensor, "layer n"]:
    """Positions of each layer's output that the cuts can make differ from the uncut run.

    A position changes if it loses a key, or if it attends to a position that changed in an earlier
    layer.
    """
    n = len(compiled.layout)
    changed = torch.zeros(n, dtype=torch.bool)
    by_layer = []
    own = compiled.own or OwnEdges([None] * compiled.n_layers)
    for layer in range(compiled.n_layers):
        mask = compiled.token_mask(layer)
        exist = own.mask(layer, n)
        changed = changed | (mask & changed).any(1) | (exist & ~mask).any(1)
        by_layer.append(changed)
    return torch.stack(by_layer)


def check_isolation(subject: ModelUnderTest) -> Iterator[Finding]:
    """The video is cut from everything in all layers: with other pixels no bit may change."""
    for prepared, inputs in zip(subject.prepared, subject.inputs, strict=True):
        found = isolation(subject.model, prepared, inputs)
        name = prepared.question.question_id
        if found is None:
            yield Finding("isolation", False, f"question {name!r}: pixels change no embedding")
            continue
        result = (
            "no bit of the logits changes"
            if found["bit_equal"]
            else (f"logits change by {found['max_difference']:.1e}")
        )
        yield Finding(
            "isolation",
            found["isolated"],
            f"question {name!r}: video cut from everything, other pixels: {result}",
        )
