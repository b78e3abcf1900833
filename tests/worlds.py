"""One sighting and everything that a decision about it looks at; and one world for each refusal."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from edge.policy import Now, Policy, decide
from edge.roster import Revoke, RosterView, ZoneRoster, deny
from edge.terms import (
    Decision,
    DoorId,
    Grant,
    GrantId,
    Lease,
    Match,
    OfflineClass,
    PersonId,
    Reason,
    Record,
    Sighting,
    Status,
    Window,
    ZoneId,
)

DOOR, ELSEWHERE, NOWHERE = DoorId("main"), DoorId("back"), DoorId("nowhere")
ZONE, OTHER_ZONE = ZoneId("lotus"), ZoneId("maple")
PERSON, OTHER = PersonId(b"p" * 16), PersonId(b"q" * 16)
ZONE_OF = {DOOR: ZONE, ELSEWHERE: OTHER_ZONE}
WALL = datetime(2026, 3, 4, 10, 30, tzinfo=UTC).timestamp()  # a Wednesday, 18:30 in Beijing
MONO, THRESHOLD, MARGIN = 5000.0, 0.5, 0.0625  # floats that are exact
NEAR = Match(PERSON, ZONE, 0.75, 0.25)
POLICY = Policy(ZONE_OF, THRESHOLD, MARGIN, lease={ZONE: Lease.FRESH})


@dataclass(frozen=True)
class World:
    """Everything a decision looks at. As it stands, the door opens."""

    door: DoorId = DOOR
    age_s: float = 0.25
    match: Match | None = NEAR
    liveness: Any = "live"
    records: tuple[tuple[ZoneId, Record], ...] = ()
    ahead: tuple[tuple[ZoneId, Revoke], ...] = ()
    policy: Policy = POLICY
    wall: float = WALL

    def parts(self) -> tuple[Sighting, RosterView, Policy, Now]:
        zones = {
            zone: ZoneRoster(zone, people={r.person: r for z, r in self.records if z == zone})
            for zone in {zone for zone, _ in self.records}
        }
        ahead = {
            zone: deny(op for z, op in self.ahead if z == zone)
            for zone in {zone for zone, _ in self.ahead}
        }
        sighting = Sighting(self.door, "cam", MONO - self.age_s, self.match, self.liveness)
        return sighting, RosterView(zones, ahead), self.policy, Now(self.wall, MONO)

    def decide(self) -> Decision:
        sighting, roster, policy, now = self.parts()
        return decide(sighting, roster, policy, now=now)


def grant(name: str = "g1", **fields: Any) -> Grant:
    given = {"tenancy": f"t-{name}", "doors": frozenset({DOOR}), "not_before_at": WALL - 10.0}
    return Grant(GrantId(name), **{**given, "expires_at": WALL + 10.0, **fields})


def record(*grants: Grant, status: Status = Status.ACTIVE, pv: int = 5) -> Record:
    return Record(PERSON, pv, 1, status, grants, ())


def world(*grants: Grant, **fields: Any) -> World:
    return World(**{"records": ((ZONE, record(*(grants or (grant(),)))),), **fields})


def with_policy(**fields: Any) -> World:
    return world(policy=replace(World().policy, **fields))


GRANTED = world()
NOTICE = grant(offline_class=OfflineClass.NOTICE)
NEVER = Window(0, 0, 1440)

# One thing is spoilt in each.
SPOILT: dict[Reason, list[World]] = {
    Reason.STALE_FRAME: [world(age_s=2.5), world(age_s=-0.25), world(age_s=math.nan)],
    Reason.DOOR_UNKNOWN: [world(door=NOWHERE)],
    Reason.UNKNOWN_FACE: [
        world(match=None),
        world(match=Match(PERSON, ZONE, 0.25, 0.25)),
        world(match=Match(PERSON, ZONE, math.nan, 0.25)),
        with_policy(threshold=math.nan),
    ],
    Reason.AMBIGUOUS_FACE: [
        world(match=Match(PERSON, ZONE, 0.75, 0.0)),
        world(match=Match(PERSON, ZONE, 0.75, math.nan)),
    ],
    Reason.PRESENTATION_ATTACK: [
        world(liveness="attack"),
        replace(with_policy(require_liveness=False), liveness="attack"),
    ],
    Reason.LIVENESS_UNCHECKED: [world(liveness="unchecked"), world(liveness="no such word")],
    Reason.NOT_IN_ROSTER: [
        world(records=()),
        world(match=Match(OTHER, ZONE, 0.75, 0.25)),
        world(match=Match(PERSON, OTHER_ZONE, 0.75, 0.25)),
        world(records=((OTHER_ZONE, record(grant())),)),
    ],
    Reason.REVOKED: [
        world(records=((ZONE, record(grant(), status=Status.REVOKED)),)),
        world(ahead=((ZONE, Revoke(PERSON, 5, None)),)),
        world(ahead=((ZONE, Revoke(PERSON, 5, (GrantId("g1"),))),)),
        world(ahead=((ZONE, Revoke(PERSON, 99, (GrantId("g1"),), suspend=True)),)),
    ],
    Reason.SUSPENDED: [world(records=((ZONE, record(grant(), status=Status.SUSPENDED)),))],
    Reason.NO_GRANT_FOR_DOOR: [
        world(records=((ZONE, record()),)),
        world(grant(doors=frozenset({ELSEWHERE}))),
        world(grant(doors=frozenset())),
    ],
    Reason.NOT_YET_VALID: [world(grant(not_before_at=WALL + 1)), world(wall=math.nan)],
    Reason.EXPIRED: [world(grant(expires_at=WALL - 1)), world(wall=math.inf)],
    Reason.OUTSIDE_SCHEDULE: [
        world(grant(schedule=(NEVER,))),
        world(grant(expires_at=None, schedule=(Window(127, 0, 1440),)), wall=math.inf),
    ],
    Reason.NOTICE_NEEDS_FRESH_LEASE: [
        replace(with_policy(lease={ZONE: Lease.RESTRICTED}), records=((ZONE, record(NOTICE)),)),
        replace(with_policy(lease={}), records=((ZONE, record(NOTICE)),)),
        replace(with_policy(lease={OTHER_ZONE: Lease.FRESH}), records=((ZONE, record(NOTICE)),)),
    ],
}
