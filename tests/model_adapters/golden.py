"""What the authors' code made of tiny models, and what it means to agree with it: the same for
every family.

    for golden in goldens(golden_root, LLAVA):
        model, sample = golden.model, golden.samples[0]
        sample.prepared.layout, sample.arrays["logits_last"], golden.numbers("knockouts")

A golden is a folder `model*` beside one `golden*`; where there are several, a common suffix pairs
them (`model_a_llava`, `golden_a`). Which family a model is of stands in its config.json: no name
and no count is written here.

Routes and layers are named in the authors' code's words there (0-based, ends exclusive); here they
are written as a user would write them, and run through parser, compiler and branching decoder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mapflow.model_adapters.interventions import (
    BatchMasks,
    Compiled,
    LayerSpan,
    PathwayRanges,
    TokenLayout,
    apply,
    parse_intervention,
)
from mapflow.model_adapters.video_llm import Prepared, VideoLLM

LOGITS, PROBABILITIES, FEATURES, PERCENTAGE_POINTS = 1e-4, 1e-5, 1e-5, 1e-2
RELATIVE = (
    2e-5  # of hidden states: the authors' code's own float32 is up to 1e-5 away from its float64
)
NAMES = {
    "Video": "video",
    "Question": "question",
    "Last": "last",
    "Non-option question": "stem",
    "True option": "true_option",
    "False option": "false_options",
}
PATHWAYS = {
    "INTER_FRAME": "cross-frame",
    "VIDEO_TO_QUESTION": "video->question",
    "QUESTION_TO_LAST": "question->last",
}


@dataclass(frozen=True)
class Family:
    """How a family's goldens are told, loaded and encoded: `encode(model, facts, arrays, question
    id)`."""

    architecture: str
    load: Callable[[Path], Any]
    encode: Callable[[Any, Mapping[str, Any], Mapping[str, np.ndarray], str], Prepared]


@dataclass(frozen=True)
class Sample:
    """One question of a golden: what the files say (`facts`, `arrays`) and our own preparation of
    it."""

    index: int
    facts: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    prepared: Prepared

    @property
    def letters(self) -> list[str]:
        return self.facts["candidates"]


@dataclass(frozen=True)
class Golden:
    """One checkpoint folder and the numbers that belong to it."""

    family: Family
    model_folder: Path
    folder: Path

    def __str__(self) -> str:
        return f"{self.model_folder.parent.name}/{self.model_folder.name}"

    @cached_property
    def model(self) -> Any:
        """The family's own class, hence not typed as what all families share."""
        return self.family.load(self.model_folder)

    @cached_property
    def samples(self) -> list[Sample]:
        """Every sample whose arrays are there."""
        return [self._sample(index, each) for index, each in enumerate(self.json("samples"))]

    def _sample(self, index: int, facts: Mapping[str, Any]) -> Sample:
        arrays = _arrays(self.folder / f"sample{index}.npz")
        return Sample(
            index, facts, arrays, self.family.encode(self.model, facts, arrays, str(index))
        )

    def has(self, name: str) -> bool:
        return (self.folder / f"{name}.json").is_file()

    def numbers(self, name: str) -> tuple[Any, dict[str, np.ndarray]]:
        """Contents of `name`.json and `name`.npz."""
        return self.json(name), self.arrays(name)

    def json(self, name: str) -> Any:
        return json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Contents of `name`.npz; empty where there is none."""
        path = self.folder / f"{name}.npz"
        return _arrays(path) if path.is_file() else {}


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


@lru_cache
def goldens(root: Path, family: Family) -> tuple[Golden, ...]:
    """All goldens of a family under `root`, each model loaded only when asked for."""
    found = []
    for model in sorted(root.glob("*/model*")):
        config = model / "config.json"
        if not config.is_file() or family.architecture not in json.loads(config.read_text()).get(
            "architectures", []
        ):
            continue
        folders = sorted(folder for folder in model.parent.glob("golden*") if folder.is_dir())
        own = [
            f for f in folders if f.name.removeprefix("golden").strip("_") in model.name.split("_")
        ] or folders
        found += [Golden(family, model, folder) for folder in own]
    return tuple(found)


def close(ours: Tensor, theirs: np.ndarray, tolerance: float) -> None:
    assert tuple(ours.shape) == theirs.shape
    assert (ours - torch.from_numpy(theirs)).abs().max().item() <= tolerance


def close_to_scale(ours: Tensor, theirs: np.ndarray) -> None:
    """Layer by layer: the residual stream grows to tens, so its rounding is measured against its
    own largest value."""
    scale = np.abs(theirs).reshape(len(theirs), -1).max(-1)
    for our_layer, their_layer, size in zip(ours, theirs, scale, strict=True):
        close(our_layer, their_layer, RELATIVE * size)


def span(layout: TokenLayout, *names: str) -> list[int]:
    """All positions of the segments that `names` stand for, ascending."""
    return sorted(position for name in names for position in layout.positions(name).tolist())


def every_sample(goldens: Sequence[Golden]) -> Iterator[tuple[Golden, Sample]]:
    """All samples of all goldens, of which each has some."""
    for golden in goldens:
        assert golden.samples, f"{golden} has no samples"
        for sample in golden.samples:
            yield golden, sample


def merged_ids(sample: Sample, placeholder: int) -> list[int]:
    """The golden's text ids with the placeholder repeated for every video token."""
    ids = sample.arrays["input_ids"][0].tolist()
    at = sample.facts["image_placeholder_index"]
    return ids[:at] + [placeholder] * sample.facts["num_vis"] + ids[at + 1 :]


def check_answer_ids(golden: Golden, sample: Sample) -> None:
    """The right answer's token and the options' letters."""
    assert sample.prepared.target_id == sample.facts["gt_t"]
    assert sample.prepared.question.target_text == sample.facts["gt"]
    spelled = golden.model.tokenizer.convert_ids_to_tokens(list(sample.prepared.option_ids))
    assert spelled == list(sample.prepared.question.letters)


def check_layout(sample: Sample) -> None:
    """Every named range of the golden, and nothing unnamed between them."""
    layout, facts = sample.prepared.layout, sample.facts
    assert len(layout) == len(sample.prepared.input_ids) == facts["ntoks"]
    expected = {
        "system": facts.get("system_range", [0, facts["vision_range"][0]]),
        "video": facts["vision_range"],
        "question": facts["question_range"],
        "stem": facts["question_without_options_range"],
        "true_option": facts["true_option_range"],
    }
    expected |= {
        f"frame[{index}]": each for index, each in enumerate(facts.get("frame_ranges", []))
    }
    for name, (start, end) in expected.items():
        assert span(layout, name) == list(range(start, end)), name
    assert layout.n_frames == len(facts.get("frame_ranges", sample.arrays["frames"]))
    assert span(layout, "false_options") == sorted(facts["false_option_indices"])
    assert span(layout, "last") == [facts["last_token"]]
    rest = set(range(facts["ntoks"])) - set(span(layout, "system", "video", "question", "last"))
    assert set(span(layout, "template")) == rest


def check_embedding(golden: Golden, sample: Sample) -> None:
    """The decoder's input, alone and in a batch with all other samples."""
    (alone,) = golden.model.embed([sample.prepared])
    assert alone.plain
    if "inputs_embeds" in sample.arrays:
        close(alone.embeds, sample.arrays["inputs_embeds"][0], FEATURES)
    if "position_ids" in sample.arrays:
        assert sample.arrays["position_ids"][0].tolist() == list(range(len(alone)))
    together = golden.model.embed([each.prepared for each in golden.samples])[sample.index]
    torch.testing.assert_close(together.embeds, alone.embeds, rtol=0, atol=FEATURES)


@torch.inference_mode()
def check_base_run(model: VideoLLM, sample: Sample) -> None:
    """The plain forward pass, without the instrument: logits, hidden states, the base answer and
    its probability."""
    facts, arrays = sample.facts, sample.arrays
    embeds = model.embed([sample.prepared])[0].embeds
    output = model.decoder.model(inputs_embeds=embeds[None], output_hidden_states=True)
    logits, hidden = output.logits[0], torch.stack(output.hidden_states)[:, 0]
    close(logits[-1], arrays["logits_last"], LOGITS)
    close_to_scale(hidden[:, -1], arrays["hidden_last"])
    if "logits_all" in arrays:
        close(logits, arrays["logits_all"], LOGITS)
    if "hidden_all" in arrays:
        close_to_scale(hidden, arrays["hidden_all"])
    probabilities = logits[-1].softmax(-1)
    assert int(probabilities.argmax()) == facts["base_answer_t"]
    assert abs(float(probabilities.max()) - facts["base_score"]) <= PROBABILITIES
    assert abs(float(probabilities[sample.prepared.target_id]) - facts["gt_score"]) <= PROBABILITIES


def route(words: str) -> str:
    """ "Non-option question -/-> Last" as "stem->last"."""
    if words == "No cross-frame interactions":
        return "cross-frame"
    source, target = words.split(" -/-> ")
    return f"{NAMES[source]}->{NAMES[target]}"


def compiled(golden: Golden, sample: Sample, expression: str) -> Compiled:
    return parse_intervention(expression).compile(
        sample.prepared.layout, golden.model.decoder.n_layers
    )


def answers(golden: Golden, sample: Sample, interventions: Sequence[Compiled]) -> Tensor:
    """Last-position logits, a row an intervention."""
    (logits,) = golden.model.decoder.answer_logits(
        golden.model.embed([sample.prepared]), [interventions]
    )
    return logits


def assert_scores(logits: Tensor, facts: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Probabilities, answer and relative changes of one golden row (or of arrays of them)."""
    probabilities = logits.softmax(-1).double().numpy()

    def close(ours: np.ndarray, name: str, tolerance: float) -> None:
        if name in theirs:
            np.testing.assert_allclose(ours, theirs[name], rtol=0, atol=tolerance, err_msg=name)

    base, target = probabilities[..., facts["base_answer_t"]], probabilities[..., facts["gt_t"]]
    close(base, "new_score", PROBABILITIES)
    close(target, "new_score_gt", PROBABILITIES)
    close(probabilities.max(-1), "prob_max", PROBABILITIES)
    change = (base - facts["base_score"]) / facts["base_score"] * 100
    change_of_target = (target - facts["gt_score"]) / facts["gt_score"] * 100
    close(change, "relative_diff", PERCENTAGE_POINTS)
    close(change_of_target, "relative_diff_gt", PERCENTAGE_POINTS)
    np.testing.assert_array_equal(probabilities.argmax(-1), theirs["new_answer_t"])


def check_knockouts(golden: Golden) -> None:
    """Every route × window × layer × sample: the answer's and the target's probability, the answer,
    the changes."""
    about, arrays = golden.numbers("knockouts")
    routes, n_layers = [route(words) for words in about["knockouts"]], about["num_layers"]
    assert n_layers == golden.model.decoder.n_layers
    for sample in golden.samples:
        for config, (style, size) in enumerate(about["configs"]):
            style_here = style.replace("_", "-")
            placed = [
                compiled(golden, sample, f"knockout:{each}@{style_here}={layer + 1},window={size}")
                for each in routes
                for layer in range(n_layers)
            ]
            logits = answers(golden, sample, placed).unflatten(0, (len(routes), n_layers))
            theirs = {n: a[sample.index, :, config] for n, a in arrays.items() if a.ndim == 4}
            assert {
                "new_score",
                "new_score_gt",
                "prob_max",
                "new_answer_t",
                "relative_diff",
            } <= set(theirs)
            assert_scores(logits, sample.facts, theirs)
            full = arrays.get(f"sample{sample.index}_{style}{size}")
            if full is not None:
                np.testing.assert_allclose(logits.numpy(), full, rtol=0, atol=LOGITS)


def check_windows(golden: Golden) -> None:
    """Each window hooks the layers that the authors' code hooks."""
    about, _ = golden.numbers("knockouts")
    sample = golden.samples[0]
    for style, size in about["configs"]:
        lists = about["layerlists"][f"{style}{size}"]
        assert len(lists) == about["num_layers"]
        for layer, hooked in enumerate(lists):
            text = f"knockout:video->last@{style.replace('_', '-')}={layer + 1},window={size}"
            cut = ~compiled(golden, sample, text).allowed.all((1, 2))
            assert np.flatnonzero(cut).tolist() == hooked


def effective_expression(ranges: Mapping[str, Sequence[int]], n_layers: int) -> str:
    """The paper's policy with the golden's ranges [a, b).

    The authors' code lets a range lie (partly) beyond the model's last layer; we refuse such
    ranges, so they are written as what they come to: ending at the last layer, or, wholly beyond
    it, that pathway cut everywhere."""
    spans, closed = [], []
    for name, pathway in PATHWAYS.items():
        first, last = ranges[name][0] + 1, min(ranges[name][1], n_layers)
        if first > n_layers:
            first = last = n_layers
            closed.append(pathway)
        spans.append(LayerSpan(first, last))
    return "+".join([f"effective:{PathwayRanges(*spans)}", *closed])


def of_samples(golden: Golden, facts: Mapping[str, Any]) -> Iterator[tuple[str, str, Sample]]:
    """(key, key without the sample, sample) of every "…_sample3" in a golden file."""
    for key in facts:
        name, _, index = key.rpartition("_sample")
        yield key, name, golden.samples[int(index)]


def assert_mask(item: Compiled, allowed: np.ndarray) -> None:
    for layer, theirs in enumerate(allowed):
        assert torch.equal(item.token_mask(layer), torch.from_numpy(theirs)), f"layer {layer + 1}"


def check_effective(golden: Golden) -> None:
    """Masks and edge counts exactly, logits, probabilities and relative changes."""
    facts, arrays = golden.numbers("effective")
    assert facts
    for key, _, sample in of_samples(golden, facts):
        theirs = facts[key]
        item = compiled(
            golden, sample, effective_expression(theirs["ranges"], golden.model.decoder.n_layers)
        )
        assert (item.edges_kept, item.edges_total) == (
            theirs["new_attention_cnt"],
            theirs["base_attention_cnt"],
        )
        assert 100 * item.edges_kept / item.edges_total == pytest.approx(
            theirs["attention_amount"], abs=1e-9
        )
        if f"{key}_allowed" in arrays:
            assert_mask(item, arrays[f"{key}_allowed"])
        logits = answers(golden, sample, [item])[0]
        np.testing.assert_allclose(logits.numpy(), arrays[f"{key}_logits"], rtol=0, atol=LOGITS)
        assert_scores(logits, sample.facts, theirs)


def check_random_budgets(golden: Golden) -> None:
    """As many edges as the authors' code blocks, for every ratio, whatever the draw."""
    facts, _ = golden.numbers("random")
    for key, _, sample in of_samples(golden, facts):
        theirs = facts[key]
        item = compiled(
            golden, sample, f"random:ratio={theirs['ratio']!r},seed={theirs['torch_manual_seed']}"
        )
        assert item.budget is not None
        assert set(item.budget) == {min(theirs["num_block_requested"], theirs["num_valid_indices"])}
        assert (item.edges_kept, item.edges_total) == (
            theirs["new_attention_cnt"],
            theirs["base_attention_cnt"],
        )


@torch.inference_mode()
def check_random_masks(golden: Golden) -> int:
    """The golden's own draws, put in the place of ours: everything after the draw is the same. How
    many there were."""
    checked = 0
    facts, arrays = golden.numbers("random")
    for key, _, sample in of_samples(golden, facts):
        if f"{key}_allowed" not in arrays:
            continue
        checked += 1
        allowed = torch.from_numpy(arrays[f"{key}_allowed"])
        ours = compiled(golden, sample, f"random:ratio={facts[key]['ratio']!r}")
        assert [int(mask.sum()) for mask in allowed] == ours.edges_by_layer.tolist()
        logits = plain_logits(golden, sample, plan_of(allowed))
        np.testing.assert_allclose(logits.numpy(), arrays[f"{key}_logits"], rtol=0, atol=LOGITS)
        assert_scores(logits, sample.facts, facts[key])
    return checked


def plan_of(allowed: Tensor) -> BatchMasks:
    """A plan from explicit masks [layer, query, key]: one segment, nothing cut but single edges."""
    n_layers, n, _ = allowed.shape
    everything = torch.ones(1, n_layers, 2, 2, dtype=torch.bool)
    segment_of = torch.zeros(1, n, dtype=torch.long)
    return BatchMasks(
        everything, segment_of, torch.tensor([n - 1]), lambda layer: ~allowed[layer][None]
    )


def plain_logits(golden: Golden, sample: Sample, plan: BatchMasks) -> Tensor:
    """By the model's own forward under a plan, without the branching decoder."""
    (inputs,) = golden.model.embed([sample.prepared])
    with apply(plan):
        return golden.model.decoder.model(inputs_embeds=inputs.embeds[None]).logits[0, -1]
