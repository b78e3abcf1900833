"""What gates and desks bring to the authority: receipts, events, status, face keys."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import cbor2
import pytest
from office import UNIT, ZONE, OfficeKit, events_body, make_office, receipt

from edge import seal, wire
from edge.envelope import decode, encode
from edge.wire import GENESIS, Type
from enroll.roster.authority import Change, Refusal
from enroll.roster.trail import next_hash

Row = tuple[bytes, bytes]


@pytest.fixture
def office(tmp_path: Path) -> Iterator[OfficeKit]:
    made = make_office(tmp_path)
    for gate in ("gate-1", "gate-2"):
        made.add(gate, "gate", [ZONE])
    made.add("desk-1", "desk", [ZONE])
    yield made
    made.authority.close()


@pytest.fixture
def change(office: OfficeKit) -> Change:
    """Two persons enrolled (1, 2) and revoked (3, 4)."""
    office.authority.add_tenancy("T1", ZONE, UNIT, None, None, 4)
    for who in ("anna", "ben"):
        office.authority.enrol("desk-1", [ZONE], office.enrol_body(who, "T1"))
    return office.authority.revoke("T1", "order 7", "manager")


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(Refusal) as caught:
        action()
    return caught.value.reason


# receipts


def test_enforced_when_every_gate_has_receipted_every_op(office: OfficeKit, change: Change) -> None:
    authority = office.authority
    assert authority.enforced("T1").missing == ("gate-1", "gate-2")
    authority.put_receipt("gate-1", receipt(office, 4), at=100.0)
    authority.put_receipt("gate-2", receipt(office, 3), at=101.0)
    half = authority.enforced(change)
    assert (half.enforced, half.missing) == ((("gate-1", 100_000),), ("gate-2",))
    authority.put_receipt("gate-2", receipt(office, 4), at=102.0)
    assert authority.enforced("T1").complete


def test_ahead_of_the_log_counts_and_the_first_time_stays(
    office: OfficeKit, change: Change
) -> None:
    authority = office.authority
    authority.put_receipt("gate-1", receipt(office, 1, early=[3, 4]), at=100.0)
    office.clock.now += 1
    authority.put_receipt("gate-1", receipt(office, 4), at=200.0)
    assert authority.enforced(change).enforced == (("gate-1", 100_000),)


def test_receipts_never_go_back(office: OfficeKit, change: Change) -> None:
    authority = office.authority
    old = receipt(office, 2)
    assert authority.put_receipt("gate-1", receipt(office, 4)) == "kept"
    assert authority.put_receipt("gate-1", old) == "old"
    (kept,) = authority.receipts(ZONE)
    assert kept.applied_seq == 4
    assert authority.enforced(change).missing == ("gate-2",)


@pytest.mark.parametrize(
    "lie",
    [
        {"chain_hash": bytes(32)},
        {"digest": b"\1" * 32},
        {"epoch": 2},
        {"applied_seq": 99},
    ],
)
def test_a_receipt_that_disagrees_with_the_log_proves_nothing(
    office: OfficeKit, change: Change, lie: dict[str, object]
) -> None:
    authority = office.authority
    assert authority.put_receipt("gate-1", receipt(office, 4, **lie)) == "diverged"  # type: ignore[arg-type]
    assert authority.enforced(change).missing == ("gate-1", "gate-2")
    (kept,) = authority.receipts(ZONE)
    assert kept.diverged_at is not None and kept.applied_seq == 0
    assert authority.put_receipt("gate-1", receipt(office, 4)) == "kept"
    assert authority.receipts(ZONE)[0].diverged_at is None


def test_a_gate_of_another_zone_receipts_nothing_here(office: OfficeKit, change: Change) -> None:
    office.authority.add_zone("other")
    office.add("gate-3", "gate", ["other"])
    assert refusal(lambda: office.authority.put_receipt("gate-3", receipt(office, 4))) == (
        "wrong_zone"
    )


def test_a_tenancy_nobody_was_enrolled_under_is_enforced_at_once(office: OfficeKit) -> None:
    office.authority.add_tenancy("T9", ZONE, UNIT, None, None, 4)
    assert refusal(lambda: office.authority.enforced("T9")) == "tenancy_open"
    office.authority.revoke("T9", "order 7", "manager")
    assert office.authority.enforced("T9").complete


# events


def chained(first: int, before: bytes, count: int) -> tuple[list[Row], bytes]:
    rows, after = [], before
    for number in range(first, first + count):
        payload = cbor2.dumps({"k": "decision", "at": 1000 * number, "r": "granted", "d": "main"})
        rows.append((os.urandom(16), payload))
        after = next_hash(after, number, *rows[-1])
    return rows, after


def put(office: OfficeKit, first: int, before: bytes, rows: list[Row]) -> wire.EventAck:
    secrets = office.authority.secrets_of(ZONE)
    body = events_body("gate-1", first, before, rows, secrets.kr)
    return office.authority.put_events("gate-1", body, office.authority.open_events("gate-1", body))


def test_events_are_kept_once_however_often_they_come(office: OfficeKit) -> None:
    rows, after = chained(1, GENESIS, 5)
    for _ in range(2):
        assert put(office, 1, GENESIS, rows) == wire.EventAck(upto=5, chain_hash=after)
    more, end = chained(6, after, 2)
    middle = next_hash(GENESIS, 1, *rows[0])
    assert put(office, 2, middle, rows[1:] + more) == wire.EventAck(upto=7, chain_hash=end)
    found = list(office.authority.events())
    assert [event.event_no for event in found] == [1, 2, 3, 4, 5, 6, 7]
    assert (found[2].kind, found[2].at, found[2].door) == ("decision", 3.0, "main")
    assert [e.event_no for e in office.authority.events(after=found[4].id)] == [6, 7]


def test_a_gap_is_answered_with_what_we_have(office: OfficeKit) -> None:
    rows, after = chained(1, GENESIS, 3)
    put(office, 1, GENESIS, rows)
    late, _ = chained(5, bytes(32), 2)
    assert put(office, 5, bytes(32), late) == wire.EventAck(upto=3, chain_hash=after)
    assert len(list(office.authority.events())) == 3


def test_a_chain_made_anew_is_refused(office: OfficeKit) -> None:
    rows, after = chained(1, GENESIS, 3)
    put(office, 1, GENESIS, rows)
    forged, other = chained(1, GENESIS, 3)
    assert refusal(lambda: put(office, 1, GENESIS, forged)) == "broken_chain"
    more, _ = chained(4, other, 1)
    assert refusal(lambda: put(office, 4, other, more)) == "broken_chain"
    assert len(list(office.authority.events())) == 3
    assert put(office, 1, GENESIS, rows).chain_hash == after


def test_events_open_only_where_they_belong(office: OfficeKit) -> None:
    rows, _ = chained(1, GENESIS, 1)
    secrets = office.authority.secrets_of(ZONE)
    body = events_body("gate-1", 1, GENESIS, rows, secrets.kr)
    assert refusal(lambda: office.authority.open_events("gate-2", body)) == "unreadable"
    short = body.model_copy(update={"count": 2})
    assert refusal(lambda: office.authority.open_events("gate-1", short)) == "unreadable"


def test_a_payload_nobody_can_read_does_not_stop_the_trail(office: OfficeKit) -> None:
    put(office, 1, GENESIS, [(bytes(16), b"\xff\xff")])
    assert [event.kind for event in office.authority.events()] == ["unreadable"]


# status


def test_the_newest_status_is_kept(office: OfficeKit) -> None:
    def status(state: str, at: int) -> wire.StatusBody:
        return wire.StatusBody.model_validate({"session": bytes(8), "state": state, "at": at})

    authority = office.authority
    assert authority.put_status("gate-1", status("online", 2000))
    assert not authority.put_status("gate-1", status("online", 1000))
    assert authority.put_status("gate-1", status("offline", 1000))  # a will, signed at the start
    assert [(s.gate, s.state, s.gate_at) for s in authority.statuses()] == [
        ("gate-1", "offline", 2.0)
    ]


# members and keys


def face_key_for(
    office: OfficeKit, member: str, key: bytes, *, desk: str = "desk-1", **changes: object
) -> wire.KeyFor:
    fields: dict[str, object] = {"zone": ZONE, "which": "kf", "key_epoch": 1, "member": member}
    fields |= changes
    hpke_pub = office.boxes[member].hpke.public_key().public_bytes_raw()
    sealed = seal.wrap_zone_key(key, hpke_pub=hpke_pub, **fields)  # type: ignore[arg-type]
    body = wire.ZoneKey.model_validate({**fields, "kcv": seal.kcv(key), "sealed": sealed})
    signer = office.boxes[desk].sign
    message = encode(Type.ZONEKEY, body, signer, direction="down", target=member)
    return wire.KeyFor(member=member, message=message)


def test_a_member_gets_the_keys_of_its_zones_once(office: OfficeKit) -> None:
    office.authority.add_zone("other")
    for member, which in (("gate-1", {"kr"}), ("desk-1", {"kr", "zs"})):
        signed = office.authority.zone_keys_for(member)
        assert office.authority.zone_keys_for(member) == signed
        box, seen = office.boxes[member], set()
        for raw in signed:
            message = decode(raw, office.authority.keyring(), direction="down", target=member)
            body = message.expect(wire.ZoneKey)
            place = body.model_dump(include={"zone", "which", "key_epoch", "member"})
            key = seal.unwrap_zone_key(body.sealed, box.hpke, **place)
            secrets = office.authority.secrets_of(ZONE)
            assert key == (secrets.kr if body.which == "kr" else secrets.zs)
            seen.add(body.which)
        assert seen == which


def test_a_desks_face_keys_are_handed_on_as_signed(office: OfficeKit) -> None:
    item = face_key_for(office, "gate-1", b"k" * 32)
    office.authority.put_zone_keys("desk-1", [item])
    office.authority.put_zone_keys("desk-1", [item])
    assert item.message in office.authority.zone_keys_for("gate-1")
    assert item.message not in office.authority.zone_keys_for("gate-2")


def test_a_second_face_key_of_one_epoch_is_refused_and_nothing_of_it_kept(
    office: OfficeKit,
) -> None:
    authority = office.authority
    authority.put_zone_keys("desk-1", [face_key_for(office, "gate-1", b"k" * 32)])
    good = face_key_for(office, "gate-2", b"k" * 32)
    second = face_key_for(office, "gate-1", b"x" * 32)
    assert refusal(lambda: authority.put_zone_keys("desk-1", [good, second])) == "second_kcv"
    assert good.message not in authority.zone_keys_for("gate-2")
    authority.put_zone_keys("desk-1", [face_key_for(office, "gate-1", b"x" * 32, key_epoch=2)])


def test_a_desk_gives_face_keys_of_its_zones_to_members_of_them_only(office: OfficeKit) -> None:
    authority = office.authority
    authority.add_zone("other")
    office.add("gate-3", "gate", ["other"])
    office.add("desk-2", "desk", ["other"])
    key = b"k" * 32

    def put_as(desk: str, item: wire.KeyFor) -> str:
        return refusal(lambda: authority.put_zone_keys(desk, [item]))

    assert put_as("desk-1", face_key_for(office, "gate-3", key)) == "not_a_member"
    assert put_as("desk-1", face_key_for(office, "gate-1", key, which="kr")) == "bad_key_message"
    assert put_as("desk-1", face_key_for(office, "gate-1", key, desk="desk-2")) == (
        "bad_key_message"
    )
    assert put_as("desk-2", face_key_for(office, "gate-1", key, desk="desk-2")) == "wrong_zone"
    by_gate = face_key_for(office, "gate-1", key, desk="gate-2")
    assert put_as("gate-2", by_gate) == "bad_key_message"


def test_a_gate_that_the_authority_alone_writes_down_is_not_believed(office: OfficeKit) -> None:
    """Signed with the roster key instead of the registrar's."""
    fake = wire.Member(
        id="gate-9", role="gate", sign_pub=bytes(32), hpke_pub=bytes(32), zones=[ZONE], version=1
    )
    signed = encode(Type.MEMBER, fake, office.authority.keys.roster, direction="down", target="*")
    row = {"id": "gate-9", "role": "gate", "version": 1, "signed": signed}
    office.authority._store.insert("members", {**row, "fingerprint": "", "at": 0})
    assert office.authority.gates(ZONE) == ["gate-1", "gate-2"]
    assert refusal(lambda: office.authority.zone_keys_for("gate-9")) == "not_a_member"
