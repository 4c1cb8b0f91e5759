"""Model arguments: the text after `--model_args`, and checks of what a family's `load` takes.

lmms-eval and every analysis read the text alike: `,` separates arguments, `;` stands for a comma
inside one. Names and types are checked before weights load. Imports no torch.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    NamedTuple,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.visible_text import nearest

if TYPE_CHECKING:
    from mapflow.model_adapters.video_llm import VideoLLM

COMMON = ("pretrained", "lora", "dtype", "device", "device_map")
"""Arguments of every family, see `registry.load_model`."""
REMOTE_CODE = (
    "trust_remote_code is refused: code from a checkpoint would run with all your rights; no model"
    " here needs it (models of transformers: --model mapflow_hf)"
)


def parse_model_args(text: str) -> dict[str, str]:
    """Name → value as typed, from `name=value,name=value`.

    Raises MapflowError for a part without `=` and for a name given twice.
    """
    found: dict[str, str] = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        name, equals, value = part.partition("=")
        if not (name and equals):
            raise MapflowError(
                f"--model_args {part!r} is not of the form name=value; commas separate arguments,"
                " ; stands for a comma inside one"
            )
        if not value.strip():
            raise MapflowError(f"--model_args {name}= has no value (an unset variable?)")
        if name in found:
            raise MapflowError(
                f"--model_args names {name!r} twice ({found[name]!r} and {value!r}): keep one"
            )
        found[name] = value
    return found


class Argument(NamedTuple):
    """An argument of a family's own: the type of its values, and its default."""

    kind: Any
    default: Any


def class_arguments(model: type[VideoLLM]) -> dict[str, Argument]:
    """The arguments that a family's `load` adds to `VideoLLM.load`, by name."""
    from mapflow.model_adapters.video_llm import VideoLLM

    own, common = (inspect.signature(cls.load).parameters for cls in (model, VideoLLM))
    return {
        name: Argument(_hint(model, one), one.default)
        for name, one in own.items()
        if name not in common
    }


def written_options(known: Mapping[str, Argument], given: Iterable[str]) -> list[str]:
    """`name=value` of the family's defaults that `given` lacks, so that lmms-eval logs them."""
    return [
        f"{name}={one.default}"
        for name, one in known.items()
        if name not in given and one.default not in (None, inspect.Parameter.empty)
    ]


def checked_options(
    family: str,
    known: Mapping[str, Argument],
    options: Mapping[str, Any],
    more: Sequence[str] = (),
) -> dict[str, Any]:
    """The options of a family with the types that its `load` names.

    `more` lists further names that the caller knows, for suggestions. Raises MapflowError for a
    name that the family does not have, and for a value of another type.
    """
    for name in options:
        if name not in known:
            raise MapflowError(_unknown(family, name, [*known, *COMMON, *more]))
    return {name: _typed(family, name, value, known[name].kind) for name, value in options.items()}


def _unknown(family: str, name: str, known: Sequence[str]) -> str:
    hint = nearest(name, known, f"known: {', '.join(dict.fromkeys(known))}")
    return f"{family} has no argument {name!r} (--model_args); {hint}"


def _hint(model: type[VideoLLM], parameter: inspect.Parameter) -> Any:
    """The type of one parameter of `load`; Any where it names none that can be resolved."""

    def holder() -> None: ...

    if parameter.annotation is parameter.empty:
        return Any
    holder.__annotations__ = {"value": parameter.annotation}
    load: Any = model.load
    try:
        return get_type_hints(holder, load.__func__.__globals__)["value"]
    except NameError:  # imported for type checkers only
        return Any


def _typed(family: str, name: str, value: Any, hint: Any) -> Any:
    """`value`, which may be text, as a value of type `hint`. Raises MapflowError if it is none."""
    kinds = list(get_args(hint)) if get_origin(hint) in (Union, UnionType) else [hint]
    kinds = [kind for kind in kinds if kind is not NoneType]
    for kind in kinds:
        found = _as(value, kind)
        if found is not None:
            return found
    expected = " or ".join(_said(kind) for kind in kinds)
    raise MapflowError(f"{name}={str(value)!r} of {family} (--model_args) must be {expected}")


def _as(value: Any, kind: Any) -> Any:
    """`value` as one of type `kind`; None if it is not one. Text is what --model_args holds."""
    text = str(value)
    if get_origin(kind) is Literal:
        return next((one for one in get_args(kind) if str(one) == text), None)
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower())
    if kind is int:
        return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None
    if kind is float:
        is_number = re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", text)
        return float(text) if is_number else None
    return text if kind is str else value


def _said(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    words = {bool: "true or false", int: "a whole number", float: "a number"}
    return words.get(kind, str(getattr(kind, "__name__", kind)))
