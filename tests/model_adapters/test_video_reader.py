"""Sampled frames against decoding the whole file, on videos written here and on whatever real ones are at hand.

Every synthetic picture carries its own number as eight black or white squares, so what was decoded is known without a
second decoder.
"""

import contextlib
import json
import math
import os
import struct
import threading
import time
from collections.abc import Container
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mapflow.model_adapters import video_decoding, video_index, video_reader
from mapflow.model_adapters.frame_sampling import segment_midpoints, trimmed_linspace
from mapflow.model_adapters.video_reader import VideoError, read_frames
from mapflow.results.errors import MapflowError
from mapflow.results.question import Clip

av = pytest.importorskip("av")

SQUARE = 16
FRAMES = 60
VARIED_TIMES = np.cumsum(np.random.default_rng(0).integers(10, 200, FRAMES)).tolist()  # milliseconds

# name: codec, size, encoder options, times in ms (None: 25 a second)
VIDEOS = {
    "h264.mp4": ("libx264", (64, 48), {"g": "12", "bf": "3"}, None),
    "open_gop.mp4": ("libx264", (64, 48), {"g": "12", "bf": "3", "x264-params": "open-gop=1"}, None),
    "hevc.mp4": ("libx265", (64, 48), {"x265-params": "log-level=none:keyint=12:open-gop=1"}, None),
    "vfr.mp4": ("libx264", (64, 48), {"g": "12"}, VARIED_TIMES),
    "vfr.mkv": ("libx264", (64, 48), {"g": "12"}, VARIED_TIMES),
    "odd.mp4": ("libx264", (67, 49), {"g": "12"}, None),
    "h264.ts": ("libx264", (64, 48), {"g": "12"}, None),
    "h264.flv": ("libx264", (64, 48), {"g": "12"}, None),
    "h264.avi": ("libx264", (64, 48), {"g": "12", "bf": "2"}, None),
    "mpeg4.avi": ("mpeg4", (64, 48), {"g": "12"}, None),
    "mpeg4_b.avi": ("mpeg4", (64, 48), {"g": "12", "bf": "2"}, None),
    "mjpeg.mov": ("mjpeg", (64, 48), {}, None),
    "mpeg2.mpg": ("mpeg2video", (64, 48), {"g": "12", "bf": "2"}, None),
    "vp8.webm": ("libvpx", (64, 48), {"g": "20", "auto-alt-ref": "1", "lag-in-frames": "16"}, None),
    "vp9.webm": ("libvpx-vp9", (67, 49), {"g": "20", "deadline": "realtime", "cpu-used": "8"}, None),
    "av1.mkv": ("libaom-av1", (64, 48), {"g": "20", "usage": "realtime", "cpu-used": "8"}, None),
    "plain.gif": ("gif", (64, 48), {}, None),
    "odd.gif": ("gif", (67, 49), {}, None),
}
PIXEL_FORMATS = {"mjpeg": "yuvj420p", "gif": "rgb8"}
DECODED_WHOLE = {"vp8.webm", "h264.avi", "mpeg4_b.avi", "mpeg2.mpg", "plain.gif", "odd.gif"}
CUT_UNNOTICED = {"h264.ts", "h264.flv", "mpeg2.mpg"}  # containers that promise nothing (truncation.py)


def picture(number, width=64, height=48):
    pixels = np.full((height, width, 3), 128, np.uint8)
    for bit in range(8):
        row, column = divmod(bit, 4)
        pixels[row * SQUARE : (row + 1) * SQUARE, column * SQUARE : (column + 1) * SQUARE] = (
            235 if number >> bit & 1 else 20
        )
    pixels[2 * SQUARE :, : number * 5 % width] = (200, 60, 60)
    return pixels


def number_in(pixels):
    number = 0
    for bit in range(8):
        row, column = divmod(bit, 4)
        middle = pixels[row * SQUARE + 4 : row * SQUARE + 12, column * SQUARE + 4 : column * SQUARE + 12]
        number |= int(middle.mean() > 128) << bit
    return number


def numbers_in(frames):
    return [number_in(pixels) for pixels in frames.pixels]


