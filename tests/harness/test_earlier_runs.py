"""Folders that an earlier version wrote are read by every reading command, and named correctly.

`earlier_runs/README.md` says how they were made.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mapflow.harness.cli.main import main
from mapflow.results.runs.run import read_runs

EARLIER = Path(__file__).with_name("earlier_runs")
OLD_DEFAULT = "model_videollama3_hublayout+isolated-vision-attention+checkpoint-max-tokens"


@pytest.mark.parametrize("folder", ["run", "discover/scores"])
def test_earlier_runs_are_compared_ranked_and_reported(folder, tmp_path, capsys):
    place = str(EARLIER / folder)
    share = ["--intersect"]  # discovery answers every half under policies of its own
    for command, more in (("compare", share), ("leaderboard", []), ("ablate", share)):
        assert main([command, place, "--format", "csv", *more]) == 0, command
        assert "effective" in capsys.readouterr().out
    output = tmp_path / "report.html"
    assert main(["report", place, str(EARLIER / "sweep"), "-o", str(output)]) == 0
    assert "video-&gt;last" in output.read_text() or "video->last" in output.read_text()


@pytest.mark.parametrize(
    "folder", ["sweep", "sweep-correct", "trace", "lens", "attention", "discover/sweep-center"]
)
def test_earlier_analyses_are_drawn(folder, tmp_path, capsys):
    assert main(["figure", str(EARLIER / folder), "-o", str(tmp_path / "figure.png")]) == 0
    assert len((tmp_path / "figure.csv").read_text().splitlines()) > 1


def test_an_earlier_videollama3_is_named_by_what_it_ran(tmp_path, capsys):
    """Without arguments it ran with isolated frames, which today's plain name does not mean."""
    default, released = EARLIER / "videollama3-default", EARLIER / "videollama3-released"
    assert read_runs(default)[0].model == OLD_DEFAULT
    assert read_runs(released)[0].model == "model_videollama3_hublayout+checkpoint-max-tokens"
    today = tmp_path / "today"
    shutil.copytree(default, today)
    manifest = json.loads((today / "manifest.json").read_text())
    manifest["identity"]["model_args"] = {"vision_attention": "released", "max_tokens": None}
    (today / "manifest.json").write_text(json.dumps(manifest))
    assert main(["leaderboard", *map(str, (default, released, today)), "--format", "json"]) == 0
    (table,) = json.loads(capsys.readouterr().out)
    assert {row["model"] for row in table["rows"] if "ties" in row} == {
        OLD_DEFAULT,
        "model_videollama3_hublayout+checkpoint-max-tokens",
        "model_videollama3_hublayout",
    }
    report = tmp_path / "report.html"
    assert main(["report", str(EARLIER / "videollama3-sweep"), "-o", str(report)]) == 0
    assert OLD_DEFAULT in report.read_text()


def test_an_earlier_folder_is_not_continued(tmp_path, capsys):
    """Its records come from other code, so one line says what differs and what to do."""
    folder = tmp_path / "sweep"
    shutil.copytree(EARLIER / "sweep", folder)
    words = ("--task", "mapflow_motion_direction", "--limit", "3", "--routes", "video->last")
    assert main(["sweep", *words, "--output_path", str(folder)]) == 2
    (line,) = [one for one in capsys.readouterr().err.splitlines() if "error" in one]
    assert "holds another run: its code is '63e384dcfb65'" in line
    assert "choose another --output_path" in line
