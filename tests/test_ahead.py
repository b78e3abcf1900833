"""What runs ahead of the log is in force at once, and is receipted only when it outlives the power:
each of these receipts was once a promise that a restart broke."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from gatekit import ZONE, GateBox, Office, person

from edge import wire
from edge.ahead import Ahead
from edge.envelope import chain, dump_op
from edge.terms import PersonId, Reason
from edge.wire import Op, Role, Type

GRANTED, REVOKED = Reason.GRANTED, Reason.REVOKED
FULL = "create trigger full before insert on {} begin select raise(abort, 'full'); end"


@pytest.fixture
def office() -> Office:
    return Office()


@pytest.fixture
def gate(tmp_path: Path, office: Office) -> Iterator[GateBox]:
    made = GateBox(tmp_path, office)
    for number in (1, 2):
        made.log(office.put(number, 1))
    made.sent()
    yield made
    made.close()


def whole(office: Office, first: int, last: int) -> bytes:
    """One delta with several ops."""
    body = wire.Delta(
        zone=ZONE, epoch=1, first_seq=first, prev_hash=office.hashes[first - 1],
        ops=office.log[first - 1 : last], at=1,
    )  # fmt: skip
    return office.sign(Type.DELTA, body, Role.ROSTER, ZONE)


def early(gate: GateBox) -> list[int]:
    """The last receipt's word on what is enforced ahead of the log."""
    receipts = [m.body for m in gate.sent() if isinstance(m.body, wire.Receipt)]
    return receipts[-1].early if receipts else []


def fill(gate: GateBox, *tables: str) -> None:
    for table in tables:
        gate.store._db.conn.execute(FULL.format(table).replace("full", f"full_{table}"))


# --- receipts and the disk ---


def test_on_a_full_disk_it_holds_and_is_not_receipted(gate: GateBox, office: Office) -> None:
    fill(gate, "ahead")
    office.put(3, 1)
    gate.log(office.revoke(1, 2))
    assert (gate.says(1), early(gate)) == (REVOKED, [])
    assert gate.replica.unsaved
    gate.store._db.conn.execute("drop trigger full_ahead")
    gate.log(office.delta(4))
    assert early(gate) == [4]
    gate.restart()
    assert gate.says(1) is REVOKED


def test_a_page_behind_a_gap_holds_and_is_not_receipted(gate: GateBox, office: Office) -> None:
    """Pages are not kept: after a restart the gate would not know of it."""
    office.put(3, 1)
    office.revoke(1, 2)
    gate.down(office.page(4))
    assert (gate.says(1), early(gate)) == (REVOKED, [])


def test_a_delta_that_a_page_reaches_half_stays_on_the_disk(gate: GateBox, office: Office) -> None:
    office.put(3, 1)
    office.revoke(1, 2)  # 4
    office.revoke(2, 2)  # 5
    gate.log(whole(office, 4, 5))
    assert early(gate) == [4, 5]
    gate.down(office.page(3, 2))  # ends between the two
    assert (gate.roster.applied_seq, early(gate)) == (4, [5])
    gate.restart()
    assert gate.says(2) is REVOKED


def test_a_revocation_behind_a_put_without_its_key_outlives_a_restart(
    tmp_path: Path, gate: GateBox, office: Office
) -> None:
    op = Op(op="put", person=person(3), pv=1, tv=1, key_epoch=2, sealed=bytes(64))
    gone = Op(op="revoke", person=person(1), pv=2)
    for one in (op, gone):
        office.log.append(dump_op(one))
        office.hashes.append(chain(office.hashes[-1], office.log[-1]))
    gate.log(whole(office, 3, 4))
    assert (gate.roster.applied_seq, early(gate)) == (2, [4])
    gate.restart()
    assert gate.says(1) is REVOKED


def test_a_put_behind_a_gap_is_not_written_down(gate: GateBox, office: Office) -> None:
    office.put(3, 1)
    gate.log(office.put(4, 1))
    assert not list(gate.store._db.table("ahead").rows)


def test_what_was_receipted_outlives_a_cache_that_does_not_hold(
    gate: GateBox, office: Office
) -> None:
    """The zone is refused and pulled again, and the power goes before the log gets so far."""
    office.put(3, 1)
    gate.log(office.revoke(1, 2))
    assert early(gate) == [4]
    gate.store._db.conn.execute("update records set pv = 9 where pv = 1")
    gate.restart()
    assert gate.roster.applied_seq == 0
    gate.down(office.page(1, 2))
    assert gate.says(2) is GRANTED
    gate.restart()
    assert gate.says(1) is REVOKED


