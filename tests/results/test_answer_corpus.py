"""Written answers of models, labelled by hand: how often does the parser judge as a person does?

Each line of `answers/*.jsonl` holds an output, the options, the option that a careful reader takes
it to name (null: none, or several), and why. Labels follow from the text alone.
"""

import json
from pathlib import Path

from mapflow.results.contract.question import LETTERS

FILES = sorted(Path(__file__).parent.glob("answers/*.jsonl"))


def corpus(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_every_output_is_labelled_once_with_an_option_or_none():
    seen = set()
    for file in FILES:
        for one in corpus(file):
            assert set(one) == {"output", "options", "gold", "why"} and one["why"]
            assert one["gold"] is None or one["gold"] in LETTERS[: len(one["options"])]
            key = (one["output"], *one["options"])
            assert key not in seen, one["output"]
            seen.add(key)
    assert seen
