"""The rules at the gate, message by message: what takes away holds at once, what gives waits for
its place, and nothing that is old, moved, forged or half there changes a right."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gatekit import DESK, GATE, ZONE, GateBox, Office, person

from edge import wire
from edge.envelope import HEADER, chain, dump_op
from edge.roster import PV_LEAP_MAX
from edge.terms import EventKind, Lease, Reason, ZoneId
from edge.trail import Row
from edge.wire import Op, Role, Type

GRANTED, REVOKED, UNKNOWN = Reason.GRANTED, Reason.REVOKED, Reason.NOT_IN_ROSTER


@pytest.fixture
def office() -> Office:
    return Office()


@pytest.fixture
def gate(tmp_path: Path, office: Office) -> Iterator[GateBox]:
    made = GateBox(tmp_path, office)
    made.sent()
    yield made
    made.close()


# --- in order ---


def test_a_put_lets_in_and_is_receipted(gate: GateBox, office: Office) -> None:
    gate.log(office.put(1, 1))
    assert (gate.says(1), gate.knows_face(1)) == (GRANTED, True)
    receipt = gate.sent()[0].expect(wire.Receipt)
    assert (receipt.applied_seq, receipt.chain_hash) == (1, office.hashes[1])
    assert receipt.digest == office.truth.digest.to_bytes(32, "big")


def test_a_revocation_locks_out_erases_and_is_receipted(gate: GateBox, office: Office) -> None:
    gate.log(office.put(1, 1))
    gate.log(office.revoke(1, 2))
    assert (gate.says(1), gate.knows_face(1)) == (REVOKED, False)
    assert gate.sent()[-1].expect(wire.Receipt).applied_seq == 2
    assert EventKind.ERASED in [event.kind for event in gate.trail.events]


def test_one_of_two_tenancies_ends(gate: GateBox, office: Office) -> None:
    gate.log(office.put(1, 1, grants=("a", "b")))
    gate.log(office.revoke(1, 2, "a"))
    assert (gate.says(1), gate.knows_face(1)) == (GRANTED, True)
    gate.log(office.revoke(1, 3, "b"))
    assert gate.says(1) is REVOKED


def test_a_suspension_keeps_the_face_and_a_put_ends_it(gate: GateBox, office: Office) -> None:
    gate.log(office.put(1, 1))
    gate.log(office.revoke(1, 2, suspend=True))
    assert (gate.says(1), gate.knows_face(1)) == (Reason.SUSPENDED, True)
    gate.log(office.put(1, 3))
    assert gate.says(1) is GRANTED


def test_all_of_it_is_there_after_a_restart(gate: GateBox, office: Office) -> None:
    gate.log(office.put(1, 1))
    gate.log(office.put(2, 1))
    gate.log(office.revoke(2, 2))
    before = gate.roster
    gate.restart()
    assert gate.roster == before
    assert (gate.says(1), gate.says(2), gate.knows_face(1)) == (GRANTED, REVOKED, True)


# --- out of order ---


def test_the_same_delta_twice_changes_nothing(gate: GateBox, office: Office) -> None:
    first = office.put(1, 1)
    gate.log(first)
    before = gate.roster
    gate.sent()
    gate.log(first)
    assert gate.roster == before
    assert gate.kinds() == [Type.RECEIPT]


def test_a_gap_is_pulled_and_a_put_behind_it_waits(gate: GateBox, office: Office) -> None:
    office.put(1, 1)
    gate.log(office.put(2, 1))
    assert (gate.says(2), gate.roster.applied_seq) == (UNKNOWN, 0)
    assert gate.pulls() == [1]
    gate.down(office.page(1))
    assert (gate.says(1), gate.says(2)) == (GRANTED, GRANTED)


def test_a_revocation_behind_a_gap_holds_at_once(gate: GateBox, office: Office) -> None:
    gate.log(office.put(1, 1))
    office.put(2, 1)
    gate.sent()
    gate.log(office.revoke(1, 2))
    assert (gate.says(1), gate.roster.applied_seq) == (REVOKED, 1)
    receipt, pull = (message.body for message in gate.sent())
    assert isinstance(receipt, wire.Receipt) and isinstance(pull, wire.Pull)
    assert (receipt.applied_seq, receipt.early, pull.from_seq) == (1, [3], 2)
    gate.restart()
    assert gate.says(1) is REVOKED, "also after a restart"
    gate.down(office.page(2))
    assert (gate.says(1), gate.roster) == (REVOKED, office.truth)


def test_a_revocation_comes_before_the_person(gate: GateBox, office: Office) -> None:
    put, revoke = office.put(1, 1), office.revoke(1, 2)
    gate.log(revoke)
    gate.log(put)
    assert gate.says(1) is REVOKED
    gate.down(office.page(2))
    assert gate.says(1) is REVOKED


def test_a_put_after_the_revocation_ahead_lets_in_again(gate: GateBox, office: Office) -> None:
    gate.log(office.put(1, 1))
    office.put(2, 1)
    gate.log(office.revoke(1, 2))
    office.put(1, 3)
    gate.down(office.page(2))
    assert gate.says(1) is GRANTED


def test_pages_overlap_and_come_in_pieces(gate: GateBox, office: Office) -> None:
    for number in range(1, 9):
        office.put(number, 1)
    gate.down(office.page(1, 3))
    assert gate.pulls() == [4]
    gate.down(office.page(2, 5))
    assert gate.roster.applied_seq == 6
    gate.down(office.page(7))
    assert gate.roster == office.truth


def test_a_log_that_contradicts_the_announcement_is_told(gate: GateBox, office: Office) -> None:
    """The announced revocation is dropped when its place in the log turns out to be another's."""
    gate.log(office.put(1, 1))
    office.put(2, 1)
    announced = office.revoke(1, 2)
    gate.log(announced)
    assert gate.says(1) is REVOKED
    office.log.pop(), office.hashes.pop()
    office.truth = gate.roster
    rewritten = dump_op(Op(op="revoke", person=person(9), pv=1))
    office.log.append(rewritten)
    office.hashes.append(chain(office.hashes[-1], rewritten))
    gate.down(office.page(2))
    assert gate.says(1) is GRANTED
    assert gate.replica.counts["equivocation"] == 1
    assert "equivocation" in gate.replica.standing_faults().values()