def test_a_row_ahead_that_is_none_is_gone_after_one_refusal(gate: GateBox, office: Office) -> None:
    office.put(3, 1)
    gate.log(office.revoke(1, 2))
    gate.store._db.conn.execute("update ahead set signed = null")
    assert gate.store.load().refused
    assert not gate.store.load().refused


# --- a full disk and the beacon ---


def test_on_a_full_disk_a_beacon_still_brings_what_was_lost(gate: GateBox, office: Office) -> None:
    fill(gate, "beacons", "standing", "ahead")
    lost = office.revoke(1, 2)
    gate.beacon(office.beacon(recent=[lost]))
    assert gate.says(1) is REVOKED
    assert gate.sync.counts["handler"] == 0


def test_on_a_full_disk_a_beacon_is_believed_once(gate: GateBox, office: Office) -> None:
    fill(gate, "beacons")
    raw = office.beacon()
    gate.beacon(raw)
    assert gate.live.leases(gate.clock.mono())
    gate.beacon(raw)
    assert gate.sync.counts["beacon_old"] == 1
    gate.store._db.conn.execute("drop trigger full_beacons")
    gate.beacon(office.beacon())
    assert gate.replica.unsaved is None


# --- two histories ---


def test_what_takes_away_holds_in_any_history(gate: GateBox, office: Office) -> None:
    """The office came back from an old backup: nothing it gives is believed, what it ends is."""
    office.hashes[2] = b"x" * 32
    office.put(3, 1)
    office.revoke(1, 2)
    gate.log(whole(office, 3, 4))
    assert (gate.roster.applied_seq, gate.says(1)) == (2, REVOKED)
    assert gate.says(3) is Reason.NOT_IN_ROSTER
    assert "equivocation" in gate.replica.standing_faults().values()
    gate.restart()
    assert gate.says(1) is REVOKED


def test_two_revocations_for_one_place_both_hold(gate: GateBox, office: Office) -> None:
    office.put(3, 1)
    before = office.truth
    gate.log(office.revoke(1, 2))
    office.log.pop(), office.hashes.pop()
    office.truth = before
    gate.log(office.revoke(2, 2))  # the same place in the log
    assert (gate.says(1), gate.says(2)) == (REVOKED, REVOKED)
    assert gate.replica.counts["equivocation"] == 1
    gate.down(office.page(3))
    assert (gate.says(1), gate.says(2)) == (GRANTED, REVOKED), "the log decides"


# --- the rules alone ---


def revocations(*people: int) -> list[bytes]:
    return [dump_op(Op(op="revoke", person=person(n), pv=2)) for n in people]


def named(ahead: Ahead) -> set[PersonId]:
    return set(ahead.denied())


def taken(first: int, ops: Sequence[bytes]) -> Ahead:
    ahead = Ahead(ZONE)
    ahead.note(first, ops)
    return ahead


def test_only_what_is_kept_is_receipted() -> None:
    ops = revocations(1, 2)
    ahead = taken(5, ops)
    assert (ahead.receipted(), ahead.unkept(5, ops)) == ([], True)
    ahead.keep(5, ops)
    assert (ahead.receipted(), ahead.unkept(5, ops)) == ([5, 6], False)


@pytest.mark.parametrize(("applied", "left"), [(4, {1, 2}), (5, {2}), (6, set())])
def test_the_log_reaches_it(applied: int, left: set[int]) -> None:
    ahead = taken(5, revocations(1, 2))
    assert ahead.within(applied) is (applied >= 5)
    ahead.reach(applied)
    assert named(ahead) == {person(n) for n in left}


def test_what_the_log_does_not_bear_out_is_dropped() -> None:
    ahead = taken(5, revocations(1, 2))
    assert ahead.contradicted(4, revocations(9, 1, 9)) == [6]
    assert named(ahead) == {person(1)}


@pytest.mark.parametrize("data", [b"", b"garbage", dump_op(Op(op="put", person=person(1), pv=1))])
def test_what_is_no_revocation_takes_nothing_away(data: bytes) -> None:
    assert named(taken(5, [data])) == set()
