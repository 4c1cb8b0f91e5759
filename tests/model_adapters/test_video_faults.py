"""Each fault of a file raises one VideoError that names the file, in bounded time and memory."""

from __future__ import annotations

import contextlib
import math
import os
import struct
import threading
import time
from fractions import Fraction

import numpy as np
import pytest
from synthetic_videos import (
    FRAMES,
    VIDEOS,
    av,
    error_of,
    every_frame,
    exactly,
    numbers_in,
    write_once,
    write_video,
)

from mapflow.model_adapters.video import decoding as video_decoding
from mapflow.model_adapters.video import index as video_index
from mapflow.model_adapters.video import reader as video_reader
from mapflow.model_adapters.video.reader import VideoError, read_frames
from mapflow.model_adapters.video.sampling import segment_midpoints, trimmed_linspace
from mapflow.results.contract.errors import MapflowError
from mapflow.results.contract.question import Clip

CUT_UNNOTICED = {
    "h264.ts",
    "h264.flv",
    "mpeg2.mpg",
}  # containers that state no length (opening.py)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return write_once(tmp_path_factory.mktemp("videos"))


def test_what_is_no_video_is_refused(tmp_path):
    assert "no such file" in error_of(Clip(str(tmp_path / "missing.mp4")))
    assert "no such file" in error_of(Clip("http://example.org/video.mp4"))
    assert "not a file" in error_of(Clip(str(tmp_path)))
    assert "File name too long" in error_of(Clip(str(tmp_path / ("a" * 5000))))
    (tmp_path / "empty.mp4").touch()
    assert "empty (0 bytes)" in error_of(Clip(str(tmp_path / "empty.mp4")))
    (tmp_path / "text.mp4").write_text("not a video at all\n" * 100)
    assert "cannot be opened" in error_of(Clip(str(tmp_path / "text.mp4")))
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "not a file" in error_of(Clip(str(tmp_path / "pipe.mp4")))


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(
            np.zeros((1, 4096), np.float32), format="fltp", layout="mono"
        )
        sound.sample_rate, sound.pts = 8000, 0
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    assert "no video stream" in error_of(Clip(str(path)))


def test_playlists_are_not_followed(tmp_path, videos):
    """A file that only refers to other files or addresses is not followed."""
    target = videos("h264.ts")
    playlist = tmp_path / "list.mp4"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{target}\n#EXT-X-ENDLIST\n")
    error_of(Clip(str(playlist)))
    playlist.write_text(f"ffconcat version 1.0\nfile '{target}'\n")
    error_of(Clip(str(playlist)))


@pytest.mark.parametrize(
    "name", ["http:x.mp4", "concat:a|b.mp4", "a%03d.mp4", "ä b?.mp4", "-i.mp4", "file:x.mp4"]
)
def test_names_are_only_names(name, tmp_path, monkeypatch):
    write_video(tmp_path / "plain.mp4", "libx264", frames=2).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert numbers_in(read_frames(Clip(name), every_frame, 1)) == [0, 1]


@pytest.mark.parametrize("name", sorted(set(VIDEOS) - CUT_UNNOTICED))
def test_cut_files_are_refused(name, videos, tmp_path):
    data = videos(name).read_bytes()
    cut = tmp_path / name
    for share in np.linspace(0.02, 0.97, 12):
        cut.write_bytes(data[: int(len(data) * share)])
        error_of(Clip(str(cut)), every_frame)


def test_noise_in_place_of_the_pictures_is_refused(videos, tmp_path):
    data = bytearray(videos("h264.mp4").read_bytes())
    begin = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    data[begin:end] = np.random.default_rng(0).integers(0, 256, end - begin, np.uint8).tobytes()
    (tmp_path / "noise.mp4").write_bytes(data)
    assert "cannot be decoded" in error_of(Clip(str(tmp_path / "noise.mp4")))


@pytest.mark.parametrize(
    ("start", "end"),
    [(1.0, 1.0), (2.0, 1.0), (math.nan, 1.0), (0.0, math.inf), (50.0, 60.0), (-2.0, -1.0)],
)
def test_bad_bounds_name_the_clip_and_the_bounds(start, end, videos):
    for rule in (segment_midpoints, trimmed_linspace):
        message = error_of(Clip(str(videos("h264.mp4")), start, end), rule)
        assert f"start={start}" in message or f"end={end}" in message


