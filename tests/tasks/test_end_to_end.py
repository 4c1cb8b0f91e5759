"""The bundled model on real videos: zipped, whole, broken and missing ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mapflow.model_adapters.families.registry import BUNDLED
from mapflow.model_adapters.video.reader import VideoError, read_frames
from mapflow.model_adapters.video.sampling import segment_midpoints
from mapflow.results.contract.question import Clip

from .folders import put, tomato_row, tvbench_row, write_tomato, write_tvbench, write_zip

SUFFIXES = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".gif"}
OPTIONS = ["2", "3", "4", "5"]


@pytest.mark.slow
def test_broken_and_missing_videos_do_not_stop_a_run(real_data, tmp_path):
    """Exactly the unreadable videos end as errors; the exit code reflects them."""
    if not BUNDLED.is_dir():
        pytest.skip("the bundled model is absent")
    videos = sorted(path for path in (real_data / "videos").iterdir() if path.suffix in SUFFIXES)
    data = tmp_path / "data"
    rows = [tvbench_row(path.name, candidates=OPTIONS, answer="4") for path in videos]
    rows.append(tvbench_row("missing.mp4", candidates=OPTIONS, answer="4"))
    write_tvbench(data / "tvbench", {"action_count": rows})
    zipped, *loose = videos
    write_zip(
        data / "tvbench" / "video" / "action_count.zip",
        {f"action_count/{zipped.name}": zipped.read_bytes()},
    )
    for path in loose:
        put(data / "tvbench" / "video" / "action_count" / path.name, path.read_bytes())
    readable = [path for path in videos if can_be_read(path)]
    write_tomato(data / "tomato", {"count": [tomato_row("0001-00"), tomato_row("0002-00")]})
    put(data / "tomato" / "videos" / "human" / "0001-00.mp4", readable[0].read_bytes())

    done = subprocess.run(
        [
            Path(sys.executable).parent / "lmms_eval",
            *(
                "--model",
                "mapflow_llava",
                "--tasks",
                "mapflow_tvbench_action_count,mapflow_tomato_count",
            ),
            *("--data_dir", str(data), "--output_path", str(tmp_path / "out")),
        ],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "MAPFLOW_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    (records,) = (tmp_path / "out").rglob("records.jsonl")
    answered = {}
    for line in records.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        answered[record["video_id"]] = record["error"] is None
        assert (
            (record["error"] is None)
            == (record["correct"] is not None)
            == (record["frame_indices"] is not None)
        )
    expected = {f"action_count/{path.name}": path in readable for path in videos}
    expected |= {"action_count/missing.mp4": False, "human/0001-00": True, "human/0002-00": False}
    assert answered == expected
    assert done.returncode == 3, done.stderr[-2000:]


def can_be_read(path):
    try:
        read_frames(Clip(str(path)), segment_midpoints, 8)
    except VideoError:
        return False
    return True
