"""Every golden of the LLaVA family, loaded once: the model, its samples and what the released code made of them.

    for golden in llava_goldens(golden_root):
        model, sample = golden.model, golden.samples[0]
        sample.prepared.layout, sample.arrays["logits_last"], golden.numbers("knockouts")

A golden is a folder `model*` beside one `golden*`; where there are several, a common suffix pairs them (`model_a_llava`,
`golden_a`). Which family a model is of stands in its config.json: no name and no count is written here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mapflow.model_adapters.llava import LlavaVideo
from mapflow.model_adapters.video_llm import Prepared
from mapflow.results.question import Clip, Prompt, Question

ARCHITECTURE = "PllavaForConditionalGeneration"


@dataclass(frozen=True)
class Sample:
    """One question of a golden: what the files say (`facts`, `arrays`) and our own preparation of it."""

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

    model_folder: Path
    folder: Path

    def __str__(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"

    @cached_property
    def model(self) -> LlavaVideo:
        return LlavaVideo.load(self.model_folder, dtype=torch.float32)

    @cached_property
    def samples(self) -> list[Sample]:
        facts = json.loads((self.folder / "samples.json").read_text(encoding="utf-8"))
        return [self._sample(index, each) for index, each in enumerate(facts)]

    def _sample(self, index: int, facts: Mapping[str, Any]) -> Sample:
        with np.load(self.folder / f"sample{index}.npz") as file:
            arrays = {name: file[name] for name in file.files}
        question = question_of(facts, str(index))
        return Sample(index, facts, arrays, self.model.encode(question, arrays["frames"]))

    def numbers(self, name: str) -> tuple[Any, dict[str, np.ndarray]]:
        """Contents of `name`.json and `name`.npz."""
        with np.load(self.folder / f"{name}.npz") as file:
            arrays = {key: file[key] for key in file.files}
        return json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8")), arrays


@lru_cache
def llava_goldens(root: Path) -> tuple[Golden, ...]:
    """All goldens of this family under `root`, each model loaded only when asked for."""
    found = []
    for model in sorted(root.glob("*/model*")):
        config = model / "config.json"
        if not config.is_file() or ARCHITECTURE not in json.loads(config.read_text()).get(
            "architectures", []
        ):
            continue
        folders = sorted(folder for folder in model.parent.glob("golden*") if folder.is_dir())
        own = [
            f for f in folders if f.name.removeprefix("golden").strip("_") in model.name.split("_")
        ] or folders
        found += [Golden(model, folder) for folder in own]
    return tuple(found)


def question_of(facts: Mapping[str, Any], question_id: str) -> Question:
    """The question whose rendering, under the paper's protocol, is the golden's prompt.

    The wording is cut out of the golden's own prompt, so that any system text and instruction will do.
    """
    opening, turn = facts["prompt"].split(" USER: <image>\n USER: ")
    turn, answer_prefix = turn.split(" ASSISTANT:")
    stem, instruction = facts["question_without_options"], turn.removeprefix(facts["question"])
    texts = sorted([facts["answer"], *facts["false_options"]])
    options = tuple(re.sub(r"^\(\w\) ", "", text) for text in texts)
    label = facts["question"].partition(stem)[0]
    prompt = Prompt(opening, label, "\nOptions:\n", "({letter}) {text}", "\n", instruction, answer_prefix)
    return Question(
        question_id=question_id,
        video_id=question_id,
        task="golden",
        clip=Clip("golden.mp4"),
        stem=stem,
        options=options,
        target=texts.index(facts["answer"]),
        protocol="paper",
        prompts={"completion": prompt},
    )
