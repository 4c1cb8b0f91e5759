"""Word lists for the lens: a YAML file of named lists.

By default the spatial and temporal lists that ship with the program.
"""

from __future__ import annotations

from pathlib import Path

from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.files import read_yaml
from mapflow.results.records.lens import WordLists

SHIPPED = Path(__file__).with_name("lens_words.yaml")


def read_word_lists(path: Path = SHIPPED) -> WordLists:
    """Name → words in lower case.

    Raises MapflowError for a file that does not map names to lists of words.
    """
    try:
        values = read_yaml(path)
    except MapflowError as error:
        raise MapflowError(f"word lists {error}") from error
    if not isinstance(values, dict) or not values:
        raise MapflowError(
            f"{str(path)!r} holds no word lists; write e.g. 'spatial: [left, right]'"
        )
    for name, words in values.items():
        if not isinstance(words, list) or not words:
            raise MapflowError(
                f"{str(path)!r}: {name!r} is not a list of words; write e.g. '{name}: [left,"
                " right]'"
            )
        for word in words:
            if not isinstance(word, str) or not word.strip():
                raise MapflowError(
                    f"{str(path)!r}: {word!r} in {name!r} is not a word; put quotes around words"
                    " such as 'on' and 'off'"
                )
    return {
        str(name): frozenset(word.strip().lower() for word in words)
        for name, words in values.items()
    }
