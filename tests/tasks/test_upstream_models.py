"""lmms-eval's own models on our tasks: unmodified classes get the clip's frames and no other.

The checkpoint is a tiny random Qwen2.5-VL. Every frame of the video has a grey of its own, so a
model that saw the whole file would be found out.
"""

import json
import re
import sqlite3
from pathlib import Path

import av
import numpy as np
import pytest
import torch

pytest.importorskip("lmms_eval")
pytest.importorskip("decord", reason="lmms-eval's Qwen2.5-VL imports decord")

from loguru import logger
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from mapflow.harness.evaluation.lmms_eval import main
from mapflow.model_adapters.video.reader import read_frames
from mapflow.results.contract.question import Clip
from mapflow.tasks import lmms_functions
from mapflow.tasks.lmms_files import write_task_files

from ..model_adapters.synthetic_videos import exactly
from ..model_adapters.tiny_hf import CHATML, QWEN_VIDEO, qwen2_5_vl
from .folders import tvbench_row, write_tvbench

TASKS = "mapflow_tvbench_action_sequence,mapflow_tvbench_action_count"
RATE = 10
PIXELS = {"min_pixels": 3136, "max_pixels": 112 * 112 * 16}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qwen")
    torch.manual_seed(0)
    model, processor = qwen2_5_vl(1)
    plain = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}"
    template = CHATML.replace("VIDEO", QWEN_VIDEO)
    begin, _, rest = template.partition("{% for c in m['content'] %}")
    assert begin.endswith("\n") and "{% endfor %}<|im_end|>" in rest
    text = plain + "{{ m['content'] }}{% else %}{% for c in m['content'] %}" + rest
    processor.chat_template = text.replace(
        "{% endfor %}<|im_end|>", "{% endfor %}{% endif %}<|im_end|>", 1
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two questions on parts of one video, one on a video that is not there, one on a whole one."""
    root = tmp_path_factory.mktemp("data")
    for subtask in ("action_sequence", "action_count"):
        path = root / "tvbench" / "video" / subtask / "clip.mp4"
        path.parent.mkdir(parents=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=RATE, options={"crf": "8"})
            stream.width = stream.height = 112
            stream.pix_fmt = "yuv420p"
            for number in range(40):
                grey = np.full((112, 112, 3), 40 + 5 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
            container.mux(stream.encode(None))
    bounded = [tvbench_row(start=1.0, end=2.0), tvbench_row(start=2.0, end=3.5)]
    gone = tvbench_row("gone.mp4", start=0.0, end=1.0)
    rows = {"action_sequence": [*bounded, gone], "action_count": [tvbench_row()]}
    return write_tvbench(root / "tvbench", rows).parent


@pytest.fixture
def seen(monkeypatch, tmp_path):
    """What the network is given, one entry per call of `generate`."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MAPFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lmms_functions, "_failed", {})
    given = []
    generate = Qwen2_5_VLForConditionalGeneration.generate

    def watched(self, *args, **kwargs):
        given.append(kwargs)
        return generate(self, *args, **kwargs)

    monkeypatch.setattr(Qwen2_5_VLForConditionalGeneration, "generate", watched)
    return given


def model_args(checkpoint):
    settings = {**PIXELS, "pretrained": checkpoint, "device": "cpu", "device_map": "cpu"}
    return ",".join(f"{name}={value}" for name, value in {**settings, "max_num_frames": 8}.items())


def clip_of(data, subtask, *bounds):
    return Clip(str(data / "tvbench" / "video" / subtask / "clip.mp4"), *bounds)


def pixels_of(checkpoint, clip, numbers):
    """What the model's processor makes of the frames that our reader finds in the *whole* file."""
    video = read_frames(Clip(clip.path), exactly(*numbers), 1).pixels
    processor = AutoProcessor.from_pretrained(checkpoint, **PIXELS)
    frames = torch.from_numpy(video).permute(0, 3, 1, 2).float()
    return processor.video_processor(videos=[frames], return_tensors="pt")["pixel_values_videos"]


def evenly(first, last, n):
    """qwen_vl_utils: `n` frames from first to last, both included."""
    return torch.linspace(first, last, n).round().long().tolist()


def scores_of(results):
    return {name: values["accuracy,none"] for name, values in results["results"].items()}


def expect(seen, checkpoint, data, frames):
    """Every question's pixels, whatever the order they were asked in, bit for bit."""
    wanted = [pixels_of(checkpoint, clip_of(data, subtask), numbers) for subtask, numbers in frames]
    got = [given["pixel_values_videos"] for given in seen]
    for pixels in wanted:
        assert sum(one.shape == pixels.shape and torch.equal(one, pixels) for one in got) == 1
    assert len(got) == len(wanted) + 1, "the question without a video shows a grey clip"


def test_a_simple_model_under_lmms_evals_own_evaluator(
    seen, checkpoint, data, monkeypatch, tmp_path
):
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    monkeypatch.setenv("MAPFLOW_DATA", str(data))
    lines: list[str] = []
    sink = logger.add(lines.append, level="ERROR", format="{message}")
    results = simple_evaluate(
        model="qwen2_5_vl",
        model_args=model_args(checkpoint),
        tasks=TASKS.split(","),
        task_manager=TaskManager(include_path=str(write_task_files()), include_defaults=False),
        gen_kwargs="max_new_tokens=3",
        force_simple=True,
        batch_size=1,
        use_cache=str(tmp_path / "answers"),
    )
    logger.remove(sink)
    frames = {
        "action_sequence": [evenly(10, 20, 4), evenly(20, 35, 4)],  # two a second, at least four
        "action_count": [evenly(0, 39, 8)],
    }
    asked = [(subtask, numbers) for subtask, own in frames.items() for numbers in own]
    expect(seen, checkpoint, data, asked)
    (line,) = [line for line in lines if "not scored" in line]
    assert re.search(r"^tvbench/action_sequence/0002 is not scored: video '.*gone.mp4'", line)
    samples = results["samples"]["mapflow_tvbench_action_sequence"]
    failed = [one["answer"] for one in samples if "accuracy" not in one]
    assert [(one["prediction"], one["valid"]) for one in failed] == [("(not asked)", None)]
    assert "no such file" in failed[0]["error"]
    assert set(scores_of(results)) == set(TASKS.split(","))
    assert {given["max_new_tokens"] for given in seen} == {3}
    # another run would score a cached answer, and this one is to a grey clip
    cached = {("mapflow_tvbench_action_sequence", "0"), ("mapflow_tvbench_action_sequence", "1")}
    cached |= {("mapflow_tvbench_action_count", "0")}
    with sqlite3.connect(tmp_path / "answers" / "cache.db") as table:
        rows = table.execute("SELECT task_name, doc_id FROM responses").fetchall()
    log = [json.loads(line) for line in (tmp_path / "answers" / "cache.audit.jsonl").open()]
    for found in (rows, [(one["task_name"], one["doc_id"]) for one in log]):
        assert {(task, str(row)) for task, row in found} == cached


def test_a_chat_model_through_our_command(seen, checkpoint, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MAPFLOW_DATA", "replaced by --data_dir")
    code = main(
        [
            *("--model", "qwen2_5_vl", "--model_args", model_args(checkpoint)),
            *("--tasks", TASKS, "--data_dir", str(data), "--gen_kwargs", "max_new_tokens=3"),
            *("--output_path", str(tmp_path / "out"), "--log_samples"),
        ]
    )
    assert code == 3, "one question has no video"
    said = "1 question of mapflow's tasks without a video to show, not scored"
    assert said in capsys.readouterr().err
    clips = [("action_sequence", evenly(10, 20, 8)), ("action_sequence", evenly(20, 35, 8))]
    expect(seen, checkpoint, data, [*clips, ("action_count", evenly(0, 39, 8))])
    (log,) = Path(tmp_path / "out").rglob("*samples_mapflow_tvbench_action_sequence.jsonl")
    samples = [json.loads(line) for line in log.read_text().splitlines()]
    asked = "Question: Which way?\nOptions:\n(A) Left.\n(B) Right.\nAnswer with the option's letter"
    assert [one["input"].startswith(asked) for one in samples] == [True] * 3