def test_bounds_beyond_the_end_are_cut_to_the_video(videos):
    frames = read_frames(Clip(str(videos("h264.mp4")), 2.0, 99.0), trimmed_linspace, 4)
    assert numbers_in(frames) == list(frames.indices) == [50, 53, 56, 59]


def with_header_frames(data, count):
    """The mp4 with another number of packets in the header of its table; the table stays short."""
    data = bytearray(data)
    at = data.index(b"stsz") + 12
    data[at : at + 4] = struct.pack(">I", count)
    times = data.index(b"stts") + 12
    data[times : times + 4] = struct.pack(">I", count)
    return data


def test_absurd_headers_cost_no_memory(videos, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    data = videos("h264.mp4").read_bytes()
    path = tmp_path / "absurd.mp4"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for count in (10 * 3600 * 30, 2**31 - 1, 2**32 - 1):
        path.write_bytes(with_header_frames(data, count))
        error_of(Clip(str(path)))
    for width, height in ((65535, 65535), (32000, 32000), (16384, 8192), (65535, 1), (0, 0)):
        huge = bytearray(data)
        at = huge.index(b"avc1") + 4 + 24
        huge[at : at + 4] = struct.pack(">HH", width, height)
        path.write_bytes(huge)
        with contextlib.suppress(
            VideoError
        ):  # the stream states 64 × 48: either size is fine, the memory is not
            assert read_frames(Clip(str(path)), segment_midpoints, 8).pixels.shape == (8, 48, 64, 3)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300 * 1024, f"{grown // 1024} MiB"


def test_frames_that_are_too_large_are_refused(tmp_path):
    """A stream of 8192 × 4096 pixels in a file of a few kilobytes."""
    path = tmp_path / "huge.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 8192, 4096, "yuvj420p"
        frame = av.VideoFrame(8192, 4096, "yuvj420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert "too large: frames of 8192×4096" in error_of(Clip(str(path)))


def test_too_many_frames_are_refused_by_header_and_by_count(videos, monkeypatch):
    monkeypatch.setattr(video_reader, "MAX_FRAMES", FRAMES - 1)
    assert "header promises 60" in error_of(Clip(str(videos("h264.mp4"))))
    monkeypatch.setattr(video_index, "MAX_FRAMES", FRAMES - 1)
    assert "too long" in error_of(Clip(str(videos("vp9.webm"))))


def test_a_slow_video_ends_at_its_limit(videos, monkeypatch):
    original = video_decoding._decode

    def slow(*arguments):
        for frame in original(*arguments):
            time.sleep(0.02)
            yield frame

    monkeypatch.setattr(video_decoding, "_decode", slow)
    begun = time.monotonic()
    assert "not read within 0.2 s" in error_of(
        Clip(str(videos("h264.mp4"))), every_frame, time_limit=0.2
    )
    assert time.monotonic() - begun < 0.8, "the time limit is checked between packets"


def test_a_decoder_that_hangs_ends_at_its_limit(videos, monkeypatch):
    clip, hang = Clip(str(videos("h264.mp4"))), threading.Event()
    with monkeypatch.context() as hanging:
        hanging.setattr(video_reader, "index_packets", lambda *_: hang.wait())
        begun = time.monotonic()
        assert "not read within 0.1 s" in error_of(clip, time_limit=0.1)
        assert time.monotonic() - begun < 2
    assert numbers_in(read_frames(Clip(str(videos("vp9.webm"))), exactly(7), 1)) == [7], (
        "other videos can be read meanwhile"
    )
    hang.set()


def test_unforeseen_errors_are_the_files_fault_and_memory_is_not(videos, monkeypatch):
    clip = Clip(str(videos("h264.mp4")))
    for error, raised in (
        (IndexError("pop from an empty deque"), VideoError),
        (MemoryError(), MemoryError),
    ):

        def unforeseen(*_, error=error):
            raise error

        monkeypatch.setattr(video_reader, "index_packets", unforeseen)
        with pytest.raises(raised) as caught:
            read_frames(clip, segment_midpoints, 8)
        assert raised is MemoryError or "IndexError: pop from an empty deque" in str(caught.value)
        assert raised is MemoryError or "h264.mp4" in str(caught.value)


def test_without_pyav_the_module_loads_and_says_what_to_install(videos, monkeypatch):
    monkeypatch.setattr(video_reader, "find_spec", lambda _: None)
    with pytest.raises(MapflowError, match="pip install av") as caught:
        read_frames(Clip(str(videos("h264.mp4"))), segment_midpoints, 8)
    assert not isinstance(caught.value, VideoError), "the error is of the machine, not of the video"
