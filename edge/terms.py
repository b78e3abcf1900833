"""The words of the house, each with one sentence. Pure: no I/O, no clock, no thread, no logger.

A new noun goes here first; README's glossary gives the Chinese term. Wall times are seconds since
the epoch, monotonic times are seconds on the boot-time clock; a name ends in `_at` or `_mono`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Literal, NewType

import numpy as np
from numpy.typing import NDArray

DoorId = NewType("DoorId", str)  # a way through that one lock holds
ZoneId = NewType("ZoneId", str)  # a compound or building group (组团): the unit of a roster
GateId = NewType("GateId", str)  # one gate box
PersonId = NewType("PersonId", bytes)  # 16-byte pseudonym, another one in every zone
GrantId = NewType("GrantId", str)  # opaque; one tenancy's right of one person
ModelId = NewType("ModelId", str)  # first 16 hex digits of the recogniser file's SHA-256

Vector = NDArray[np.float32]  # shape (embedding size,), L2 norm 1


class Reason(enum.StrEnum):
    """Why a decision is what it is: closed, so that every refusal can be explained."""

    GRANTED = "granted"
    STALE_FRAME = "stale_frame"
    DOOR_UNKNOWN = "door_unknown"
    UNKNOWN_FACE = "unknown_face"
    AMBIGUOUS_FACE = "ambiguous_face"
    PRESENTATION_ATTACK = "presentation_attack"
    LIVENESS_UNCHECKED = "liveness_unchecked"
    NOT_IN_ROSTER = "not_in_roster"
    REVOKED = "revoked"
    SUSPENDED = "suspended"
    NO_GRANT_FOR_DOOR = "no_grant_for_door"
    NOT_YET_VALID = "not_yet_valid"
    EXPIRED = "expired"
    OUTSIDE_SCHEDULE = "outside_schedule"
    NOTICE_NEEDS_FRESH_LEASE = "notice_needs_fresh_lease"


class Status(enum.IntEnum):
    """What the roster says of a person; the number is what the digest covers."""

    ACTIVE = 1
    SUSPENDED = 2
    REVOKED = 3


class OfflineClass(enum.StrEnum):
    """What a grant is worth while the gate is cut off from the office."""

    NORMAL = "normal"  # holds: a lawful tenant is never locked out by a cable
    NOTICE = "notice"  # tenancy under notice, short pass: holds only while the lease is fresh


class Lease(enum.StrEnum):
    """How long ago the gate was last caught up with the office."""

    FRESH = "fresh"
    STALE = "stale"
    RESTRICTED = "restricted"


@dataclass(frozen=True, slots=True)
class Window:
    """A weekly time window in the estate's local time; half-open [start, end)."""

    days: int  # bit 0 = Monday ... bit 6 = Sunday
    start_min: int  # minutes after midnight, 0..1439
    end_min: int  # 1..1440


@dataclass(frozen=True, slots=True)
class Grant:
    """A tenancy's right of one person to pass certain doors for a time."""

    grant_id: GrantId
    tenancy: str
    doors: frozenset[DoorId]
    not_before_at: float
    expires_at: float | None  # None: until revoked; valid in [not_before, expires)
    schedule: tuple[Window, ...] = ()  # empty: always
    offline_class: OfflineClass = OfflineClass.NORMAL


@dataclass(frozen=True, slots=True)
class SealedTemplate:
    """A face template as it travels and rests: float16 under the face key Kf."""

    model_id: ModelId
    key_epoch: int
    sealed: bytes  # nonce | AES-256-GCM ciphertext


@dataclass(frozen=True, slots=True)
class Template:
    """An opened template: in memory only."""

    person: PersonId
    model_id: ModelId
    vector: Vector


@dataclass(frozen=True, slots=True)
class Record:
    """What a gate knows of one person in one zone."""

    person: PersonId
    pv: int  # version of the rights, set by the authority; never goes back
    tv: int  # version of the templates, set by the desk
    status: Status
    grants: tuple[Grant, ...]
    templates: tuple[SealedTemplate, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """The nearest person in the gallery to a face."""

    person: PersonId
    zone: ZoneId
    score: float  # cosine, -1..1
    margin: float  # score minus the score of the second-best *person* (2.0 when there is none)


Liveness = Literal["live", "attack", "unchecked"]


@dataclass(frozen=True, slots=True)
class Sighting:
    """One credential presented at one door: here, a face in a frame."""

    door: DoorId
    camera: str
    taken_mono: float  # when the camera took the frame
    match: Match | None  # None: nobody enrolled, or the face is too far from everybody
    liveness: Liveness
    track: int = 0  # the same face over frames; 0 = not tracked


@dataclass(frozen=True, slots=True)
class Decision:
    """What `decide` says of a sighting; only GRANTED opens."""

    door: DoorId
    reason: Reason
    person: PersonId | None
    zone: ZoneId | None
    grant_id: GrantId | None = None

    @property
    def granted(self) -> bool:
        return self.reason is Reason.GRANTED


class EventKind(enum.StrEnum):
    """What a row of the audit trail tells of."""

    DECISION = "decision"  # granted or refused, written before the unlock
    WITHDRAWN = "withdrawn"  # granted, then revoked before the order left: nothing was sent
    UNLOCKED = "unlocked"  # the lock took the order
    LOCK_FAILED = "lock_failed"  # unknown, refused or not reachable
    LOCK_ONLINE = "lock_online"
    LOCK_OFFLINE = "lock_offline"
    START = "start"
    UNCLEAN_START = "unclean_start"
    STOP = "stop"
    ROSTER_FAULT = "roster_fault"  # equivocation, bad signature, refused version
    ROSTER_RESET = "roster_reset"  # the cache was refused and is being pulled again
    ERASED = "erased"  # templates and credentials of a person are gone
    DEGRADED = "degraded"
    RECOVERED = "recovered"
    GAP = "gap"  # rows that could not be kept, by count


@dataclass(frozen=True, slots=True)
class AccessEvent:
    """One fact for the audit trail. Persons by pseudonym only."""

    kind: EventKind
    at: float  # wall seconds
    door: DoorId | None = None
    zone: ZoneId | None = None
    person: PersonId | None = None
    reason: Reason | None = None
    grant_id: GrantId | None = None
    facts: dict[str, str | int | float | bool] = field(default_factory=dict)


def is_unit(vector: Vector) -> bool:
    """True when `vector` is finite and of length 1 to within float32 rounding."""
    length = float(np.linalg.norm(vector.astype(np.float64)))  # float32 would overflow
    return bool(np.isfinite(vector).all()) and abs(length - 1.0) < 1e-3
