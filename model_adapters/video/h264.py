"""Finds the non-reference pictures of an H.264 stream from packet headers, without decoding.

A slice header says whether its picture is a reference (nal_ref_idc). Skipping the others, about
half of the pictures that x264 writes, leaves every other picture bit-identical. One condition: the
decoder must not take the gap for a lost picture. It counts reference pictures (frame_num), so this
module checks that count too.

A picture is reported as skippable only if its packet and the neighbouring ones are fully
understood: frames rather than fields, one picture per packet, one parameter set, no gap in the
count. All other pictures are decoded, which costs time but never correctness.

Covers streams as mp4, mkv and flv store them: a length before each unit, parameter sets in the
container. Numbers in brackets are clauses of ITU-T H.264.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool

# Values of nal_unit_type (7.4.1).
SLICE, IDR_SLICE, SEI, SEQUENCE, PICTURE, DELIMITER, FILLER = 1, 5, 6, 7, 8, 9, 12
HIGH_PROFILES = frozenset((100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135))
HEADER_BYTES = 12
"""Enough for a slice header up to frame_num (1 + 7 + 17 + 16 bits) and its emulation prevention
bytes."""

UNKNOWN, NON_REFERENCE, REFERENCE, IDR = range(4)
"""Kinds of packets: not understood, no reference, reference, reference that resets all others."""


class NotUnderstood(Exception):
    """The bits end too early or hold a value that this module does not handle."""


class Bits:
    """Reads a unit's payload bit by bit, without emulation prevention bytes (7.4.1.1)."""

    def __init__(self, data: bytes) -> None:
        plain = data.replace(b"\0\0\3", b"\0\0")
        self._value, self._left = int.from_bytes(plain, "big"), 8 * len(plain)

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise NotUnderstood
        return self._value >> self._left & (1 << count) - 1

    def golomb(self) -> int:
        """An exponential Golomb code ue(v) (9.1). Signed codes se(v) have the same length."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)


@dataclass
class H264Pictures:
    """Collects the packets of a stream in storage order and reports which pictures may be skipped.

    length_bytes: size of the length field before each unit.
    sequence: the sequence parameter set that all pictures must share.
    count_modulus: frame_num counts reference pictures modulo this number.
    """

    length_bytes: int
    sequence: bytes
    count_modulus: int
    _kinds: bytearray = field(init=False, default_factory=bytearray)
    _numbers: array[int] = field(init=False, default_factory=lambda: array("i"))
    _foreign: bool = field(init=False, default=False)

    @classmethod
    def of(cls, extradata: bytes | None) -> H264Pictures | None:
        """From an AVCDecoderConfigurationRecord (ISO/IEC 14496-15).

        None unless it holds one sequence parameter set, of frames rather than fields.
        """
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
            kind, number = UNKNOWN, -1
        self._kinds.append(kind)
        self._numbers.append(number)

    def skippable(self) -> Bool[np.ndarray, " packets"]:
        """Packets of which any subset may be skipped without changing the other pictures."""
        kinds = np.frombuffer(bytes(self._kinds), np.uint8)
        numbers = np.array(self._numbers, dtype=np.int64)
        free = kinds == NON_REFERENCE
        if self._foreign or not free.any():
            return np.zeros(len(kinds), bool)
        # Packets between two others form a group: one wrong number shifts the decoder's count for
        # all of them.
        others = np.flatnonzero(~free)
        group = np.cumsum(~free)  # of each packet; group 0 precedes the first of the others
        known = np.append(False, kinds[others] != UNKNOWN)
        # The frame_num that a group must have, and the packet after it; the end of the file counts
        # as IDR.
        count = np.append(-1, (numbers[others] + 1) % self.count_modulus)
        after, number_after = np.append(kinds[others], IDR), np.append(numbers[others], -1)
        joins = (after == IDR) | ((after == REFERENCE) & (number_after == count))
        wrong = np.bincount(group[free & (numbers != count[group])], minlength=len(count)) > 0
        return free & (known & joins & ~wrong)[group]

    def _look(self, packet: memoryview) -> tuple[int, int]:
        """(kind, frame_num) of a packet. Raises NotUnderstood unless it holds one picture."""
        at, kind, number = 0, UNKNOWN, -1
        while at < len(packet):
            begin = at + self.length_bytes
            at = begin + int.from_bytes(packet[at:begin], "big")
            if at > len(packet) or at < begin + 2 or packet[begin] & 128:
                raise NotUnderstood
            type_, reference = packet[begin] & 31, packet[begin] >> 5
            if type_ in (SLICE, IDR_SLICE):
                referred = IDR if type_ == IDR_SLICE else REFERENCE
                here = referred if reference else NON_REFERENCE
                # Only the first slice of a picture begins with macroblock 0.
                if packet[begin + 1] >= 128:
                    if kind != UNKNOWN:  # a second picture, or field
                        raise NotUnderstood
                    kind = here
                    number = self._frame_num(packet[begin + 1 : begin + 1 + HEADER_BYTES])
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
        return bits.take(self.count_modulus.bit_length() - 1)


def _frame_num_bits(sequence: bytes) -> int:
    """Length of frame_num in bits, from a sequence parameter set (7.3.2.1.1).

    Raises NotUnderstood for fields, 4:4:4 with separate planes and scaling matrices.
    """
    bits = Bits(sequence[1:])
    profile = bits.take(8)
    bits.take(16)  # constraints, level
    bits.golomb()  # seq_parameter_set_id
    if profile in HIGH_PROFILES:
        if bits.golomb() > 2:  # chroma_format_idc; the planes of 4:4:4 may be separate pictures
            raise NotUnderstood
        for _ in range(2):  # bit depths
            bits.golomb()
        bits.take(1)
        if bits.take(1):  # scaling matrices: rare and long
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
