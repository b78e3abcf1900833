"""`decide` against an oracle that was written from the rules and not from the code."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import (
    DOOR,
    ELSEWHERE,
    GRANTED,
    MARGIN,
    NOWHERE,
    OTHER,
    OTHER_ZONE,
    PERSON,
    SPOILT,
    THRESHOLD,
    WALL,
    ZONE,
    ZONE_OF,
    World,
    grant,
    record,
)

from edge.policy import Policy, checks
from edge.roster import Revoke
from edge.terms import (
    Grant,
    GrantId,
    Lease,
    Match,
    OfflineClass,
    Reason,
    Record,
    Status,
    Window,
    ZoneId,
)


def oracle(w: World) -> tuple[Reason, str | None]:
    """The rules as a person at the gate would put them, from the parts and not from the code."""
    zone = w.policy.zone_of.get(w.door)
    if not (w.age_s >= 0 and w.age_s <= 2.0):
        return Reason.STALE_FRAME, None
    if zone is None:
        return Reason.DOOR_UNKNOWN, None
    if w.match is None or not w.match.score >= w.policy.threshold:
        return Reason.UNKNOWN_FACE, None
    if not w.match.margin >= w.policy.margin:
        return Reason.AMBIGUOUS_FACE, None
    if w.liveness == "attack":
        return Reason.PRESENTATION_ATTACK, None
    if w.liveness == "unchecked" and w.policy.require_liveness:
        return Reason.LIVENESS_UNCHECKED, None
    known = [r for z, r in w.records if z == zone == w.match.zone and r.person == w.match.person]
    if not known:
        return Reason.NOT_IN_ROSTER, None
    me = known[-1]
    if me.status is not Status.ACTIVE:
        return (Reason.REVOKED if me.status is Status.REVOKED else Reason.SUSPENDED), None
    reasons = [(grant_oracle(w, zone, me, g), g.grant_id) for g in me.grants if w.door in g.doors]
    if not reasons:
        return Reason.NO_GRANT_FOR_DOOR, None
    return max(reasons, key=lambda pair: ORDER.index(pair[0]))


ORDER = [
    Reason.REVOKED,
    Reason.NOT_YET_VALID,
    Reason.EXPIRED,
    Reason.OUTSIDE_SCHEDULE,
    Reason.NOTICE_NEEDS_FRESH_LEASE,
    Reason.GRANTED,
]


def grant_oracle(w: World, zone: ZoneId, me: Record, g: Grant) -> Reason:
    for z, op in w.ahead:
        named = op.grant_ids is None or g.grant_id in op.grant_ids
        if z == zone and op.person == me.person and named and op.pv >= me.pv:
            return Reason.REVOKED
    if w.wall < g.not_before_at:
        return Reason.NOT_YET_VALID
    if g.expires_at is not None and w.wall >= g.expires_at:
        return Reason.EXPIRED
    local = datetime.fromtimestamp(w.wall, timezone(timedelta(seconds=w.policy.utc_offset_s)))
    today, minute = 1 << local.weekday(), local.hour * 60 + local.minute
    hours = [x for x in g.schedule if x.days & today and x.start_min <= minute < x.end_min]
    if g.schedule and not hours:
        return Reason.OUTSIDE_SCHEDULE
    cut_off = w.policy.lease.get(zone) not in (Lease.FRESH, Lease.STALE)
    if g.offline_class is OfflineClass.NOTICE and cut_off:
        return Reason.NOTICE_NEEDS_FRESH_LEASE
    return Reason.GRANTED


def mostly(good: Any, other: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A dozen rules have to hold for a door to open: most parts of most worlds are in order."""
    return st.integers(0, 5).flatmap(lambda n: other if n == 0 else st.just(good))


