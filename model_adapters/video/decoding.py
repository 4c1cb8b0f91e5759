"""Two ways to decode the same frames, and how a decoded frame becomes RGB.

`decode_all` is the plain way: from the first packet to the last, in the order in which the decoder returns frames.
`decode_from_keyframes` jumps to the keyframe before each wanted frame, decodes only from there, and of that leaves out
what neither is wanted nor serves to decode other frames. It is exact or it stops: every frame that it passes must be
the one that the packet table foretells, and where any is left out none may show damage, else it raises Surprise and the
caller takes a plainer way.

Knows nothing about files, sampling or limits other than the clock it is handed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Set
from itertools import chain, takewhile
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from mapflow.model_adapters.video.index import NO_TIME, FrameIndex

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

COLORSPACE_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED


class Surprise(Exception):
    """The decoder did not return what the packet table foretells."""


def decode_all(
    container: InputContainer, stream: VideoStream, check_time: Callable[[], None]
) -> Iterator[VideoFrame]:
    """Every frame of a freshly opened container, in presentation order. `check_time` may raise."""
    return _decode(container.demux(stream), stream, check_time)


def decode_from_keyframes(
    container: InputContainer,
    stream: VideoStream,
    index: FrameIndex,
    wanted: Iterable[int],
    check_time: Callable[[], None],
) -> Iterator[tuple[int, VideoFrame]]:
    """(frame number, frame) for each wanted number, ascending, from a freshly opened container.

    Raises Surprise when the file does not behave as `index` says, also in the form of a decoder's error.
    """
    from av.error import FFmpegError

    wanted = sorted(set(wanted))
    left_out = np.setdiff1d(index.pts[index.unneeded], index.shown[wanted])
    returned = np.flatnonzero(
        ~np.isin(index.shown, left_out)
    )  # the frames that the decoder is to give us
    skip = frozenset(left_out.tolist())
    if skip:
        # A decoder conceals damage with whatever its memory holds, so with less decoded before other pixels come out:
        # damage that it reports must not pass, whatever frame it is in. Some it raises, some it only marks; a few broken
        # slice headers it does neither for, and such a picture was and is what lay in memory.
        stream.codec_context.options = {**stream.codec_context.options, "err_detect": "explode"}
    try:
        for key_packet, frames in index.runs(wanted):
            begin, packets = _packets_from(container, stream, index, key_packet)
            missing = deque(frames)
            coming = iter(returned[index.shown[returned] >= begin].tolist())
            needed = takewhile(lambda _, missing=missing: bool(missing), packets)
            for frame in _decode(needed, stream, check_time, skip):
                if skip and frame.is_corrupt:
                    raise Surprise
                if not missing:
                    continue  # decoded on the way, shown later
                if frame.pts is not None and frame.pts < begin:
                    continue  # stored after the keyframe, shown before it: needs frames that were passed over
                number = next(coming, None)
                if number is None or frame.pts != index.shown[number]:
                    raise Surprise
                if number == missing[0]:
                    if frame.is_corrupt:
                        raise Surprise
                    yield number, frame
                    missing.popleft()
                    if not missing and not skip:
                        break
            if missing:
                raise Surprise
    except FFmpegError as error:
        raise Surprise from error


def _packets_from(
    container: InputContainer, stream: VideoStream, index: FrameIndex, key_packet: int
) -> tuple[int, Iterator[Packet]]:
    """Seek so that `key_packet` or an earlier key packet comes next: that packet's time and the packets from there.

    Containers differ in whether they look for presentation or decoding times, so both are tried and the landing is
    checked.
    """
    for ticks in (index.pts[key_packet], index.dts[key_packet]):
        if ticks == NO_TIME:
            continue
        container.seek(int(ticks), stream=stream)
        packets = container.demux(stream)
        first = next(packets)
        landed = np.flatnonzero(index.pts == first.pts) if first.pts is not None else ()
        if len(landed) == 1 and landed[0] <= key_packet and index.key[landed[0]]:
            return int(index.pts[landed[0]]), chain([first], packets)
    raise Surprise


def _decode(
    packets: Iterable[Packet],
    stream: VideoStream,
    check_time: Callable[[], None],
    skip: Set[int | None] = frozenset(),
) -> Iterator[VideoFrame]:
    """skip: the times of packets whose pictures the decoder may leave out."""
    for packet in packets:
        check_time()
        if packet.size:  # to a decoder an empty packet means the end, wherever it comes
            # Not kept from the decoder altogether: it still reads what else is in the packet.
            stream.codec_context.skip_frame = "NONREF" if packet.pts in skip else "DEFAULT"
            yield from stream.decode(packet)
    yield from stream.decode(None)


def upright_rgb(frame: VideoFrame, width: int, height: int) -> UInt8[np.ndarray, "rows columns 3"]:
    """The frame as RGB of `width` × `height` pixels, then turned as its rotation metadata says (by quarter turns).

    The stream's own colour matrix and range are applied where it names them: bit for bit decord's pixels.
    """
    named = frame.colorspace != COLORSPACE_UNSPECIFIED
    pixels = frame.to_ndarray(
        format="rgb24",
        width=width,
        height=height,
        src_colorspace=frame.colorspace,
        dst_colorspace="ITU601" if named else frame.colorspace,
        src_color_range=frame.color_range,
    )
    quarter_turns, rest = divmod(round(frame.rotation), 90)
    return np.ascontiguousarray(np.rot90(pixels, quarter_turns)) if rest == 0 else pixels
