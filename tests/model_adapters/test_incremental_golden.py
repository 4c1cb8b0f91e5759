"""All knockouts of the golden files, every style, window and layer, through the incremental
executor in one go."""

from __future__ import annotations

import pytest
import torch
from golden_pllava import Golden, Sample, llava_goldens

from mapflow.model_adapters.interventions import Intervention, parse_intervention
from mapflow.model_adapters.interventions.execution.incremental import answer_logits

PROBABILITIES, LOGITS, PERCENT = 1e-5, 1e-4, 1e-2
SEGMENTS = {
    "video": "video",
    "question": "question",
    "last": "last",
    "non-option question": "stem",
    "true option": "true_option",
    "false option": "false_options",
}


def route_of(name: str) -> str:
    """'Video -/-> Question' as video->question."""
    if "-/->" not in name:
        return "cross-frame"
    source, target = (SEGMENTS[end.strip().lower()] for end in name.split("-/->"))
    return f"{source}->{target}"


def knockout(name: str, style: str, window: int, layer: int) -> Intervention:
    style = style.replace("_", "-")
    sized = f",window={window}" if style in ("center", "inverse") else ""
    return parse_intervention(f"knockout:{route_of(name)}@{style}={layer + 1}{sized}")


def probabilities(
    golden: Golden, sample: Sample, interventions: list[Intervention]
) -> torch.Tensor:
    layout, layers = sample.prepared.layout, golden.model.decoder.n_layers
    compiled = [one.compile(layout, layers) for one in interventions]
    (inputs,) = golden.model.embed([sample.prepared])
    return answer_logits(golden.model.decoder, inputs, compiled)


def test_every_golden_knockout(golden_root):
    goldens = llava_goldens(golden_root)
    if not goldens:
        pytest.skip("no golden of the LLaVA family")
    for golden in goldens:
        facts, arrays = golden.numbers("knockouts")
        grid = [
            (k, c, layer)
            for k in range(len(facts["knockouts"]))
            for c in range(len(facts["configs"]))
            for layer in range(facts["num_layers"])
        ]
        interventions = [
            Intervention(),
            *(knockout(facts["knockouts"][k], *facts["configs"][c], layer) for k, c, layer in grid),
        ]
        for sample in golden.samples:
            logits = probabilities(golden, sample, interventions)
            probs = logits.softmax(-1)
            base = int(probs[0].argmax())
            shape = arrays["new_score"][sample.index].shape
            score = probs[1:, base].view(shape)
            target = probs[1:, sample.prepared.target_id].view(shape)
            for ours, name in ((score, "new_score"), (target, "new_score_gt")):
                theirs = torch.from_numpy(arrays[name][sample.index])
                assert (ours - theirs).abs().max().item() <= PROBABILITIES, (
                    str(golden),
                    sample.index,
                    name,
                )
            answers = torch.from_numpy(arrays["new_answer_t"][sample.index])
            assert (probs[1:].argmax(-1).view(shape) == answers).all()
            change = (score - probs[0, base]) / probs[0, base] * 100
            assert (
                change - torch.from_numpy(arrays["relative_diff"][sample.index])
            ).abs().max() <= PERCENT
            for config, (style, window) in enumerate(facts["configs"]):
                if f"sample{sample.index}_{style}{window}" in arrays:
                    theirs = torch.from_numpy(arrays[f"sample{sample.index}_{style}{window}"])
                    ours = logits[1:].view(*shape, -1)[:, config]
                    assert (ours - theirs).abs().max().item() <= LOGITS