def test_another_history_is_not_applied(gate: GateBox, tmp_path: Path, office: Office) -> None:
    gate.log(office.put(1, 1))
    other = Office(gate_sign=office.gate_sign, gate_hpke=office.gate_hpke, keys=office.keys,
                   kr=office.kr, kf=office.kf)  # fmt: skip
    other.put(2, 1)
    gate.log(other.put(3, 1))
    assert (gate.says(3), gate.roster.applied_seq) == (UNKNOWN, 1)
    assert gate.replica.counts["equivocation"] == 1


@pytest.mark.parametrize(("pv", "why"), [(1, "pv_old"), (3 + PV_LEAP_MAX, "pv_leap")])
def test_a_version_that_cannot_be_changes_no_right(
    gate: GateBox, office: Office, pv: int, why: str
) -> None:
    gate.log(office.put(1, 1))
    gate.log(office.revoke(1, 2))
    gate.log(office.put(1, pv))
    assert gate.says(1) is REVOKED
    assert gate.replica.counts[why] == 1
    assert gate.roster == office.truth


# --- who may say what ---


WRONG = {
    "a flipped bit": "signature",
    "another zone's topic": "signature",
    "a zone that is not ours": "zone",
    "another epoch": "epoch",
    "the beacon's key": "role",
    "a stranger's key": "key",
    "garbage": "header",
    "nothing": "header",
    "a pull that comes down": "key",
}


