"""Does a cut reach exactly the layers that were asked for?

Video is cut from the question in one layer at a time. All layers before it must give the same bits as without the cut,
and it must give others. That no later layer is cut as well follows from who asks: each layer asks for its own mask,
once. Last, a cut that can do nothing (queries before their keys) must change nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from mapflow.harness.verification.finding import Finding
from mapflow.harness.verification.subject import ExplicitMasks, Subject


def check_layers(subject: Subject) -> Iterator[Finding]:
    device, n_layers = subject.model.decoder.device, subject.n_layers
    rows = subject.prepared[0].layout.positions("question").to(device)
    untouched = ExplicitMasks(subject.compiled("full"), device)
    base = subject.residual(untouched)
    asked = untouched.asked
    yield Finding(
        "layer numbers",
        asked == list(range(n_layers)),
        f"each of {n_layers} layers asks for its own mask once"
        if asked == list(range(n_layers))
        else f"layers ask for the masks of {[layer + 1 for layer in asked]}, not 1 to {n_layers}",
    )
    wrong = []
    for layer in range(n_layers):
        cut = subject.residual(
            ExplicitMasks(subject.compiled(f"video->question@{layer + 1}"), device)
        )
        early = [
            before + 1 for before in range(layer) if not torch.equal(cut[before], base[before])
        ]
        if early:
            wrong.append(f"a cut in layer {layer + 1} changes layer {early[0]}")
        if torch.equal(cut[layer, rows], base[layer, rows]):
            wrong.append(f"a cut in layer {layer + 1} changes nothing there")
    yield Finding(
        "layers reached",
        not wrong,
        "; ".join(wrong[:3]) or f"a cut in each of {n_layers} layers acts there first",
    )
    vain = subject.residual(
        ExplicitMasks(subject.compiled("question->video+last->question"), device)
    )
    same = torch.equal(vain, base)
    yield Finding(
        "cut in vain",
        same,
        f"keys after their queries: {'no bit changes' if same else 'hidden states change'}",
    )