AROUND_NOW = st.integers(-2, 2).map(lambda n: WALL + n * 3600)
WINDOWS = st.builds(
    Window, st.sampled_from([127, 4, 8, 0]), st.integers(0, 1439), st.integers(1, 1440)
)
GRANTS = st.builds(
    Grant,
    st.sampled_from(["g1", "g2", "g3"]).map(GrantId),
    st.just("t"),
    mostly(frozenset({DOOR}), st.frozensets(st.sampled_from([DOOR, ELSEWHERE]))),
    mostly(WALL - 7200, AROUND_NOW),
    mostly(None, AROUND_NOW),
    mostly((), st.lists(WINDOWS, max_size=2).map(tuple)),
    st.sampled_from(OfflineClass),
)
PVS = st.integers(1, 6)
ZONES, PEOPLE = st.sampled_from([ZONE, OTHER_ZONE]), st.sampled_from([PERSON, OTHER])
RECORDS = st.builds(
    Record,
    mostly(PERSON, PEOPLE),
    PVS,
    st.just(1),
    mostly(Status.ACTIVE, st.sampled_from(Status)),
    st.lists(GRANTS, min_size=1, max_size=3, unique_by=lambda g: g.grant_id).map(tuple),
    st.just(()),
)
REVOKES = st.builds(
    Revoke,
    PEOPLE,
    PVS,
    st.none() | st.lists(st.sampled_from(["g1", "g2", "g3"]).map(GrantId), max_size=2).map(tuple),
    st.booleans(),
)
SCORES = st.sampled_from([0.25, 0.5, 0.75, math.nan])
WORLDS = st.builds(
    World,
    mostly(DOOR, st.sampled_from([DOOR, ELSEWHERE, NOWHERE])),
    mostly(0.25, st.sampled_from([-0.25, 0.0, 2.0, 2.25, math.nan])),
    mostly(
        Match(PERSON, ZONE, 0.75, 0.25),
        st.none() | st.builds(Match, PEOPLE, ZONES, SCORES, st.sampled_from([0.0, 0.0625, 0.25])),
    ),
    mostly("live", st.sampled_from(["live", "attack", "unchecked"])),
    st.lists(
        st.tuples(mostly(ZONE, ZONES), RECORDS),
        min_size=1,
        max_size=3,
        unique_by=lambda pair: (pair[0], pair[1].person),
    ).map(tuple),
    mostly((), st.lists(st.tuples(ZONES, REVOKES), max_size=2).map(tuple)),
    st.builds(
        Policy,
        st.just(ZONE_OF),
        st.just(THRESHOLD),
        st.just(MARGIN),
        st.booleans(),
        st.sampled_from([8 * 3600, 0, -12 * 3600, 20700]),
        st.dictionaries(ZONES, st.sampled_from(Lease)),
    ),
    st.integers(-96, 96).map(lambda n: WALL + n * 1800.0),
)


def agrees(w: World) -> None:
    reason, grant_id = oracle(w)
    decision = w.decide()
    assert decision.reason is reason
    if reason is Reason.GRANTED:
        assert (decision.person, decision.zone) == (w.match and w.match.person, ZONE_OF[w.door])
    if grant_id is not None and decision.grant_id is not None:
        same = [g for _, r in w.records for g in r.grants if g.grant_id == decision.grant_id]
        assert same


@given(WORLDS)
def test_decide_is_what_the_oracle_says(w: World) -> None:
    agrees(w)


@pytest.mark.slow
@given(WORLDS)
def test_decide_is_what_the_oracle_says_at_length(w: World) -> None:
    agrees(w)


def test_the_oracle_knows_every_reason_too() -> None:
    finite = [w for several in SPOILT.values() for w in several if math.isfinite(w.wall)]
    named = [w for w in finite if w.liveness != "no such word"]
    assert {oracle(w)[0] for w in named} == set(SPOILT)
    assert all(oracle(w)[0] is w.decide().reason for w in [*named, GRANTED])


ANY = st.floats()
WIRE_TIMES = st.integers(0, 2**63 - 1).map(lambda ms: ms / 1000)


@given(
    wall=ANY,
    age_s=ANY,
    score=ANY,
    margin=ANY,
    begins=WIRE_TIMES | ANY,
    ends=st.none() | WIRE_TIMES | ANY,
    windows=st.lists(st.builds(Window, st.integers(), st.integers(), st.integers()), max_size=3),
    offset=st.integers(-(10**12), 10**12),
)
def test_decide_and_explain_never_raise(
    wall: float,
    age_s: float,
    score: float,
    margin: float,
    begins: float,
    ends: float | None,
    windows: list[Window],
    offset: int,
) -> None:
    held = grant(not_before_at=begins, expires_at=ends, schedule=tuple(windows))
    wild = World(
        age_s=age_s,
        match=Match(PERSON, ZONE, score, margin),
        records=((ZONE, record(held)),),
        policy=replace(GRANTED.policy, utc_offset_s=offset),
        wall=wall,
    )
    sighting, roster, policy, now = wild.parts()
    told = [check.holds for check in checks(sighting, roster, policy, now=now)]
    assert wild.decide().granted is all(told)
    if all(told):
        assert begins <= wall and (ends is None or wall < ends) and 0 <= age_s <= 2
