"""The authority: what it grants and ends is what the gates apply; nothing is lost or doubled."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from office import DOOR, UNIT, ZONE, OfficeKit, make_office

from edge import roster as gate_rules
from edge import seal, wire
from edge.envelope import chain, decode, dump
from edge.oplog import open_op, parse_op
from edge.terms import Status, ZoneId
from edge.wire import GENESIS
from enroll.home import Home, OfficeError
from enroll.roster.authority import Refusal

DAY_S = 86_400.0


@pytest.fixture
def office(tmp_path: Path) -> Iterator[OfficeKit]:
    made = make_office(tmp_path)
    yield made
    made.authority.close()


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(Refusal) as caught:
        action()
    return caught.value.reason


def tenancy(office: OfficeKit, name: str, household: int = 4, **term: float) -> None:
    office.authority.add_tenancy(name, ZONE, UNIT, term.get("starts"), term.get("ends"), household)


def enrol(office: OfficeKit, internal_id: str, under: str, **changes: object) -> object:
    body = office.enrol_body(internal_id, under, **changes)  # type: ignore[arg-type]
    return office.authority.enrol("desk-1", [ZONE], body)


def gate_view(office: OfficeKit, zone: str = ZONE) -> gate_rules.ZoneRoster:
    """What a gate has after it pulled the whole log, page by page."""
    roster = gate_rules.ZoneRoster(ZoneId(zone), epoch=1)
    while True:
        page = office.authority.page(zone, roster.applied_seq + 1, limit_ops=3)
        assert isinstance(page, wire.Page) and page.prev_hash == roster.chain_hash
        if not page.ops:
            return roster
        opened, after = [], page.prev_hash
        for data in page.ops:
            after = chain(after, data)
            opened.append((open_op(zone, parse_op(data), office.zone_keys(zone)), after))
        applied = gate_rules.apply(roster, opened, first_seq=page.first_seq)
        assert applied.faults == ()
        roster = applied.roster


# what a gate reaches

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["enrol", "enrol", "enrol", "end", "wait", "tenancy"]),
        st.integers(0, 4),  # person
        st.integers(0, 5),  # tenancy
    ),
    max_size=25,
)


@pytest.fixture(scope="module")
def shared_office() -> Iterator[OfficeKit]:
    with tempfile.TemporaryDirectory() as folder:
        made = make_office(Path(folder))
        yield made
        made.authority.close()


@settings(max_examples=25, deadline=None)
@given(steps=STEPS)
def test_a_gate_that_applies_the_log_reaches_the_authoritys_digest(
    shared_office: OfficeKit, steps: list[tuple[str, int, int]]
) -> None:
    office = shared_office
    authority = office.authority
    zone = f"z{len(authority.zones())}"
    authority.add_zone(zone)
    authority.add_door(zone, DOOR)
    authority.add_unit(zone, UNIT, [DOOR])
    alive: dict[int, str] = {}
    for index, (step, person, number) in enumerate(steps):
        if step == "tenancy" or number not in alive:
            alive[number] = f"{zone}-{number}-{index}"
            ends = office.clock.now + 2 * DAY_S if number % 2 else None
            authority.add_tenancy(alive[number], zone, UNIT, None, ends, 3)
        elif step == "end":
            authority.revoke(alive[number], "order 7", "manager")
        elif step == "wait":
            office.clock.now += DAY_S
        else:
            body = office.enrol_body(f"p{person}", alive[number], zone=zone)
            try:
                authority.enrol("desk-1", [zone], body)
            except Refusal as refused:
                assert refused.reason in (
                    "already_enrolled",
                    "household_full",
                    "tenancy_ended",
                )
    reached, head = gate_view(office, zone), authority.position(zone)
    assert (reached.applied_seq, reached.chain_hash) == (head.head_seq, head.head_hash)
    assert reached.digest == head.digest == gate_rules.digest_of(reached.people.values())
    listed = {p.person: (p.pv, p.status) for p in authority.people(zone)}
    assert listed == {bytes(r.person): (r.pv, r.status) for r in reached.people.values()}
    for record in reached.people.values():
        named = set(next(p.tenancies for p in authority.people(zone) if p.person == record.person))
        assert {grant.tenancy for grant in record.grants} <= named


def test_a_revocation_is_one_delta_per_person_and_verifies(office: OfficeKit) -> None:
    tenancy(office, "T1")
    for who in ("anna", "ben"):
        enrol(office, who, "T1")
    change = office.authority.revoke("T1", "order 7", "manager")
    assert (change.first_seq, change.last_seq, change.people) == (3, 4, 2)
    deltas = office.authority.deltas_after(ZONE, 2)
    assert [(seq, is_revocation) for seq, _, is_revocation in deltas] == [(3, True), (4, True)]
    for seq, signed, _ in deltas:
        message = decode(signed, office.authority.keyring(), direction="down", target=ZONE)
        body = message.expect(wire.Delta)
        op = parse_op(body.ops[0])
        assert (body.first_seq, len(body.ops), op.op) == (seq, 1, "revoke")
        secrets = office.authority.secrets_of(ZONE)
        aad = seal.rights_aad(ZONE, op.person, op.pv, op.key_epoch)
        assert b"order 7" in seal.open_(secrets.kr, op.sealed, aad)
    assert office.authority.recent_revocations(ZONE) == [signed for _, signed, _ in deltas]
    assert {r.status for r in gate_view(office).people.values()} == {Status.REVOKED}


def test_who_has_two_tenancies_keeps_the_other(office: OfficeKit) -> None:
    tenancy(office, "T1")
    tenancy(office, "T2")
    enrol(office, "carer", "T1")
    enrol(office, "carer", "T2")
    office.authority.revoke("T1", "order 7", "manager")
    (record,) = gate_view(office).people.values()
    assert record.status is Status.ACTIVE and record.templates
    assert [grant.tenancy for grant in record.grants] == ["T2"]
    office.authority.revoke("T2", "order 8", "manager")
    (record,) = gate_view(office).people.values()
    assert record.status is Status.REVOKED and not record.templates


def test_an_expired_tenancy_does_not_keep_the_template(office: OfficeKit) -> None:
    tenancy(office, "T1")
    tenancy(office, "short", ends=office.clock.now + DAY_S)
    enrol(office, "carer", "T1")
    enrol(office, "carer", "short")
    office.clock.now += DAY_S
    office.authority.revoke("T1", "order 7", "manager")
    (record,) = gate_view(office).people.values()
    assert record.status is Status.REVOKED


def test_revoking_again_returns_the_first_change(office: OfficeKit) -> None:
    tenancy(office, "T1")
    enrol(office, "anna", "T1")
    first = office.authority.revoke("T1", "order 7", "manager")
    assert office.authority.revoke("T1", "another", "clerk") == first
    assert office.authority.position(ZONE).head_seq == first.last_seq


def test_grants_carry_the_units_doors_and_the_term(office: OfficeKit) -> None:
    starts, ends = office.clock.now - 5, office.clock.now + DAY_S
    tenancy(office, "T1", starts=starts, ends=ends)
    enrol(office, "anna", "T1")
    (record,) = gate_view(office).people.values()
    (grant,) = record.grants
    assert grant.doors == {DOOR, "garage"}
    assert (grant.not_before_at, grant.expires_at) == (starts, ends)


# what is refused


def test_the_same_person_twice_under_one_tenancy_is_refused(office: OfficeKit) -> None:
    tenancy(office, "T1")
    enrol(office, "anna", "T1")
    assert refusal(lambda: enrol(office, "anna", "T1")) == "already_enrolled"


def test_a_request_repeated_is_one_enrolment(office: OfficeKit) -> None:
    tenancy(office, "T1")
    body = office.enrol_body("anna", "T1")
    first = office.authority.enrol("desk-1", [ZONE], body)
    assert office.authority.enrol("desk-1", [ZONE], body) == first
    assert office.authority.position(ZONE).head_seq == 1


def test_a_full_household_is_refused(office: OfficeKit) -> None:
    tenancy(office, "T1", household=1)
    enrol(office, "anna", "T1")
    assert refusal(lambda: enrol(office, "ben", "T1")) == "household_full"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"basis": "verbal"}, "consent_basis"),
        ({"basis": "guardian"}, "consent_guardian"),
        ({"transfer": False}, "consent_transfer"),
    ],
)
def test_without_valid_consent_nobody_is_enrolled(
    office: OfficeKit, changes: dict[str, object], reason: str
) -> None:
    tenancy(office, "T1")
    consent = office.consent(**changes)  # type: ignore[arg-type]
    assert refusal(lambda: enrol(office, "anna", "T1", consent=consent)) == reason
    assert office.authority.position(ZONE).head_seq == 0


def test_a_tenancy_that_is_over_enrols_nobody(office: OfficeKit) -> None:
    tenancy(office, "T1", ends=office.clock.now + DAY_S)
    tenancy(office, "T2")
    office.authority.end_tenancy("T2", "notice", "manager")
    assert refusal(lambda: enrol(office, "anna", "T2")) == "tenancy_ended"
    office.clock.now += DAY_S - 0.002
    enrol(office, "anna", "T1")
    office.clock.now += 0.002  # `ends` itself is outside
    assert refusal(lambda: enrol(office, "ben", "T1")) == "tenancy_ended"
    assert refusal(lambda: enrol(office, "ben", "T9")) == "tenancy_unknown"


def test_a_desk_works_in_its_own_zones_and_under_its_own_name(office: OfficeKit) -> None:
    tenancy(office, "T1")
    body = office.enrol_body("anna", "T1")
    authority = office.authority
    assert refusal(lambda: authority.enrol("desk-1", ["other"], body)) == "wrong_zone"
    assert refusal(lambda: authority.enrol("desk-2", [ZONE], body)) == "unreadable"


def test_a_pseudonym_of_another_person_is_refused(office: OfficeKit) -> None:
    tenancy(office, "T1")
    body = office.enrol_body("anna", "T1")
    secrets = office.authority.secrets_of(ZONE)
    person = seal.pseudonym(secrets.zs, "ben")
    asked = wire.EnrolRequest(internal_id="anna", tenancy="T1", consent=office.consent())
    aad = seal.enrol_aad("desk-1", ZONE, person, body.request)
    moved = body.model_copy(
        update={"person": bytes(person), "sealed": seal.seal(secrets.kr, dump(asked), aad)}
    )
    assert refusal(lambda: office.authority.enrol("desk-1", [ZONE], moved)) == "pseudonym"


def test_a_template_version_never_goes_back(office: OfficeKit) -> None:
    tenancy(office, "T1")
    enrol(office, "anna", "T1", tv=5)
    office.authority.revoke("T1", "order 7", "manager")
    tenancy(office, "T2")
    assert refusal(lambda: enrol(office, "anna", "T2", tv=4)) == "template_old"
    enrol(office, "anna", "T2", tv=6)
    (record,) = gate_view(office).people.values()
    assert record.status is Status.ACTIVE and record.tv == 6 and record.templates


def test_what_no_delta_can_hold_leaves_nothing_behind(office: OfficeKit) -> None:
    tenancy(office, "T1")
    huge = wire.WireTemplate(model_id="0" * 16, key_epoch=1, sealed=bytes(8 * 1024))
    body = office.enrol_body("anna", "T1").model_copy(update={"templates": [huge] * 8})
    assert refusal(lambda: office.authority.enrol("desk-1", [ZONE], body)) == "too_large"
    assert office.authority.people() == []
    enrol(office, "anna", "T1")


def test_a_revocation_without_a_basis_is_refused(office: OfficeKit) -> None:
    tenancy(office, "T1")
    assert refusal(lambda: office.authority.revoke("T1", "  ", "manager")) == "authority_ref"


@pytest.mark.parametrize("name", ["a/b", "+", "", "a" * 65, "门"])
def test_names_that_cannot_travel_in_a_topic_are_refused(office: OfficeKit, name: str) -> None:
    assert refusal(lambda: office.authority.add_zone(name)) == "name"


# pages, beacons


def test_pages_hold_both_limits_and_always_move_on(office: OfficeKit) -> None:
    tenancy(office, "T1", household=9)
    for number in range(6):
        enrol(office, f"p{number}", "T1")
    authority = office.authority
    by_ops = authority.page(ZONE, 1, limit_ops=2)
    assert isinstance(by_ops, wire.Page) and len(by_ops.ops) == 2
    size = len(by_ops.ops[0])
    by_bytes = authority.page(ZONE, 1, limit_bytes=4 * size)
    assert isinstance(by_bytes, wire.Page) and len(by_bytes.ops) == 3
    tiny = authority.page(ZONE, 4, limit_bytes=1)
    assert isinstance(tiny, wire.Page) and len(tiny.ops) == 1 and tiny.first_seq == 4
    beyond = authority.page(ZONE, 99)
    assert isinstance(beyond, wire.Page) and (beyond.first_seq, beyond.ops) == (7, [])


def test_below_the_floor_the_log_is_gone(office: OfficeKit) -> None:
    tenancy(office, "T1")
    for who in ("anna", "ben"):
        enrol(office, who, "T1")
    office.authority._store.update("zones", ZONE, {"floor_seq": 1})
    gone = office.authority.page(ZONE, 1)
    assert gone == wire.Gone(zone=ZONE, epoch=1, floor_seq=1)
    assert isinstance(office.authority.page(ZONE, 2), wire.Page)


def test_beacons_rise_over_restarts_and_a_clock_set_back(office: OfficeKit) -> None:
    first = office.authority.next_beacon(ZONE)
    assert first.n == int(office.clock.now * 1000)
    seen = [first.n, office.authority.next_beacon(ZONE).n]
    office.reopen()
    office.clock.now -= DAY_S
    seen += [office.authority.next_beacon(ZONE).n, office.authority.next_beacon(ZONE).n]
    office.clock.now += 2 * DAY_S
    seen.append(office.authority.next_beacon(ZONE).n)
    assert all(a < b for a, b in pairwise(seen))
    assert seen[-1] == int(office.clock.now * 1000)


def test_a_beacon_tells_the_head_and_the_last_revocations(office: OfficeKit) -> None:
    tenancy(office, "T1", household=30)
    for number in range(30):
        enrol(office, f"p{number}", "T1")
    office.authority.revoke("T1", "order 7", "manager")
    beacon, head = office.authority.next_beacon(ZONE), office.authority.position(ZONE)
    assert (beacon.head_seq, beacon.head_hash) == (60, head.head_hash)
    assert beacon.digest == head.digest.to_bytes(32, "big")
    assert beacon.recent[-1] == office.authority.deltas_after(ZONE, 59)[0][1]
    assert 1 < len(beacon.recent) < 30
    assert sum(map(len, beacon.recent)) <= wire.RECENT_BYTES


def test_an_empty_log_starts_at_genesis(office: OfficeKit) -> None:
    head = office.authority.position(ZONE)
    assert (head.epoch, head.head_seq, head.head_hash, head.digest) == (1, 0, GENESIS, 0)


# what the authority cannot do


def test_with_the_authoritys_folders_no_template_opens(office: OfficeKit) -> None:
    """A desk's template, sealed under Kf: every 32-byte key that lies in authority/, data/ or
    public/ is tried, as stored and as hex."""
    tenancy(office, "T1")
    face_key = b"\x07" * 32
    body = office.enrol_body("anna", "T1")
    aad = seal.template_aad(ZONE, body.person, 1, 1, "0" * 16)
    sealed = seal.seal(face_key, bytes(1024), aad)
    template = wire.WireTemplate(model_id="0" * 16, key_epoch=1, sealed=sealed)
    office.authority.enrol("desk-1", [ZONE], body.model_copy(update={"templates": [template]}))
    rights = office.authority.secrets_of(ZONE)
    keys = [rights.kr, rights.zs]
    home = office.home
    for folder in (home.authority_dir, home.data_dir, home.public_dir):
        for path in folder.iterdir():
            assert face_key not in path.read_bytes()
            assert face_key.hex().encode() not in path.read_bytes()
    assert sealed in office.home.db_path.with_name("office.db-wal").read_bytes()
    for key in keys:
        with pytest.raises(seal.SealError):
            seal.open_(key, sealed, aad)
    assert seal.open_(face_key, sealed, aad) == bytes(1024)


def test_the_authority_never_opens_the_root_or_the_registrar(office: OfficeKit) -> None:
    for folder in (office.home.root_dir, office.home.registrar_dir):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    office.reopen()
    tenancy(office, "T1")
    enrol(office, "anna", "T1")
    office.authority.revoke("T1", "order 7", "manager")
    assert office.authority.next_beacon(ZONE).head_seq == 2


# two processes


WRITER = """
import sys
from edge.clock import SystemClock
from enroll.home import Home
from enroll.roster.authority import Authority
with Authority.open(Home(sys.argv[1]), SystemClock()) as authority:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(int(sys.argv[3])):
        authority.end_tenancy(f"{sys.argv[2]}-{number}", "order 7", "manager")
