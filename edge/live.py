"""What the vision thread reads while the sync thread writes.

The roster view is immutable and swapped by one attribute store; the gallery sits behind one lock,
held for one matrix product or one row. A revocation enters the view first: it waits for neither
the gallery nor the disk.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

from edge.gallery import Gallery
from edge.roster import DenySet, RosterView, ZoneRoster
from edge.terms import Lease, Match, PersonId, Vector, ZoneId

FRESH_S = 30.0
STALE_S = 15 * 60.0


class Live:
    def __init__(self, embedding_size: int) -> None:
        self.view = RosterView()
        self._size = embedding_size
        self._galleries: dict[ZoneId, Gallery] = {}
        self._lock = threading.Lock()
        self._caught_up_mono: dict[ZoneId, float] = {}

    @property
    def people(self) -> int:
        """Persons with a template in memory."""
        return sum(map(len, list(self._galleries.values())))

    def match(self, zone: ZoneId, vector: Vector) -> Match | None:
        """The nearest person of one zone. Somebody known in two zones has a pseudonym in each, so
        one gallery for both would have that person compete with themselves."""
        with self._lock:
            gallery = self._galleries.get(zone)
            return gallery.best(vector) if gallery else None

    def set_ahead(self, zone: ZoneId, denied: DenySet) -> None:
        """Revocations that hold from this instant, whatever the log has reached."""
        self.view = replace(self.view, ahead={**self.view.ahead, zone: denied})

    def set_roster(self, roster: ZoneRoster) -> None:
        self.view = replace(self.view, zones={**self.view.zones, roster.zone: roster})

    def set_templates(self, zone: ZoneId, templates: Mapping[PersonId, Sequence[Vector]]) -> int:
        """Replace the templates of these persons; an empty list removes them. Returns how many
        templates were left out because they fit no face of this model."""
        left_out = 0
        if zone not in self._galleries:
            self._galleries[zone] = Gallery(self._size)
        gallery = self._galleries[zone]
        for person, vectors in templates.items():
            with self._lock:
                left_out += len(vectors) - gallery.put(zone, person, vectors)
        return left_out

    def caught_up(self, zone: ZoneId, now_mono: float) -> None:
        self._caught_up_mono[zone] = now_mono

    def leases(self, now_mono: float) -> dict[ZoneId, Lease]:
        """By the age of the last time each zone was caught up in this boot.

        The challenge after boot and the persisted age come with the roster issue; until then a
        boot begins restricted, which refuses only grants of class `notice`.
        """
        return {zone: _lease(now_mono - at) for zone, at in list(self._caught_up_mono.items())}


def _lease(age_s: float) -> Lease:
    if age_s <= FRESH_S:
        return Lease.FRESH
    return Lease.STALE if age_s <= STALE_S else Lease.RESTRICTED
