"""Answers of the bundled `natural` model to some bundled questions, as a file of numbers.

    python -m tests.model_adapters.bundled_golden

rewrites `bundled_golden.jsonl`. Commit it only where the numbers are meant to change: after a
retraining or a correction of the paper's definitions, never to make a test pass.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mapflow.model_adapters.families.llava.model import LlavaVideo
from mapflow.model_adapters.inference.answering import answer
from mapflow.model_adapters.interventions import parse_interventions
from mapflow.model_adapters.mini import planted
from mapflow.tasks.registry import load_questions

FILE = Path(__file__).with_suffix(".jsonl")
CHECKPOINT = Path(planted.__file__).parent / "natural"
QUESTIONS = 6  # of each subtask
INTERVENTIONS = (
    "full;effective:cross_frame=2-6,video_to_question=2-8,question_to_last=7-12;"
    "random:ratio=0.3,seed=3;knockout:video->last@center=9,window=5"
)


def lines() -> Iterator[dict[str, Any]]:
    """Yields a header, then one line per question and intervention.

    Probabilities are rounded to six digits, log margins to four.
    """
    model = LlavaVideo.load(CHECKPOINT, dtype="float32")
    interventions = parse_interventions([INTERVENTIONS])
    yield {"digest": model.digest, "interventions": [str(one) for one in interventions]}
    for question in load_questions("mapflow_motion", limit=QUESTIONS):
        prepared = model.prepare(question)
        (records,) = answer(model, [prepared], interventions)
        for record in records:
            yield {
                "question": record.question_id,
                "intervention": record.intervention,
                "prediction": record.prediction,
                "target": record.target,
                "options": {name: round(p, 6) for name, p in (record.option_probs or {}).items()},
                "margin": None if record.margin is None else round(record.margin, 4),
                "edges": [record.edges_kept, record.edges_total],
                "frames": list(record.frame_indices or ()),
            }


if __name__ == "__main__":
    FILE.write_text("".join(json.dumps(line) + "\n" for line in lines()))