def write_video(path, codec, size=(64, 48), options=None, times=None, frames=FRAMES, rate=25, **more):
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV cannot encode {codec}")
    base = Fraction(1, rate) if times is None else Fraction(1, 1000)
    with av.open(str(path), "w", **more) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = size
        odd = size[0] % 2 or size[1] % 2
        stream.pix_fmt = PIXEL_FORMATS.get(codec, "yuv444p" if odd else "yuv420p")
        if times is not None:
            stream.codec_context.time_base = base
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame.pts, frame.time_base = (number if times is None else times[number]), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def every_frame(n_frames, fps, n, start=None, end=None):
    return tuple(range(n_frames))


def exactly(*indices):
    return lambda n_frames, fps, n, start=None, end=None: indices


def decode_whole(path, keep: Container[int] = range(10_000)):
    """The slow twin: the frames to keep, by their place in the decoder's order, and how many there are."""
    kept, count = {}, 0
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        size = stream.codec_context.width, stream.codec_context.height
        for frame in container.decode(stream):
            if count in keep:
                kept[count] = video_decoding.upright_rgb(frame, *size)
            count += 1
    return kept, count


@pytest.fixture
def ways(monkeypatch):
    """The names of the ways of decoding that were taken."""
    taken = []
    for name in ("decode_all", "decode_from_keyframes"):

        def note(*arguments, name=name):
            taken.append(name)
            return getattr(video_decoding, name)(*arguments)

        monkeypatch.setattr(video_reader, name, note)
    return taken


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder, written = tmp_path_factory.mktemp("videos"), {}

    def video(name):
        if name not in written:
            codec, size, options, times = VIDEOS[name]
            written[name] = write_video(folder / name, codec, size, options, times)
        return written[name]

    return video


@pytest.mark.parametrize("name", VIDEOS)
def test_frame_i_is_the_ith_picture(name, videos, ways):
    clip = Clip(str(videos(name)))
    every = read_frames(clip, every_frame, 1)
    assert every.n_source == FRAMES and every.indices == tuple(range(FRAMES)) and every.repeated == 0
    assert numbers_in(every) == list(range(FRAMES))
    width, height = VIDEOS[name][1]
    assert every.pixels.shape == (FRAMES, height, width, 3) and every.pixels.dtype == np.uint8
    whole, count = decode_whole(clip.path)
    assert count == FRAMES and np.array_equal(every.pixels, np.stack([whole[i] for i in range(FRAMES)]))

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
    np.testing.assert_allclose(frames.timestamps, np.array(frames.indices) / 25, atol=0.011)  # gif: 1/100 s


@pytest.mark.parametrize("name", ["vfr.mp4", "vfr.mkv"])
def test_variable_rate_frames_keep_their_own_times(name, videos):
    frames = read_frames(Clip(str(videos(name))), segment_midpoints, 8)
    assert numbers_in(frames) == list(frames.indices) == list(segment_midpoints(FRAMES, frames.fps, 8))
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
    assert len(decoded) <= 2 + 3 + 1, "frames 0-1, then from the keyframe 48 on"


def test_a_table_that_the_decoder_contradicts_is_dropped(videos, monkeypatch, ways):
    """The same stream behind a table with one frame too many: noticed, and decoded from the beginning."""
    original = video_index.index_packets

    def with_one_more(*arguments):
        index = original(*arguments)
        shown = np.insert(index.shown, 30, index.shown[29] + 1)
        return video_index.FrameIndex(index.pts, index.dts, index.key, shown, True)

    monkeypatch.setattr(video_reader, "index_packets", with_one_more)
    frames = read_frames(Clip(str(videos("h264.mp4"))), every_frame, 1)
    assert numbers_in(frames) == list(range(FRAMES)) and frames.n_source == FRAMES
    assert ways == ["decode_from_keyframes", "decode_all", "decode_all"]


def test_packets_without_a_picture_are_not_counted(videos):
    """VP8's alternate reference frames are packets that no viewer sees."""
    path = videos("vp8.webm")
    with av.open(str(path)) as container:
        packets = sum(packet.size > 0 for packet in container.demux(video=0))
    if packets == FRAMES:
        pytest.skip("this encoder wrote no hidden packets")
    assert read_frames(Clip(str(path)), every_frame, 1).n_source == FRAMES


