"""What one command asks for: mapflow's flags, lmms-eval's flags, and the runs of `--config FILE`.

A file may hold every flag of both, and a list of runs; the command line wins over it. Everything is
read before lmms-eval is imported, which takes seconds.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapflow.harness.cli.endings import Parser
from mapflow.harness.evaluation.upstream import flag_parser
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import read_yaml
from mapflow.results.contract.visible_text import nearest, quoted

if TYPE_CHECKING:
    from mapflow.model_adapters.interventions import Intervention

LISTS = ("tasks", "intervention", "include_path")
"""Keys of a file whose value may be a list."""
SETTINGS = ("model_args", "gen_kwargs", "wandb_args", "swanlab_args", "hf_hub_log_args")
"""Keys of a file whose value may be a mapping, for `name=value,…`."""


def own_parser() -> argparse.ArgumentParser:
    """mapflow's flags only; all others belong to lmms-eval."""
    parser = Parser("lmms_eval", add_help=False, allow_abbrev=False, usage=argparse.SUPPRESS)
    group = parser.add_argument_group("mapflow")
    group.add_argument(
        "--intervention",
        action="append",
        metavar="A[,B…]",
        help="attention interventions, e.g. full,effective,random:ratio=0.58,seed=3"
        " (repeatable; default: full)",
    )
    group.add_argument(
        "--interventions-file",
        metavar="YAML",
        help="named interventions; --intervention then selects some of its names, mixed with"
        " built-in ones (default: all of the file's). full is asked first, as the baseline,"
        " unless it is named",
    )
    group.add_argument(
        "--no-baseline",
        action="store_true",
        help="with --interventions-file: do not add full",
    )
    group.add_argument(
        "--protocol", metavar="NAME", help="prompts and scoring: paper (default) or official"
    )
    group.add_argument(
        "--data_dir", metavar="DIR", help="benchmark files as published (default: $MAPFLOW_DATA)"
    )
    group.add_argument(
        "--allow-missing",
        action="store_true",
        help="exit 0 even if videos are missing or broken (their questions get error records)",
    )
    group.add_argument(
        "--allow-uncut-layers",
        action="store_true",
        help="load models with layers that mix positions outside attention, where cuts do not act",
    )
    group.add_argument(
        "--quiet",
        action="store_true",
        help="standard error: warnings and errors only; --verbosity DEBUG shows everything, also"
        " what lmms-eval and the libraries below it log",
    )
    return parser


def requested_runs(words: Sequence[str]) -> list[argparse.Namespace]:
    """The arguments of every run: one of the command line, or those of `--config`'s file.

    `intervention` is a list of texts and of mappings from names to interventions; `words` are the
    flags of lmms-eval, of both file and command line; `where` begins errors of a run of a file.
    `env` of a file is put into the environment, which its runs share.
    Raises MapflowError for flags, keys and values that cannot be read.
    """
    given = _parsed(words)
    if not given.config:
        return [given]
    runs = _read_config(given.config)
    _set_environment(runs)
    return [_from_file(entries, where, words) for entries, where in runs]


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    own, rest = own_parser().parse_known_args(words)
    parser = flag_parser()
    args, unknown = parser.parse_known_args(rest)
    for word in unknown:
        flags = [flag for one in (own_parser(), parser) for flag in one._option_string_actions]
        hint = nearest(word.partition("=")[0], flags) if word.startswith("-") else ""
        parser.error(f"unrecognized argument {quoted(word)}{'; ' if hint else ''}{hint}")
    return argparse.Namespace(**vars(args), **vars(own), words=rest, where="")


def chosen_interventions(args: argparse.Namespace, in_model_args: str | None) -> list[Intervention]:
    """The interventions of a run, the baseline added where a file is named; `full` by default.

    in_model_args: what --model_args says of them. Raises MapflowError for one that cannot be read,
    and for two places that name some.
    """
    from mapflow.model_adapters.interventions.language.grammar import (
        named_interventions,
        parse_interventions,
        read_interventions,
    )

    file = args.interventions_file
    if in_model_args and (args.intervention or file):
        raise MapflowError("--intervention and intervention= in --model_args: keep one of them")
    if args.no_baseline and not file:
        raise MapflowError(
            "--no-baseline acts with --interventions-file only: without a file, exactly the"
            " interventions of --intervention are asked"
        )
    asked: list[str | Intervention] = []
    for one in args.intervention or ([in_model_args] if in_model_args else []):
        mapping = isinstance(one, dict)
        asked += named_interventions(one, "intervention") if mapping else [one]
    named = read_interventions(Path(file)) if file else []
    found = parse_interventions(asked or named or ["full"], named)
    if file and not args.no_baseline and all(str(one) != "full" for one in found):
        found = [*parse_interventions(["full"]), *found]
    return found


