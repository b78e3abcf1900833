"""The log at the gate: whatever is repeated, reordered or replayed, the revoked stay revoked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.envelope import chain
from edge.policy import Now, Policy, decide
from edge.roster import (
    Applied,
    Op,
    Put,
    Revoke,
    RosterView,
    ZoneRoster,
    apply,
    deny,
    digest_of,
    doors_of,
)
from edge.seal import digest_term
from edge.terms import (
    DoorId,
    Grant,
    GrantId,
    Match,
    ModelId,
    PersonId,
    SealedTemplate,
    Sighting,
    Status,
    ZoneId,
)
from edge.wire import GENESIS

ZONE = ZoneId("lotus")
ANN, BO = PersonId(b"a" * 16), PersonId(b"b" * 16)
NAMES = [GrantId("g1"), GrantId("g2"), GrantId("g3")]
EMPTY = ZoneRoster(ZONE, epoch=1)


def template(tv: int) -> SealedTemplate:
    return SealedTemplate(ModelId("m"), 1, b"template %d" % tv)


def grants(*names: str) -> tuple[Grant, ...]:
    """Each grant is for a door of its own name."""
    return tuple(Grant(GrantId(n), f"t-{n}", frozenset({DoorId(n)}), 0.0, None) for n in names)


def put(pv: int, *names: str, tv: int = 1, templates: bool = True, who: PersonId = ANN) -> Put:
    return Put(who, pv, tv, grants(*names), (template(tv),) if templates else None)


def revoke(pv: int, *names: str, suspend: bool = False, who: PersonId = ANN) -> Revoke:
    return Revoke(who, pv, tuple(map(GrantId, names)) or None, suspend)


def hashed(ops: Iterable[Op | None], after: bytes = GENESIS) -> list[tuple[Op | None, bytes]]:
    run = []
    for op in ops:
        after = chain(after, repr(op).encode())
        run.append((op, after))
    return run


def applied(*ops: Op | None, to: ZoneRoster = EMPTY) -> Applied:
    return apply(to, hashed(ops, to.chain_hash), first_seq=to.applied_seq + 1)


def opens(roster: ZoneRoster, who: PersonId, name: str, ahead: Sequence[Revoke] = ()) -> bool:
    """Whether the door of that grant opens to that person: asked of `decide` itself."""
    door = DoorId(name)
    view = RosterView({ZONE: roster}, {ZONE: deny(ahead)})
    seen = Sighting(door, "cam", 0.0, Match(who, ZONE, 1.0, 1.0), "live")
    return decide(seen, view, Policy({door: ZONE}, 0.5), now=Now(1e9, 0.0)).granted


def open_doors(roster: ZoneRoster, who: PersonId = ANN, *ahead: Revoke) -> str:
    return " ".join(name for name in NAMES if opens(roster, who, name, ahead))


# --- logs that an office can write: pv of a person goes up by one each time ---

STEPS = st.tuples(
    st.sampled_from([ANN, BO]),
    st.sampled_from(["put", "put", "put bare", "revoke", "revoke all", "suspend", "suspend all"]),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True),
    st.integers(1, 3),
)


def written(steps: Sequence[tuple[PersonId, str, list[GrantId], int]]) -> list[Op]:
    pvs: Counter[PersonId] = Counter()
    ops: list[Op] = []
    for who, what, names, tv in steps:
        pvs[who] += 1
        if what.startswith("put"):
            ops.append(put(pvs[who], *names, tv=tv, templates=what == "put", who=who))
        else:
            named = () if what.endswith("all") else names
            ops.append(revoke(pvs[who], *named, suspend=what.startswith("suspend"), who=who))
    return ops


LOGS = st.lists(STEPS, min_size=1, max_size=14).map(written)


def lawful(log: Sequence[Op], reached: int, heard: Iterable[int], who: PersonId, name: str) -> bool:
    """The oracle. The last put that the log has reached names the grant, and nothing that was
    heard, in the log or ahead of it, ended the grant after that put."""
    puts = [i for i in range(reached) if isinstance(log[i], Put) and log[i].person == who]
    last = log[puts[-1]] if puts else None
    if not isinstance(last, Put) or name not in [g.grant_id for g in last.grants]:
        return False
    for i in {*range(reached), *heard}:
        op = log[i]
        if not isinstance(op, Revoke) or op.person != who or i < puts[-1]:
            continue
        if op.grant_ids is None or name in op.grant_ids:
            return False
    return True


@st.composite
def schedules(draw: st.DrawFn) -> tuple[list[Op], list[tuple[str, int]]]:
    """A log, and what arrives of it: pages from anywhere, single revocations in any order, more
    than once, before or after the log has reached them."""
    log = draw(LOGS)
    events = st.tuples(st.sampled_from(["page", "ahead", "ahead", "replay"]), st.integers(0, 13))
    return log, draw(st.lists(events, max_size=24))


def run_schedule(log: list[Op], events: list[tuple[str, int]]) -> None:
    roster, run = EMPTY, hashed(log)
    heard: list[int] = []
    for what, n in events:
        at = roster.applied_seq
        if what == "page":
            roster = apply(roster, run[at : at + n], first_seq=at + 1).roster
        elif what == "ahead" and isinstance(log[n % len(log)], Revoke):
            heard.append(n % len(log))
        elif what == "replay" and at:  # an old op in a new place, as a forger of the log would
            tail = apply(roster, [(log[n % at], b"x" * 32)], first_seq=at + 1)
            assert tail.roster.people == roster.people and tail.faults == ("pv_old",)
        ahead = [op for i in heard if isinstance(op := log[i], Revoke)]
        for who in (ANN, BO):
            for name in NAMES:
                expected = lawful(log, roster.applied_seq, heard, who, name)
                assert opens(roster, who, name, ahead) is expected


@given(schedules())
def test_no_schedule_lets_in_who_was_heard_to_be_revoked_nor_locks_out_a_tenant(
    schedule: tuple[list[Op], list[tuple[str, int]]],
) -> None:
    run_schedule(*schedule)


@pytest.mark.slow
@settings(max_examples=10_000)
@given(schedules())
def test_no_schedule_at_length(schedule: tuple[list[Op], list[tuple[str, int]]]) -> None:
    run_schedule(*schedule)


@given(LOGS, st.lists(st.integers(0, 14), max_size=5))
def test_any_split_into_pages_gives_the_same_roster(log: list[Op], cuts: list[int]) -> None:
    run, whole = hashed(log), applied(*log)
    roster, changed, faults = EMPTY, frozenset[PersonId](), tuple[str, ...]()
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(log)], strict=True):
        page = apply(roster, run[start:end], first_seq=roster.applied_seq + 1)
        roster, changed = page.roster, changed | page.changed
        faults += page.faults
    assert (roster, changed, faults) == (whole.roster, whole.changed, whole.faults)
    assert roster.applied_seq == len(log) and roster.chain_hash == run[-1][1]


@given(LOGS)
def test_a_replay_of_any_old_op_changes_nothing(log: list[Op]) -> None:
    roster = applied(*log).roster
    again = applied(*log, to=roster)
    same = replace(roster, applied_seq=again.roster.applied_seq, chain_hash=again.roster.chain_hash)
    assert again.roster == same
    assert (again.changed, again.erased) == (frozenset(), frozenset())
    assert again.faults == ("pv_old",) * len(log)


@given(st.lists(st.tuples(st.sampled_from([ANN, BO]), st.integers(0, 9), st.booleans())))
def test_the_digest_kept_is_the_digest_from_nothing(
    steps: list[tuple[PersonId, int, bool]],
) -> None:
    """Versions in any order: some are refused."""
    ops = [put(pv, "g1", who=who) if gives else revoke(pv, who=who) for who, pv, gives in steps]
    roster = applied(*ops).roster
    assert roster.digest == digest_of(roster.people.values())
    assert 0 <= roster.digest < 2**256


@given(LOGS)
def test_who_is_revoked_has_no_template_left(log: list[Op]) -> None:
    after = applied(*log)
    for record in after.roster.people.values():
        if record.status is Status.REVOKED:
            assert not record.grants and not record.templates
    for person in after.erased:
        assert not after.roster.people[person].templates
    assert after.roster.active == sum(bool(r.grants) for r in after.roster.people.values())


@given(LOGS)
def test_the_old_roster_stays_as_it_was(log: list[Op]) -> None:
    before = applied(*log[: len(log) // 2]).roster
    people, tombstones = dict(before.people), dict(before.tombstones)
    applied(*log[len(log) // 2 :], to=before)
    assert (before.people, before.tombstones) == (people, tombstones)


# --- versions ---


@pytest.mark.parametrize("first_seq", [0, 1, 3])
def test_a_gap_is_the_callers_to_pull(first_seq: int) -> None:
    roster = applied(put(1, "g1")).roster
    with pytest.raises(ValueError, match="do not follow 1"):
        apply(roster, hashed([revoke(2)]), first_seq=first_seq)


def test_nothing_to_apply_changes_nothing() -> None:
    roster = applied(put(1, "g1")).roster
    assert applied(to=roster).roster == roster


def test_an_unreadable_op_takes_its_place_and_changes_no_right() -> None:
    roster = applied(put(1, "g1")).roster
    after = applied(None, to=roster)
    assert (after.roster.applied_seq, after.faults) == (2, ("unreadable",))
    assert after.roster.people == roster.people and after.roster.chain_hash != roster.chain_hash


@pytest.mark.parametrize("stored", [0, 1, 1000])
@pytest.mark.parametrize("gives", [True, False])
@pytest.mark.parametrize(
    ("ahead", "fault"),
    [(-1, "pv_old"), (0, "pv_old"), (1, ""), (1_048_576, ""), (1_048_577, "pv_leap")],
)
def test_the_edges_of_a_version(stored: int, gives: bool, ahead: int, fault: str) -> None:
    roster = applied(*([put(stored, "g1")] if stored else [])).roster
    pv = max(stored + ahead, 0)
    after = applied(put(pv, "g2") if gives else revoke(pv), to=roster)
    assert after.faults == ((fault,) if fault else ())
    if fault:
        assert after.roster.people == roster.people and after.roster.digest == roster.digest
        assert not after.changed
    else:
        assert after.roster.people[ANN].pv == pv


# --- partial and whole; suspend, revoke, reinstate ---

HOLD = revoke(2, suspend=True)


@pytest.mark.parametrize("suspend", [True, False])
def test_part_ends_and_the_rest_holds(suspend: bool) -> None:
    after = applied(put(1, "g1", "g2"), revoke(2, "g1", suspend=suspend))
    record = after.roster.people[ANN]
    assert open_doors(after.roster) == "g2"
    assert record.status is Status.ACTIVE and record.templates and not after.erased


@pytest.mark.parametrize(
    ("ops", "status", "templates", "erased"),
    [
        ([put(1, "g1"), revoke(2)], Status.REVOKED, 0, True),
        ([put(1, "g1"), revoke(2, "g1")], Status.REVOKED, 0, True),
        ([put(1, "g1", "g2"), revoke(2, "g1"), revoke(3, "g2")], Status.REVOKED, 0, True),
        ([put(1, "g1"), HOLD], Status.SUSPENDED, 1, False),
        ([put(1, "g1"), HOLD, revoke(3)], Status.REVOKED, 0, True),
        ([put(1, "g1"), revoke(2), revoke(3, suspend=True)], Status.SUSPENDED, 0, True),
        ([revoke(1)], Status.REVOKED, 0, True),
        ([put(1, "g1"), revoke(2), put(3, "g1")], Status.ACTIVE, 1, False),
        ([put(1, "g1"), revoke(2), put(3, "g1", templates=False)], Status.ACTIVE, 0, True),
        ([put(1, "g1"), HOLD, put(3, "g1", templates=False)], Status.ACTIVE, 1, False),
    ],
)  # fmt: skip
def test_what_is_left_of_a_person(
    ops: list[Op], status: Status, templates: int, erased: bool
) -> None:
    after = applied(*ops)
    record = after.roster.people[ANN]
    assert (record.status, len(record.templates)) == (status, templates)
    assert after.erased == ({ANN} if erased else set())
    assert open_doors(after.roster) == ("g1" if status is Status.ACTIVE else "")


def test_a_grant_that_ended_comes_back_only_when_a_newer_put_names_it() -> None:
    ended = applied(put(1, "g1", "g2"), revoke(2, "g1")).roster
    assert open_doors(applied(put(3, "g2"), to=ended).roster) == "g2"
    assert open_doors(applied(put(2, "g1", "g2"), to=ended).roster) == "g2"
    assert open_doors(applied(put(3, "g1", "g2"), to=ended).roster) == "g1 g2"


def test_one_person_is_not_another() -> None:
    roster = applied(put(1, "g1"), put(1, "g1", who=BO), revoke(2)).roster
    assert (open_doors(roster, ANN), open_doors(roster, BO)) == ("", "g1")


def test_a_revocation_ahead_of_the_put_it_ends_waits_for_it() -> None:
    ahead = revoke(2, "g1")
    assert open_doors(EMPTY, ANN, ahead) == ""
    assert open_doors(applied(put(1, "g1", "g2")).roster, ANN, ahead) == "g2"
    assert open_doors(applied(put(1, "g1"), revoke(2), put(3, "g1")).roster, ANN, ahead) == "g1"


def test_of_several_revocations_ahead_the_newest_counts() -> None:
    roster = applied(put(5, "g1", "g2")).roster
    for ops in ([revoke(9, "g1"), revoke(2, "g1")], [revoke(2, "g1"), revoke(9, "g1")]):
        assert open_doors(roster, ANN, *ops) == "g2"
    assert open_doors(roster, ANN, revoke(4, "g1"), revoke(2)) == "g1 g2"


@pytest.mark.parametrize("where", ["ahead", "tombstones"])
def test_a_revocation_denies_its_own_version_and_none_above(where: str) -> None:
    record = applied(put(5, "g1")).roster.people[ANN]
    for pv, denied in ((4, False), (5, True), (6, True)):
        for op in (revoke(pv), revoke(pv, "g1")):
            buried = replace(EMPTY, tombstones=deny([op])) if where == "tombstones" else EMPTY
            ahead = {ZONE: deny([op])} if where == "ahead" else {}
            assert RosterView({ZONE: buried}, ahead).denied(ZONE, record, NAMES[0]) is denied
    assert not RosterView().denied(ZONE, record, NAMES[0])


def test_the_deny_set_is_of_one_zone() -> None:
    roster = applied(put(1, "g1")).roster
    view = RosterView({ZONE: roster}, {ZoneId("maple"): deny([revoke(9)])})
    assert not view.denied(ZONE, roster.people[ANN], NAMES[0])
    assert view.record(ZoneId("maple"), ANN) is None


# --- templates ---


@pytest.mark.parametrize(
    ("old", "new", "given", "kept", "tv"),
    [
        (2, 2, False, [template(2)], 2),  # rights change: the ciphertext stays
        (2, 2, True, [template(2)], 2),  # a known tv keeps what is stored
        (2, 3, True, [template(3)], 3),
        (2, 1, True, [template(2)], 2),  # older templates never replace newer ones
        (2, 1, False, [template(2)], 2),
        (2, 3, False, [], 3),  # a newer version that did not come along
    ],
)
def test_the_version_of_templates(
    old: int, new: int, given: bool, kept: list[SealedTemplate], tv: int
) -> None:
    after = applied(put(1, "g1", tv=old), put(2, "g1", tv=new, templates=given))
    record = after.roster.people[ANN]
    assert (record.tv, list(record.templates)) == (tv, kept)


def test_a_known_version_keeps_the_very_ciphertext() -> None:
    other = Put(ANN, 2, 1, grants("g1"), (SealedTemplate(ModelId("m"), 1, b"another"),))
    assert applied(put(1, "g1"), other).roster.people[ANN].templates == (template(1),)


def test_templates_that_were_erased_do_not_come_back_with_an_older_version() -> None:
    record = applied(put(1, "g1", tv=2), revoke(2), put(3, "g1", tv=1)).roster.people[ANN]
    assert (record.tv, record.templates) == (2, ())


def test_templates_that_come_later_for_a_bare_put_are_taken() -> None:
    bare = put(1, "g1", tv=2, templates=False)
    assert applied(bare, put(2, "g1", tv=2)).roster.people[ANN].templates == (template(2),)


def test_the_digest_is_of_person_version_and_status() -> None:
    roster = applied(put(1, "g1"), put(1, "g1", who=BO), revoke(2, who=BO)).roster
    terms = digest_term(ANN, 1, 1) + digest_term(BO, 2, 3)
    assert roster.digest == terms % 2**256 != applied(put(1, "g1")).roster.digest


def test_an_empty_roster_has_the_digest_nought() -> None:
    assert digest_of([]) == EMPTY.digest == 0 and EMPTY.active == 0


def test_doors_of_all_grants() -> None:
    record = applied(put(1, "g1", "g2")).roster.people[ANN]
    assert doors_of(record) == {"g1", "g2"}
