"""How a message is signed, and checked before anything in it is believed. Pure.

A message is  "mj" | version u8 | type u8 | key_id 8 B | Ed25519 signature 64 B | body (CBOR).
Signed is  "mj1\\0" | type u8 | len u16 | context | key_id | body,  where the context names the
direction and the addressee, so that nothing can be moved elsewhere. The order of checks is the
law here: size -> key and role -> signature -> CBOR -> fields.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import ValidationError

from edge import wire
from edge.wire import Body, Member, Role, Trust, Type

HEADER = struct.Struct("!2sBB8s64s")
MAGIC, VERSION = b"mj", 1
PLACE_CHARS_MAX = 80
BodyT = TypeVar("BodyT", bound=Body)
Direction = Literal["up", "down"]


class WireError(ValueError):
    """A message that must be dropped. `why` is one short word for the counter."""

    def __init__(self, why: str, detail: str = "") -> None:
        super().__init__(f"{why}: {detail}" if detail else why)
        self.why = why


@dataclass(frozen=True, slots=True)
class Signer:
    """Whose key signed: a role, and for desks and gates the member's id and zones."""

    role: Role
    member: str = ""
    zones: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Message:
    """A verified message. `body` is None for a type whose time has not come (wire.NOT_BUILT)."""

    kind: Type
    signer: Signer
    body: Body | None
    raw: bytes

    def expect(self, model: type[BodyT]) -> BodyT:
        if not isinstance(self.body, model):
            raise WireError("type", f"{self.kind.name} where {model.__name__} belongs")
        return self.body


def key_id(public: bytes) -> bytes:
    return hashlib.sha256(public).digest()[:8]


@dataclass(frozen=True, slots=True)
class Keyring:
    """Whom we believe, by key id. Built anew from a root key, a TRUST and MEMBERs."""

    keys: Mapping[bytes, tuple[Signer, bytes]] = field(default_factory=dict)

    @staticmethod
    def build(root: bytes, trust: Trust | None, members: Mapping[str, Member]) -> Keyring:
        """Weakest first: a member registered with a key of the office displaces nobody."""
        keys: dict[bytes, tuple[Signer, bytes]] = {}
        for member in members.values():
            if not member.struck:
                signer = Signer(Role(member.role), member.id, frozenset(member.zones))
                keys[key_id(member.sign_pub)] = (signer, member.sign_pub)
        for entry in trust.keys if trust else ():
            keys[key_id(entry.pub)] = (Signer(Role(entry.role)), entry.pub)
        keys[key_id(root)] = (Signer(Role.ROOT), root)
        return Keyring(keys)


def _context(kind: Type, direction: Direction, target: str) -> bytes:
    return b"down:*" if kind in wire.FOR_ALL else f"{direction}:{target}".encode()


def _signed_part(kind: Type, context: bytes, signing_key_id: bytes, body: bytes) -> bytes:
    return b"mj1\0" + struct.pack("!BH", kind, len(context)) + context + signing_key_id + body


def encode(
    kind: Type, body: Body, key: Ed25519PrivateKey, *, direction: Direction, target: str
) -> bytes:
    """Sign `body` for one addressee: the id of a zone, gate or desk."""
    payload = cbor2.dumps(body.model_dump(exclude_defaults=True), canonical=True)
    signing_key_id = key_id(key.public_key().public_bytes_raw())
    context = _context(kind, direction, target)
    signature = key.sign(_signed_part(kind, context, signing_key_id, payload))
    message = HEADER.pack(MAGIC, VERSION, kind, signing_key_id, signature) + payload
    if len(message) > cap_bytes(kind):
        raise WireError("size", f"{kind.name} of {len(message)} B is over {cap_bytes(kind)} B")
    return message


def cap_bytes(kind: Type) -> int:
    return wire.CAPS_BYTES.get(kind, wire.DEFAULT_CAP_BYTES)


