"""Texts of interventions: refused, or printed and parsed again they are themselves."""

from __future__ import annotations

from random import Random
from typing import Any

from mapflow.model_adapters.interventions import parse_intervention, parse_interventions
from mapflow.model_adapters.interventions.language.grammar import is_file_name, split_interventions

from .mutation import mutated

INTERVENTIONS = [
    "full",
    "effective",
    "effective-strict",
    "effective:cross_frame=6-15,video_to_question=6-20,question_to_last=16-25",
    "effective:scale=LLaVA-NeXT-7B-Video-FT",
    "random:ratio=0.58,seed=3",
    "random",
    "random:scale=x,seed=1",
    "video->question@6-20",
    "frame[3]→option[0]@7",
    "stem:last@2",
    "keep:video:question+all:system",
    "knockout:video:last@center=2",
    "cross-frame",
    "knockout:video->last@center=12,window=9",
    "knockout:cross-frame@bottom-up=3;full",
    "knockout:stem->last@inverse=2,window=3",
    "knockout:true_option->last@top-down=2",
    "keep:video->question@6-20+all->system",
    "keep:cross-frame+knockout:all->last@center=2",
    "early-exit@20",
    "effective+video->template",
    "full,effective,random:ratio=.5;seed=9,video->last",
]
INTERVENTION_TOKENS = [
    *"->@+,;:=[]. 0123456789-x",
    *[
        "full",
        "effective",
        "effective-strict",
        "random:",
        "knockout:",
        "keep:",
        "video",
        "last",
        "question",
        "all",
        "frame[",
        "ratio=",
        "seed=",
    ],
    *[
        "center=",
        "inverse=",
        "top-down=",
        "bottom-up=",
        "window=",
        "cross-frame",
        "scale=",
        "cross_frame=1",
        "early-exit@",
        "1e999",
        "nan",
    ],
    *(
        "video_to_question=1-2",
        "question_to_last=3",
        "true_option",
        "false_options",
        "template",
        "->",
        "@1-2",
        "9" * 30,
    ),
]


def interventions(random: Random) -> Any:
    """A text of interventions is refused, or each of them printed and parsed again is itself."""
    text = mutated(random, INTERVENTIONS, INTERVENTION_TOKENS)
    if any(is_file_name(piece) for piece in split_interventions(text)):
        return None
    found = parse_interventions([text])
    assert found
    for one in found:
        said = str(one)
        again = parse_intervention(said)
        assert again == one and str(again) == said, (text, said)
        assert parse_interventions([said]) == [one], (text, said)
    return found
