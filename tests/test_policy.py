"""Every rule of entry: each reason by one thing spoilt, and the edge of each interval."""

from __future__ import annotations

import ast
import inspect
import math
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from worlds import (
    DOOR,
    ELSEWHERE,
    GRANTED,
    MARGIN,
    NEVER,
    NOTICE,
    OTHER,
    OTHER_ZONE,
    PERSON,
    SPOILT,
    THRESHOLD,
    WALL,
    ZONE,
    World,
    grant,
    record,
    with_policy,
    world,
)

from edge import policy as module
from edge.policy import FRAME_AGE_MAX_S, Policy, checks
from edge.roster import Revoke
from edge.terms import Decision, GrantId, Lease, Match, OfflineClass, Reason, Window


def test_the_world_as_it_stands_opens() -> None:
    assert GRANTED.decide() == Decision(DOOR, Reason.GRANTED, PERSON, ZONE, GrantId("g1"))


@pytest.mark.parametrize(
    ("reason", "spoilt"),
    [(reason, one) for reason, several in SPOILT.items() for one in several],
    ids=[f"{reason.value}-{n}" for reason, several in SPOILT.items() for n in range(len(several))],
)
def test_one_thing_spoilt_refuses_with_its_own_reason(reason: Reason, spoilt: World) -> None:
    decision = spoilt.decide()
    assert (decision.reason, decision.granted) == (reason, False)


def test_every_reason_can_be_reached() -> None:
    assert set(SPOILT) == set(Reason) - {Reason.GRANTED}


def test_only_the_last_line_opens() -> None:
    """The word GRANTED stands once in the rules: in the return that ends `decide`."""
    tree = ast.parse(inspect.getsource(module))
    opening = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "GRANTED"
    ]
    function = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "decide")
    assert opening == [function.body[-1].lineno]
    assert function.end_lineno == opening[0]


@pytest.mark.parametrize(
    "reason", ["STALE_FRAME", "DOOR_UNKNOWN", "UNKNOWN_FACE", "AMBIGUOUS_FACE"]
)
def test_nobody_is_written_down_who_was_not_established(reason: str) -> None:
    for spoilt in SPOILT[Reason[reason]]:
        assert spoilt.decide().person is None


def test_explain_shows_what_decide_went_by() -> None:
    sighting, roster, policy, now = GRANTED.parts()
    told = list(checks(sighting, roster, policy, now=now))
    assert all(check.holds and check.facts for check in told)
    assert {check.refuses for check in told} == set(Reason) - {Reason.GRANTED}


def test_explain_tells_dates_and_hours_as_people_read_them() -> None:
    hours = Window(4, 18 * 60, 19 * 60)  # Wednesday evening
    for held, told in (
        (grant(), ["until 2026-03-04T10:30:10Z", "Wed 18:30 local, no windows"]),
        (grant(expires_at=None, schedule=(hours,)), ["until revoked", "18:30 local, 1 windows"]),
    ):
        sighting, roster, policy, now = world(held).parts()
        facts = " | ".join(check.facts for check in checks(sighting, roster, policy, now=now))
        assert all(text in facts for text in told)


@pytest.mark.parametrize("reason", SPOILT)
def test_explain_has_words_for_every_refusal(reason: Reason) -> None:
    for spoilt in SPOILT[reason]:
        sighting, roster, policy, now = spoilt.parts()
        told = list(checks(sighting, roster, policy, now=now))
        assert next(check.refuses for check in told if not check.holds) is reason


def test_what_holds_when_nothing_is_set() -> None:
    policy = Policy({}, THRESHOLD)
    assert (policy.margin, policy.require_liveness, policy.lease) == (0.05, True, {})


# --- the edge of every interval ---


