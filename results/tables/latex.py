r"""Tables for a paper: booktabs, accents and signs as commands, everything but cells in comments.

The text compiles with pdflatex and lualatex, in any encoding of fonts, with `booktabs` and
`graphicx` alone. So accents become commands (`\'{e}`) and signs become math (`$\rightarrow$`).
Signs without such a command (Chinese, Cyrillic, emoji) become `[U+65E5]`, as pdflatex stops at
them and lualatex leaves a gap where the font lacks them; a comment above the table names them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence


def _t1(command: str) -> str:
    """A sign that TeX's oldest font encoding lacks."""
    return rf"{{\fontencoding{{T1}}\selectfont\{command}}}"


_SIGNS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "`": r"\`{}", **{sign: "\\" + sign for sign in "&%$#_"},
    "<": "$<$", ">": "$>$", "|": "$|$", "−": "$-$", "±": r"$\pm$", "×": r"$\times$",
    "÷": r"$\div$", "·": r"$\cdot$", "→": r"$\rightarrow$", "←": r"$\leftarrow$",
    "↔": r"$\leftrightarrow$", "↛": r"$\not\rightarrow$", "⇒": r"$\Rightarrow$",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "≥": r"$\geq$", "≤": r"$\leq$", "≠": r"$\neq$",
    "≈": r"$\approx$", "∞": r"$\infty$", "∼": r"$\sim$", "∈": r"$\in$", "∅": r"$\emptyset$",
    "°": r"$^{\circ}$", "²": "$^{2}$", "³": "$^{3}$", "¹": "$^{1}$", "µ": r"$\mu$",
    "•": r"$\bullet$", "†": r"$\dagger$", "‡": r"$\ddagger$",
    "«": _t1("guillemotleft"), "»": _t1("guillemotright"), "‹": _t1("guilsinglleft"),
    "›": _t1("guilsinglright"),
    "–": "--", "—": "---", "‐": "-", "‑": "-", "…": r"\dots{}",
    "“": "``", "”": "''", "„": ",,", "‘": "`", "’": "'", "‚": ",", "\u00a0": "~",
    "\u2009": r"\,", "\u202f": r"\,", "¡": "!`", "¿": "?`", "§": r"\S{}", "¶": r"\P{}",
    "©": r"\copyright{}", "£": r"\pounds{}", "€": r"\texteuro{}", "ß": r"\ss{}", "ø": r"\o{}",
    "Ø": r"\O{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ł": r"\l{}",
    "Ł": r"\L{}", "ı": r"\i{}",
}  # fmt: skip
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u",
    "\u0307": ".", "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0323": "d",
    "\u0326": "c", "\u0327": "c", "\u0331": "b",
}  # fmt: skip
_GREEK = re.compile(
    "GREEK (SMALL|CAPITAL) LETTER (ALPHA|BETA|GAMMA|DELTA|EPSILON|ZETA|ETA|THETA|IOTA|KAPPA|LAMDA"
    "|MU|NU|XI|PI|RHO|SIGMA|TAU|UPSILON|PHI|CHI|PSI|OMEGA)"
)
_OWN_CAPITALS = frozenset("ΓΔΘΛΞΠΣΥΦΨΩ")
"""Greek capitals with a command; the others look like Latin ones."""


def latex_text(text: str) -> str:
    """Escapes text of one line. Straight double quotes open after a space, else they close."""
    found, before = [], " "
    for sign in unicodedata.normalize("NFC", text):
        if sign == '"':
            opens = before.isspace() or before in "([{-–—/"
            found.append("``" if opens else r"\mbox{}''" if before in "'’" else "''")
        elif sign in "-'," and before == sign:
            found.append(r"\mbox{}" + sign)  # two would be one dash or quote, with {} in LuaTeX
        else:
            found.append(_sign(sign) or f"[U+{ord(sign):04X}]")
        before = sign
    return "".join(found)


def lacking(text: str) -> list[str]:
    """The signs of a text that `latex_text` shows as code points, once each."""
    return [one for one in dict.fromkeys(unicodedata.normalize("NFC", text)) if not _sign(one)]


def _sign(sign: str) -> str | None:
    if sign in _SIGNS:
        return _SIGNS[sign]
    if " " <= sign <= "~":
        return sign
    if greek := _GREEK.fullmatch(unicodedata.name(sign, "")):
        name = greek[2].replace("LAMDA", "LAMBDA")
        if greek[1] == "SMALL":
            return rf"$\{name.lower()}$"
        return rf"$\{name.capitalize()}$" if sign in _OWN_CAPITALS else None
    parts = unicodedata.normalize("NFD", sign)
    letter = parts[:-1]
    if parts[-1] not in _ACCENTS or not letter.isascii() or not letter.isalpha():
        return None  # two accents would stand beside each other in old fonts
    return rf"\{_ACCENTS[parts[-1]]}{{{letter}}}"


def latex_cell(text: str) -> str:
    r"""The text of a cell. Intervals get brackets; braces keep `[` from being an option of `\\`."""
    number = r"([+−]?[\d.,]+)"
    escaped = latex_text(re.sub(rf"(?<!\S){number}…{number}(?!\S)", r"[\1, \2]", text))
    return f"{{{escaped[0]}}}{escaped[1:]}" if escaped[:1] in ("[", "*") else escaped


def latex_marked(cell: str, *, best: bool, tied: bool) -> str:
    """An escaped cell whose number, all before the first space, is bold or has a dagger."""
    number, space, rest = cell.partition(" ")
    number = rf"\textbf{{{number}}}" if best else number
    return number + (r"$^{\dagger}$" if tied else "") + space + rest


def latex_table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[bool],
    *,
    apart: Sequence[int] = (),
    caption: str,
    label: str | None,
    comments: Sequence[str],
) -> str:
    """One table environment, shrunk to the line width if it is wider.

    rows: escaped cells; heads, caption: plain text. apart: rows above which a rule is drawn.
    comments: lines for the author, above the table.
    """
    body = [" & ".join(row) + r" \\" for row in rows]
    for row in sorted(set(apart) - {0}, reverse=True):
        body.insert(row, r"\midrule")
    return "\n".join(
        [
            r"% needs \usepackage{booktabs,graphicx}",
            *(f"% {' '.join(line.split())}" for line in comments),
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{latex_text(caption)}}}",
            *([rf"\label{{{label}}}"] if label else []),
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{''.join('r' if one else 'l' for one in right)}}}",
            r"\toprule",
            " & ".join(map(latex_cell, heads)) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        ]
    )
