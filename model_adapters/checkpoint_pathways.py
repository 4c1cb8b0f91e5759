"""Which effective layer ranges belong to a checkpoint folder.

A folder may carry its own (`pathways.yaml`); those of the paper's models are shipped beside this file, one YAML file
a model, and belong to a folder that bears the model's name. Nobody else's model gets ranges that were not measured on it.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from mapflow.model_adapters.interventions import PathwayRanges
from mapflow.results.errors import MapflowError

PUBLISHED = Path(__file__).parent / "pathways"
OWN = "pathways.yaml"


def checkpoint_pathways(folder: Path) -> PathwayRanges | None:
    """The folder's own ranges, else the published ones of a model of its name, else None.

    The name may stand anywhere in the path: a download cache keeps it in a parent (`models--byminji--NAME/snapshots/…`).
    Raises MapflowError for a broken pathways.yaml.
    """
    if (folder / OWN).is_file():
        return read_pathways(folder / OWN)
    parts = [part.rpartition("--")[2].lower() for part in folder.resolve().parts]
    named = (file for file in sorted(PUBLISHED.glob("*.yaml")) if file.stem.lower() in parts)
    return next((read_pathways(file) for file in named), None)


def read_pathways(file: Path) -> PathwayRanges:
    """Three ranges from a YAML file. Raises MapflowError naming the file and what is wrong with it."""
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise MapflowError(f"cannot read {file}: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise MapflowError(f"{file} must hold three named ranges, such as cross_frame: 6-15")
    return PathwayRanges.from_mapping(values, str(file))


def named_pathways(name: str) -> PathwayRanges:
    """The ranges of a checkpoint folder or of a published model, by name. Raises MapflowError where there are none."""
    found = checkpoint_pathways(Path(name))
    if found is None:
        known = ", ".join(file.stem for file in sorted(PUBLISHED.glob("*.yaml")))
        raise MapflowError(f"no layer ranges are known for {name!r}; published: {known}")
    return found