@pytest.mark.parametrize(
    ("edge", "opens"),
    [
        (world(age_s=0.0), True),
        (world(age_s=FRAME_AGE_MAX_S), True),
        (world(age_s=math.nextafter(FRAME_AGE_MAX_S, 3) + 1e-9), False),
        (world(age_s=-1e-9), False),
        (world(grant(not_before_at=WALL)), True),
        (world(grant(not_before_at=math.nextafter(WALL, math.inf))), False),
        (world(grant(expires_at=math.nextafter(WALL, math.inf))), True),
        (world(grant(expires_at=WALL)), False),
        (world(grant(not_before_at=WALL, expires_at=WALL)), False),
        (world(grant(expires_at=None)), True),
        (world(match=Match(PERSON, ZONE, THRESHOLD, 0.25)), True),
        (world(match=Match(PERSON, ZONE, math.nextafter(THRESHOLD, 0), 0.25)), False),
        (world(match=Match(PERSON, ZONE, 0.75, MARGIN)), True),
        (world(match=Match(PERSON, ZONE, 0.75, math.nextafter(MARGIN, 0))), False),
        (world(ahead=((ZONE, Revoke(PERSON, 5, None)),)), False),
        (world(ahead=((ZONE, Revoke(PERSON, 4, None)),)), True),
        (world(ahead=((ZONE, Revoke(OTHER, 5, None)),)), True),
        (world(ahead=((OTHER_ZONE, Revoke(PERSON, 5, None)),)), True),
        (world(ahead=((ZONE, Revoke(PERSON, 5, (GrantId("g2"),))),)), True),
        (replace(with_policy(require_liveness=False), liveness="unchecked"), True),
    ],
)
def test_edge(edge: World, opens: bool) -> None:
    assert edge.decide().granted is opens


MONDAY = datetime(2026, 3, 2, tzinfo=timezone(timedelta(hours=8))).timestamp()


@pytest.mark.parametrize(
    ("day", "clock_s", "inside"),
    [
        (0, 8 * 3600 - 0.001, False),
        (0, 8 * 3600, True),
        (0, 17 * 3600 - 0.001, True),
        (0, 17 * 3600, False),
        (1, 8 * 3600, False),
        (6, 8 * 3600, True),
        (6, 86400 - 0.001, False),
        (7, 8 * 3600, True),
    ],
)
def test_a_window_is_half_open_in_local_time(day: int, clock_s: float, inside: bool) -> None:
    wall = MONDAY + day * 86400 + clock_s
    hours = Window(0b1000001, 8 * 60, 17 * 60)  # Monday and Sunday
    held = world(grant(not_before_at=0, expires_at=None, schedule=(hours,)), wall=wall)
    assert held.decide().granted is inside


def test_a_whole_day_has_its_first_and_its_last_minute() -> None:
    day = grant(not_before_at=0, expires_at=None, schedule=(Window(1, 0, 1440),))
    assert [world(day, wall=MONDAY + s).decide().granted for s in (-0.01, 0, 86399.99, 86400)] == [
        False,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("lease", "opens"), [("fresh", True), ("stale", True), ("restricted", False)]
)
def test_a_grant_under_notice_needs_a_lease_and_a_lawful_tenant_does_not(
    lease: str, opens: bool
) -> None:
    cut_off = with_policy(lease={ZONE: Lease(lease)})
    assert replace(cut_off, records=((ZONE, record(NOTICE)),)).decide().granted is opens
    assert cut_off.decide().granted


# --- two tenancies ---


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "spoil",
    [
        {"not_before_at": WALL + 1},
        {"expires_at": WALL},
        {"schedule": (NEVER,)},
        {"doors": frozenset({ELSEWHERE})},
    ],
)
def test_two_tenancies_are_independent(spoil: dict[str, Any], first: bool) -> None:
    both = (grant("g1", **spoil), grant("g2"))
    decision = world(*(both if first else both[::-1])).decide()
    assert (decision.granted, decision.grant_id) == (True, "g2")


def test_the_end_of_one_tenancy_does_not_touch_the_other() -> None:
    ended = ((ZONE, Revoke(PERSON, 9, (GrantId("g1"),))),)
    decision = world(grant("g1"), grant("g2"), ahead=ended).decide()
    assert (decision.granted, decision.grant_id) == (True, "g2")
    assert world(grant("g1"), ahead=ended).decide().reason is Reason.REVOKED


def test_the_tenancy_that_gets_furthest_gives_the_reason() -> None:
    """One revoked and otherwise in order, one running and outside its hours on two counts."""
    ended = ((ZONE, Revoke(PERSON, 9, (GrantId("g1"),))),)
    hours = grant("g2", schedule=(NEVER,), offline_class=OfflineClass.NOTICE)
    held = replace(with_policy(lease={}), ahead=ended)
    for grants in ((grant("g1"), hours), (hours, grant("g1"))):
        decision = replace(held, records=((ZONE, record(*grants)),)).decide()
        assert (decision.reason, decision.grant_id) == (Reason.OUTSIDE_SCHEDULE, "g2")


def test_a_grant_for_longer_than_a_calendar_opens() -> None:
    """2^63 ms, the most that the wire allows, is the year 292,000,000."""
    assert world(grant(expires_at=2.0**63 / 1000)).decide().granted
    assert world(grant(not_before_at=2.0**63 / 1000)).decide().reason is Reason.NOT_YET_VALID
