"""Sampled frames against decoding the whole file, on synthetic and, if present, real videos."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_videos import (
    FRAMES,
    VARIED_TIMES,
    VIDEOS,
    decode_whole,
    error_of,
    every_frame,
    exactly,
    number_in,
    numbers_in,
    write_once,
    write_video,
)

from mapflow.model_adapters.video import decoding as video_decoding
from mapflow.model_adapters.video import index as video_index
from mapflow.model_adapters.video import reader as video_reader
from mapflow.model_adapters.video.reader import read_frames
from mapflow.model_adapters.video.sampling import segment_midpoints, trimmed_linspace
from mapflow.results.contract.question import Clip

DECODED_WHOLE = {"vp8.webm", "h264.avi", "mpeg4_b.avi", "mpeg2.mpg", "plain.gif", "odd.gif"}


@pytest.fixture
def ways(monkeypatch):
    """The names of the decoding functions that were called."""
    taken = []
    for name in ("decode_all", "decode_from_keyframes"):

        def note(*arguments, name=name):
            taken.append(name)
            return getattr(video_decoding, name)(*arguments)

        monkeypatch.setattr(video_reader, name, note)
    return taken


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return write_once(tmp_path_factory.mktemp("videos"))


@pytest.mark.parametrize("name", VIDEOS)
def test_frame_i_is_the_ith_picture(name, videos, ways):
    clip = Clip(str(videos(name)))
    every = read_frames(clip, every_frame, 1)
    assert (
        every.n_source == FRAMES and every.indices == tuple(range(FRAMES)) and every.repeated == 0
    )
    assert numbers_in(every) == list(range(FRAMES))
    width, height = VIDEOS[name][1]
    assert every.pixels.shape == (FRAMES, height, width, 3) and every.pixels.dtype == np.uint8
    whole, count = decode_whole(clip.path)
    assert count == FRAMES and np.array_equal(
        every.pixels, np.stack([whole[i] for i in range(FRAMES)])
    )

    for wanted in ((57, 3, 3, 30), (0,), (FRAMES - 1,), (11, 12, 13), (47, 48, 23, 24)):
        some = read_frames(clip, exactly(*wanted), 1)
        assert some.indices == wanted and some.repeated == len(wanted) - len(set(wanted))
        assert np.array_equal(some.pixels, every.pixels[list(wanted)])
        np.testing.assert_array_equal(some.timestamps, np.array(every.timestamps)[list(wanted)])
    assert set(ways) == {"decode_all" if name in DECODED_WHOLE else "decode_from_keyframes"}


@pytest.mark.parametrize("name", ["h264.mp4", "hevc.mp4", "vp9.webm", "mpeg4.avi", "plain.gif"])
def test_constant_rate_files_have_the_papers_indices_and_times(name, videos):
    clip = Clip(str(videos(name)), 0.5, 1.9)
    frames = read_frames(clip, segment_midpoints, 8)
    assert frames.fps == 25.0
    assert frames.indices == segment_midpoints(FRAMES, 25.0, 8, 0.5, 1.9)
    assert numbers_in(frames) == list(frames.indices)
    np.testing.assert_allclose(
        frames.timestamps, np.array(frames.indices) / 25, atol=0.011
    )  # gif: 1/100 s


@pytest.mark.parametrize("name", ["vfr.mp4", "vfr.mkv"])
def test_variable_rate_frames_keep_their_own_times(name, videos):
    frames = read_frames(Clip(str(videos(name))), segment_midpoints, 8)
    assert (
        numbers_in(frames) == list(frames.indices) == list(segment_midpoints(FRAMES, frames.fps, 8))
    )
    expected = [VARIED_TIMES[i] / 1000 for i in frames.indices]
    shift = frames.timestamps[0] - expected[0]
    assert shift in (pytest.approx(0, abs=2e-3), pytest.approx(-VARIED_TIMES[0] / 1000, abs=2e-3))
    np.testing.assert_allclose(np.array(frames.timestamps) - shift, expected, atol=2e-3)


def test_seeking_decodes_less(videos, monkeypatch):
    decoded = []
    original = video_decoding._decode

    def counting(*arguments):
        for frame in original(*arguments):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(video_decoding, "_decode", counting)
    read_frames(Clip(str(videos("h264.mp4"))), exactly(1, 50), 2)
    held_back = 2 * 3  # the decoder works ahead by this many frames, at either place
    assert len(decoded) <= 2 + 3 + 1 + held_back, "frames 0-1, then from keyframe 48"


def test_a_table_that_the_decoder_contradicts_is_dropped(videos, monkeypatch, ways):
    """The same stream with a table that has one frame too many: decoded from the beginning."""
    original = video_index.index_packets

    def with_one_more(*arguments):
        index = original(*arguments)
        shown = np.insert(index.shown, 30, index.shown[29] + 1)
        return replace(index, shown=shown)

    monkeypatch.setattr(video_reader, "index_packets", with_one_more)
    frames = read_frames(Clip(str(videos("h264.mp4"))), every_frame, 1)
    assert numbers_in(frames) == list(range(FRAMES)) and frames.n_source == FRAMES
    assert ways == 2 * ["decode_from_keyframes"] + 2 * ["decode_all"], (
        "with and without skipping, counted twice"
    )


def test_an_edit_list_hides_frames(tmp_path):
    """The mp4 file has frames before time 0 that no player shows."""
    times = [1000 * (number - 10) // 25 for number in range(FRAMES)]
    path = write_video(
        tmp_path / "edited.mp4",
        "libx264",
        options={"g": "12", "bf": "0"},
        times=times,
        container_options={"avoid_negative_ts": "disabled", "use_editlist": "1"},
    )
    whole, count = decode_whole(path)
    shown = [number_in(whole[i]) for i in range(count)]
    if count == FRAMES:
        pytest.skip("this muxer wrote no edit list")
    frames = read_frames(Clip(str(path)), every_frame, 1)
    assert numbers_in(frames) == shown == list(range(10, FRAMES))
    assert numbers_in(read_frames(Clip(str(path)), exactly(0, 30), 2)) == [10, 40]


def test_one_frame_is_repeated(tmp_path):
    path = write_video(tmp_path / "one.mp4", "libx264", frames=1)
    for rule in (segment_midpoints, trimmed_linspace):
        frames = read_frames(Clip(str(path)), rule, 8)
        assert frames.indices == (0,) * 8 and frames.repeated == 7 and frames.n_source == 1
        assert frames.pixels.shape == (8, 48, 64, 3) and numbers_in(frames) == [0] * 8


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_rotation_metadata_is_applied(turn, tmp_path):
    path = write_video(tmp_path / "turned.mp4", "libx264", frames=3)
    # the matrix in the track header, 16.16 fixed point: rotate clockwise
    matrix = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[turn]
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    frames = read_frames(Clip(str(path)), every_frame, 1)
    assert frames.pixels.shape[1:3] == ((64, 48) if turn in (90, 270) else (48, 64))
    assert [number_in(np.rot90(pixels, turn // 90)) for pixels in frames.pixels] == [0, 1, 2]


def real_videos(real_data):
    files = (real_data / "videos").iterdir() if (real_data / "videos").is_dir() else ()
    found = sorted(path for path in files if path.suffix.lower() != ".json")
    if not found:
        pytest.skip("no videos among the real data")
    return found


def test_real_videos_equal_their_whole_decoding(real_data):
    for path in real_videos(real_data):
        if "corrupted" in path.name:
            error_of(Clip(str(path)))
            continue
        n = read_frames(Clip(str(path)), exactly(0), 1).n_source
        rng = np.random.default_rng(n)
        choices = (
            segment_midpoints(n, 25.0, 8),
            tuple(rng.integers(n, size=12).tolist()),
            (0, n - 1),
        )
        whole, count = decode_whole(path, keep={i for indices in choices for i in indices})
        assert count == n, path.name
        for indices in choices:
            frames = read_frames(Clip(str(path)), exactly(*indices), 1)
            assert frames.n_source == n, path.name
            for i, pixels in zip(indices, frames.pixels, strict=True):
                assert np.array_equal(pixels, whole[i]), f"{path.name}: frame {i}"


def test_real_frame_times_equal_their_lists(real_data):
    lists = [
        path
        for path in (real_data / "videos").glob("*.all_frames_info.json")
        if (real_data / "videos" / path.name.split(".stream")[0]).is_file()
    ]
    if not lists:
        pytest.skip("no list of frame times among the real data")
    compared = 0
    for path in lists:
        name, stream = path.name.removesuffix(".all_frames_info.json").rsplit(".stream", 1)
        times = [float(frame["pts_time"]) for frame in json.loads(path.read_text())]
        clip = Clip(str(path.parent / name))
        if (first := read_frames(clip, exactly(0), 1)).stream == int(stream):
            assert first.n_source == len(times)
            chosen = np.random.default_rng(0).integers(len(times), size=40).tolist()
            frames = read_frames(clip, exactly(*chosen), 1)
            np.testing.assert_allclose(frames.timestamps, [times[i] for i in chosen], atol=1e-6)
            compared += 1
    assert compared, "one list must belong to the stream that is read"


def test_real_videos_equal_decord(real_data):
    decord = pytest.importorskip(
        "decord", reason="decord is not installed: the paper's reader is not compared"
    )
    for path in real_videos(real_data):
        if "corrupted" in path.name:
            continue
        try:
            reader = decord.VideoReader(str(path))
        except decord.DECORDError:  # older than AV1
            continue
        frames = read_frames(Clip(str(path)), segment_midpoints, 8)
        assert (frames.n_source, frames.fps) == (len(reader), reader.get_avg_fps()), path.name
        assert np.array_equal(frames.pixels, reader.get_batch(list(frames.indices)).asnumpy()), (
            path.name
        )


def test_real_rotated_video_stands_upright(real_data):
    upright, turned = (
        Path(real_data) / "videos" / f"decord_video_{degrees}.mov" for degrees in (0, 90)
    )
    if not (upright.is_file() and turned.is_file()):
        pytest.skip("no rotated video among the real data")
    wide, tall = (read_frames(Clip(str(path)), exactly(0), 1).pixels for path in (upright, turned))
    assert wide.shape[1:3] == tall.shape[2:0:-1]
