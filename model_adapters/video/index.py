"""Where a video's frames are, learnt from its packets alone, without decoding any.

Headers lie or say nothing (mkv has no frame count, broken files promise hours), so the packets are counted. Sorted by
presentation time they number the frames: frame i is the i-th in the order in which a viewer sees them, whatever the
order in which they are stored. This is also decord's numbering, hence the paper's, except that packets which an edit
list hides count as no frames here.

A packet is one frame for the codecs of every day, but VP8 has hidden packets and AVI files have no presentation times:
`FrameIndex.reliable` says whether the table may be trusted; if not, only decoding tells.

Knows nothing about sampling, pixels or what the frames are for.
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

MAX_FRAMES = (
    2_000_000  # 18 hours at 30 frames a second; the table of a longer file is not even begun
)
NEEDS_TIMES = frozenset(
    ("av1", "libdav1d", "libaom-av1", "h264", "hevc", "vp9")
)  # not to be guessed from AVI
NO_TIME = np.iinfo(np.int64).min
ONE_PACKET_ONE_FRAME = frozenset(
    (
        "av1",
        "libdav1d",
        "libaom-av1",
        "cinepak",
        "ffv1",
        "h264",
        "hevc",
        "mjpeg",
        "mpeg4",
        "png",
        "vp9",
    )
)


class TooManyFrames(Exception):
    """The file holds more than MAX_FRAMES packets."""


class DamagedPacket(Exception):
    """The container marks a packet as cut short or damaged; its number in storage order is the argument."""


@dataclass(frozen=True)
class FrameIndex:
    """A video stream's packets in storage (= decoding) order, and its frames in presentation order.

    pts: each packet's presentation time in ticks of the stream's time base; NO_TIME where the file gives none.
    dts: each packet's decoding time, likewise.
    key: decoding may begin at this packet.
    shown: the presentation times of the packets that are shown, sorted; frame i is shown at shown[i].
    reliable: `shown` may be trusted to name every frame; always to be confirmed by what the decoder returns.
    unneeded: the decoder may leave this packet's picture out, and every other picture stays as it is, bit for bit.
    """

    pts: Int64[np.ndarray, " packets"]
    dts: Int64[np.ndarray, " packets"]
    key: Bool[np.ndarray, " packets"]
    shown: Int64[np.ndarray, " frames"]
    reliable: bool
    unneeded: Bool[np.ndarray, " packets"]

    def needing_all(self) -> FrameIndex:
        """The same, but the decoder is to leave out nothing."""
        return replace(self, unneeded=np.zeros_like(self.unneeded))

    def keyframe_before(self, frame: int) -> int:
        """The last packet from which frame `frame` can be decoded: the last key packet not shown after it."""
        return int(np.flatnonzero(self.key & (self.pts <= self.shown[frame]))[-1])

    def runs(self, frames: Iterable[int]) -> Iterator[tuple[int, list[int]]]:
        """Group frames by the key packet that leads to them: (packet number, ascending frames)."""
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
    """Read all packets of one stream, keeping some 20 bytes of each.

    codec, demuxer: ffmpeg's names for the stream's decoder and the file's format.
    extradata: what the file holds beside the stream for its decoder; without it all packets count as needed.
    `check_time` is called for every packet and may raise. Raises TooManyFrames and DamagedPacket.
    """
    pts, dts, key, hidden = array("q"), array("q"), bytearray(), bytearray()
    pictures = H264Pictures.of(extradata) if codec == "h264" else None
    for packet in packets:
        check_time()
        if (
            packet.size == 0
        ):  # nothing to decode: the demuxer's end mark, or "the same picture again" in AVI
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
    reliable = (
        codec in ONE_PACKET_ONE_FRAME
        and len(shown) > 0
        and bool(keys[0])
        and times[0]
        == times.min()
        != NO_TIME  # all times known, and nothing shown needs what came before the file
        and len(np.unique(times)) == len(times)
        and (demuxer != "avi" or (codec not in NEEDS_TIMES and bool((np.diff(times) > 0).all())))
    )
    unneeded = np.zeros(len(times), bool) if pictures is None else pictures.unneeded()
    return FrameIndex(times, np.array(dts, dtype=np.int64), keys, shown, bool(reliable), unneeded)
