"""Skipping non-reference pictures changes no other frame, and unclear streams are not skipped."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_videos import FRAMES, av, decode_whole, exactly, number_in, write_once, write_video

from mapflow.model_adapters.video import decoding as video_decoding
from mapflow.model_adapters.video import index as video_index
from mapflow.model_adapters.video import reader as video_reader
from mapflow.model_adapters.video.h264 import Bits, H264Pictures, NotUnderstood
from mapflow.model_adapters.video.index import index_packets
from mapflow.model_adapters.video.reader import VideoError, read_frames
from mapflow.results.contract.question import Clip

STREAMS = {
    "b-frames": {"g": "12", "bf": "3"},
    "pyramid": {"g": "250", "bf": "5", "x264-params": "b-pyramid=normal:ref=4:b-adapt=0"},
    "open": {"g": "15", "bf": "3", "x264-params": "open-gop=1:b-pyramid=strict:b-adapt=0"},
    "slices": {"g": "30", "bf": "3", "x264-params": "slices=3:b-adapt=0"},
    "refresh": {"g": "40", "bf": "2", "x264-params": "intra-refresh=1:b-adapt=0"},
    "baseline": {"g": "20", "profile": "baseline"},
    "hrd": {
        "g": "20",
        "bf": "2",
        "x264-params": "b-adapt=0:aud=1:nal-hrd=vbr:vbv-maxrate=500:vbv-bufsize=500",
    },
}
CONTAINERS = ("mp4", "mkv", "flv")
HEADERS = 20  # bytes at the beginning of a packet


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Maps (stream, container) to the path and all frames by number, written on first use."""
    folder, made = tmp_path_factory.mktemp("h264"), {}

    def path_and_frames(stream, container):
        if (stream, container) not in made:
            path = write_video(folder / f"{stream}.{container}", "libx264", options=STREAMS[stream])
            made[stream, container] = path, decode_whole(path)[0]
        return made[stream, container]

    return path_and_frames


def index_of(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context
        return index_packets(
            container.demux(stream),
            codec.name,
            container.format.name,
            lambda: None,
            codec.extradata,
        )


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(STREAMS)),
    st.sampled_from(CONTAINERS),
    st.lists(st.integers(0, FRAMES - 1), min_size=1, max_size=8),
)
def test_wanted_frames_are_those_of_decoding_all(clip, stream, container, wanted):
    path, whole = clip(stream, container)
    frames = read_frames(Clip(str(path)), exactly(*wanted), 1)
    assert frames.n_source == FRAMES == len(whole)
    for number, pixels in zip(wanted, frames.pixels, strict=True):
        assert np.array_equal(pixels, whole[number])


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(STREAMS)),
    st.sampled_from(CONTAINERS),
    st.sets(st.integers(0, FRAMES - 1)),
)
def test_any_skippable_pictures_may_be_skipped(clip, stream, container, chosen):
    path, whole = clip(stream, container)
    index = index_of(path)
    number_of = {time: number for number, time in enumerate(index.shown.tolist())}
    skip = frozenset(t for t in index.pts[index.skippable].tolist() if number_of[t] in chosen)
    with av.open(str(path)) as opened:
        video = opened.streams.video[0]
        video.codec_context.thread_count = 1
        frames = video_decoding._decode(opened.demux(video), video, lambda: None, skip)
        found = {
            number_of[frame.pts]: video_decoding.upright_rgb(frame, 64, 48) for frame in frames
        }
    assert set(found) == set(range(FRAMES)) - {number_of[time] for time in skip}
    assert all(np.array_equal(found[number], whole[number]) for number in found)


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("container", CONTAINERS)
def test_skipping_is_used(stream, container, clip, monkeypatch):
    decoded, original = [], video_decoding._decode

    def counting(*arguments):
        for frame in original(*arguments):
            decoded.append(frame.pts)
            yield frame

    path, _ = clip(stream, container)
    skippable = int(index_of(path).skippable.sum())
    assert skippable == 0 if stream == "baseline" else skippable > FRAMES // 5
    monkeypatch.setattr(video_decoding, "_decode", counting)
    if stream != "refresh":  # no keyframe holds a whole picture: decoded from the beginning
        monkeypatch.setattr(video_reader, "decode_all", None)
        read_frames(Clip(str(path)), exactly(FRAMES - 1), 1)
        assert len(decoded) <= FRAMES - skippable + 1


