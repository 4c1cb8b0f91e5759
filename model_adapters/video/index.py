"""Builds a table of a video's frames from its packets, without decoding.

Headers are not reliable: mkv has no frame count, and broken files announce hours of video. So
packets are counted. Sorted by presentation time they number the frames: frame i is the i-th frame
that a viewer sees, whatever the storage order. decord, which the authors' code uses, numbers frames
in the same way, except that it also counts packets hidden by an edit list.

Most codecs store one frame per packet. VP8 also has hidden packets, and AVI files have no
presentation times. `FrameIndex.reliable` says whether the table can be used; otherwise frames must
be counted by decoding.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int64

from mapflow.model_adapters.video.h264 import H264Pictures

if TYPE_CHECKING:
    from av.packet import Packet

MAX_FRAMES = 2_000_000
"""18 hours at 30 frames per second. Longer files are refused."""

REORDERING = frozenset(("av1", "libdav1d", "libaom-av1", "h264", "hevc", "vp9"))
"""Codecs whose presentation times cannot be derived from an AVI file, which stores none."""

ONE_FRAME_PER_PACKET = REORDERING | {"cinepak", "ffv1", "mjpeg", "mpeg4", "png"}

NO_TIME = np.iinfo(np.int64).min


class TooManyFrames(Exception):
    """The file has more than MAX_FRAMES packets."""


class DamagedPacket(Exception):
    """The container marks a packet as incomplete. The argument is its number in storage order."""


@dataclass(frozen=True)
class FrameIndex:
    """A stream's packets in storage (= decoding) order and its frames in presentation order.

    pts: presentation time of each packet, in ticks of the stream's time base; NO_TIME if the file
    has none.
    dts: decoding time of each packet, likewise.
    key: whether decoding can begin at this packet.
    shown: sorted presentation times of the visible packets; frame i is shown at shown[i].
    reliable: whether `shown` lists every frame. Decoding still compares each frame with it.
    skippable: whether the decoder may skip this packet's picture and leave all others
    bit-identical.
    """

    pts: Int64[np.ndarray, " packets"]
    dts: Int64[np.ndarray, " packets"]
    key: Bool[np.ndarray, " packets"]
    shown: Int64[np.ndarray, " frames"]
    reliable: bool
    skippable: Bool[np.ndarray, " packets"]

    def without_skipping(self) -> FrameIndex:
        """The same table, with no skippable picture."""
        return replace(self, skippable=np.zeros_like(self.skippable))

    def keyframe_before(self, frame: int) -> int:
        """The packet to decode `frame` from: the last key packet that is not shown after it."""
        return int(np.flatnonzero(self.key & (self.pts <= self.shown[frame]))[-1])

    def by_keyframe(self, frames: Iterable[int]) -> Iterator[tuple[int, list[int]]]:
        """Groups frames by `keyframe_before`: (packet number, ascending frames)."""
        groups: dict[int, list[int]] = {}
        for frame in sorted(set(frames)):
            groups.setdefault(self.keyframe_before(frame), []).append(frame)
        yield from groups.items()


def index_packets(
    packets: Iterable[Packet],
    codec: str,
    demuxer: str,
    check_time: Callable[[], None],
    extradata: bytes | None = None,
) -> FrameIndex:
    """Reads all packets of one stream, keeping about 20 bytes of each.

    codec, demuxer: ffmpeg's names of the stream's decoder and of the file format.
    extradata: the decoder configuration in the container; without it no picture is skippable.
    check_time: called for every packet; may raise.

    Raises TooManyFrames and DamagedPacket.
    """
    pts, dts, key, hidden = array("q"), array("q"), bytearray(), bytearray()
    pictures = H264Pictures.of(extradata) if codec == "h264" else None
    for packet in packets:
        check_time()
        if packet.size == 0:  # the demuxer's end mark, or a repeated picture in AVI
            continue
        if packet.is_corrupt:
            raise DamagedPacket(len(pts))
        if len(pts) >= MAX_FRAMES:
            raise TooManyFrames
        pts.append(NO_TIME if packet.pts is None else packet.pts)
        dts.append(NO_TIME if packet.dts is None else packet.dts)
        key.append(packet.is_keyframe)
        hidden.append(packet.is_discard)
        if pictures is not None:
            pictures.add(memoryview(packet))
    times, keys = np.array(pts, dtype=np.int64), np.array(key, dtype=bool)
    shown = np.sort(times[~np.array(hidden, dtype=bool)])
    reliable = codec in ONE_FRAME_PER_PACKET and len(shown) > 0 and _complete(times, keys)
    if demuxer == "avi":
        reliable = reliable and codec not in REORDERING and bool((np.diff(times) > 0).all())
    skippable = np.zeros(len(times), bool) if pictures is None else pictures.skippable()
    return FrameIndex(times, np.array(dts, dtype=np.int64), keys, shown, reliable, skippable)


def _complete(times: Int64[np.ndarray, " packets"], keys: Bool[np.ndarray, " packets"]) -> bool:
    """All packets have different times, and the first is a key packet and shown first."""
    first_is_key = bool(keys[0]) and bool(times[0] == times.min() != NO_TIME)
    return first_is_key and len(np.unique(times)) == len(times)