def decode(raw: bytes, keyring: Keyring, *, direction: Direction, target: str) -> Message:
    """Check `raw` as addressed to `target` (which the receiver knows from the topic).

    Raises WireError(why) with why in: size, header, version, type, key, role, member, signature,
    cbor, fields.
    """
    kind, signing_key_id, signature, payload = _header(raw)
    signer, public = _signer(kind, signing_key_id, keyring)
    if signer.member and direction == "up" and signer.member != target:
        raise WireError("member", f"{signer.member} speaks for {target}")
    signed = _signed_part(kind, _context(kind, direction, target), signing_key_id, payload)
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, signed)
    except InvalidSignature:
        raise WireError("signature", kind.name) from None
    body = None if kind in wire.NOT_BUILT else parse(wire.BODIES[kind], payload)
    return Message(kind, signer, body, raw)


def _header(raw: bytes) -> tuple[Type, bytes, bytes, bytes]:
    if len(raw) < HEADER.size:
        raise WireError("header", f"{len(raw)} B")
    magic, version, number, signing_key_id, signature = HEADER.unpack_from(raw)
    if magic != MAGIC:
        raise WireError("header", "not mj")
    if version != VERSION:
        raise WireError("version", str(version))
    try:
        kind = Type(number)
    except ValueError:
        raise WireError("type", str(number)) from None
    if len(raw) > cap_bytes(kind):
        raise WireError("size", f"{kind.name} of {len(raw)} B")
    return kind, signing_key_id, signature, raw[HEADER.size :]


def _signer(kind: Type, signing_key_id: bytes, keyring: Keyring) -> tuple[Signer, bytes]:
    known = keyring.keys.get(signing_key_id)
    if known is None:
        raise WireError("key", f"unknown signer of {kind.name}")
    if known[0].role not in wire.SIGNERS[kind]:
        raise WireError("role", f"{known[0].role} may not sign {kind.name}")
    return known


def parse(model: type[BodyT], payload: bytes) -> BodyT:
    """CBOR -> checked fields; also used for what travels sealed inside a message.

    Only canonical CBOR is taken: one body has one encoding, with nothing after it.
    """
    try:
        value = cbor2.loads(payload)
    except (cbor2.CBORDecodeError, ValueError, RecursionError, MemoryError, OverflowError):
        raise WireError("cbor", model.__name__) from None
    try:
        body = model.model_validate(value)
    except ValidationError as error:
        raise WireError("fields", f"{model.__name__}.{_place(error)}") from None
    except RecursionError:
        raise WireError("fields", model.__name__) from None
    if cbor2.dumps(value, canonical=True) != payload:
        raise WireError("cbor", f"{model.__name__} not canonical")
    return body


def _place(error: ValidationError) -> str:
    """The first bad field; short and on one line, for the sender may have named it."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    named = ".".join(map(str, first["loc"]))[:PLACE_CHARS_MAX]
    return named.encode("unicode_escape").decode("ascii")


def dump(body: Body) -> bytes:
    """Canonical CBOR of a body that travels inside another (an op, rights, a request)."""
    return cbor2.dumps(body.model_dump(exclude_defaults=True), canonical=True)


def dump_op(op: wire.Op) -> bytes:
    """An op as the log keeps it, padded so that its size does not tell what it holds."""
    shortest = len(dump(op.model_copy(update={"pad": b"\0"})))
    target = -(-shortest // wire.OP_STEP_BYTES) * wire.OP_STEP_BYTES
    while True:  # the pad's own length field grows by 0..2 B, so one of three lengths fits
        for shrink in range(3):
            size = target - shortest + 1 - shrink
            data = dump(op.model_copy(update={"pad": bytes(max(size, 1))}))
            if len(data) == target:
                return data
        target += wire.OP_STEP_BYTES


def chain(previous: bytes, op_bytes: bytes) -> bytes:
    """h_n = SHA-256(h_{n-1} || op bytes)."""
    return hashlib.sha256(previous + op_bytes).digest()