def test_other_streams_are_decoded_whole(tmp_path):
    videos = write_once(tmp_path)
    for name in (
        "h264.ts",
        "hevc.mp4",
        "mpeg4.avi",
        "vp9.webm",
    ):  # no length before each unit; other codecs
        assert not index_of(videos(name)).skippable.any(), name
    fields = {"g": "12", "bf": "3", "flags": "+ildct+ilme", "x264-params": "tff=1:b-adapt=0"}
    assert not index_of(
        write_video(tmp_path / "fields.mp4", "libx264", options=fields)
    ).skippable.any()


# Written by hand: a parameter set for frames, with frame_num modulo 16, and slices with macroblock
# 0, type 0, set 0.

SEQUENCE = bytes([0x67, 66, 0, 10, 0b1_1_011_010, 0b1_010_010_1, 0b1_1000000])
EXTRADATA = (
    bytes([1, 66, 0, 10, 0xFF, 0xE1, 0, len(SEQUENCE)]) + SEQUENCE + bytes([1, 0, 2, 0x68, 0xC0])
)


def unit(contents):
    return len(contents).to_bytes(4, "big") + contents


def picture(kind, number, first=True):
    head = {"idr": 0x65, "ref": 0x61, "none": 0x01}[kind]
    return unit(bytes([head, (0b1_1_1_00000 if first else 0b010_1_1_000) | number << 1, 0xFF]))


def skippable(*packets):
    pictures = H264Pictures.of(EXTRADATA)
    assert pictures is not None
    for packet in packets:
        pictures.add(memoryview(packet))
    return "".join("x" if each else "." for each in pictures.skippable())


IDR, REF1, LONE1, REF2, LONE2 = (
    picture(*each) for each in (("idr", 0), ("ref", 1), ("none", 1), ("ref", 2), ("none", 2))
)


@pytest.mark.parametrize(
    ("packets", "expected"),
    [
        ((IDR, REF1, LONE2, REF2, IDR), "..x.."),
        ((IDR, LONE1, LONE1, REF1, LONE2), ".xx.x"),
        ((IDR, LONE1, IDR, LONE1), ".x.x"),
        ((LONE1, IDR, LONE1), "..x"),  # nothing to count from
        ((IDR, LONE2, REF1), "..."),  # its own number is wrong
        ((IDR, LONE1, LONE2, REF1), "...."),  # a decoded picture changes the count
        ((IDR, LONE1, REF2), "..."),  # a reference picture is missing
        (
            (picture("ref", 15), picture("none", 0), picture("ref", 0)),
            ".x.",
        ),  # the count begins anew
        ((IDR, LONE1 + LONE1, REF1), "..."),  # two pictures, or fields, in one packet
        ((IDR, LONE1 + picture("none", 1, first=False), REF1), ".x."),  # a second slice of the same
        ((IDR, LONE1 + picture("ref", 1, first=False), REF1), "..."),
        ((IDR, picture("none", 1, first=False), REF1), "..."),  # the first slice is lost
        ((IDR, LONE1, unit(b"\x09\xf0") + REF1), ".x."),  # a delimiter
        ((IDR, unit(b"\x06\x05\x01\x00") + LONE1, REF1), ".x."),  # a message
        ((IDR, LONE1 + unit(b"\x0a\x00"), REF1), "..."),  # the end of a sequence
        ((IDR, LONE1[:-1], REF1), "..."),  # cut short
        ((IDR, LONE1 + b"\0\0", REF1), "..."),  # trailing bytes
        ((IDR, LONE1, b""), "..."),
        ((IDR, LONE1, b"\0\0\0\1" + REF1[4:]), "..."),  # start codes
        ((unit(SEQUENCE) + IDR, LONE1, REF1), ".x."),
        ((IDR, LONE1, REF1, unit(SEQUENCE[:-1] + b"\xe0") + IDR), "...."),  # other parameters
    ],
)
def test_only_what_is_understood_is_skippable(packets, expected):
    assert skippable(*packets) == expected


