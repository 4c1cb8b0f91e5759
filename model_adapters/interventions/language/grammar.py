"""The language of interventions: one line on a command line, or a YAML file.

    full                                        causal attention, untouched
    effective, effective-strict                 the paper's policy, with the model's ranges
    effective:cross_frame=6-15,video_to_question=6-20,question_to_last=16-25
    effective:scale=LLaVA-NeXT-7B-Video-FT      a published model's ranges, scaled by depth
    random:ratio=0.58,seed=3                    random cuts (default: as many as effective cuts)
    video:question@6-20                         cut a route in these layers (default: all)
    knockout:video:last@center=12,window=9      cut a route in a window (center, inverse, …)
    keep:video:question@6-20+all:system         keep only these edges
    early-exit@20                               read the answer from layer 20; run no later layer
    effective+video:template                    cut an edge if any of several policies does

A route may also be written `video->question` (its printed form; quote it, `>` is a redirect in
shells) or `video→question`. No segment has a policy's name, so the colon of a route and the colon
before a policy's options cannot be confused.
Several interventions are separated by commas; a comma before `key=` continues the same one. `;` may
replace `,` where commas mean something else (lmms-eval's model_args). Layers are 1-based and
inclusive. The styles of a window are center, inverse, top-down and bottom-up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from mapflow.model_adapters.interventions.language.intervention import Intervention
from mapflow.model_adapters.interventions.language.policies import POLICIES, Policy
from mapflow.model_adapters.interventions.language.route import CROSS_FRAME, redirect_hint
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import checked, read_yaml
from mapflow.results.contract.visible_text import nearest

POLICY_NAMES = ("full", *(name for policy in POLICIES for name in policy.names), "keep")

Form = TypedDict(
    "Form",
    {
        "cut": list[str],
        "keep": list[str],
        "effective": dict[str, str | int],
        "effective-strict": dict[str, str | int],
    },
    total=False,
)
"""What may stand in a file for one intervention, beside its one-line form: one of these entries."""
WRONG = "must be a one-line intervention, cut:, keep: or effective:"


def parse_interventions(
    texts: Iterable[str | Intervention], named: Sequence[Intervention] = ()
) -> list[Intervention]:
    """All interventions that the texts name, in order; "full,random:ratio=0.58,seed=3" names two.

    A text ending in .yaml or .yml is a file (`read_interventions`). `named` can be called by their
    names, too. Raises MapflowError on unknown names, with the nearest known one, and on an
    intervention that is named twice.
    """
    found: list[Intervention] = []
    for text in texts:
        if isinstance(text, Intervention):
            found.append(text)
            continue
        for piece in split_interventions(text):
            found += _meant(piece, {str(one): one for one in named})
    if not found:
        raise MapflowError("no intervention given; try full, effective or random")
    names = [str(intervention) for intervention in found]
    for name in names:
        if names.count(name) > 1:
            raise MapflowError(
                f"intervention {name!r} is named {names.count(name)} times; name it once"
            )
    return found


def _meant(piece: str, named: Mapping[str, Intervention]) -> list[Intervention]:
    if piece in named:
        return [named[piece]]
    if is_file_name(piece):
        return read_interventions(Path(piece))
    try:
        return [parse_intervention(piece)]
    except MapflowError:
        if not named or not re.fullmatch(r"[\w.-]+", piece):
            raise
        hint = nearest(piece, [*named, *POLICY_NAMES], f"the file names {', '.join(named)}")
        raise MapflowError(f"unknown intervention {piece!r}; {hint}") from None


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
    """Whether the text names a YAML file rather than an intervention."""
    return text.endswith((".yaml", ".yml"))


def parse_intervention(text: str, name: str | None = None) -> Intervention:
    """One intervention in its one-line form. Raises MapflowError naming what is wrong."""
    body = text.strip()
    keep = body.startswith("keep:")
    terms = [term.strip() for term in body.removeprefix("keep:").split("+")]
    if not all(terms):
        raise MapflowError(f"intervention {text.strip()!r} has an empty part")
    if any(term.startswith("keep:") for term in terms):
        raise MapflowError(
            f"intervention {text.strip()!r}: keep: begins an intervention and holds for all of its"
            " routes, as in keep:video:question+all:system"
        )
    return Intervention(tuple(policy for term in terms for policy in _parse_term(term)), keep, name)


def read_interventions(path: Path) -> list[Intervention]:
    """From a YAML file: a mapping of names to one-line forms, or to `cut:`/`keep:` lists of routes,
    or to `effective:` ranges. Raises MapflowError naming file and entry.
    """
    where = f"interventions file {str(path)!r}"
    try:
        entries = read_yaml(path, text_only=True)
    except MapflowError as error:
        raise MapflowError(f"interventions file {error}") from error
    return named_interventions(entries, where)


def named_interventions(entries: Any, where: str) -> list[Intervention]:
    """`read_interventions` for a mapping that is read already; `where` names it in errors."""
    if not isinstance(entries, dict) or not entries:
        raise MapflowError(f"{where} must map names to interventions")
    found: list[Intervention] = []
    for name, value in entries.items():
        try:
            _check_name(name)
            found.append(_from_yaml(name, value))
        except MapflowError as error:
            raise MapflowError(f"{where}, {name!r}: {error}") from error
    return found


def _check_name(name: str) -> None:
    """Raises MapflowError for a name that means something else on a command line."""
    try:
        meaning = parse_intervention(name)
    except MapflowError:
        return
    raise MapflowError(f"is an intervention itself ({meaning}); choose another name")


def _from_yaml(name: str, value: Any) -> Intervention:
    if isinstance(value, str):
        return parse_intervention(value, name)
    if checked(value, str | Form, WRONG) and len(value) == 1:
        kind, content = next(iter(value.items()))
        if kind in ("cut", "keep") and content:
            prefix = "keep:" if kind == "keep" else ""
            return parse_intervention(prefix + "+".join(content), name)
        for policy in POLICIES:
            if kind in policy.names and (found := policy.from_yaml(kind, content)) is not None:
                return Intervention((found,), name=name)
    raise MapflowError(WRONG)


def _parse_term(term: str) -> list[Policy]:
    """One summand: a policy's name with options, or a route; `full` is the empty sum."""
    head, _, options = term.partition(":")
    if head.strip() == "full":
        if options:
            raise MapflowError(f"'full' takes no options; got {options!r}")
        return []
    for policy in POLICIES:
        if policy.claims(term):
            return [policy.parse(term)]
    if redirected := redirect_hint(term):
        raise MapflowError(f"unknown intervention {term!r}{redirected}")
    known = f"known: {', '.join(POLICY_NAMES)}, or a route source:target"
    hint = nearest(head, [*POLICY_NAMES, CROSS_FRAME], known)
    raise MapflowError(f"unknown intervention {term!r}; {hint}")
