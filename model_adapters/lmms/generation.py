"""What lmms-eval's generation settings mean for models that answer greedily.

Every setting of `--gen_kwargs` and of a task's `generation_kwargs` acts, or is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mapflow.model_adapters.lmms.requested import requested_generation
from mapflow.results.contract.errors import MapflowError

LENGTHS = ("max_new_tokens", "max_gen_toks", "max_tokens")
STOPS = ("until", "stop_sequences", "stop")
DEFAULT_LENGTH = 16
"""Tokens that an answer may have if neither the command nor the task says."""

_GREEDY = "answers are greedy: leave it out"
_NEUTRAL: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "do_sample": (lambda value: value in (False, 0, "False", "false"), _GREEDY),
    "temperature": (lambda value: value == 0, _GREEDY),
    "top_p": (lambda value: value in (0, 1), _GREEDY),
    "top_k": (lambda value: value in (0, 1, -1), _GREEDY),
    "num_beams": (lambda value: value == 1, "answers are greedy, without beams: leave it out"),
    "num_return_sequences": (lambda value: value == 1, "a question gets one answer: leave it out"),
    "repetition_penalty": (lambda value: value == 1, "probabilities are never changed"),
    "length_penalty": (lambda value: value == 1, "probabilities are never changed"),
    "no_repeat_ngram_size": (lambda value: value == 0, "probabilities are never changed"),
    "seed": (lambda value: True, ""),  # a greedy answer has no randomness to seed
}
"""Setting → (whether a value changes nothing, what to do about others)."""
_PARTS = re.compile(
    r"""(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|\[[^\]]*\]|\{[^}]*\}|[^,])+""", re.DOTALL
)
_SAMPLING = ("temperature", "top_p", "top_k")


@dataclass(frozen=True)
class Generation:
    """max_new_tokens: None if the settings do not say; until: texts that end an answer."""

    max_new_tokens: int | None = None
    until: tuple[str, ...] = ()


def parse_settings(text: str) -> dict[str, Any]:
    """`name=value,…` as lmms-eval's `simple_parse_args_string`, which needs torch to be imported.

    Commas inside quotes and brackets belong to a value. Raises MapflowError for a part without =.
    """
    found: dict[str, Any] = {}
    for part in _PARTS.findall(text):
        name, equals, value = part.strip().partition("=")
        if not equals:
            raise MapflowError(
                f"--gen_kwargs {text!r} must be settings like max_new_tokens=20,do_sample=False"
            )
        found[name] = _value(value)
    return found


def _value(text: str) -> bool | int | float | str:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.isnumeric():
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text


def read_generation(
    settings: Mapping[str, Any], source: str, *, from_task: bool = False
) -> Generation:
    """What `settings` ask for; `source` names their place in errors.

    In the settings of a task (`from_task`), do_sample: false or temperature: 0 makes the answer
    greedy, so other values of sampling settings change nothing. A value None counts as absent.
    Raises MapflowError for settings that are unknown or would change an answer.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    greedy = from_task and (given.get("do_sample") is False or given.get("temperature") == 0)
    for name, value in given.items():
        if name in LENGTHS or name in STOPS:
            continue
        if name not in _NEUTRAL:
            known = ", ".join((*LENGTHS[:1], *STOPS[:1], *_NEUTRAL))
            raise MapflowError(f"{source}: {name}={value!r} is not supported; known are {known}")
        if greedy and name in ("do_sample", *_SAMPLING):
            continue
        neutral, advice = _NEUTRAL[name]
        if not neutral(value):
            raise MapflowError(f"{source}: {name}={value!r} is not supported: {advice}")
    lengths = {name: _length(given[name], name, source) for name in LENGTHS if name in given}
    if len(set(lengths.values())) > 1:
        said = " and ".join(f"{name}={value}" for name, value in lengths.items())
        raise MapflowError(f"{source}: {said} name different lengths; give one of them")
    stops = [stop for name in STOPS for stop in _stops(given.get(name, ()), name, source)]
    return Generation(next(iter(lengths.values()), None), tuple(dict.fromkeys(stops)))


def task_generation(settings: Mapping[str, Any], task: str) -> Generation:
    """The settings of another task's question: the command's --gen_kwargs before the task's own.

    lmms-eval mixes both into `settings`, where two spellings of one setting stand side by side.
    Raises as `read_generation`.
    """
    command = requested_generation() or Generation()
    replaced = (*(LENGTHS if command.max_new_tokens else ()), *(STOPS if command.until else ()))
    rest = {name: value for name, value in settings.items() if name not in replaced}
    own = read_generation(rest, f"generation_kwargs of task {task!r}", from_task=True)
    return Generation(command.max_new_tokens or own.max_new_tokens, command.until or own.until)


def _length(value: Any, name: str, source: str) -> int:
    if isinstance(value, bool) or not str(value).isdecimal() or int(value) < 1:
        raise MapflowError(f"{source}: {name}={value!r} must be a whole number of at least 1")
    return int(value)


def _stops(value: Any, name: str, source: str) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(one, str) for one in texts):
        raise MapflowError(f"{source}: {name}={value!r} must be a text or a list of texts")
    return tuple(one for one in texts if one)