def wrong(office: Office, what: str) -> tuple[str, bytes]:
    """Topic and message."""
    good, log = office.delta(1), f"z/{ZONE}/log"
    plum = wire.Delta(zone="plum", epoch=1, first_seq=1, prev_hash=bytes(32), ops=[], at=1)
    next_epoch = wire.Delta(zone=ZONE, epoch=2, first_seq=1, prev_hash=bytes(32), ops=[], at=1)
    pull = wire.Pull(zone=ZONE, epoch=1, from_seq=1)
    made = {
        "a flipped bit": (log, good[:-1] + bytes([good[-1] ^ 1])),
        "another zone's topic": ("z/plum/log", good),
        "a zone that is not ours": (
            "z/plum/log",
            office.sign(Type.DELTA, plum, Role.ROSTER, "plum"),
        ),
        "another epoch": (log, office.sign(Type.DELTA, next_epoch, Role.ROSTER, ZONE)),
        "the beacon's key": (log, office.sign(Type.DELTA, next_epoch, Role.BEACON, ZONE)),
        "a stranger's key": (log, Office().sign(Type.DELTA, next_epoch, Role.ROSTER, ZONE)),
        "garbage": (log, bytes(300)),
        "nothing": (log, b""),
        "a pull that comes down": (
            f"g/{GATE}/down",
            office.sign(Type.PULL, pull, Role.GATE, GATE),
        ),
    }
    return made[what]


@pytest.mark.parametrize("what", WRONG)
def test_what_must_not_be_believed_is_dropped_and_counted(
    gate: GateBox, office: Office, what: str
) -> None:
    gate.log(office.put(1, 1))
    topic, raw = wrong(office, what)
    gate.sync.counts.clear()
    gate.take(topic, raw)
    assert dict(gate.sync.counts) == {WRONG[what]: 1}
    assert gate.roster == office.truth
    gate.log(office.put(2, 1))
    assert gate.says(2) is GRANTED, "and the next good one works"


def test_a_flood_of_garbage_does_not_stop_the_next_revocation(
    gate: GateBox, office: Office
) -> None:
    gate.log(office.put(1, 1))
    good = office.revoke(1, 2)
    topics = (f"z/{ZONE}/log", f"z/{ZONE}/beacon", f"g/{GATE}/down", f"g/{GATE}/cmd", "g//", "x")
    gate.sync.counts.clear()
    for number in range(2000):
        data = bytearray(good)
        data[number % len(data)] ^= 1 + number % 255
        gate.take(topics[number % len(topics)], bytes(data[: len(data) - number % 7]))
    assert gate.sync.counts.total() == 2000 and not gate.sync.counts["handler"]
    assert gate.says(1) is GRANTED
    gate.log(good)
    assert gate.says(1) is REVOKED


@pytest.mark.parametrize(
    ("which", "role", "why"),
    [("kf", Role.ROSTER, "role"), ("kr", Role.DESK, "role"), ("kr", Role.BEACON, "role")],
)
def test_who_may_give_a_zone_key(
    tmp_path: Path, office: Office, which: Any, role: Role, why: str
) -> None:
    gate = GateBox(tmp_path, office, keys=())
    gate.down(office.zone_key(which, role=role))
    assert (gate.book.keys, gate.sync.counts[why]) == ({}, 1)
    gate.close()


def test_a_second_key_of_one_epoch_is_refused(gate: GateBox, office: Office) -> None:
    office.kf, before = os.urandom(32), dict(gate.book.keys)
    gate.down(office.zone_key("kf"))
    assert (gate.book.keys, gate.sync.counts["second_kcv"]) == (before, 1)


# --- keys that come late ---


def test_a_put_waits_for_the_rights_key_and_a_revocation_does_not(
    tmp_path: Path, office: Office
) -> None:
    gate = GateBox(tmp_path, office, keys=())
    gate.log(office.put(1, 1))
    gate.log(office.revoke(1, 2))
    gate.log(office.put(2, 1))
    assert (gate.roster.applied_seq, gate.says(2)) == (0, UNKNOWN)
    receipts = [m.body for m in gate.sent() if isinstance(m.body, wire.Receipt)]
    assert (receipts[-1].applied_seq, receipts[-1].early) == (0, [2])
    gate.down(office.zone_key("kr"))
    assert gate.pulls() == [1]
    gate.down(office.page(1))
    assert (gate.says(1), gate.says(2)) == (REVOKED, GRANTED)
    gate.close()


