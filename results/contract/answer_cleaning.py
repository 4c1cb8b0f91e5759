"""What a model answers, without what surrounds the answer in its output.

Removed: thoughts, special tokens and roles of chat templates, the markup of LaTeX, HTML and JSON.
An answer in a container (`<answer>…</answer>`, `\\boxed{…}`, `{"answer": …}`) becomes a line
"final answer: …".
"""

from __future__ import annotations

import re
import unicodedata

_THOUGHT = r"(?:think(?:ing)?|thoughts?|reason(?:ing)?|analysis|scratchpad|reflection|cot)"
_STEMS = (
    "think|thought|reason|rational|plan|summar|caption|reflect|observ|descri|analy|scratch|percept"
    "|perceiv|explain|explan|deliberat|consider"
)
_NAME = rf"(?:[\w:-]*(?:{_STEMS})[\w:-]*|cot)"  # of a tag: `seed:think`, `inner_thoughts`
_OPEN = (
    rf"<\s*\|?{_NAME}\|?\s*>|[◁\[]\s*\|?(?:begin_of_)?{_THOUGHT}\|?\s*[▷\]]"
    r"|<\|channel\|>\s*(?:analysis|commentary)|<unused94>"
)
_CLOSE = (
    rf"<\s*\|?/\s*{_NAME}\|?\s*>|<\s*\|?end_of_{_THOUGHT}\|?\s*>"
    rf"|[◁\[]\s*(?:/\s*|\|?end_of_){_THOUGHT}\|?\s*[▷\]]"
    r"|<\|channel\|>\s*final(?:<\|message\|>)?|<unused95>"
)
_THOUGHTS = re.compile(rf"(?P<close>{_CLOSE})|(?P<open>{_OPEN})", re.IGNORECASE)
_NAMES = (
    r"(?:final[_ ]?)?(?:answer|ans|option|choice|prediction|response|result|solution|conclusion)"
)
_ANSWER_TAG = re.compile(rf"<\s*{_NAMES}\s*>", re.IGNORECASE)
_END = re.compile(
    r"</s>|[<\[](?:eos|eot|end_of_turn|end_of_utterance)[>\]]"
    r"|<\|(?:im_end|im_start|end|eo\w+|eot_id|eom_id|endof\w*|end.of.\w+|return|user)\|>",
    re.IGNORECASE,
)
_SPECIAL = re.compile(
    r"<\|[^<>|]*\|>|</?(?:s|bos|eos|pad|unk|start_of_turn)>|<0x[0-9a-f]{2}>|\[(?:/?INST|BOS|PAD)\]",
    re.IGNORECASE,
)
_ROLE = re.compile(r"\s*(?:assistant|model|gpt|bot|ai)\s*(?::|\n)", re.IGNORECASE)
_CONTAINERS = (
    (re.compile(r"<\|begin_of_box\|>", re.IGNORECASE), "\nfinal answer: "),
    (re.compile(r"<\|end_of_box\|>", re.IGNORECASE), "\n"),
    (_ANSWER_TAG, "\nfinal answer: "),
    (re.compile(rf"<\s*/\s*{_NAMES}\s*>", re.IGNORECASE), "\n"),
    (
        re.compile(r"\\f?box(?:ed)?\s*\{((?:[^{}]|\{[^{}]*\})*)\}"),
        r"\nfinal answer: \1\n",
    ),
    (
        re.compile(rf"[\"']{_NAMES}(?:_\w+)?[\"']\s*:\s*[\"']?([^\"'\n]*)[\"']?", re.IGNORECASE),
        r"\nfinal answer: \1\n",
    ),
)
_MARKUP = (
    (re.compile(r"~~.*?~~"), " "),  # struck out
    (re.compile(r"```\w*"), "\n"),
    (re.compile(r"\\(?:text|math|mbox)\w*\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\\[()\[\]]|\$(?!\d)"), " "),
    (re.compile(r"<\s*(?:br|p|/p|li|/li|div|/div)\s*/?>", re.IGNORECASE), "\n"),
    (re.compile(r"</?(?![A-Z]>)[A-Za-z][^<>\n]{0,80}>"), " "),
    (re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]"), ""),  # invisible
    (re.compile(r"\r\n?|[\u2028\u2029\x0b\x0c]"), "\n"),
)


_ENTITIES = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'", "&nbsp;": " ", "&amp;": "&"}


def written_answer(text: str, *, first_line: bool = False) -> str:
    """The text that counts as the answer, or its first line; empty if the model only thought."""
    for entity, sign in _ENTITIES.items():
        text = text.replace(entity, sign)
    text = _ended(_without_thoughts(unicodedata.normalize("NFKC", text)))
    if first_line:
        lines = (written_answer(line) for line in text.splitlines())
        return next((line for line in lines if line and line != "final answer:"), "")
    for pattern, replacement in (*_CONTAINERS, (_SPECIAL, " "), *_MARKUP):
        text = pattern.sub(replacement, text)
    return text.strip()


def _without_thoughts(text: str) -> str:
    """Thoughts that do not end take the rest of the text, up to a tagged answer; where only their
    end is there, the prompt has begun them."""
    kept: list[str] = []
    start: int | None = 0
    for mark in _THOUGHTS.finditer(text):
        if mark["open"] and start is not None:
            kept.append(text[start : mark.start()])
            start = None
        elif mark["close"]:
            if start is not None:
                kept.clear()
            start = mark.end()
        last = mark.end()
    if start is not None:
        return "".join([*kept, text[start:]])
    tagged = _ANSWER_TAG.search(text, last)
    return "".join([*kept, text[tagged.start() :] if tagged else ""])


def _ended(text: str) -> str:
    """Without the role at the start, and without what follows the token that ends the turn."""
    while opening := re.match(rf"\s*(?:{_SPECIAL.pattern}|{_ROLE.pattern})", text, re.IGNORECASE):
        if re.match(r"\s*<\|begin_of_box\|>", text, re.IGNORECASE):
            break
        text = text[opening.end() :]
    end = _END.search(text)
    return text[: end.start()] if end and text[: end.start()].strip() else text
