"""What `roster serve` does not believe, and what it is when a fault is its own: dropped, counted,
acknowledged, and the next message is answered."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from office import ZONE
from served import D_UP, DESK, EVENTS, GATE, STATUS, UP, Served, hello, served, status

from edge import wire
from edge.envelope import HEADER, encode
from edge.wire import Type
from enroll.roster.serve import LOOK_EVERY_S

__all__ = ["served"]


def _garbage(served: Served) -> dict[str, tuple[str, str, bytes]]:
    """name -> (why it must be dropped, topic, message)"""
    good = served.signed(Type.HELLO, hello(), GATE)
    stranger = Ed25519PrivateKey.generate()
    forged = encode(Type.HELLO, hello(), stranger, direction="up", target=GATE)
    pull = wire.Pull(zone=ZONE, epoch=1, from_seq=1)
    flipped = good[:-1] + bytes([good[-1] ^ 1])
    office = served.office.authority.trust_bytes()
    events = wire.Events(
        zone=ZONE, key_epoch=1, first_no=1, count=1, prev_hash=bytes(32), sealed=b""
    )
    beacon = encode(
        Type.BEACON,
        served.office.authority.next_beacon(ZONE),
        served.office.authority.keys.beacon,
        direction="up",
        target=GATE,
    )
    return {
        "noise": ("header", UP, os.urandom(60)),
        "long noise": ("header", UP, os.urandom(5000)),
        "nothing": ("header", UP, b""),
        "header only": ("key", UP, HEADER.pack(b"mj", 1, Type.HELLO, bytes(8), bytes(64))),
        "another version": ("version", UP, good[:2] + b"\x09" + good[3:]),
        "an unknown type": ("type", UP, good[:3] + b"\xf0" + good[4:]),
        "too large": ("size", UP, good + bytes(300_000)),
        "a stranger's": ("key", UP, forged),
        "altered": ("signature", UP, flipped),
        "moved to another gate": ("member", wire.gate_topic("gate-2", "up"), good),
        "on a desk's topic": ("member", wire.desk_topic(GATE, "up"), good),
        "meant for below": (
            "signature",
            UP,
            served.signed(Type.PULL, pull, GATE, direction="down"),
        ),
        "a gate that enrols": (
            "role",
            UP,
            served.signed(Type.ENROL, served.office.enrol_body("x", "T"), GATE),
        ),
        "a desk that pulls": ("role", D_UP, served.signed(Type.PULL, pull, DESK)),
        "the office's own": ("member", UP, beacon),
        "root's": ("member", UP, office),
        "events beside their topic": ("topic", UP, served.signed(Type.EVENTS, events, GATE)),
        "a hello among events": ("topic", EVENTS, good),
        "on no topic of ours": ("topic", "mj/1/g/gate-1", good),
        "of other fields": ("fields", UP, _other_fields(served)),
    }


def _other_fields(served: Served) -> bytes:
    """Signed well; the body is another type's."""
    pull = wire.Pull(zone=ZONE, epoch=1, from_seq=1)
    return served.signed(Type.RECEIPT, pull, GATE)


GARBAGE = (
    "noise",
    "long noise",
    "nothing",
    "header only",
    "another version",
    "an unknown type",
    "too large",
    "a stranger's",
    "altered",
    "moved to another gate",
    "on a desk's topic",
    "meant for below",
    "a gate that enrols",
    "a desk that pulls",
    "the office's own",
    "root's",
    "events beside their topic",
    "a hello among events",
    "on no topic of ours",
    "of other fields",
)


@pytest.mark.parametrize("name", GARBAGE)
def test_what_cannot_be_believed_is_dropped_counted_and_acknowledged(
    served: Served, name: str
) -> None:
    why, topic, raw = _garbage(served)[name]
    served.say(topic, raw)
    assert dict(served.serve.counts) == {why: 1}
    assert served.line.sent == [] and served.acks == 1
    served.say(UP, served.signed(Type.HELLO, hello(), GATE))
    assert "ZONEKEY" in served.kinds(wire.gate_topic(GATE, "down"))


def test_every_kind_of_garbage_is_tried(served: Served) -> None:
    assert set(_garbage(served)) == set(GARBAGE)


def test_a_fault_of_ours_ends_nothing(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bool:
        raise OSError("disk full")

    monkeypatch.setattr(served.office.authority, "put_status", broken)
    served.say(STATUS, served.signed(Type.STATUS, status(), GATE))
    assert served.serve.counts["fault"] == 1 and served.acks == 1
    served.say(UP, served.signed(Type.HELLO, hello(), GATE))
    assert served.kinds(wire.gate_topic(GATE, "down"))


@pytest.mark.parametrize(
    ("kind", "who"), [(Type.WITHDRAW, DESK), (Type.RESEAL, DESK), (Type.GET_CHUNK, GATE)]
)
def test_what_is_not_built_is_refused_aloud(served: Served, kind: Type, who: str) -> None:
    topic, down = (D_UP, "d") if who == DESK else (UP, "g")
    body = wire.Pull(zone=ZONE, epoch=1, from_seq=1)  # any: it is not looked into
    served.say(topic, served.signed(kind, body, who))
    (message,) = served.take(f"mj/1/{down}/{who}/down")
    refused = message.expect(wire.Refused)
    assert (refused.what, refused.reason) == (kind.name.lower(), "not_built")


def test_a_member_who_joined_just_now_is_believed(served: Served) -> None:
    served.say(UP, served.signed(Type.HELLO, hello(), GATE))  # the members are known by now
    served.office.add("gate-new", "gate", [ZONE])
    served.office.clock.now += LOOK_EVERY_S
    served.say("mj/1/g/gate-new/up", served.signed(Type.HELLO, hello(), "gate-new"))
    assert "ZONEKEY" in served.kinds("mj/1/g/gate-new/down")