def test_faces_appear_when_the_face_key_comes(tmp_path: Path, office: Office) -> None:
    gate = GateBox(tmp_path, office, keys=("kr",))
    gate.log(office.put(1, 1))
    assert (gate.says(1), gate.knows_face(1)) == (GRANTED, False)
    gate.down(office.zone_key("kf"))
    assert gate.knows_face(1)
    gate.restart()
    assert gate.knows_face(1)
    gate.close()


# --- beacons ---


def test_a_beacon_ahead_of_us_is_pulled_and_renews_nothing(gate: GateBox, office: Office) -> None:
    office.put(1, 1)
    gate.beacon(office.beacon())
    assert gate.pulls() == [1]
    assert gate.live.leases(gate.clock.mono()) == {}
    gate.down(office.page(1))
    gate.beacon(office.beacon())
    assert gate.live.leases(gate.clock.mono()) == {ZONE: Lease.FRESH}


def test_the_lease_grows_old(gate: GateBox, office: Office) -> None:
    gate.beacon(office.beacon())
    ages = []
    for seconds in (30.0, 0.1, 15 * 60 - 30.1, 0.1):
        gate.clock.go(seconds)
        ages.append(gate.live.leases(gate.clock.mono())[ZONE])
    assert ages == [Lease.FRESH, Lease.STALE, Lease.STALE, Lease.RESTRICTED]


def test_what_a_grant_of_class_notice_is_worth_offline(gate: GateBox, office: Office) -> None:
    gate.log(office.put(1, 1, offline="notice"))
    gate.log(office.put(2, 1))
    words = [gate.says(1)]
    gate.beacon(office.beacon())
    for seconds in (30.0, 15 * 60 - 30.0, 0.1):
        gate.clock.go(seconds)
        words.append(gate.says(1))
    assert words == [Reason.NOTICE_NEEDS_FRESH_LEASE, GRANTED, GRANTED, words[0]]
    assert gate.says(2) is GRANTED, "a lawful tenant is not locked out by a cable"
    gate.beacon(office.beacon(), retained=True)
    assert gate.says(1) is words[0]
    gate.beacon(office.beacon())
    assert gate.says(1) is GRANTED
    gate.restart()
    assert gate.says(1) is words[0], "a boot has proved nothing yet"


def test_a_retained_beacon_renews_nothing(gate: GateBox, office: Office) -> None:
    gate.beacon(office.beacon(), retained=True)
    assert gate.live.leases(gate.clock.mono()) == {}


def test_an_old_beacon_is_dropped_also_after_a_restart(gate: GateBox, office: Office) -> None:
    old = office.beacon()
    gate.beacon(office.beacon())
    gate.restart()
    gate.beacon(old)
    assert gate.sync.counts["beacon_old"] == 1
    assert gate.live.leases(gate.clock.mono()) == {}


def test_a_beacon_repeats_a_revocation_that_was_lost(gate: GateBox, office: Office) -> None:
    gate.log(office.put(1, 1))
    office.put(2, 1)
    lost = office.revoke(1, 2)
    gate.beacon(office.beacon(recent=[lost]))
    assert gate.says(1) is REVOKED


def test_a_beacon_cannot_invent_a_revocation(gate: GateBox, office: Office) -> None:
    gate.log(office.put(1, 1))
    body = wire.Delta(
        zone=ZONE, epoch=1, first_seq=2, prev_hash=office.hashes[1], at=1,
        ops=[dump_op(Op(op="revoke", person=person(1), pv=2))],
    )  # fmt: skip
    forged = office.sign(Type.DELTA, body, Role.ROSTER, ZONE)
    stolen = forged[: HEADER.size - 64] + os.urandom(64) + forged[HEADER.size :]
    gate.beacon(office.beacon(recent=[stolen]))
    assert gate.says(1) is GRANTED
    assert gate.replica.counts["recent_signature"] == 1


def test_another_digest_is_a_standing_fault(gate: GateBox, office: Office) -> None:
    gate.log(office.put(1, 1))
    gate.beacon(office.beacon(digest=bytes(32)))
    assert gate.replica.standing_faults() == {ZoneId(ZONE): "digest_divergence"}
    assert gate.live.leases(gate.clock.mono()) == {}


# --- the disk ---


