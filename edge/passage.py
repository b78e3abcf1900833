"""THE STRAIGHT LINE: frame -> faces -> match -> sighting -> decide -> record -> unlock.

Runs on the vision thread. Nothing here decides: the rules are in `policy`. Nothing here waits but
for the audit row, which is on the disk before the order to the lock exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge.clock import Clock
from edge.live import Live
from edge.policy import Now, Policy, decide
from edge.terms import (
    AccessEvent,
    Decision,
    DoorId,
    EventKind,
    Liveness,
    Match,
    Reason,
    Sighting,
    Vector,
)
from edge.tracks import Box, Track, Tracks


class Face(Protocol):
    """A face found in a frame."""

    @property
    def box(self) -> Box: ...


class Verdict(Protocol):
    @property
    def verdict(self) -> Liveness: ...


class FaceEngine(Protocol):
    """Detector, recogniser and presentation-attack check; images are HxWx3 uint8 BGR.

    A face is whatever `detect` returned, handed back to the same engine."""

    def detect(self, image: NDArray[np.uint8]) -> Sequence[Face]: ...
    def embed(self, image: NDArray[np.uint8], face: Any) -> Vector: ...
    def liveness(self, image: NDArray[np.uint8], face: Any) -> Verdict: ...


class Frame(Protocol):
    @property
    def camera(self) -> str: ...
    @property
    def image(self) -> NDArray[np.uint8]: ...
    @property
    def taken_mono(self) -> float: ...


class Kept(Protocol):
    @property
    def kept(self) -> bool: ...


class AuditTrail(Protocol):
    def record(self, event: AccessEvent) -> Kept:
        """Returns when the row is written: on disk, or in the ring while the disk fails."""

    def post(self, event: AccessEvent) -> object: ...


class DoorLocks(Protocol):
    def open(self, door: DoorId, *, taken_mono: float) -> None: ...
    def failed_mono(self, door: DoorId) -> float:
        """When this door's lock last failed an order (-inf: never)."""


@dataclass
class Passage:
    faces: FaceEngine
    live: Live
    policy: Policy
    journal: AuditTrail
    locks: DoorLocks
    clock: Clock
    doors: dict[str, tuple[DoorId, ...]]  # by camera
    _tracks: dict[str, Tracks] = field(default_factory=dict)

    def attend(self, frame: Frame) -> list[Decision]:
        """Decide on every face in the frame at every door of its camera; returns what was new."""
        faces = self.faces.detect(frame.image)
        tracks = self._tracks.setdefault(frame.camera, Tracks())
        followed = tracks.follow([face.box for face in faces], frame.taken_mono)
        news = []
        for face, track in zip(faces, followed, strict=True):
            news += self._settle(self._see(frame, face, track), track)
        return news

    def _see(self, frame: Frame, face: Face, track: Track) -> list[Sighting]:
        """One face at every door of its camera, matched among the people of that door's zone."""
        vector = self.faces.embed(frame.image, face)
        doors = self.doors[frame.camera]
        zones = {door: self.policy.zone_of[door] for door in doors}
        matches = {zone: self.live.match(zone, vector) for zone in set(zones.values())}
        nearest = max(filter(None, matches.values()), key=lambda m: m.score, default=None)
        liveness = self._liveness(frame, face, nearest, track)
        taken_mono, number = frame.taken_mono, track.number
        return [
            Sighting(door, frame.camera, taken_mono, matches[zones[door]], liveness, number)
            for door in doors
        ]

    def _liveness(self, frame: Frame, face: Face, match: Match | None, track: Track) -> Liveness:
        """Looked at only where it matters: a face that matches nobody opens nothing anyway."""
        if match is None or match.score < self.policy.threshold:
            return "unchecked"
        verdict = self.faces.liveness(frame.image, face).verdict
        if verdict == "attack":
            track.attack_mono = frame.taken_mono
        return "attack" if track.suspected(frame.taken_mono) else verdict

    def _settle(self, sightings: Sequence[Sighting], track: Track) -> list[Decision]:
        """Those granted open; of one face's refusals one is told."""
        decided = [(self._decide(sighting), sighting) for sighting in sightings]
        granted = [(decision, sighting) for decision, sighting in decided if decision.granted]
        told = granted or [_most_telling(decided)]
        return [decision for decision, sighting in told if self._act(decision, sighting, track)]

    def _decide(self, sighting: Sighting) -> Decision:
        now = Now(self.clock.wall(), self.clock.mono())
        policy = replace(self.policy, lease=self.live.leases(now.mono))
        return decide(sighting, self.live.view, policy, now=now)

    def _act(self, decision: Decision, sighting: Sighting, track: Track) -> bool:
        """Record, then unlock. False when it was said of this face already."""
        now_mono = self.clock.mono()
        failed_mono = self.locks.failed_mono(decision.door)
        if not track.is_news(decision, now_mono, failed_mono=failed_mono):
            return False
        track.tell(decision, now_mono)
        event = self._event(EventKind.DECISION, decision, sighting)
        if not decision.granted:
            self.journal.post(event)
            return True
        kept = self.journal.record(event).kept
        again = self._decide(sighting)
        if not (kept and again.granted):
            # Revoked (or late) while the row was being written: nothing is sent, the trail says so.
            track.untell(decision)
            self.journal.post(self._event(EventKind.WITHDRAWN, again, sighting))
            return True
        self.locks.open(decision.door, taken_mono=sighting.taken_mono)
        return True

    def _event(self, kind: EventKind, decision: Decision, sighting: Sighting) -> AccessEvent:
        facts: dict[str, str | int | float | bool] = {"camera": sighting.camera}
        if sighting.match:
            facts["score"] = round(sighting.match.score, 3)
        return AccessEvent(
            kind=kind,
            at=self.clock.wall(),
            door=decision.door,
            zone=decision.zone,
            person=decision.person,
            reason=decision.reason,
            grant_id=decision.grant_id,
            facts=facts,
        )


def _most_telling(refusals: Sequence[tuple[Decision, Sighting]]) -> tuple[Decision, Sighting]:
    """Of one face's refusals at several doors: one that says more than "not this door"."""
    vague = Reason.NO_GRANT_FOR_DOOR
    return next((one for one in refusals if one[0].reason is not vague), refusals[0])
