"""Records of attention maps: there and back, means over questions, the table."""

import pytest

from mapflow.results.contract.errors import MapflowError
from mapflow.results.records.attention import (
    PARTS,
    AttentionRecord,
    attention_table,
    summarize_attention,
)


def record(question: str, name: str = "full", video=(0.5, 0.25), **changes) -> AttentionRecord:
    shares = {part: tuple((1 - share) / 4 for share in video) for part in PARTS} | {
        "video": tuple(video)
    }
    values = {"shares": shares, "n_rows": 1, "frames": (0, 1), "weights": ((0.5, 0.0), (0.2, 0.05))}
    return AttentionRecord(question, "v", "t", name, "paper", "last", **{**values, **changes})


def test_a_line_and_back():
    one = record("a", by_frame=((0.5, 0.0), (0.2, 0.05)))
    again = AttentionRecord.from_line(one.to_line(), "file:1")
    assert again.to_line() == one.to_line() and again.key == ("a", "full")
    with pytest.raises(MapflowError, match="file:1"):
        AttentionRecord.from_line(one.to_line().replace('"n_rows": 1', '"n_rows": "x"'), "file:1")


def test_means_leave_out_what_could_not_be_asked():
    records = [
        record("a"),
        record("b", video=(0.1, 0.05)),
        record("c", shares=None, error="no such file"),
        record("a", "effective", video=(0.0, 0.0)),
    ]
    full, cut, absent = (
        summarize_attention(records, name) for name in ("full", "effective", "random")
    )
    assert (full.n, full.errors, cut.n, absent.n) == (2, 1, 1, 0)
    assert full.shares["video"] == pytest.approx((0.3, 0.15))
    assert [sum(full.shares[part][layer] for part in PARTS) for layer in (0, 1)] == pytest.approx(
        [1, 1]
    )
    assert full.to_json()["shares"]["video"] == full.shares["video"]
    assert attention_table([full, cut, absent]).splitlines()[2:] == [
        "      1   30.00         0.00         –",
        "      2   15.00         0.00         –",
        "      n       2            1         0",
    ]


def test_an_early_exit_leaves_layers_empty():
    early = summarize_attention([record("a", "early-exit@1", video=(0.4,))], "early-exit@1")
    full = summarize_attention([record("a")], "full")
    assert [line.split()[1:] for line in attention_table([early, full]).splitlines()[2:]] == [
        ["40.00", "50.00"],
        ["–", "25.00"],
        ["1", "1"],
    ]
