"""Bombs, noise and altered bytes: never anything but a WireError, and never slowly."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Iterator

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from signing import GOOD, KEYS, RING, SAMPLES, signed, why

from edge.envelope import WireError, decode, dump, encode, parse
from edge.wire import Role, Type

BOMBS = {
    "deep lists": b"\x81" * 200_000 + b"\0",
    "deep maps": b"\xa1\0" * 100_000,
    "deep lists without an end": b"\x9f" * 200_000,
    "deep tags": b"\xc6" * 200_000,
    "a deep field": cbor2.dumps({"zone": 0})[:-1] + b"\x81" * 200_000,
    "bytes of an exabyte": b"\x5b" + b"\x0f" * 8,
    "text of an exabyte": b"\x7b" + b"\x0f" * 8,
    "bytes of 2 GiB": b"\x5a\x7f\xff\xff\xff",
    "a list of 2^60": b"\x9b\x10" + bytes(7),
    "a list of 2 billion": b"\x9a\x7f\xff\xff\xff" + bytes(1000),
    "a map of 2^60": b"\xbb\x10" + bytes(7),
    "a number of 2^(2^62)": b"\xc5\x82\x1b\x40" + bytes(7) + b"\x01",
    "a fraction of 10^(2^62)": b"\xc4\x82\x1b\x40" + bytes(7) + b"\x01",
    "a ratio over nought": b"\xd8\x1e\x82\x01\x00",
    "a number of 200 kB": b"\xc2\x5a\0\3\0\0" + b"\xff" * 0x30000,
    "a pattern": b"\xd8\x23\x78\x40" + b"(" * 64,
    "a date": b"\xc1\x1b" + b"\xff" * 8,
    "a list of itself": b"\xd8\x1c\x81\xd8\x1d\x00",
    "a set of maps": b"\xd9\x01\x02\x81\xa0",
    "60,000 fields": cbor2.dumps(dict.fromkeys(range(60000), 0)),
    "10,000 named fields": cbor2.dumps({f"{n:05}": 0 for n in range(10_000)}),
    "half a letter": b"\x61\xff",
    "an end without a beginning": b"\xff",
    "nothing": b"",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_from_a_key_that_we_believe_is_refused_quickly(bomb: bytes) -> None:
    raw = signed(Type.GONE, bomb, KEYS[Role.ROSTER])
    memory, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    assert why(raw) in ("cbor", "fields")
    assert time.process_time() - began < 1.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 64 * 1024  # KiB


def mutants(whole: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Bits flipped, bytes cut, doubled, put in, or all of it noise."""
    dice = random.Random(seed)
    for _ in range(count):
        data = bytearray(whole)
        for _ in range(dice.choice((1, 1, 1, 2, 5))):
            at = dice.randrange(len(data) + 1)
            kind = dice.randrange(5)
            if kind == 0 and at < len(data):
                data[at] ^= 1 << dice.randrange(8)
            elif kind == 1 and at < len(data):
                data[at] = dice.randrange(256)
            elif kind == 2:
                del data[at : at + dice.choice((1, 1, 4, len(data)))]
            elif kind == 3:
                data[at:at] = dice.randbytes(dice.choice((1, 2, 9)))
            else:
                data[at:at] = data[at : at + dice.randrange(40)]
        yield bytes(data)


def fuzz_messages(count: int) -> None:
    for n, (kind, body, role, direction, target) in enumerate(SAMPLES):
        whole = encode(kind, body, KEYS[role], direction=direction, target=target)
        for raw in mutants(whole, count // len(SAMPLES), n):
            try:
                message = decode(raw, RING, direction=direction, target=target)
            except WireError as error:
                assert error.why.isalpha()
            else:
                assert raw == whole and message.body == body, "an altered message was taken"


def fuzz_bodies(count: int) -> None:
    """The same from somebody who signs what he altered: a member gone bad."""
    for n, (_, body, *_rest) in enumerate(SAMPLES):
        for payload in mutants(dump(body), count // len(SAMPLES), n):
            try:
                taken = parse(type(body), payload)
            except WireError:
                continue
            assert isinstance(taken, type(body))
            assert parse(type(body), dump(taken)) == taken


def test_no_altered_message_is_anything_but_a_wire_error() -> None:
    fuzz_messages(1500)


def test_no_altered_body_is_anything_but_a_wire_error() -> None:
    fuzz_bodies(1500)


@pytest.mark.slow
def test_no_altered_message_at_length() -> None:
    fuzz_messages(25_000)


@pytest.mark.slow
def test_no_altered_body_at_length() -> None:
    fuzz_bodies(25_000)


@given(st.binary(max_size=200))
def test_noise_is_dropped(noise: bytes) -> None:
    assert why(noise) in ("header", "version", "type", "key")
    assert why(GOOD[:12] + noise) in ("header", "signature")


def test_every_cut_of_a_message_is_dropped() -> None:
    assert {why(GOOD[:n]) for n in range(len(GOOD))} == {"header", "signature"}
