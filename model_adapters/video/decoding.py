"""Decodes frames in two ways, and converts a decoded frame to RGB.

`decode_all` decodes from the first packet to the last, in the order in which the decoder returns
frames. `decode_from_keyframes` seeks to the keyframe before each wanted frame, decodes from there,
and skips pictures that are neither wanted nor needed for other frames.

The second way is exact or fails. Every frame that it passes must be the one that the packet table
predicts; where pictures are skipped, no frame may be damaged. Otherwise it raises UnexpectedFrame,
and the caller uses a simpler way.
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


class UnexpectedFrame(Exception):
    """The decoder did not return the frames that the packet table predicts."""


def decode_all(
    container: InputContainer, stream: VideoStream, check_time: Callable[[], None]
) -> Iterator[VideoFrame]:
    """Yields every frame of a newly opened container in presentation order."""
    return _decode(container.demux(stream), stream, check_time)


def decode_from_keyframes(
    container: InputContainer,
    stream: VideoStream,
    index: FrameIndex,
    wanted: Iterable[int],
    check_time: Callable[[], None],
) -> Iterator[tuple[int, VideoFrame]]:
    """Yields (frame number, frame), ascending, for each wanted number of a new container.

    Raises UnexpectedFrame if the frames differ from `index` or the decoder reports an error.
    """
    from av.error import FFmpegError

    wanted = sorted(set(wanted))
    skipped = np.setdiff1d(index.pts[index.skippable], index.shown[wanted])
    returned = np.flatnonzero(~np.isin(index.shown, skipped))
    skip = frozenset(skipped.tolist())
    if skip:
        # A decoder conceals damage with earlier pictures. With some of them skipped, the concealed
        # pixels differ, so no reported damage may pass, in any frame. The decoder raises an error
        # for some damage and marks the rest. It reports nothing for a few broken slice headers;
        # their pictures are undefined with and without skipping.
        stream.codec_context.options = {**stream.codec_context.options, "err_detect": "explode"}
    try:
        for key_packet, frames in index.by_keyframe(wanted):
            begin, packets = _packets_from(container, stream, index, key_packet)
            missing = deque(frames)
            coming = iter(returned[index.shown[returned] >= begin].tolist())
            needed = takewhile(lambda _, missing=missing: bool(missing), packets)
            for frame in _decode(needed, stream, check_time, skip):
                if skip and frame.is_corrupt:
                    raise UnexpectedFrame
                if not missing:
                    continue  # decoded with the wanted frames, shown after them
                # Stored after the keyframe but shown before it: depends on frames that were not
                # decoded.
                if frame.pts is not None and frame.pts < begin:
                    continue
                number = next(coming, None)
                if number is None or frame.pts != index.shown[number]:
                    raise UnexpectedFrame
                if number == missing[0]:
                    if frame.is_corrupt:
                        raise UnexpectedFrame
                    yield number, frame
                    missing.popleft()
                    if not missing and not skip:
                        break
            if missing:
                raise UnexpectedFrame
    except FFmpegError as error:
        raise UnexpectedFrame from error


def _packets_from(
    container: InputContainer, stream: VideoStream, index: FrameIndex, key_packet: int
) -> tuple[int, Iterator[Packet]]:
    """Seeks to `key_packet` or an earlier key packet: (its time, the packets from there).

    Containers differ in whether they seek by presentation or by decoding time, so both are tried
    and the result is checked.
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
    raise UnexpectedFrame


def _decode(
    packets: Iterable[Packet],
    stream: VideoStream,
    check_time: Callable[[], None],
    skip: Set[int | None] = frozenset(),
) -> Iterator[VideoFrame]:
    """`skip`: presentation times of the packets whose pictures the decoder may skip."""
    for packet in packets:
        check_time()
        if packet.size:  # to a decoder an empty packet means the end of the stream
            # The packet is still passed to the decoder, which reads its other units.
            stream.codec_context.skip_frame = "NONREF" if packet.pts in skip else "DEFAULT"
            yield from stream.decode(packet)
    yield from stream.decode(None)


def upright_rgb(frame: VideoFrame, width: int, height: int) -> UInt8[np.ndarray, "rows columns 3"]:
    """RGB pixels of a frame, scaled to `width` × `height`, then rotated by its metadata.

    Only quarter turns are applied. Uses the stream's colour matrix and range where it names them.
    The pixels equal decord's bit for bit.
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
