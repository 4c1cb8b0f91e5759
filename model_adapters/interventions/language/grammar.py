"""The language of interventions: one line on a command line, or a YAML file.

    full                                        causal attention, untouched
    effective, effective-strict                 the paper's policy, with the model's ranges
    effective:cross_frame=6-15,video_to_question=6-20,question_to_last=16-25
    effective:scale=LLaVA-NeXT-7B-Video-FT      a published model's ranges, scaled to this model's depth
    random:ratio=0.58,seed=3                    blind blocking (ratio left out: as many edges as effective cuts)
    video->question@6-20                        cut a route in these layers (left out: in all)
    knockout:video->last@center=12,window=9     cut a route in a window: center, inverse, top-down, bottom-up
    keep:video->question@6-20+all->system       keep these edges only
    early-exit@20                               the answer is read from layer 20; later layers do not run
    effective+video->template                   several at once: an edge is cut where any of them cuts it

Several interventions are separated by commas; a comma before `key=` continues the same one. `;` may stand for `,`
where commas mean something else (lmms-eval's model_args). Layers are 1-based and inclusive.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mapflow.model_adapters.interventions.language.intervention import Intervention
from mapflow.model_adapters.interventions.language.layers import (
    WINDOW_STYLES,
    LayerSpan,
    Window,
    WindowStyle,
)
from mapflow.model_adapters.interventions.language.pathways import PathwayRanges
from mapflow.model_adapters.interventions.language.policies import (
    Cut,
    EarlyExit,
    Effective,
    Knockout,
    Policy,
    RandomBlocking,
)
from mapflow.model_adapters.interventions.language.route import CROSS_FRAME, Route
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import read_yaml

POLICY_NAMES = ("full", "effective", "effective-strict", "random", "knockout", "early-exit", "keep")


def parse_interventions(texts: Iterable[str]) -> list[Intervention]:
    """All interventions that the texts name, in order; "full,random:ratio=0.58,seed=3" names two.

    A text ending in .yaml or .yml is a file (`read_interventions`). Raises MapflowError on unknown names, with the
    nearest known one, and on an intervention that is named twice.
    """
    found: list[Intervention] = []
    for text in texts:
        for piece in split_interventions(text):
            found += (
                read_interventions(Path(piece))
                if is_file_name(piece)
                else [parse_intervention(piece)]
            )
    if not found:
        raise MapflowError("no intervention given; try full, effective or random")
    names = [str(intervention) for intervention in found]
    for name in names:
        if names.count(name) > 1:
            raise MapflowError(
                f"intervention {name!r} is named {names.count(name)} times; name it once"
            )
    return found


def split_interventions(text: str) -> list[str]:
    """At commas (or semicolons), except where the next piece is `key=…`."""
    pieces: list[str] = []
    for piece in re.split("[,;]", text):
        if pieces and re.match(r"\s*[\w-]+\s*=", piece):
            pieces[-1] += f",{piece.strip()}"
        else:
            pieces.append(piece.strip())
    return [piece for piece in pieces if piece]


def is_file_name(text: str) -> bool:
    """Does the text name a YAML file rather than an intervention?"""
    return text.endswith((".yaml", ".yml"))


def parse_intervention(text: str, name: str | None = None) -> Intervention:
    """One intervention in its one-line form. Raises MapflowError that names what is wrong with it."""
    body = text.strip()
    keep = body.startswith("keep:")
    terms = [term.strip() for term in body.removeprefix("keep:").split("+")]
    if not all(terms):
        raise MapflowError(f"intervention {text.strip()!r} has an empty part")
    return Intervention(tuple(policy for term in terms for policy in _parse_term(term)), keep, name)


def read_interventions(path: Path) -> list[Intervention]:
    """From a YAML file: a mapping of names to one-line forms, or to `cut:`/`keep:` lists of routes, or to `effective:`
    ranges. Raises MapflowError naming file and entry."""
    where = f"interventions file {str(path)!r}"
    try:
        entries = read_yaml(path, text_only=True)
    except MapflowError as error:
        raise MapflowError(f"interventions file {error}") from error
    if not isinstance(entries, dict) or not entries:
        raise MapflowError(f"{where} must map names to interventions")
    found: list[Intervention] = []
    for name, value in entries.items():
        try:
            found.append(_from_yaml(name, value))
        except MapflowError as error:
            raise MapflowError(f"{where}, {name!r}: {error}") from error
    return found


def _from_yaml(name: str, value: Any) -> Intervention:
    if isinstance(value, str):
        return parse_intervention(value, name)
    if isinstance(value, dict) and len(value) == 1:
        kind, content = next(iter(value.items()))
        if kind in ("cut", "keep") and isinstance(content, list) and content and _all_text(content):
            prefix = "keep:" if kind == "keep" else ""
            return parse_intervention(prefix + "+".join(content), name)
        if (
            kind in ("effective", "effective-strict")
            and isinstance(content, dict)
            and _all_text(content.values())
        ):
            ranges = PathwayRanges.from_mapping(content, kind)
            return Intervention((Effective(ranges, strict=kind == "effective-strict"),), name=name)
    raise MapflowError("must be a one-line intervention, cut:, keep: or effective:")


def _all_text(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _parse_term(term: str) -> list[Policy]:
    """One summand: a policy's name with options, or a route."""
    head, _, options = term.partition(":")
    match head.strip():
        case "full":
            if options:
                raise MapflowError(f"'full' takes no options; got {options!r}")
            return []
        case "effective" | "effective-strict" as policy:
            given = _options(options)
            if [*given] == ["scale"]:
                return [Effective(strict=policy == "effective-strict", scale=given["scale"])]
            ranges = PathwayRanges.from_mapping(given, f"{policy!r}") if options else None
            return [Effective(ranges, strict=policy == "effective-strict")]
        case "random":
            return [
                RandomBlocking(
                    **_typed(options, {"ratio": float, "seed": int, "scale": str}, "random")
                )
            ]
        case "knockout":
            return [_parse_knockout(options)]
        case exit_at if exit_at.partition("@")[0].strip() == "early-exit":
            return [_parse_early_exit(term)]
    if "->" in term or "→" in term or term.startswith(CROSS_FRAME):
        route, at, layers = term.partition("@")
        return [Cut(Route.parse(route), LayerSpan.parse(layers) if at else None)]
    close = difflib.get_close_matches(head, [*POLICY_NAMES, CROSS_FRAME], n=1)
    hint = (
        f"did you mean {close[0]!r}?"
        if close
        else f"known: {', '.join(POLICY_NAMES)}, or a route source->target"
    )
    raise MapflowError(f"unknown intervention {term!r}; {hint}")


