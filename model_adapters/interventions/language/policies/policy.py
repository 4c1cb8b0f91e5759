"""Policy: a rule that names the attention edges to cut in each layer of a model for a prompt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool

from mapflow.model_adapters.interventions.language.layout import TokenLayout
from mapflow.model_adapters.interventions.language.pathways import PathwayRanges
from mapflow.model_adapters.interventions.language.route import Route
from mapflow.results.contract.errors import MapflowError

Cuts = Bool[np.ndarray, "layer target source"]


class Policy(ABC):
    """One part of an intervention.

    `str(policy)` is its one-line form, which `parse` turns into an equal policy. A subclass defines
    `parse`, `cuts` and `__str__`; the other members have defaults for the usual case.
    """

    names: ClassVar[tuple[str, ...]] = ()
    """Names that begin the policy's one-line form, listed in error messages."""
    is_route: ClassVar[bool] = False
    """Whether the policy names edges that `keep:` can keep."""
    once_as: ClassVar[str | None] = None
    """The policy's name in error messages if an intervention takes at most one, else None."""

    @classmethod
    def claims(cls, term: str) -> bool:
        """Whether `term` has this policy's form, "NAME" or "NAME:OPTIONS", valid or not."""
        return term.partition(":")[0].strip() in cls.names

    @classmethod
    @abstractmethod
    def parse(cls, term: str) -> Policy:
        """From a term that the class claims. Raises MapflowError naming what is wrong."""

    @classmethod
    def from_yaml(cls, name: str, value: Any) -> Policy | None:
        """From `name: value` in a file of interventions; None if the policy has no such form."""
        return None

    @abstractmethod
    def cuts(self, layout: TokenLayout, n_layers: int, pathways: PathwayRanges | None) -> Cuts:
        """True where queries of `target` lose keys of `source`. Raises MapflowError for layers that
        the model lacks.
        """

    @property
    def early_exit(self) -> int | None:
        """The (1-based) layer after which the answer is read, if the policy ends early."""
        return None

    @property
    def scaled_from(self) -> str | None:
        """The model whose layer ranges the policy borrows, scaled to another depth."""
        return None

    def resolve(self, find: Callable[[str, int], PathwayRanges], n_layers: int) -> Policy:
        """With borrowed ranges filled in: `find(model, n_layers)` returns them scaled to this
        depth.
        """
        return self

    def with_ranges(self, pathways: PathwayRanges | None) -> Policy:
        """With the model's own ranges written out, where the policy uses them."""
        return self


def cut_route(cuts: Cuts, route: Route, layout: TokenLayout, layers: Iterable[int]) -> None:
    """Cuts `route` in 0-based `layers`, in place."""
    cuts[list(layers)] |= route.edges(layout)


def no_cuts(layout: TokenLayout, n_layers: int) -> Cuts:
    """The empty set of cuts."""
    n_segments = len(layout.segments)
    return np.zeros((n_layers, n_segments, n_segments), dtype=bool)


def parse_options(text: str) -> dict[str, str]:
    """ "a=1,b=2" as a mapping. Raises MapflowError on a piece without "=" and on a repeated key."""
    options: dict[str, str] = {}
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        key, equals, value = (part.strip() for part in piece.partition("="))
        if not equals or key in options:
            raise MapflowError(
                f"option {piece!r} {'is given twice' if equals else 'is not of the form key=value'}"
            )
        options[key] = value
    return options


def typed_options(
    options: Mapping[str, str], types: Mapping[str, Callable[[str], Any]], policy: str
) -> dict[str, Any]:
    """The options' values by type. Raises MapflowError for an unknown option or a value that is not
    a number.
    """
    for key in options:
        if key not in types:
            raise MapflowError(f"{policy!r} has no option {key!r}; it takes {', '.join(types)}")
    return {key: _converted(types[key], value, key) for key, value in options.items()}


def _converted(kind: Callable[[str], Any], value: str, key: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise MapflowError(f"{key}={value!r} is not a number") from None