def test_an_edit_list_hides_frames(tmp_path):
    """Frames before time 0 are in the mp4 file, but no viewer sees them."""
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
    # the track header's matrix, 16.16 fixed point, of a picture to be shown turned clockwise
    matrix = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[turn]
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    frames = read_frames(Clip(str(path)), every_frame, 1)
    assert frames.pixels.shape[1:3] == ((64, 48) if turn in (90, 270) else (48, 64))
    assert [number_in(np.rot90(pixels, turn // 90)) for pixels in frames.pixels] == [0, 1, 2]


def error_of(clip, rule=segment_midpoints, n=8, **options):
    with pytest.raises(MapflowError) as caught:
        read_frames(clip, rule, n, **options)
    message = str(caught.value)
    assert isinstance(caught.value, VideoError)
    assert repr(clip.path) in message and "\n" not in message
    return message


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
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        sound.sample_rate, sound.pts = 8000, 0
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    assert "no video stream" in error_of(Clip(str(path)))


def test_playlists_are_not_followed(tmp_path, videos):
    """A file that only names other files (or addresses) reads nothing."""
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
    ("start", "end"), [(1.0, 1.0), (2.0, 1.0), (math.nan, 1.0), (0.0, math.inf), (50.0, 60.0), (-2.0, -1.0)]
)
def test_bad_bounds_name_the_clip_and_the_bounds(start, end, videos):
    for rule in (segment_midpoints, trimmed_linspace):
        message = error_of(Clip(str(videos("h264.mp4")), start, end), rule)
        assert f"start={start}" in message or f"end={end}" in message


def test_bounds_beyond_the_end_are_cut_to_the_video(videos):
    frames = read_frames(Clip(str(videos("h264.mp4")), 2.0, 99.0), trimmed_linspace, 4)
    assert numbers_in(frames) == list(frames.indices) == [50, 53, 56, 59]


def with_header_frames(data, count):
    """The mp4 with another number of packets in its table's header (the table itself stays short)."""
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
        with contextlib.suppress(VideoError):  # the stream itself says 64 × 48: either is fine, memory is not
            assert read_frames(Clip(str(path)), segment_midpoints, 8).pixels.shape == (8, 48, 64, 3)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300 * 1024, f"{grown // 1024} MiB"


def test_frames_that_are_too_large_are_refused(tmp_path):
    """A true 8192 × 4096 stream, though only a few kilobytes on disk."""
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
    assert "not read within 0.2 s" in error_of(Clip(str(videos("h264.mp4"))), every_frame, time_limit=0.2)
    assert time.monotonic() - begun < 0.8, "noticed between packets, before the grace period ends"


def test_a_decoder_that_hangs_ends_at_its_limit(videos, monkeypatch):
    clip, hang = Clip(str(videos("h264.mp4"))), threading.Event()
    with monkeypatch.context() as hanging:
        hanging.setattr(video_reader, "index_packets", lambda *_: hang.wait())
        begun = time.monotonic()
        assert "not read within 0.1 s" in error_of(clip, time_limit=0.1)
        assert time.monotonic() - begun < 2
    assert numbers_in(read_frames(Clip(str(videos("vp9.webm"))), exactly(7), 1)) == [7], (
        "others go on meanwhile"
    )
    hang.set()


def test_without_pyav_the_module_loads_and_says_what_to_install(videos, monkeypatch):
    monkeypatch.setattr(video_reader, "find_spec", lambda _: None)
    with pytest.raises(MapflowError, match="pip install av") as caught:
        read_frames(Clip(str(videos("h264.mp4"))), segment_midpoints, 8)
    assert not isinstance(caught.value, VideoError), "it is the machine that lacks something, not the video"


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
        choices = (segment_midpoints(n, 25.0, 8), tuple(rng.integers(n, size=12).tolist()), (0, n - 1))
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
    assert compared, "one list must be of the stream that is read"


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
        assert np.array_equal(frames.pixels, reader.get_batch(list(frames.indices)).asnumpy()), path.name


def test_real_rotated_video_stands_upright(real_data):
    upright, turned = (Path(real_data) / "videos" / f"decord_video_{degrees}.mov" for degrees in (0, 90))
    if not (upright.is_file() and turned.is_file()):
        pytest.skip("no rotated video among the real data")
    wide, tall = (read_frames(Clip(str(path)), exactly(0), 1).pixels for path in (upright, turned))
    assert wide.shape[1:3] == tall.shape[2:0:-1]
