"""Right or wrong: a prediction against its question.

The one rule that records and lmms-eval's own tables share. Knows no model: a prediction is text.
"""

from __future__ import annotations

from mapflow.results.contract.answers import parse_answer
from mapflow.results.contract.question import Question


def grade(
    question: Question, text: str, *, first_token_right: bool | None = None
) -> tuple[bool, bool]:
    """(right, valid): whether the prediction names the right answer, and whether it names any.

    Where the first token is the answer it must be the bare letter (design.md, paper protocol); a written answer is
    parsed. Right is decided by an option's *text*, as some questions of TVBench list the right one twice. An
    open-ended question is right by the first token's id where the caller knows it, else where the answer begins so.
    """
    if not question.options:
        begins = bool(text) and question.target_text.startswith(text)
        return begins if first_token_right is None else first_token_right, bool(text)
    if question.max_new_tokens == 1:
        chosen = question.letters.index(text) if text in question.letters else None
    else:
        chosen = parse_answer(text, question.options)
    if chosen is None or isinstance(question.target, str):
        return False, chosen is not None
    return question.options[chosen] == question.options[question.target], True