def test_a_full_disk_delays_no_revocation_and_no_receipt_lies(
    gate: GateBox, office: Office
) -> None:
    gate.log(office.put(1, 1))
    gate.sent()
    ask = gate.store._db.conn.execute
    ask("create trigger full before insert on standing begin select raise(abort, 'full'); end")
    gate.log(office.revoke(1, 2))
    assert (gate.says(1), gate.kinds()) == (REVOKED, [])
    assert gate.replica.unsaved
    ask("drop trigger full")
    gate.clock.go(5)
    gate.sync._timers()
    assert gate.pulls() == [2]
    gate.down(office.page(2))
    assert gate.replica.unsaved is None
    assert gate.sent()[0].expect(wire.Receipt).applied_seq == 2


# --- what is not built, and the rest of the line ---


@pytest.mark.parametrize("retained", [True, False])
def test_a_command_is_refused_aloud(gate: GateBox, office: Office, retained: bool) -> None:
    raw = office.sign(Type.COMMAND, wire.Gone(zone=ZONE, epoch=1, floor_seq=0), Role.COMMAND, GATE)
    gate.take(f"g/{GATE}/cmd", raw, retained=retained)
    result = gate.sent()[0].expect(wire.CommandResult)
    assert (result.accepted, result.reason) == (False, "not_built")


def test_a_log_that_is_gone_is_a_standing_fault(gate: GateBox, office: Office) -> None:
    gate.down(office.sign(Type.GONE, wire.Gone(zone=ZONE, epoch=1, floor_seq=9), Role.ROSTER, GATE))
    assert gate.replica.standing_faults() == {ZoneId(ZONE): "gone_needs_snapshot"}


def test_a_silent_line_is_made_anew(gate: GateBox, office: Office) -> None:
    gate.beacon(office.beacon())
    gate.clock.go(45)
    gate.sync._timers()
    assert gate.line.rebuilt == 0
    gate.clock.go(0.1)
    gate.sync._timers()
    assert gate.line.rebuilt == 1


def test_a_receipt_goes_up_every_minute(gate: GateBox, office: Office) -> None:
    gate.beacon(office.beacon())
    gate.sync._timers()
    gate.sent()
    for _ in range(2):
        gate.clock.go(30.1)
        gate.beacon(office.beacon())
        gate.sync._timers()
    assert gate.kinds().count(Type.RECEIPT) == 1


def test_audit_rows_go_up_one_batch_at_a_time(gate: GateBox, office: Office) -> None:
    gate.trail.rows = [
        Row(n, b"s" * 16, b"p", bytes([n % 256]) * 32, bytes(32)) for n in range(1, 251)
    ]
    gate.sync._timers()
    first = next(m.expect(wire.Events) for m in gate.sent() if m.kind is Type.EVENTS)
    assert (first.first_no, first.count) == (1, 100)
    gate.sync._timers()
    assert Type.EVENTS not in gate.kinds(), "the first is under way"
    ack = wire.EventAck(upto=100, chain_hash=bytes(32))
    gate.down(office.sign(Type.EVENT_ACK, ack, Role.BEACON, GATE))
    gate.sync._timers()
    assert next(m.expect(wire.Events) for m in gate.sent() if m.kind is Type.EVENTS).first_no == 101


def test_another_audit_chain_at_the_office_is_counted(gate: GateBox, office: Office) -> None:
    gate.trail.good = False
    ack = wire.EventAck(upto=1, chain_hash=bytes(32))
    gate.down(office.sign(Type.EVENT_ACK, ack, Role.BEACON, GATE))
    assert gate.sync.counts["audit_chain"] == 1


def test_a_new_connection_says_what_we_have(gate: GateBox, office: Office) -> None:
    gate.log(office.put(1, 1))
    gate.sent()
    gate.sync._greet()
    hello, pull, receipt = (message.body for message in gate.sent())
    assert isinstance(hello, wire.Hello) and isinstance(pull, wire.Pull)
    assert isinstance(receipt, wire.Receipt)
    assert (len(hello.kcvs), hello.positions[0].applied_seq, pull.from_seq) == (2, 1, 2)
    assert DESK in gate.book.members
