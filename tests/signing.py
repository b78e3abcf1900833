"""Keys of every role, a keyring that believes them, and messages made by hand."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge import wire
from edge.envelope import Direction, Keyring, Message, WireError, decode, dump, dump_op, key_id
from edge.wire import Body, Member, Op, Role, Trust, TrustKey, Type

KEYS = {role: Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n, role in enumerate(Role)}
GATE_2 = Ed25519PrivateKey.from_private_bytes(b"2" * 32)
STRANGER = Ed25519PrivateKey.from_private_bytes(b"s" * 32)


def pub(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def member(name: str, key: Ed25519PrivateKey, **fields: Any) -> Member:
    role = "desk" if name.startswith("desk") else "gate"
    zones = ["lotus"]
    made = {"id": name, "role": role, "sign_pub": pub(key), "hpke_pub": bytes(32), "zones": zones}
    return Member.model_validate({**made, "version": 1, **fields})


TRUST = Trust(
    version=1,
    keys=[
        TrustKey(role=role.value, pub=pub(KEYS[role]))  # type: ignore[arg-type]
        for role in (Role.REGISTRAR, Role.ROSTER, Role.BEACON, Role.COMMAND)
    ],
)
MEMBERS = {
    "gate-1": member("gate-1", KEYS[Role.GATE]),
    "gate-2": member("gate-2", GATE_2),
    "desk-1": member("desk-1", KEYS[Role.DESK]),
}
RING = Keyring.build(pub(KEYS[Role.ROOT]), TRUST, MEMBERS)

BEACON = wire.Beacon(
    zone="lotus", epoch=1, n=5, head_seq=3, head_hash=bytes(32), digest=bytes(32), at=7
)
GONE = wire.Gone(zone="lotus", epoch=1, floor_seq=3)
PULL = wire.Pull(zone="lotus", epoch=1, from_seq=4)
OP = Op(op="revoke", person=b"a" * 16, pv=2, grant_ids=["g1"])
DELTA = wire.Delta(zone="lotus", epoch=1, first_seq=1, prev_hash=bytes(32), ops=[dump_op(OP)], at=7)
SAMPLES: list[tuple[Type, Body, Role, Direction, str]] = [
    (Type.BEACON, BEACON, Role.BEACON, "down", "lotus"),
    (Type.DELTA, DELTA, Role.ROSTER, "down", "lotus"),
    (Type.PULL, PULL, Role.GATE, "up", "gate-1"),
    (Type.MEMBER, MEMBERS["gate-1"], Role.REGISTRAR, "down", "gate-1"),
    (Type.TRUST, TRUST, Role.ROOT, "down", "gate-1"),
]


def signed(
    kind: Type,
    payload: bytes,
    key: Ed25519PrivateKey,
    context: str = "down:lotus",
    claims: bytes | None = None,
) -> bytes:
    """A message made by hand from the words of the protocol, with any payload whatever."""
    name = key_id(claims if claims is not None else pub(key))
    context = "down:*" if kind in wire.FOR_ALL else context
    part = b"mj1\0" + bytes([kind]) + len(context).to_bytes(2, "big") + context.encode()
    signature = key.sign(part + name + payload)
    return b"mj" + bytes([1, kind]) + name + signature + payload


def why(raw: bytes, direction: Direction = "down", target: str = "lotus") -> str:
    with pytest.raises(WireError) as caught:
        decode(raw, RING, direction=direction, target=target)
    assert "\n" not in str(caught.value)
    return caught.value.why


def open_(raw: bytes, direction: Direction = "down", target: str = "lotus") -> Message:
    return decode(raw, RING, direction=direction, target=target)


GOOD = signed(Type.GONE, dump(GONE), KEYS[Role.ROSTER])
