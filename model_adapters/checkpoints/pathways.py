"""The effective layer ranges of a checkpoint folder.

A folder may have its own (`pathways.yaml`). Those of the paper's models are in
`model_adapters/pathways`, one YAML file per model, and apply to a folder with the model's name. No
other model gets ranges: they were not measured on it.
"""

from __future__ import annotations

from pathlib import Path

from mapflow.model_adapters.interventions import PathwayRanges
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import read_yaml

PUBLISHED = Path(__file__).parents[1] / "pathways"
OWN = "pathways.yaml"


def checkpoint_pathways(folder: Path) -> PathwayRanges | None:
    """The folder's own ranges, else the published ones of the model it is named after, else None.

    The name may be any part of the path: a download cache has it in a parent
    (`models--byminji--NAME/snapshots/…`). Raises MapflowError for a broken pathways.yaml.
    """
    file = _file_for(folder)
    return read_pathways(file) if file else None


def read_pathways(file: Path) -> PathwayRanges:
    """Reads three ranges from a YAML file. Raises MapflowError naming the file and the mistake."""
    return _read(file)[0]


def named_pathways(name: str) -> PathwayRanges:
    """The ranges of a folder or a published model. Raises MapflowError if there are none."""
    return read_pathways(_named_file(name))


def scaled_pathways(name: str, n_layers: int) -> PathwayRanges:
    """The ranges of `named_pathways`, scaled by depth to a model of `n_layers` layers.

    Raises MapflowError if there are none, or if their file does not state the number of `layers`.
    """
    file = _named_file(name)
    ranges, depth = _read(file)
    if depth is None:
        raise MapflowError(
            f"{file} cannot be scaled: add `layers:`, the number of layers of its model"
        )
    return ranges.scaled(depth, n_layers)


def _file_for(folder: Path) -> Path | None:
    if (folder / OWN).is_file():
        return folder / OWN
    parts = [part.rpartition("--")[2].lower() for part in folder.resolve().parts]
    return next(
        (file for file in sorted(PUBLISHED.glob("*.yaml")) if file.stem.lower() in parts), None
    )


def _named_file(name: str) -> Path:
    file = _file_for(Path(name))
    if file is None:
        known = ", ".join(file.stem for file in sorted(PUBLISHED.glob("*.yaml")))
        raise MapflowError(f"no layer ranges are known for {name!r}; published: {known}")
    return file


def _read(file: Path) -> tuple[PathwayRanges, int | None]:
    """The ranges, and their model's number of layers if the file states it."""
    values = read_yaml(file)
    if not isinstance(values, dict):
        raise MapflowError(f"{file} must hold three named ranges, such as cross_frame: 6-15")
    depth = values.pop("layers", None)
    if depth is not None and not (isinstance(depth, int) and depth > 0):
        raise MapflowError(f"{file}: layers={depth!r} is not a number of layers")
    return PathwayRanges.from_mapping(values, str(file)), depth
