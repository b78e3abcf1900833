"""What is sealed opens in its own place and nowhere else."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import assume, given
from hypothesis import strategies as st

from edge import seal
from edge.seal import SealError, open_
from edge.terms import is_unit

KEY, AAD = bytes(range(32)), b"place"
PLACES: dict[str, tuple[Callable[..., bytes], list[Any], list[Any]]] = {
    "rights": (seal.rights_aad, ["lotus", b"a" * 16, 5, 1], ["maple", b"b" * 16, 6, 2]),
    "template": (
        seal.template_aad,
        ["lotus", b"a" * 16, 5, 1, "m1"],
        ["maple", b"b" * 16, 6, 2, "m2"],
    ),
    "events": (seal.events_aad, ["gate-1", "lotus", 1, 7], ["gate-2", "maple", 2, 8]),
    "enrol": (
        seal.enrol_aad,
        ["desk-1", "lotus", b"a" * 16, b"r" * 16],
        ["desk-2", "maple", b"b" * 16, b"s" * 16],
    ),
}


# --- under a key ---


@given(st.binary(max_size=300), st.binary(max_size=40))
def test_it_opens_with_its_key_in_its_place(plain: bytes, aad: bytes) -> None:
    sealed = seal.seal(KEY, plain, aad)
    assert open_(KEY, sealed, aad) == plain
    assert len(sealed) == 12 + len(plain) + 16


@pytest.mark.parametrize(
    ("place", "field"), [(name, n) for name, (_, own, _) in PLACES.items() for n in range(len(own))]
)
def test_moved_in_one_field_it_does_not_open(place: str, field: int) -> None:
    aad, own, other = PLACES[place]
    sealed = seal.seal(KEY, b"rights", aad(*own))
    moved = [*own[:field], other[field], *own[field + 1 :]]
    with pytest.raises(SealError):
        open_(KEY, sealed, aad(*moved))
    assert open_(KEY, sealed, aad(*own)) == b"rights"


def test_no_two_kinds_of_place_are_one() -> None:
    assert len({aad(*own) for aad, own, _ in PLACES.values()}) == len(PLACES)
    assert seal.events_aad("z", "p", 1, 1) != seal.rights_aad("z", b"p", 1, 1)


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
def test_what_stands_in_two_fields_cannot_be_cut_elsewhere(a: str, b: str, c: str, d: str) -> None:
    assume((a, b) != (c, d))
    assert seal.events_aad(a, b, 1, 1) != seal.events_aad(c, d, 1, 1)


def test_every_bit_counts() -> None:
    sealed = seal.seal(KEY, b"rights", AAD)
    for bit in range(8 * len(sealed)):
        altered = bytearray(sealed)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SealError):
            open_(KEY, bytes(altered), AAD)


def test_every_cut_is_refused() -> None:
    sealed = seal.seal(KEY, b"rights", AAD)
    for length in range(len(sealed)):
        with pytest.raises(SealError):
            open_(KEY, sealed[:length], AAD)


@pytest.mark.parametrize("key", [bytes(32), KEY[::-1], b"", b"short", KEY * 2])
def test_another_key_does_not_open(key: bytes) -> None:
    with pytest.raises(SealError):
        open_(key, seal.seal(KEY, b"rights", AAD), AAD)


def test_the_same_sealed_twice_is_two_things() -> None:
    assert len({seal.seal(KEY, b"rights", AAD)[:12] for _ in range(200)}) == 200


# --- zone keys to a member ---

PLACE: dict[str, Any] = {"zone": "lotus", "which": "kr", "key_epoch": 1, "member": "gate-1"}
MINE, OTHERS = X25519PrivateKey.generate(), X25519PrivateKey.generate()


def wrapped(key: bytes = KEY, **place: Any) -> bytes:
    hpke_pub = MINE.public_key().public_bytes_raw()
    return seal.wrap_zone_key(key, hpke_pub=hpke_pub, **{**PLACE, **place})


def test_a_zone_key_comes_out_as_it_went_in() -> None:
    assert seal.unwrap_zone_key(wrapped(), MINE, **PLACE) == KEY
    assert len(wrapped()) <= 256 and wrapped() != wrapped()


@pytest.mark.parametrize(
    "moved",
    [{"zone": "maple"}, {"which": "kf"}, {"key_epoch": 2}, {"member": "gate-2"}],
    ids=lambda moved: next(iter(moved)),
)
def test_a_zone_key_moved_elsewhere_does_not_open(moved: dict[str, Any]) -> None:
    with pytest.raises(SealError):
        seal.unwrap_zone_key(wrapped(), MINE, **{**PLACE, **moved})


def test_a_zone_key_is_for_one_member() -> None:
    with pytest.raises(SealError):
        seal.unwrap_zone_key(wrapped(), OTHERS, **PLACE)


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_a_zone_key_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(SealError, match="size"):
        seal.unwrap_zone_key(wrapped(bytes(size)), MINE, **PLACE)


def test_an_altered_or_cut_zone_key_is_refused() -> None:
    sealed = wrapped()
    for n in range(len(sealed)):
        altered = bytearray(sealed)
        altered[n] ^= 0x80 if n != 31 else 1  # X25519 ignores the top bit of a public key
        for bad in (bytes(altered), sealed[:n]):
            with pytest.raises(SealError):
                seal.unwrap_zone_key(bad, MINE, **PLACE)


@pytest.mark.parametrize("pub", [bytes(32), b"\x01" + bytes(31), b"", bytes(31)])
def test_a_member_key_that_is_none_is_refused(pub: bytes) -> None:
    with pytest.raises(SealError, match="not usable"):
        seal.wrap_zone_key(KEY, hpke_pub=pub, **PLACE)


def test_a_kcv_tells_keys_apart_and_is_no_bare_hash() -> None:
    other = KEY[:-1] + b"\0"
    assert seal.kcv(KEY) == hashlib.sha256(b"mj1kcv" + KEY).digest()[:16] != seal.kcv(other)


# --- templates ---


@given(st.integers(0, 10_000), st.sampled_from([128, 512]))
def test_a_template_keeps_its_direction(seed: int, size: int) -> None:
    vector = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    vector /= np.linalg.norm(vector)
    packed = seal.pack_vector(vector)
    back = seal.unpack_vector(packed)
    assert len(packed) == 2 * size and back.dtype == np.float32 and is_unit(back)
    assert float(vector @ back) > 1 - 1e-5


def test_a_template_is_little_endian_on_every_machine() -> None:
    assert seal.pack_vector(np.array([1.0, 0.0], np.float32)) == b"\x00\x3c\x00\x00"


@given(st.binary(max_size=64))
def test_any_bytes_are_a_direction_or_refused(data: bytes) -> None:
    try:
        vector = seal.unpack_vector(data)
    except SealError:
        return
    assert is_unit(vector) and len(vector) == len(data) // 2


@pytest.mark.parametrize(
    "values", [[], [0.0, 0.0], [np.nan, 1.0], [np.inf, 0.0], [-np.inf, 0.0], [0.25, 0.25]]
)
def test_what_has_no_direction_is_refused(values: list[float]) -> None:
    with pytest.raises(SealError, match="direction"):
        seal.unpack_vector(np.array(values, "<f2").tobytes())


def test_half_a_number_is_refused() -> None:
    with pytest.raises(SealError, match="odd"):
        seal.unpack_vector(b"\x00\x3c\x00")


# --- pseudonyms and digests ---


def test_a_pseudonym_is_another_in_every_zone_and_stays_in_its_own() -> None:
    first, second = os.urandom(32), os.urandom(32)
    assert seal.pseudonym(first, "R-1") == hmac.digest(first, b"R-1", "sha256")[:16]
    assert seal.pseudonym(first, "R-1") != seal.pseudonym(second, "R-1")
    assert seal.pseudonym(first, "R-1") != seal.pseudonym(first, "R-2")


@given(st.binary(min_size=16, max_size=16), st.integers(0, 2**63 - 1), st.integers(1, 3))
def test_a_digest_term_is_the_hash_of_person_version_and_status(
    person: bytes, pv: int, status: int
) -> None:
    expected = hashlib.sha256(person + pv.to_bytes(8, "big") + bytes([status])).hexdigest()
    assert seal.digest_term(person, pv, status) == int(expected, 16)
