"""Videos that the tests encode, and reference ways to read them.

Each picture shows its own number as eight black or white squares, so the decoded frame can be
identified without a second decoder.
"""

from __future__ import annotations

from collections.abc import Container
from fractions import Fraction

import numpy as np
import pytest

from mapflow.model_adapters.video import decoding as video_decoding
from mapflow.model_adapters.video.reader import VideoError, read_frames
from mapflow.model_adapters.video.sampling import segment_midpoints
from mapflow.results.contract.errors import MapflowError

av = pytest.importorskip("av")

SQUARE = 16
FRAMES = 60
VARIED_TIMES = np.cumsum(
    np.random.default_rng(0).integers(10, 200, FRAMES)
).tolist()  # milliseconds

# name: codec, size, encoder options, times in ms (None: 25 frames per second)
VIDEOS = {
    "h264.mp4": ("libx264", (64, 48), {"g": "12", "bf": "3"}, None),
    "open_gop.mp4": (
        "libx264",
        (64, 48),
        {"g": "12", "bf": "3", "x264-params": "open-gop=1"},
        None,
    ),
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
    "vp9.webm": (
        "libvpx-vp9",
        (67, 49),
        {"g": "20", "deadline": "realtime", "cpu-used": "8"},
        None,
    ),
    "av1.mkv": ("libaom-av1", (64, 48), {"g": "20", "usage": "realtime", "cpu-used": "8"}, None),
    "plain.gif": ("gif", (64, 48), {}, None),
    "odd.gif": ("gif", (67, 49), {}, None),
}
PIXEL_FORMATS = {"mjpeg": "yuvj420p", "gif": "rgb8"}


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
        middle = pixels[
            row * SQUARE + 4 : row * SQUARE + 12, column * SQUARE + 4 : column * SQUARE + 12
        ]
        number |= int(middle.mean() > 128) << bit
    return number


def numbers_in(frames):
    return [number_in(pixels) for pixels in frames.pixels]


def write_video(
    path, codec, size=(64, 48), options=None, times=None, frames=FRAMES, rate=25, **more
):
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


def write_once(folder):
    """Maps a name of VIDEOS to the path of that video, which is written on first use."""
    written = {}

    def video(name):
        if name not in written:
            codec, size, options, times = VIDEOS[name]
            written[name] = write_video(folder / name, codec, size, options, times)
        return written[name]

    return video


def every_frame(n_frames, fps, n, start=None, end=None):
    return tuple(range(n_frames))


def exactly(*indices):
    return lambda n_frames, fps, n, start=None, end=None: indices


def decode_whole(path, keep: Container[int] = range(10_000)):
    """The reference implementation: frames to keep, by decoding order, and their total number."""
    kept, count = {}, 0
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        size = stream.codec_context.width, stream.codec_context.height
        for frame in container.decode(stream):
            if count in keep:
                kept[count] = video_decoding.upright_rgb(frame, *size)
            count += 1
    return kept, count


def error_of(clip, rule=segment_midpoints, n=8, **options):
    with pytest.raises(MapflowError) as caught:
        read_frames(clip, rule, n, **options)
    message = str(caught.value)
    assert isinstance(caught.value, VideoError)
    assert repr(clip.path) in message and "\n" not in message
    return message
