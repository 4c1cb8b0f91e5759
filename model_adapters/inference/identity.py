"""What identifies a run, as far as it is known before weights load: imports no torch."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

from mapflow.model_adapters.checkpoints.pathways import scaled_pathways
from mapflow.model_adapters.families.registry import families
from mapflow.model_adapters.interventions import Intervention, PathwayRanges
from mapflow.results.runs.provenance import code_version

VERSIONED = ("mapflow", "torch", "transformers", "accelerate", "av")


def declared_identity(
    model: str, checkpoint: str | None, arguments: Mapping[str, Any], protocol: str
) -> dict[str, Any]:
    """The part of `subject.run_identity` that needs neither weights nor a device.

    model: the family as users type it. checkpoint: the name in records; None if it is not known
    yet. arguments: the family's own, with the defaults filled in. The versions include that of the
    package which announces the model's family.
    """
    family = families().get(model)
    packages = dict.fromkeys((*VERSIONED, *([family.distribution] if family else ())))
    return {
        "model": model,
        **({"checkpoint": checkpoint} if checkpoint else {}),
        "protocol": protocol,
        **({"model_args": dict(arguments)} if arguments else {}),
        "code": code_version(),
        "versions": {name: package_version(name) for name in packages},
    }


def fitted(
    interventions: Sequence[Intervention], n_layers: int, pathways: PathwayRanges | None
) -> tuple[Intervention, ...]:
    """Interventions with the layer ranges that they borrow from another model filled in.

    Raises MapflowError if a model of this depth and these ranges lacks what one of them needs.
    """
    resolved = tuple(one.resolve(scaled_pathways, n_layers) for one in interventions)
    for one in resolved:
        one.check(n_layers, pathways)
    return resolved


def package_version(package: str) -> str:
    """The installed version, or "absent"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
