"""What `roster serve` answers and tells, message by message: a real authority, a line that keeps
what is published. What it drops: test_serve_garbage; whole, over a broker: test_serve_live."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from office import ZONE, make_office, receipt
from served import D_UP, DESK, GATE, STATUS, TENANCY, UP, Served, hello, served, status

from edge import seal, wire
from edge.link import Received
from edge.wire import Type
from enroll.roster.authority import Authority
from enroll.roster.bell import Bell
from enroll.roster.serve import BEACON_EVERY_S, LOOK_EVERY_S, subscriptions

__all__ = ["served"]


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


def test_a_message_is_acknowledged_when_its_consequences_are_on_the_disk(
    served: Served,
) -> None:
    served.enrolled()
    change = served.office.authority.revoke(TENANCY, "notice", "front")
    raw = served.signed(Type.RECEIPT, receipt(served.office, change.last_seq), GATE)
    seen: list[tuple[str, ...]] = []

    def ack() -> None:
        with Authority.open(served.office.home, served.office.clock) as another:
            seen.append(another.enforced(change).missing)

    served.serve._take(Received(UP, raw, False, ack))
    assert seen == [("gate-2",)]


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


def test_what_the_line_has_no_room_for_is_told_later_and_in_order(served: Served) -> None:
    for person in ("one", "two", "three"):
        served.enrolled(person)
    served.line.room = 1
    served.look()
    first = served.take(LOG)
    served.line.room = 1000
    served.look(LOOK_EVERY_S)
    told = [m.expect(wire.Delta).first_seq for m in first + served.take(LOG)]
    assert (len(first), told) == (1, [1, 2, 3])


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