"""


def test_two_processes_that_append_at_once_keep_one_log(office: OfficeKit) -> None:
    count = 12
    for name in ("a", "b"):
        for number in range(count):
            tenancy(office, f"{name}-{number}")
            enrol(office, f"{name}{number}", f"{name}-{number}")
    root = Path(__file__).parent.parent
    command = [sys.executable, "-c", WRITER, str(office.home.path)]
    writers = [
        subprocess.Popen(
            [*command, name, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
        )
        for name in ("a", "b")
    ]
    for writer in writers:
        assert writer.stdout and writer.stdout.readline() == "ready\n"
    for writer in writers:  # both, before waiting for either
        assert writer.stdin
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    head = office.authority.position(ZONE)
    assert head.head_seq == 4 * count
    reached = gate_view(office)
    assert (reached.chain_hash, reached.digest) == (head.head_hash, head.digest)
    order = [parse_op(ops).person for ops in _ops(office, 2 * count + 1)]
    assert len(set(order)) == 2 * count


def _ops(office: OfficeKit, first: int) -> list[bytes]:
    page = office.authority.page(ZONE, first)
    assert isinstance(page, wire.Page)
    return page.ops


def test_a_zone_that_another_process_made_has_its_keys_here(office: OfficeKit) -> None:
    office.authority.secrets_of(ZONE)
    from enroll.roster.authority import Authority

    with Authority.open(office.home, office.clock) as other:
        other.add_zone("new")
        assert office.authority.secrets_of("new") == other.secrets_of("new")


def test_a_missing_database_is_one_line(tmp_path: Path) -> None:
    made = make_office(tmp_path)
    made.authority.close()
    made.home.db_path.unlink()
    with pytest.raises(OfficeError, match="no database"):
        made.reopen()
    assert Home(made.home.path).exists()