def test_parameters_that_are_not_understood():
    fields = SEQUENCE[:-2] + bytes([0b1_010_010_0]) + SEQUENCE[-1:]
    for data in (
        None,
        b"",
        EXTRADATA[:7],
        EXTRADATA[:12],
        b"\0\0\0\1" + SEQUENCE,
        EXTRADATA.replace(SEQUENCE, fields),
    ):
        assert H264Pictures.of(data) is None
    two_sets = EXTRADATA[:5] + b"\xe2" + EXTRADATA[6:]
    assert H264Pictures.of(two_sets) is None


@given(st.lists(st.binary(max_size=40), max_size=6), st.binary(max_size=40))
def test_noise_is_never_skippable_and_never_an_error(packets, extradata):
    H264Pictures.of(extradata)
    pictures = H264Pictures.of(EXTRADATA)
    assert pictures is not None
    for packet in packets:
        pictures.add(memoryview(packet))
    assert len(pictures.skippable()) == len(packets)


@given(st.lists(st.integers(0, 2**16 - 2), max_size=5))
def test_golomb_numbers_are_read_back(numbers):
    text = "".join("0" * ((n + 1).bit_length() - 1) + f"{n + 1:b}" for n in numbers)
    text += "1" + "0" * (-len(text) - 1 & 7)
    plain = int(text, 2).to_bytes(len(text) // 8, "big")
    bits = Bits(plain)
    if b"\0\0\3" not in plain:
        assert [bits.golomb() for _ in numbers] == numbers
    with pytest.raises(NotUnderstood):
        bits.take(8 * len(plain) + 1)


def outcome(path, wanted):
    with suppress(VideoError):
        frames = read_frames(Clip(str(path)), exactly(*wanted), 1)
        return frames.pixels.tobytes(), frames.timestamps, frames.n_source
    return None


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.sampled_from(["b-frames", "pyramid", "open"]), st.data())
def test_damage_gives_the_same_pictures_with_and_without_skipping(
    clip, tmp_path_factory, stream, data
):
    """Flips bits in pictures that are decoded with and without skipping, but not in their headers.

    A picture without a readable header shows the contents of the decoder's memory, and ffmpeg does
    not report it.
    """
    path, _ = clip(stream, "mp4")
    index = index_of(path)
    wanted = data.draw(st.lists(st.integers(0, FRAMES - 1), min_size=1, max_size=4))
    decoded = ~index.skippable | np.isin(index.pts, index.shown[wanted])
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(container.streams.video[0]) if p.size]
    places = [
        place for place, each in zip(places, decoded, strict=True) if each and place[1] > HEADERS
    ]
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        begin, size = data.draw(st.sampled_from(places))
        content[begin + data.draw(st.integers(HEADERS, size - 1))] ^= 1 << data.draw(
            st.integers(0, 7)
        )
    damaged = tmp_path_factory.getbasetemp() / "damaged.mp4"
    damaged.write_bytes(content)
    short = outcome(damaged, wanted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            video_reader,
            "index_packets",
            lambda *each: video_index.index_packets(*each).without_skipping(),
        )
        assert short == outcome(damaged, wanted)


def test_damage_in_skipped_pictures_costs_nothing(clip, tmp_path):
    """Like damage after the next keyframe: what the wanted frame does not need is not decoded."""
    path, whole = clip("pyramid", "mp4")
    index = index_of(path)
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(container.streams.video[0]) if p.size]
    begin, size = places[int(np.flatnonzero(index.skippable)[5])]
    content = bytearray(path.read_bytes())
    content[begin + 8 : begin + size] = bytes(size - 8)
    (tmp_path / "damaged.mp4").write_bytes(content)
    frames = read_frames(Clip(str(tmp_path / "damaged.mp4")), exactly(FRAMES - 1), 1)
    assert (
        np.array_equal(frames.pixels[0], whole[FRAMES - 1])
        and number_in(frames.pixels[0]) == FRAMES - 1
    )
