"""All commands and flags as Markdown, from the parsers themselves."""

from __future__ import annotations

import argparse
import contextlib
import io
from unittest.mock import patch

from mapflow.harness.cli.main import COMMANDS, main
from mapflow.harness.evaluation.lmms_eval import own_parser

MARK = "<!-- commands -->"
"""Where the page wants them."""


def all_commands() -> str:
    sections = ["## lmms_eval\n", *_flags(own_parser())]
    for name, summary in COMMANDS.items():
        if name != "run":
            parser = _parser_of(name)
            sections += [f"## mapflow {name}\n", f"{summary[0].upper()}{summary[1:]}.\n"]
            sections += _flags(parser)
    return "\n".join(sections)


def _parser_of(command: str) -> argparse.ArgumentParser:
    """The parser that prints the command's help."""
    seen: list[argparse.ArgumentParser] = []

    def noted(parser: argparse.ArgumentParser) -> str:
        seen.append(parser)
        return ""

    with (
        patch.object(argparse.ArgumentParser, "format_help", noted),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.suppress(SystemExit),
    ):
        main([command, "--help"])
    return seen[-1]


def _flags(parser: argparse.ArgumentParser) -> list[str]:
    usage = " ".join(parser.format_usage().split()).removeprefix("usage: ")
    rows = [
        f"| {_name(action)} | {_help(parser, action)} |"
        for action in parser._actions
        if action.help != argparse.SUPPRESS and not isinstance(action, argparse._HelpAction)
    ]
    shown = [f"```text\n{usage}\n```\n"] if usage else []
    table = ['<div class="flags" markdown="1">\n', "| | |\n|---|---|", *rows, "\n</div>\n"]
    return [*shown, *table]


def _name(action: argparse.Action) -> str:
    value = action.metavar or (
        "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
    )
    value = " ".join(value) if isinstance(value, tuple) else str(value)
    if not action.option_strings:
        return _code(value)
    shown = "" if action.nargs == 0 else f" {value}"
    return ", ".join(_code(flag + shown) for flag in action.option_strings)


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    text = (action.help or "") % {**vars(action), "prog": parser.prog}
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")
