"""What travels sealed: rights and credentials under Kr, face templates under Kf, zone keys to a
member's own key. Pure functions of keys and bytes; the AAD binds each to its place, so that a
sealed part moved to another person, version or zone does not open.
"""

from __future__ import annotations

import hashlib
import hmac
import os

import cbor2
import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from edge.terms import PersonId, Vector

KEY_BYTES, NONCE_BYTES = 32, 12
_HPKE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class SealError(ValueError):
    """It does not open: another key, another place, or altered bytes."""


def seal(key: bytes, plain: bytes, aad: bytes) -> bytes:
    """nonce | AES-256-GCM ciphertext and tag."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, aad)


def open_(key: bytes, sealed: bytes, aad: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], aad)
    except (InvalidTag, ValueError):
        raise SealError("does not open") from None


def rights_aad(zone: str, person: bytes, pv: int, key_epoch: int) -> bytes:
    return cbor2.dumps([zone, person, pv, key_epoch], canonical=True)


def template_aad(zone: str, person: bytes, tv: int, key_epoch: int, model_id: str) -> bytes:
    return cbor2.dumps([zone, person, tv, key_epoch, model_id], canonical=True)


def events_aad(gate: str, zone: str, key_epoch: int, first_no: int) -> bytes:
    return cbor2.dumps(["mj1/ev", gate, zone, key_epoch, first_no], canonical=True)


def enrol_aad(desk: str, zone: str, person: bytes, request: bytes) -> bytes:
    return cbor2.dumps(["mj1/en", desk, zone, person, request], canonical=True)


def pack_vector(vector: Vector) -> bytes:
    """float16, little-endian: a template's form on disk and on the wire."""
    return vector.astype("<f2").tobytes()


def unpack_vector(data: bytes) -> Vector:
    """float32 of length 1; SealError when it is not a direction at all."""
    if len(data) % 2:
        raise SealError("template of an odd size")
    vector = np.frombuffer(data, dtype="<f2").astype(np.float32)
    norm = float(np.linalg.norm(vector)) if np.isfinite(vector).all() else 0.0
    if norm < 0.5:
        raise SealError("template without a direction")
    unit: Vector = vector / np.float32(norm)
    return unit


def kcv(key: bytes) -> bytes:
    """What tells two zone keys apart without telling the key."""
    return hashlib.sha256(b"mj1kcv" + key).digest()[:16]


def pseudonym(zone_secret: bytes, internal_id: str) -> PersonId:
    digest = hmac.new(zone_secret, internal_id.encode(), hashlib.sha256).digest()
    return PersonId(digest[:16])


def _zone_key_info(zone: str, which: str, key_epoch: int, member: str, hpke_pub: bytes) -> bytes:
    place = ["mj1/zk", zone, which, key_epoch, member, hashlib.sha256(hpke_pub).digest()]
    return cbor2.dumps(place, canonical=True)


def wrap_zone_key(
    key: bytes, *, zone: str, which: str, key_epoch: int, member: str, hpke_pub: bytes
) -> bytes:
    """SealError when `hpke_pub` is no usable X25519 key: the member must make another."""
    info = _zone_key_info(zone, which, key_epoch, member, hpke_pub)
    try:
        return _HPKE.encrypt(key, X25519PublicKey.from_public_bytes(hpke_pub), info)
    except ValueError:
        raise SealError("member key is not usable") from None


def unwrap_zone_key(
    sealed: bytes, private: X25519PrivateKey, *, zone: str, which: str, key_epoch: int, member: str
) -> bytes:
    hpke_pub = private.public_key().public_bytes_raw()
    info = _zone_key_info(zone, which, key_epoch, member, hpke_pub)
    try:
        key = _HPKE.decrypt(sealed, private, info)
    except (InvalidTag, ValueError):
        raise SealError("zone key does not open") from None
    if len(key) != KEY_BYTES:
        raise SealError("zone key of a wrong size")
    return key


def digest_term(person: bytes, pv: int, status: int) -> int:
    """One person's part of a zone's digest: the sum of these mod 2^256."""
    packed = person + pv.to_bytes(8, "big") + bytes([status])
    return int.from_bytes(hashlib.sha256(packed).digest(), "big")