def _read_config(path: str) -> list[tuple[dict[str, Any], str]]:
    """The runs of a file and their names in errors."""
    try:
        content = read_yaml(Path(path), text_only=True)
    except MapflowError as error:
        raise MapflowError(f"--config {error}") from error
    runs = content if isinstance(content, list) else [content]
    found: list[tuple[dict[str, Any], str]] = []
    for number, run in enumerate(runs, 1):
        where = f"--config {quoted(path)}" + (f", run {number}" if len(runs) > 1 else "")
        if not isinstance(run, dict) or not run:
            raise MapflowError(f"{where} must map flags to values, e.g. model: mapflow_llava")
        found.append((run, where))
    if not found:
        raise MapflowError(f"--config {quoted(path)} holds no run; write e.g. model: mapflow_llava")
    return found


def _from_file(entries: Mapping[str, Any], where: str, words: Sequence[str]) -> argparse.Namespace:
    """One run of a file, with the command line's flags over it."""
    actions: dict[str, argparse.Action] = {}
    for parser in (own_parser(), flag_parser()):
        for action in parser._actions:
            if action.dest in ("help", "config", "tui"):
                continue
            names = [one.lstrip("-") for one in action.option_strings if one.startswith("--")]
            actions |= {_plain(name): action for name in [*names, action.dest]}
    written: list[str] = []
    seen: dict[str, str] = {}
    interventions: list[Any] = []
    for key, value in entries.items():
        if key == "env":
            continue
        action = actions.get(_plain(key))
        if action is None:
            hint = nearest(_plain(key), actions, "`lmms_eval --help` lists all flags")
            raise MapflowError(f"{where}: unknown key {quoted(key)}; {hint}")
        if action.dest in seen:
            raise MapflowError(f"{where}: {seen[action.dest]} and {key} are one flag: keep one")
        seen[action.dest] = key
        if action.dest == "intervention":
            interventions = _interventions(value, f"{where}, {key}")
        elif value not in ("", "null", "~", None):
            written += _words(action, value, f"{where}, {key}")
    try:
        _parsed(written)
    except MapflowError as error:
        raise MapflowError(f"{where}: {error}") from None
    args = _parsed([*written, *words])
    args.where = f"{where}: "
    if args.intervention is None and interventions:
        args.intervention = interventions
    return args


def _plain(name: str) -> str:
    return str(name).replace("-", "_")


def _words(action: argparse.Action, value: Any, where: str) -> list[str]:
    """The words of a command line that say the same."""
    flag = action.option_strings[-1]
    if action.nargs == 0:
        if str(value).lower() not in ("true", "false"):
            raise MapflowError(f"{where}: {quoted(value)} must be true or false")
        return [flag] if value.lower() == "true" else []
    if isinstance(value, list) and action.dest in LISTS and all(isinstance(v, str) for v in value):
        value = ",".join(value)
    if isinstance(value, dict) and action.dest in SETTINGS:
        texts = {name: one for name, one in value.items() if isinstance(one, str)}
        if len(texts) == len(value):
            separator = ";" if action.dest == "model_args" else ","
            value = ",".join(f"{k}={v.replace(',', separator)}" for k, v in texts.items())
    if not isinstance(value, str):
        raise MapflowError(f"{where}: {quoted(value)} must be one value, as on the command line")
    return [f"{flag}={value}"]


def _interventions(value: Any, where: str) -> list[Any]:
    """A text, a mapping from names to interventions, or a list of both."""
    entries = value if isinstance(value, list) else [value]
    if not entries:
        raise MapflowError(f"{where}: the list is empty; name one, or leave the key out")
    for one in entries:
        if not isinstance(one, (str, dict)) or not one:
            raise MapflowError(
                f"{where}: {quoted(one)} must be an intervention, or a mapping from a name to one"
            )
    return list(entries)


def _set_environment(runs: Sequence[tuple[Mapping[str, Any], str]]) -> None:
    """Sets the variables of every run's `env`. Raises MapflowError for two values of one."""
    found: dict[str, str] = {}
    for entries, where in runs:
        named = entries.get("env", {})
        if not isinstance(named, dict) or not all(isinstance(one, str) for one in named.values()):
            raise MapflowError(f"{where}: env must map names of variables to texts")
        for name, text in named.items():
            if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) or "\0" in text:
                raise MapflowError(f"{where}: env cannot set {quoted(name)} to {quoted(text)}")
            if found.setdefault(name, text) != text:
                raise MapflowError(
                    f"{where}: env sets {name} to {quoted(text)}, another run to"
                    f" {quoted(found[name])}; runs of one file share it: write two files"
                )
    for name, text in found.items():
        os.environ[name] = os.path.expandvars(text)
