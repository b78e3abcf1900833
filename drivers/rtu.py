"""Modbus RTU frames, both ways: bytes <-> values, for the four functions a relay board needs.

Pure: no port, no clock, no state. A reply is recognised only against the request it answers, so
there is no parser that could be led astray by a phantom start byte. What a board does with a
frame is in `modbus` (ours) and `virtual` (the pretended board).
Source: MODBUS over Serial Line V1.02, MODBUS Application Protocol V1.1b3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

READ_COILS = 0x01
READ_INPUTS = 0x02
WRITE_COIL = 0x05
WRITE_COILS = 0x0F
FUNCTIONS = (READ_COILS, READ_INPUTS, WRITE_COIL, WRITE_COILS)
REFUSED = 0x80  # set in the function byte of an exception reply

COIL_ON = 0xFF00
COIL_OFF = 0x0000

# "Flash" commands of the common relay boards (vendor protocol V3, the same in every clone seen):
# WRITE_COIL to FLASH_ON + n energises relay n for `value` tenths of a second, FLASH_OFF + n
# releases it for that long. COIL_ON there would mean 65280 tenths, almost two hours.
FLASH_ON = 0x0200
FLASH_OFF = 0x0400
FLASH_TENTHS_MAX = 600  # 60 s: no door needs longer, and far below COIL_ON

CHAR_BITS = 10  # 8N1
_REFUSAL_BYTES = 5
_WRITE_BYTES = 8


def _crc_table() -> tuple[int, ...]:
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = (crc >> 1) ^ 0xA001 if crc & 1 else crc >> 1
        table.append(crc)
    return tuple(table)


_CRC = _crc_table()


def crc16(data: bytes) -> int:
    """CRC-16/MODBUS: polynomial 0x8005 reflected, start 0xFFFF; low byte first on the wire."""
    crc = 0xFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC[(crc ^ byte) & 0xFF]
    return crc


def seal(body: bytes) -> bytes:
    """`body` with its CRC behind it."""
    return body + crc16(body).to_bytes(2, "little")


def intact(frame: bytes) -> bool:
    return len(frame) > 2 and crc16(frame[:-2]) == int.from_bytes(frame[-2:], "little")


def pack_bits(bits: Sequence[bool]) -> bytes:
    """Bit 0 of the first byte is the first coil; the rest of the last byte is zero."""
    number = sum(1 << i for i, bit in enumerate(bits) if bit)
    return number.to_bytes((len(bits) + 7) // 8, "little")


def unpack_bits(data: bytes, count: int) -> tuple[bool, ...]:
    number = int.from_bytes(data, "little")
    return tuple(bool(number >> i & 1) for i in range(count))


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: `bits` of a read, or the code of an exception; both empty: done as asked."""

    bits: tuple[bool, ...] = ()
    exception: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One request to one device."""

    address: int  # 1..255 (the standard ends at 247, some boards leave the factory as 255)
    function: int  # one of FUNCTIONS
    start: int  # first coil or input, 0-based
    value: int  # reads and WRITE_COILS: how many; WRITE_COIL: the value word
    bits: tuple[bool, ...] = ()  # WRITE_COILS only

    def encode(self) -> bytes:
        words = self.start.to_bytes(2, "big") + self.value.to_bytes(2, "big")
        body = bytes((self.address, self.function)) + words
        if self.function == WRITE_COILS:
            packed = pack_bits(self.bits)
            body += bytes((len(packed),)) + packed
        return seal(body)

    @classmethod
    def decode(cls, frame: bytes) -> Request | None:
        """The request in exactly these bytes; None when they are anything else."""
        if len(frame) < _WRITE_BYTES or not intact(frame) or frame[1] not in FUNCTIONS:
            return None
        start, value = int.from_bytes(frame[2:4], "big"), int.from_bytes(frame[4:6], "big")
        bits: tuple[bool, ...] = ()
        if frame[1] == WRITE_COILS:
            if frame[6] != (value + 7) // 8 or len(frame) != 9 + frame[6]:
                return None
            bits = unpack_bits(frame[7:-2], value)
        elif len(frame) != _WRITE_BYTES:
            return None
        return cls(frame[0], frame[1], start, value, bits)

    @property
    def reply_bytes(self) -> int:
        """Length of the reply that does what was asked."""
        reads = self.function in (READ_COILS, READ_INPUTS)
        return 5 + (self.value + 7) // 8 if reads else _WRITE_BYTES

    def answer(self, bits: Sequence[bool] = ()) -> bytes:
        """The device's reply frame: `bits` for a read, the echo for a write."""
        if self.function in (READ_COILS, READ_INPUTS):
            packed = pack_bits(bits)
            return seal(bytes((self.address, self.function, len(packed))) + packed)
        return seal(self.encode()[:6])

    def refusal(self, code: int) -> bytes:
        """The device's exception reply."""
        return seal(bytes((self.address, self.function | REFUSED, code)))

    def match(self, heard: bytes) -> Reply | None:
        """The reply to this request anywhere in `heard`, else None.

        Address, function, CRC and every echoed field must fit; garbage before and behind is
        passed over, and nothing waits for the rest of a frame that never began.
        """
        for at in range(len(heard) - _REFUSAL_BYTES + 1):
            if heard[at] != self.address:
                continue
            refusal = heard[at : at + _REFUSAL_BYTES]
            if refusal[1] == self.function | REFUSED and intact(refusal):
                return Reply(exception=refusal[2])
            frame = heard[at : at + self.reply_bytes]
            if len(frame) == self.reply_bytes and self._echoes(frame) and intact(frame):
                return Reply(bits=self._bits_of(frame))
        return None

    def _echoes(self, frame: bytes) -> bool:
        if self.function in (READ_COILS, READ_INPUTS):
            return frame[:3] == bytes((self.address, self.function, self.reply_bytes - 5))
        return frame[:6] == self.encode()[:6]

    def _bits_of(self, frame: bytes) -> tuple[bool, ...]:
        reads = self.function in (READ_COILS, READ_INPUTS)
        return unpack_bits(frame[3:-2], self.value) if reads else ()


def flash(address: int, output: int, seconds: float, *, release: bool = False) -> Request:
    """A pulse that the board itself ends: relay `output` energised (or with `release` let go) for
    `seconds`, 0.1..60 in steps of 0.1. ValueError outside, so that COIL_ON cannot get there."""
    tenths = round(seconds * 10) if 0.1 <= seconds <= FLASH_TENTHS_MAX / 10 else 0
    if not 1 <= tenths <= FLASH_TENTHS_MAX:
        raise ValueError(f"a pulse lasts 0.1 to {FLASH_TENTHS_MAX / 10:g} s, not {seconds!r}")
    return Request(address, WRITE_COIL, (FLASH_OFF if release else FLASH_ON) + output, tenths)
