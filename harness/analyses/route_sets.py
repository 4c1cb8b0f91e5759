"""Routes by name: the paper's sets (`route_sets.yaml`) and routes of the grammar."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import yaml

from mapflow.model_adapters.interventions import Route
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Question

FILE = Path(__file__).with_name("route_sets.yaml")
OPTIONS = ("options", "true_option", "false_options")


@cache
def route_sets() -> dict[str, list[str]]:
    """Set name → routes and names of other sets."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def parse_routes(texts: Iterable[str]) -> list[Route]:
    """Routes from comma-separated names of sets and routes; each route once, in order.

    Raises MapflowError for any other name, and without any name.
    """
    routes = [
        route
        for text in texts
        for name in text.split(",")
        if name.strip()
        for route in _named(name.strip())
    ]
    if not routes:
        raise MapflowError(
            f"--routes names no route; sets: {', '.join(route_sets())}; or source:target"
        )
    return list(dict.fromkeys(routes))


def _named(name: str, within: tuple[str, ...] = ()) -> list[Route]:
    if name in route_sets() and name not in within:
        return [route for one in route_sets()[name] for route in _named(one, (*within, name))]
    try:
        return [Route.parse(name)]
    except MapflowError as error:
        raise MapflowError(f"{error}; or a set of routes: {', '.join(route_sets())}") from None


def check_routes(routes: Sequence[Route], questions: Iterable[Question]) -> None:
    """Raises MapflowError if a route names options that a question does not have."""
    ends = {end: route for route in routes for end in (route.target, route.source)}
    for question in questions:
        for end, route in ends.items():
            missing = _missing(end, len(question.options))
            if missing:
                raise MapflowError(
                    f"route {str(route)!r} names {end!r}, but question {question.question_id} of"
                    f" {question.task} {missing}"
                )


def _missing(end: str, n_options: int) -> str | None:
    number = re.fullmatch(r"option\[(\d+)\]", end)
    if end not in OPTIONS and not number:
        return None
    if n_options == 0:
        return "is open-ended and has no options: sweep routes without options, or another task"
    if number and int(number[1]) >= n_options:
        return f"has the options option[0]…option[{n_options - 1}] alone"
    return "has no false option" if end == "false_options" and n_options == 1 else None
