"""Modbus RTU frames: the published ones, round trips, and frames with one thing spoilt."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers import rtu
from drivers.rtu import READ_COILS, READ_INPUTS, WRITE_COIL, WRITE_COILS, flash


@pytest.mark.parametrize(
    ("request_", "published"),
    [
        # relay boards' manuals and published command tables
        (flash(1, 0, 0.7), "010502000007 8DB0"),
        (rtu.Request(1, WRITE_COIL, 0, 0xFF00), "01050000FF00 8C3A"),
        (rtu.Request(1, WRITE_COIL, 0, 0x0000), "010500000000 CDCA"),
        (rtu.Request(1, WRITE_COIL, 1, 0xFF00), "01050001FF00 DDFA"),
        (rtu.Request(255, WRITE_COIL, 0, 0xFF00), "FF050000FF00 99E4"),
        (rtu.Request(255, WRITE_COILS, 0, 8, (True,) * 8), "FF0F0000000801FF 301D"),
        (rtu.Request(255, WRITE_COILS, 0, 8, (False,) * 8), "FF0F000000080100 705D"),
        (rtu.Request(255, READ_INPUTS, 0, 8), "FF0200000008 6C12"),
    ],
)
def test_requests_are_the_published_bytes(request_: rtu.Request, published: str) -> None:
    assert request_.encode() == bytes.fromhex(published)


def test_published_replies_are_recognised() -> None:
    inputs = rtu.Request(255, READ_INPUTS, 0, 8).match(bytes.fromhex("FF02010151A0"))
    assert inputs == rtu.Reply(bits=(True,) + (False,) * 7)
    coils = rtu.Request(255, WRITE_COILS, 0, 8, (True,) * 8)
    assert coils.match(bytes.fromhex("FF0F0000000841D3")) == rtu.Reply()


def test_crc_of_the_check_string() -> None:
    assert rtu.crc16(b"123456789") == 0x4B37  # CRC-16/MODBUS in the catalogue of CRCs


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.09, 60.1, 6528.0, math.inf, math.nan])
def test_a_pulse_out_of_range_is_no_frame(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"0\.1 to 60 s"):
        flash(1, 0, seconds)


@given(st.floats(0.1, 60.0))
def test_no_pulse_comes_near_the_two_hours_of_coil_on(seconds: float) -> None:
    request = flash(1, 3, seconds)
    assert 1 <= request.value <= 600
    assert abs(request.value / 10 - seconds) <= 0.0500001


@st.composite
def requests(draw: st.DrawFn) -> rtu.Request:
    function = draw(st.sampled_from(rtu.FUNCTIONS))
    address, start = draw(st.integers(1, 255)), draw(st.integers(0, 0xFFFF))
    if function == WRITE_COIL:
        return rtu.Request(address, function, start, draw(st.integers(0, 0xFFFF)))
    bits = tuple(draw(st.lists(st.booleans(), min_size=1, max_size=64)))
    return rtu.Request(address, function, start, len(bits), bits if function == WRITE_COILS else ())


@given(requests())
def test_a_request_survives_the_line(request_: rtu.Request) -> None:
    assert rtu.Request.decode(request_.encode()) == request_


@given(requests(), st.randoms(use_true_random=False), st.binary(max_size=20))
def test_a_reply_is_found_behind_garbage(
    request_: rtu.Request, chance: random.Random, garbage: bytes
) -> None:
    reads = request_.function in (READ_COILS, READ_INPUTS)
    bits = tuple(chance.random() < 0.5 for _ in range(request_.value)) if reads else ()
    assert request_.match(garbage + request_.answer(bits)) == rtu.Reply(bits=bits)
    assert request_.match(garbage + request_.refusal(2)) == rtu.Reply(exception=2)


@pytest.mark.parametrize(
    "spoilt",
    [
        rtu.Request(2, WRITE_COIL, 0x0200, 7),  # another address
        rtu.Request(1, READ_COILS, 0x0200, 7),  # another function
        rtu.Request(1, WRITE_COIL, 0x0201, 7),  # another relay
        rtu.Request(1, WRITE_COIL, 0x0200, 8),  # another time
    ],
)
def test_a_reply_with_one_wrong_field_is_none(spoilt: rtu.Request) -> None:
    asked = rtu.Request(1, WRITE_COIL, 0x0200, 7)
    assert asked.match(asked.answer()) is not None
    assert asked.match(spoilt.encode()) is None


@settings(max_examples=2000)
@given(st.integers(0, 63), st.integers(1, 255))
def test_no_changed_byte_passes_the_crc(bit: int, mask: int) -> None:
    asked = flash(1, 0, 0.7)
    frame = bytearray(asked.answer())
    frame[bit // 8] ^= mask
    assert asked.match(bytes(frame)) is None
