"""Numbers of the authors' code on tiny models, and checks that ours agree, for every family.

    for golden in goldens(golden_root, LLAVA):
        model, sample = golden.model, golden.samples[0]
        sample.prepared.layout, sample.arrays["logits_last"], golden.numbers("knockouts")

A golden is a folder `model*` beside a folder `golden*`. If there are several, a common suffix pairs
them (`model_a_llava`, `golden_a`). config.json tells the family: the number and the names of
goldens are free. Checks of interventions are in `golden_interventions.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mapflow.model_adapters.interventions import (
    TokenLayout,
)
from mapflow.model_adapters.video_llm import Prepared, VideoLLM

LOGITS, PROBABILITIES, FEATURES, PERCENTAGE_POINTS = 1e-4, 1e-5, 1e-5, 1e-2
# Of hidden states: the authors' code in float32 differs from its float64 by up to 1e-5.
RELATIVE = 2e-5


@dataclass(frozen=True)
class Family:
    """How a family's goldens are recognised, loaded and encoded.

    `encode` is called with model, facts, arrays and question id.
    """

    architecture: str
    load: Callable[[Path], Any]
    encode: Callable[[Any, Mapping[str, Any], Mapping[str, np.ndarray], str], Prepared]


@dataclass(frozen=True)
class Sample:
    """One question of a golden: the files' `facts` and `arrays`, and our own preparation."""

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
    """Layer by layer, relative to the layer's largest value: the residual stream grows."""
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
    """The forward pass without interventions: logits, hidden states, answer and probability."""
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
