"""Who may pass: every rule of entry, in reading order; only the last line opens. Pure.

`checks` yields the rules one by one with the facts they looked at. `decide` stops at the first
that fails; `edge explain` prints them all: it is the same code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from edge.roster import RosterView
from edge.terms import (
    Decision,
    DoorId,
    Grant,
    Lease,
    OfflineClass,
    Reason,
    Record,
    Sighting,
    Status,
    Window,
    ZoneId,
)

FRAME_AGE_MAX_S = 2.0  # a picture older than this shows the past (targets.md)
DEFAULT_MARGIN = 0.05
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True, slots=True)
class Policy:
    """The gate's settings that decide. Times of day are the estate's local time."""

    zone_of: Mapping[DoorId, ZoneId]
    threshold: float  # cosine; from the model pack unless the configuration raises it
    margin: float = DEFAULT_MARGIN
    require_liveness: bool = True
    utc_offset_s: int = 8 * 3600
    lease: Mapping[ZoneId, Lease] = field(default_factory=dict)  # absent: restricted


@dataclass(frozen=True, slots=True)
class Now:
    """The two clocks, read once per frame."""

    wall: float
    mono: float


@dataclass(frozen=True, slots=True)
class Check:
    """One rule: the reason it refuses with, whether it holds, and the facts it looked at."""

    refuses: Reason
    holds: bool
    facts: str
    grant: Grant | None = None


def decide(sighting: Sighting, roster: RosterView, policy: Policy, *, now: Now) -> Decision:
    """The first rule that does not hold is the reason; when all hold, the door opens."""
    person = sighting.match.person if sighting.match else None
    zone = policy.zone_of.get(sighting.door)
    grant: Grant | None = None
    for check in checks(sighting, roster, policy, now=now):
        grant = check.grant or grant
        if not check.holds:
            known = None if check.refuses in _NOBODY else person
            grant_id = grant.grant_id if grant else None
            return Decision(sighting.door, check.refuses, known, zone, grant_id)
    if grant is None:
        return Decision(sighting.door, Reason.NO_GRANT_FOR_DOOR, person, zone)
    return Decision(sighting.door, Reason.GRANTED, person, zone, grant.grant_id)


# With these the person is not established, so none is written down.
_NOBODY = frozenset(
    {Reason.STALE_FRAME, Reason.DOOR_UNKNOWN, Reason.UNKNOWN_FACE, Reason.AMBIGUOUS_FACE}
)


def checks(sighting: Sighting, roster: RosterView, policy: Policy, *, now: Now) -> Iterator[Check]:
    """Every rule of entry. After the first that does not hold, the rest mean nothing."""
    age = now.mono - sighting.taken_mono
    fresh = 0.0 <= age <= FRAME_AGE_MAX_S
    yield Check(Reason.STALE_FRAME, fresh, f"picture is {age:.2f} s old, limit {FRAME_AGE_MAX_S}")

    zone = policy.zone_of.get(sighting.door)
    yield Check(Reason.DOOR_UNKNOWN, zone is not None, f"door {sighting.door} is in zone {zone}")

    match = sighting.match
    score = match.score if match else -1.0
    near = f"nearest score {score:.3f}, threshold {policy.threshold:.3f}"
    yield Check(Reason.UNKNOWN_FACE, match is not None and score >= policy.threshold, near)
    if match is None or zone is None:
        return
    apart = f"{match.margin:.3f} ahead of the next person, needed {policy.margin:.3f}"
    yield Check(Reason.AMBIGUOUS_FACE, match.margin >= policy.margin, apart)

    seen = f"presentation-attack check says {sighting.liveness}"
    yield Check(Reason.PRESENTATION_ATTACK, sighting.liveness != "attack", seen)
    checked = sighting.liveness == "live" or not policy.require_liveness
    yield Check(Reason.LIVENESS_UNCHECKED, checked, seen)

    record = roster.record(zone, match.person) if match.zone == zone else None
    yield Check(Reason.NOT_IN_ROSTER, record is not None, f"roster of zone {zone}")
    if record is not None:
        yield from _rights(record, zone, sighting.door, roster, policy, now)


def _rights(
    record: Record, zone: ZoneId, door: DoorId, roster: RosterView, policy: Policy, now: Now
) -> Iterator[Check]:
    """The rules about one known person: standing, then the best grant for this door."""
    standing = f"{record.status.name.lower()} at rights version {record.pv}"
    yield Check(Reason.REVOKED, record.status is not Status.REVOKED, standing)
    yield Check(Reason.SUSPENDED, record.status is not Status.SUSPENDED, standing)

    grants = [grant for grant in record.grants if door in grant.doors]
    yield Check(Reason.NO_GRANT_FOR_DOOR, bool(grants), f"{len(grants)} grants name {door}")
    if not grants:
        return
    lease = policy.lease.get(zone, Lease.RESTRICTED)
    trials = [list(_grant(grant, record, zone, lease, roster, policy, now)) for grant in grants]
    # The grant that gets furthest speaks for the person: two tenancies are independent.
    yield from max(trials, key=_reached)


def _reached(trial: Sequence[Check]) -> int:
    return next((n for n, check in enumerate(trial) if not check.holds), len(trial))


def _grant(
    grant: Grant,
    record: Record,
    zone: ZoneId,
    lease: Lease,
    roster: RosterView,
    policy: Policy,
    now: Now,
) -> Iterator[Check]:
    denied = roster.denied(zone, record, grant.grant_id)
    yield Check(Reason.REVOKED, not denied, f"deny set, grant {grant.grant_id}", grant)
    begun = grant.not_before_at <= now.wall
    yield Check(Reason.NOT_YET_VALID, begun, f"valid from {_utc(grant.not_before_at)}", grant)
    open_end = grant.expires_at is None
    running = grant.expires_at is None or now.wall < grant.expires_at
    until = "until revoked" if open_end else f"until {_utc(grant.expires_at or 0)}"
    yield Check(Reason.EXPIRED, running, f"valid {until}", grant)
    day, minute = _local(now.wall, policy.utc_offset_s)
    inside = not grant.schedule or any(_within(w, day, minute) for w in grant.schedule)
    clock = f"{DAYS[day]} {minute // 60:02}:{minute % 60:02}"
    when = f"{clock} local, {len(grant.schedule) or 'no'} windows"
    yield Check(Reason.OUTSIDE_SCHEDULE, inside, when, grant)
    held = grant.offline_class is OfflineClass.NORMAL or lease is not Lease.RESTRICTED
    word = f"offline class {grant.offline_class}, lease {lease}"
    yield Check(Reason.NOTICE_NEEDS_FRESH_LEASE, held, word, grant)


def _local(wall: float, utc_offset_s: int) -> tuple[int, int]:
    """Day of the week (0 = Monday) and minute of the day. Arithmetic, because a calendar ends at
    the year 9999 and a decision may not fail; a clock that tells no time is in no window."""
    if not math.isfinite(wall):
        return 0, -1
    days, seconds = divmod(math.floor(wall) + utc_offset_s, 86_400)
    return (days + 3) % 7, seconds // 60  # 1970-01-01 was a Thursday


def _within(window: Window, day: int, minute: int) -> bool:
    return bool(window.days >> day & 1) and window.start_min <= minute < window.end_min


def _utc(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):  # the wire allows more than a calendar holds
        return f"{at:.0f} s after 1970"
