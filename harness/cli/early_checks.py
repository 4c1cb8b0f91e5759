"""Refusals that need no weights, before torch and lmms-eval are imported, which takes seconds.

`lmms_eval`, the analyses and `verify` ask here first. What only a loaded model can tell (tensors
that do not fit, devices, prompts) is refused later, by the code that runs into it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mapflow.model_adapters.checkpoints.declared import (
    Declared,
    check_dtype,
    check_weight_files,
    declared,
)
from mapflow.model_adapters.families.model_args import COMMON, checked_options
from mapflow.model_adapters.families.registry import (
    card,
    checkpoint,
    defaults,
    families,
    family_for,
    variants,
    wrong_architecture,
)
from mapflow.model_adapters.inference.identity import declared_identity, fitted
from mapflow.model_adapters.interventions import Intervention
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Question
from mapflow.results.records.record import Record
from mapflow.results.runs.claim import Claim, claim
from mapflow.results.runs.folder import check_resumable
from mapflow.results.runs.processes import processes

DEVICE = re.compile(r"(auto|cpu|cuda|mps|xpu|npu|hpu|meta)(:\d+)?")


@dataclass(frozen=True)
class EarlyModel:
    """A model that a command line names, as far as it is known without loading it.

    Attributes:
        family: as users type it.
        place: its checkpoint; None for families of other packages, whose folders are their own.
        options: the family's arguments, with defaults filled in.
        name: as the loaded model's; None if only loading tells it.
        dtype: as asked for; "auto" is known after loading.
    """

    family: str
    place: Declared | None
    options: Mapping[str, Any]
    name: str | None
    dtype: str

    def identity(self, protocol: str) -> dict[str, Any]:
        """The part of a run's identity that is known."""
        known = declared_identity(self.family, self.name, self.options, protocol)
        return known | ({} if self.dtype == "auto" else {"dtype": self.dtype})

    def described(self, interventions: Sequence[Intervention]) -> dict[str, str]:
        """Name → full expression of the interventions; empty where that is not known.

        Raises MapflowError for layers and ranges that the model lacks.
        """
        if self.place is None or self.place.n_layers is None:
            return {}
        ranges = self.place.pathways
        return {
            str(one): one.describe(ranges)
            for one in fitted(interventions, self.place.n_layers, ranges)
        }


def early_model(
    family: str,
    given: Mapping[str, Any],
    others: Sequence[str] = (),
    *,
    allow_uncut_layers: bool = False,
) -> EarlyModel:
    """The model that these arguments of `load_model` name.

    others: further arguments that exist, for suggestions. Raises MapflowError for an unknown family
    or argument, and for a checkpoint that is missing, incomplete or another family's.
    """
    known = card(family).arguments
    own = {name: value for name, value in given.items() if name not in COMMON}
    typed = checked_options(family, known, own, others)
    dtype, device = given.get("dtype") or "auto", given.get("device") or given.get("device_map")
    check_dtype(dtype)
    if isinstance(device, str) and not DEVICE.fullmatch(device):
        raise MapflowError(f"device {device!r} is unknown: use cpu, cuda, cuda:N or auto")
    path = checkpoint(family, given.get("pretrained"))
    place, name = None, None
    if families()[family].written_card is not None:
        place = declared(path, given.get("lora"))
        _check_architecture(family, place)
        check_weight_files(place)
        if not allow_uncut_layers and card(family).architectures:
            name = place.name + variants(known, typed)
    return EarlyModel(family, place, defaults(known) | typed, name, str(dtype))


def _check_architecture(family: str, place: Declared) -> None:
    """As the families do when they load; a family that has to be imported to tell is not asked."""
    own, architecture = card(family).architectures, place.architecture
    other = family_for(architecture, imports=False)
    if own is None and other:
        raise MapflowError(
            f"{place.folder} holds a {architecture!r}, which {family} cannot run: use --model"
            f" {other}"
        )
    if own is not None and architecture not in own:
        raise wrong_architecture(family, place.folder, architecture, own, imports=False)


def check_wording(family: str, questions: Sequence[Question]) -> None:
    """Raises MapflowError if the questions' protocol has no wording for models of this kind."""
    for question in {one.task: one for one in questions}.values():
        question.prompt(card(family).prompt_style)


def check_folder(
    folder: Path,
    known: Mapping[str, Any],
    interventions: Mapping[str, str],
    file: str = Record.FILE,
) -> Claim | None:
    """Raises MapflowError for a folder that cannot be written, is in use or holds another run.

    known: a part of the run's identity; interventions: name → full expression; file: of its
    records. Returns the claim of a folder that is there: it keeps other jobs out while it is held.
    """
    check_output_folder(folder)
    try:
        held = claim(folder) if folder.is_dir() else None
    except FileNotFoundError:  # made for a moment by another process's `check_output_folder`
        held = None
    check_resumable(folder, json.loads(json.dumps(known)), interventions, file)
    return held


def check_output_folder(folder: Path) -> None:
    """Raises MapflowError if an --output_path cannot be made or written. Leaves nothing behind.

    Of a job with several processes none tries to make it: `RunFolder` does.
    """
    missing = [
        place
        for place in (folder, *folder.absolute().parents)
        if not os.path.exists(place)  # noqa: PTH110 - pathlib raises for what may not be listed
    ]
    there = (missing[-1] if missing else folder / "_").absolute().parent
    reason = None
    if not os.path.isdir(there):  # noqa: PTH112
        reason = f"{there} is not a folder"
    elif not os.access(there, os.W_OK | os.X_OK):
        reason = f"{there} is not writable"
    elif missing and processes().world == 1:  # else others may begin to work in it
        reason = _cannot_be_made(missing)
    if reason:
        raise MapflowError(
            f"--output_path {str(folder)!r} cannot be written: {reason}; choose another folder"
        )


def _cannot_be_made(missing: Sequence[Path]) -> str | None:
    """Why the folders, the innermost first, cannot be made; they are removed again."""
    try:
        missing[0].mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"{missing[-1]}: {error.strerror}"
    finally:
        with suppress(OSError):  # another job already works in it
            for place in missing:
                if place.is_dir():
                    place.rmdir()
    return None
