"""Text from data sets, checkpoints and models, made safe to show on a screen.

Control characters can move a terminal's cursor, bidirectional overrides reorder a line, and lone
surrogates cannot be encoded. All of them are replaced by their codes. `tables/formats.py` escapes
what has a meaning in a file format.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# C0, DEL, C1; the Arabic letter mark; zero-width and directional marks; line and paragraph
# separators; directional embeddings, overrides and isolates; the byte order mark; lone surrogates;
# interlinear annotation; tags.
_ACTING = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ud800-\udfff\ufff9-\ufffb\U000e0000-\U000e007f"
)
_IN_LINES = re.compile(f"[{_ACTING}]")
_IN_ONE_LINE = re.compile(f"[{_ACTING}\t\n]")


def visible(text: str) -> str:
    """The text on one line: control characters, line ends and tabs as `\\x1b` or `\\u202e`."""
    return _IN_ONE_LINE.sub(_code, text)


def visible_lines(text: str) -> str:
    """Like `visible`, but line ends and tabs stay."""
    return _IN_LINES.sub(_code, text)


def visible_json(text: str) -> str:
    """Like `visible_lines` for JSON text: control characters become JSON escapes."""
    return _IN_LINES.sub(lambda match: _units(match[0]), text)


def shortened(text: str, most: int = 6000) -> str:
    """The text, or its beginning and end with the number of characters left out between them."""
    left_out = len(text) - most
    if left_out <= 0:
        return text
    return f"{text[: most // 2]} … ({left_out:,} characters left out) … {text[-most // 2 :]}"


def counted(n: int, noun: str, plural: str = "") -> str:
    """A number with its noun: "1 question", "2,525 questions", "0 entries"."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def quoted(value: object, most: int = 80) -> str:
    """A value as error messages quote it: its `repr`, cut to `most` characters."""
    try:
        text = repr(value)
    except RecursionError:  # thousands of brackets
        text = f"a deep {type(value).__name__}"
    return text if len(text) <= most else text[: most - 3] + "..."


def nearest(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """ "did you mean 'x'?" where a known name is near, else `otherwise`: the end of a refusal."""
    close = difflib.get_close_matches(word[:100], [*known], n=1)
    return f"did you mean {close[0]!r}?" if close else otherwise


def _units(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[k]:02x}{units[k + 1]:02x}" for k in range(0, len(units), 2))


def _code(match: re.Match[str]) -> str:
    number = ord(match[0])
    if number < 0x100:
        return {9: "\\t", 10: "\\n", 13: "\\r"}.get(number, f"\\x{number:02x}")
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