def _parse_knockout(text: str) -> Knockout:
    route, at, window = text.partition("@")
    options = _options(window)
    style: WindowStyle | None = next((one for one in WINDOW_STYLES if one in options), None)
    if not at or style is None or set(options) - {style, "window"}:
        raise MapflowError(
            f"knockout {text!r} is not of the form source->target@STYLE=LAYER,window=K with STYLE one of"
            f" {', '.join(WINDOW_STYLES)}"
        )
    numbers = {key: _number(int, value, key) for key, value in options.items()}
    return Knockout(Route.parse(route), Window(style, numbers[style], numbers.get("window", 9)))


def _parse_early_exit(term: str) -> EarlyExit:
    match = re.fullmatch(r"early-exit\s*@\s*0*([1-9]\d{0,5})", term)
    if not match:
        raise MapflowError(
            f"{term!r} is not of the form early-exit@LAYER, with layers counted from 1"
        )
    return EarlyExit(int(match[1]))


def _options(text: str) -> dict[str, str]:
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


def _typed(text: str, types: dict[str, Callable[[str], Any]], policy: str) -> dict[str, Any]:
    options = _options(text)
    for key in options:
        if key not in types:
            raise MapflowError(f"{policy!r} has no option {key!r}; it takes {', '.join(types)}")
    return {key: _number(types[key], value, key) for key, value in options.items()}


def _number(kind: Callable[[str], Any], value: str, key: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise MapflowError(f"{key}={value!r} is not a number") from None
