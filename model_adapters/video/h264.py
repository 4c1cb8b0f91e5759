"""Which pictures of an H.264 stream no other picture needs, learnt from their packets' first bits, without decoding any.

A slice says whether its picture is kept for reference (nal_ref_idc). Those that are not, half of what x264 writes, can be
left out and all others decode to the same bits, provided that the decoder does not take the gap for a lost picture: it
counts reference pictures (frame_num), so that is checked as well. A picture is called unneeded only where its packet and
its neighbours are understood completely: whole frames rather than fields, one picture a packet, one set of parameters,
no gap in the count. Of all else we say that it is needed, which costs time and nothing more.

Only for streams as mp4, mkv and flv hold them (a length before each unit, the parameters beside the stream). Knows
nothing about containers and decoders. Numbers in brackets are clauses of ITU-T H.264.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool

SLICE, IDR_SLICE, SEI, SEQUENCE, PICTURE, DELIMITER, FILLER = (
    1,
    5,
    6,
    7,
    8,
    9,
    12,
)  # nal_unit_type (7.4.1)
HIGH_PROFILES = frozenset((100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135))
HEADER_BYTES = 12
"""They hold a slice's header up to frame_num, 1 + 7 + 17 + 16 bits, and bytes between that prevent start codes."""

UNCLEAR, UNUSED, REFERENCE, FRESH = range(4)
"""Kinds of packets: not understood; a picture not kept for reference; one that is; one that also forgets all others."""


class NotUnderstood(Exception):
    """Bits that end too early, or that say something which is not handled here."""


class Bits:
    """Reads a unit's contents from their first bit on, less the bytes that only prevent start codes (7.4.1.1)."""

    def __init__(self, data: bytes) -> None:
        plain = data.replace(b"\0\0\3", b"\0\0")
        self._value, self._left = int.from_bytes(plain, "big"), 8 * len(plain)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise NotUnderstood
        return self._value >> self._left & (1 << count) - 1

    def golomb(self) -> int:
        """ue(v): zeros, a one, and as many bits as there were zeros (9.1). Signed numbers take the same bits."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)


@dataclass
class H264Pictures:
    """Fed with a stream's packets in storage order, says at the end which of them are unneeded.

    length_bytes: of the length before each unit.
    sequence: the sequence parameter set that all pictures must share.
    counted: frame_num counts reference pictures modulo this.
    """

    length_bytes: int
    sequence: bytes
    counted: int
    _kinds: bytearray = field(init=False, default_factory=bytearray)
    _numbers: array[int] = field(init=False, default_factory=lambda: array("i"))
    _foreign: bool = field(init=False, default=False)

    @classmethod
    def of(cls, extradata: bytes | None) -> H264Pictures | None:
        """By an AVCDecoderConfigurationRecord (ISO/IEC 14496-15); None for anything but one set of whole frames."""
        if extradata is None or len(extradata) < 8 or extradata[0] != 1 or extradata[5] & 31 != 1:
            return None
        sequence = extradata[8 : 8 + int.from_bytes(extradata[6:8], "big")]
        try:
            return cls((extradata[4] & 3) + 1, sequence, 1 << _frame_num_bits(sequence))
        except NotUnderstood:
            return None

    def add(self, packet: memoryview) -> None:
        try:
            kind, number = self._look(packet)
        except NotUnderstood:
            kind, number = UNCLEAR, -1
        self._kinds.append(kind)
        self._numbers.append(number)

    def unneeded(self) -> Bool[np.ndarray, " packets"]:
        """Packets with pictures that may be left out, any of them or all, without a change in the others."""
        kinds = np.frombuffer(bytes(self._kinds), np.uint8)
        numbers = np.array(self._numbers, dtype=np.int64)
        unused = kinds == UNUSED
        if self._foreign or not unused.any():
            return np.zeros(len(kinds), bool)
        # All that lies between two other packets stands or falls together: one wrong number moves the decoder's count.
        others = np.flatnonzero(~unused)
        stretch = np.cumsum(~unused)  # its number; 0 lies before all others
        known = np.append(False, kinds[others] != UNCLEAR)
        # What frame_num must be in each stretch, and what comes after it; the end of the file does as well.
        count = np.append(-1, (numbers[others] + 1) % self.counted)
        after, number_after = np.append(kinds[others], FRESH), np.append(numbers[others], -1)
        joins = (after == FRESH) | ((after == REFERENCE) & (number_after == count))
        wrong = np.bincount(stretch[unused & (numbers != count[stretch])], minlength=len(count)) > 0
        return unused & (known & joins & ~wrong)[stretch]

    def _look(self, packet: memoryview) -> tuple[int, int]:
        """(kind, frame_num) of a packet that holds exactly one picture."""
        at, kind, number = 0, UNCLEAR, -1
        while at < len(packet):
            begin = at + self.length_bytes
            at = begin + int.from_bytes(packet[at:begin], "big")
            if at > len(packet) or at < begin + 2 or packet[begin] & 128:
                raise NotUnderstood
            type_, reference = packet[begin] & 31, packet[begin] >> 5
            if type_ in (SLICE, IDR_SLICE):
                here = UNUSED if not reference else FRESH if type_ == IDR_SLICE else REFERENCE
                if (
                    packet[begin + 1] >= 128
                ):  # begins with macroblock 0, as only a picture's first slice does
                    if kind != UNCLEAR:  # a second picture, or field
                        raise NotUnderstood
                    kind, number = (
                        here,
                        self._frame_num(packet[begin + 1 : begin + 1 + HEADER_BYTES]),
                    )
                if here != kind or (type_ == IDR_SLICE and not reference):
                    raise NotUnderstood
            elif type_ in (SEQUENCE, PICTURE):
                if not reference:
                    raise NotUnderstood
                self._foreign |= type_ == SEQUENCE and packet[begin:at] != self.sequence
            elif type_ not in (SEI, DELIMITER, FILLER):
                raise NotUnderstood
        return kind, number

    def _frame_num(self, header: memoryview) -> int:
        bits = Bits(bytes(header))
        bits.golomb()  # first_mb_in_slice
        if bits.golomb() > 9:  # slice_type
            raise NotUnderstood
        bits.golomb()  # pic_parameter_set_id
        return bits.take(self.counted.bit_length() - 1)


def _frame_num_bits(sequence: bytes) -> int:
    """log2_max_frame_num of a sequence parameter set (7.3.2.1.1). Raises NotUnderstood unless it is of whole frames."""
    bits = Bits(sequence[1:])
    profile = bits.take(8)
    bits.take(16)  # constraints, level
    bits.golomb()  # seq_parameter_set_id
    if profile in HIGH_PROFILES:
        if bits.golomb() > 2:  # chroma_format_idc; of 4:4:4 the planes may be pictures of their own
            raise NotUnderstood
        for _ in range(2):  # bit depths
            bits.golomb()
        bits.take(1)
        if bits.take(1):  # scaling matrices: rare, and long to read past
            raise NotUnderstood
    frame_num_bits = bits.golomb() + 4
    order = bits.golomb()  # pic_order_cnt_type
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1)
        for _ in range(2):
            bits.golomb()
        for _ in range(bits.golomb()):
            bits.golomb()
    bits.golomb()  # max_num_ref_frames
    bits.take(1)
    for _ in range(2):  # width, height
        bits.golomb()
    if not bits.take(1) or frame_num_bits > 16:  # frame_mbs_only_flag
        raise NotUnderstood
    return frame_num_bits
