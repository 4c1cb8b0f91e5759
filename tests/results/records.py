"""Records for tests: one line to write, sensible in every field."""

from typing import Any

from mapflow.results.records.record import Record


def a_record(question: int = 0, intervention: str = "full", **changes: Any) -> Record:
    """An answered question of task `t_one`, right by default."""
    fields: dict[str, Any] = {
        "question_id": f"b/one/{question:04d}",
        "video_id": f"one/{question // 2}.mp4",
        "task": "t_one",
        "intervention": intervention,
        "seed": None,
        "protocol": "paper",
        "n_options": 4,
        "target": "A",
        "prediction": "A",
        "correct": True,
        "valid": True,
        "p_answer": 0.5,
        "p_target": 0.5,
        "option_probs": {"A": 0.5, "B": 0.25, "C": 0.125, "D": 0.125},
        "option_prediction": "A",
        "margin": 0.6931,
        "edges_kept": 10,
        "edges_total": 40,
        "n_tokens": 12,
        "frame_indices": (0, 1),
        "repeated_frames": 0,
    }
    return Record(**(fields | changes))
