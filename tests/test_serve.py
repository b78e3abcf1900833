"""What `roster serve` answers and tells, message by message: a real authority, a line that keeps
what is published. Whole, over a broker: test_serve_live."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from office import ZONE, OfficeKit, make_office, receipt

from edge import seal, wire
from edge.envelope import HEADER, Message, decode, encode
from edge.link import Received
from edge.wire import Body, Type
from enroll.roster.bell import Bell
from enroll.roster.serve import BEACON_EVERY_S, LOOK_EVERY_S, Serve, subscriptions

GATE, DESK, TENANCY = "gate-1", "desk-1", "T-1"
UP, D_UP = wire.gate_topic(GATE, "up"), wire.desk_topic(DESK, "up")
EVENTS, STATUS = wire.gate_topic(GATE, "events"), wire.gate_topic(GATE, "status")


@dataclass
class KeepingLine:
    """Takes what is published, as long as it is up."""

    connected: bool = True
    sent: list[tuple[str, bytes, bool]] = field(default_factory=list)

    def receive(self, timeout: float) -> Received | None:
        return None

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        if self.connected:
            self.sent.append((topic, payload, retain))
        return self.connected


@dataclass
class Served:
    office: OfficeKit
    line: KeepingLine
    serve: Serve
    acks: int = 0

    def say(self, topic: str, raw: bytes) -> None:
        def ack() -> None:
            self.acks += 1

        self.serve._take(Received(topic, raw, False, ack))

    def signed(
        self, kind: Type, body: Body, who: str, *, direction: str = "up", target: str = ""
    ) -> bytes:
        key = self.office.boxes[who].sign
        return encode(kind, body, key, direction=direction, target=target or who)  # type: ignore[arg-type]

    def look(self, after_s: float = 0.0) -> None:
        self.office.clock.now += after_s
        self.serve._look()

    def take(self, topic: str) -> list[Message]:
        """What was sent there, verified as its receiver does."""
        target = topic.split("/")[3]
        raws = [raw for where, raw, _ in self.line.sent if where == topic]
        self.line.sent = [item for item in self.line.sent if item[0] != topic]
        return [self.verified(raw, target) for raw in raws]

    def verified(self, raw: bytes, target: str) -> Message:
        return decode(raw, self.office.authority.keyring(), direction="down", target=target)

    def kinds(self, topic: str) -> list[str]:
        return [message.kind.name for message in self.take(topic)]

    def enrolled(self, internal_id: str = "wang", tenancy: str = TENANCY) -> None:
        authority = self.office.authority
        if tenancy not in [t.tenancy for t in authority.tenancies()]:
            authority.add_tenancy(tenancy, ZONE, "3-1201", None, None, 4)
        authority.enrol(DESK, [ZONE], self.office.enrol_body(internal_id, tenancy))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    office = make_office(tmp_path)
    office.authority.add_zone("other")
    office.add(GATE, "gate", [ZONE])
    office.add("gate-2", "gate", [ZONE])
    office.add(DESK, "desk", [ZONE])
    office.add("desk-far", "desk", ["other"])
    line = KeepingLine()
    serve = Serve(office.authority, line, office.clock, threading.Event())
    serve._told = dict.fromkeys(office.authority.zones(), 0)
    yield Served(office, line, serve)
    office.authority.close()


def hello(kcvs: list[bytes] | None = None, nonce: bytes = bytes(16)) -> wire.Hello:
    return wire.Hello(session=bytes(8), boot_id=bytes(16), nonce=nonce, kcvs=kcvs or [], at=1)


def status() -> wire.StatusBody:
    return wire.StatusBody(session=bytes(8), state="online", at=1)


# what is dropped


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


# hello


def test_a_gate_gets_its_papers_and_no_other_gates(served: Served) -> None:
    served.say(UP, served.signed(Type.HELLO, hello(), GATE))
    sent = served.take(wire.gate_topic(GATE, "down"))
    assert sent[0].kind is Type.TRUST
    members = {m.body.id for m in sent if isinstance(m.body, wire.Member)}
    assert members == {GATE, DESK}
    keys = [m.body for m in sent if isinstance(m.body, wire.ZoneKey)]
    assert [(key.zone, key.which) for key in keys] == [(ZONE, "kr")]


def test_a_gate_gets_no_key_it_holds(served: Served) -> None:
    held = seal.kcv(served.office.authority.secrets_of(ZONE).kr)
    served.say(UP, served.signed(Type.HELLO, hello([held]), GATE))
    assert "ZONEKEY" not in served.kinds(wire.gate_topic(GATE, "down"))


def test_a_desk_gets_everything_of_its_zones_and_then_the_word(served: Served) -> None:
    nonce = os.urandom(16)
    served.say(D_UP, served.signed(Type.HELLO, hello(nonce=nonce), DESK))
    sent = served.take(wire.desk_topic(DESK, "down"))
    members = {m.body.id for m in sent if isinstance(m.body, wire.Member)}
    assert members == {GATE, "gate-2", DESK}, "not the desk of another zone"
    keys = {(m.body.zone, m.body.which) for m in sent if isinstance(m.body, wire.ZoneKey)}
    assert keys == {(ZONE, "kr"), (ZONE, "zs")}
    assert sent[-1].expect(wire.Accepted) == wire.Accepted(request=nonce, what="hello")


# pull, receipts, events, status


def test_a_pull_is_answered_with_the_page(served: Served) -> None:
    served.enrolled()
    pull = wire.Pull(zone=ZONE, epoch=1, from_seq=1)
    served.say(UP, served.signed(Type.PULL, pull, GATE))
    (message,) = served.take(wire.gate_topic(GATE, "down"))
    page = message.expect(wire.Page)
    assert (page.first_seq, len(page.ops), page.head_seq) == (1, 1, 1)


def test_a_pull_below_the_floor_is_told_so(served: Served) -> None:
    served.enrolled()
    served.office.authority._store.update("zones", ZONE, {"floor_seq": 1})
    pull = wire.Pull(zone=ZONE, epoch=1, from_seq=1)
    served.say(UP, served.signed(Type.PULL, pull, GATE))
    assert served.kinds(wire.gate_topic(GATE, "down")) == ["GONE"]


def test_a_gate_pulls_its_own_zones_only(served: Served) -> None:
    pull = wire.Pull(zone="other", epoch=1, from_seq=1)
    served.say(UP, served.signed(Type.PULL, pull, GATE))
    (message,) = served.take(wire.gate_topic(GATE, "down"))
    assert message.expect(wire.Refused).reason == "wrong_zone"


def test_a_receipt_is_kept(served: Served) -> None:
    served.enrolled()
    change = served.office.authority.revoke(TENANCY, "notice", "front")
    body = receipt(served.office, change.last_seq)
    assert served.office.authority.enforced(change).missing == (GATE, "gate-2")
    served.say(UP, served.signed(Type.RECEIPT, body, GATE))
    assert served.office.authority.enforced(change).missing == ("gate-2",)


def test_a_receipt_of_another_roster_is_counted_and_proves_nothing(served: Served) -> None:
    served.enrolled()
    change = served.office.authority.revoke(TENANCY, "notice", "front")
    body = receipt(served.office, change.last_seq, chain_hash=bytes(32))
    served.say(UP, served.signed(Type.RECEIPT, body, GATE))
    assert served.serve.counts["diverged"] == 1
    assert GATE in served.office.authority.enforced(change).missing


def test_status_is_kept(served: Served) -> None:
    served.say(STATUS, served.signed(Type.STATUS, status(), GATE))
    assert [s.gate for s in served.office.authority.statuses()] == [GATE]


# keys and enrolment


def _keys(served: Served, key: bytes, member: str = GATE) -> wire.Keys:
    box = served.office.boxes[member]
    place = {"zone": ZONE, "key_epoch": 1, "member": member}
    sealed = seal.wrap_zone_key(
        key, which="kf", hpke_pub=box.hpke.public_key().public_bytes_raw(), **place
    )
    body = wire.ZoneKey(which="kf", kcv=seal.kcv(key), sealed=sealed, **place)  # type: ignore[arg-type]
    signed = served.signed(Type.ZONEKEY, body, DESK, direction="down", target=member)
    return wire.Keys(request=os.urandom(16), items=[wire.KeyFor(member=member, message=signed)])


def test_a_face_key_goes_on_to_its_gate_after_the_paper_of_who_signed_it(served: Served) -> None:
    keys = _keys(served, os.urandom(32))
    served.say(D_UP, served.signed(Type.KEYS, keys, DESK))
    sent = served.take(wire.gate_topic(GATE, "down"))
    assert [m.kind for m in sent] == [Type.MEMBER, Type.ZONEKEY]
    assert sent[0].expect(wire.Member).id == DESK
    assert sent[1].raw == keys.items[0].message
    (message,) = served.take(wire.desk_topic(DESK, "down"))
    assert message.expect(wire.Accepted).request == keys.request


def test_a_second_face_key_is_refused_and_not_handed_on(served: Served) -> None:
    served.say(D_UP, served.signed(Type.KEYS, _keys(served, os.urandom(32)), DESK))
    served.line.sent.clear()
    second = _keys(served, os.urandom(32), "gate-2")
    served.say(D_UP, served.signed(Type.KEYS, second, DESK))
    (message,) = served.take(wire.desk_topic(DESK, "down"))
    refused = message.expect(wire.Refused)
    assert (refused.request, refused.reason) == (second.request, "second_kcv")
    assert served.line.sent == []


def test_an_enrolment_is_accepted_and_told_to_the_zone(served: Served) -> None:
    served.office.authority.add_tenancy(TENANCY, ZONE, "3-1201", None, None, 1)
    body = served.office.enrol_body("wang", TENANCY)
    served.say(D_UP, served.signed(Type.ENROL, body, DESK))
    (message,) = served.take(wire.desk_topic(DESK, "down"))
    assert message.expect(wire.Accepted) == wire.Accepted(request=body.request, what="enrol")
    served.look()
    assert served.kinds(wire.zone_topic(ZONE, "log")) == ["DELTA"]


def test_a_refused_enrolment_says_one_word_and_names_nobody(served: Served) -> None:
    body = served.office.enrol_body("wang", "T-unknown")
    served.say(D_UP, served.signed(Type.ENROL, body, DESK))
    (message,) = served.take(wire.desk_topic(DESK, "down"))
    refused = message.expect(wire.Refused)
    assert (refused.request, refused.reason) == (body.request, "tenancy_unknown")


# the log and the beacons

LOG, BEACON = wire.zone_topic(ZONE, "log"), wire.zone_topic(ZONE, "beacon")


def test_without_a_poke_a_change_is_seen_within_a_second(served: Served) -> None:
    served.look()
    served.enrolled()
    served.look(LOOK_EVERY_S * 0.9)
    assert served.kinds(LOG) == []
    served.look(LOOK_EVERY_S * 0.2)
    assert served.kinds(LOG) == ["DELTA"]


def test_a_poke_is_heeded_at_once(served: Served) -> None:
    served.look()
    served.enrolled()
    served.serve.poked.set()
    served.look()
    assert served.kinds(LOG) == ["DELTA"]


def test_a_revocation_is_followed_by_a_beacon_that_carries_it(served: Served) -> None:
    served.enrolled()
    served.look()
    served.take(LOG)
    served.take(BEACON)
    served.office.authority.revoke(TENANCY, "notice", "front")
    served.serve.poked.set()
    served.look()
    (delta,), (beacon,) = served.take(LOG), served.take(BEACON)
    assert beacon.expect(wire.Beacon).recent == [delta.raw]


def test_an_enrolment_waits_for_the_next_beacon(served: Served) -> None:
    served.look()
    served.take(BEACON)
    served.enrolled()
    served.look(LOOK_EVERY_S)
    assert served.kinds(BEACON) == []


def test_a_beacon_every_ten_seconds_each_newer_and_retained(served: Served) -> None:
    numbers = []
    for wait in (0.0, BEACON_EVERY_S - 1.0, 1.1, BEACON_EVERY_S):
        served.look(wait)
        assert all(retained for topic, _, retained in served.line.sent if topic == BEACON)
        numbers.append([m.expect(wire.Beacon).n for m in served.take(BEACON)])
    assert [len(n) for n in numbers] == [1, 0, 1, 1]
    assert sorted(flat := [n for found in numbers for n in found]) == flat


def test_what_changes_while_the_broker_is_away_is_told_when_it_is_back(served: Served) -> None:
    served.look()
    served.line.connected = False
    served.enrolled()
    served.look(LOOK_EVERY_S)
    served.line.connected = True
    served.look(LOOK_EVERY_S)
    assert served.kinds(LOG) == ["DELTA"]
    served.look(LOOK_EVERY_S)
    assert served.kinds(LOG) == [], "once"


def test_a_zone_made_while_we_serve_is_told_of(served: Served) -> None:
    served.look()
    served.office.authority.add_zone("new")
    served.look(LOOK_EVERY_S)
    assert served.kinds(wire.zone_topic("new", "beacon")) == ["BEACON"]


def test_beacons_and_acks_are_signed_by_the_beacon_key_and_all_else_is_not(
    served: Served,
) -> None:
    served.enrolled()
    served.look()
    roles = {m.kind: m.signer.role for topic in (LOG, BEACON) for m in served.take(topic)}
    assert roles == {Type.DELTA: wire.Role.ROSTER, Type.BEACON: wire.Role.BEACON}


# where it listens


def test_status_is_heard_outside_the_shared_group() -> None:
    """Retained messages are not delivered to a shared subscription."""
    assert subscriptions("authority") == [
        "$share/authority/mj/1/g/+/up",
        "$share/authority/mj/1/g/+/events",
        "$share/authority/mj/1/d/+/up",
        "mj/1/g/+/status",
    ]
    assert not any(topic.startswith("$share") for topic in subscriptions(""))


def test_the_bell_rings_and_takes_its_socket_with_it(tmp_path: Path) -> None:
    kit = make_office(tmp_path)
    rung = threading.Semaphore(0)
    bell = Bell(kit.home.serve_socket, rung.release)
    bell.start()
    kit.home.poke()
    assert rung.acquire(timeout=5)
    bell.stop()
    assert not kit.home.serve_socket.exists()
    kit.home.poke()  # nobody there: nothing happens
    kit.authority.close()


def test_where_no_bell_can_hang_serve_goes_on(tmp_path: Path) -> None:
    bell = Bell(tmp_path / ("x" * 120), lambda: None)
    bell.start()
    bell.stop()
