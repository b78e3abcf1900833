"""One face over frames: what has been said about it, and when to say it again. Pure.

A track is a box that moves a little from frame to frame; no picture and no embedding is kept, so
no stranger is remembered. Every frame is decided afresh: a track only keeps the same outcome from
being told, and the same door from being opened, again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge.terms import Decision, DoorId, PersonId, Reason

Box = NDArray[np.float32]  # x0, y0, x1, y1 in pixels

SAME_FACE_IOU = 0.3  # boxes of one face at 10 fps overlap far more, two faces hardly
GONE_AFTER_S = 1.0  # a face not seen for this long has left
SAY_AGAIN_AFTER_S = 10.0  # still standing there: decide aloud once more
ATTACK_HOLD_S = 2.0  # one attack verdict holds this long, so that trying often does not help


@dataclass(slots=True)
class Track:
    number: int
    box: Box
    seen_mono: float
    attack_mono: float = float("-inf")
    said: dict[tuple[DoorId, Reason, PersonId | None], float] = field(default_factory=dict)

    def suspected(self, now_mono: float) -> bool:
        """True while an attack seen on this face lately is still held against it."""
        return now_mono - self.attack_mono < ATTACK_HOLD_S

    def is_news(self, decision: Decision, now_mono: float, *, failed_mono: float) -> bool:
        """True when this outcome was not told of this face lately, or the lock failed since."""
        last = self.said.get((decision.door, decision.reason, decision.person), float("-inf"))
        failed_since = decision.granted and failed_mono > last
        return failed_since or now_mono - last >= SAY_AGAIN_AFTER_S

    def tell(self, decision: Decision, now_mono: float) -> None:
        self.said[decision.door, decision.reason, decision.person] = now_mono

    def untell(self, decision: Decision) -> None:
        """It did not happen after all: the next frame may try again."""
        self.said.pop((decision.door, decision.reason, decision.person), None)


class Tracks:
    """The faces before one camera."""

    def __init__(self) -> None:
        self._tracks: list[Track] = []
        self._next = 1

    def follow(self, boxes: Sequence[Box], now_mono: float) -> list[Track]:
        """The track of each box, in the order given; new ones begin, old ones end."""
        known = [t for t in self._tracks if now_mono - t.seen_mono <= GONE_AFTER_S]
        free = list(known)
        found = []
        for box in boxes:
            nearest = max(free, key=lambda track: iou(track.box, box), default=None)
            if nearest is None or iou(nearest.box, box) < SAME_FACE_IOU:
                nearest = Track(self._next, box, now_mono)
                self._next += 1
                known.append(nearest)
            else:
                free.remove(nearest)
            nearest.box, nearest.seen_mono = box, now_mono
            found.append(nearest)
        self._tracks = known
        return found


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0..1."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = float(width * height)
    area = float((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]))
    return both / (area - both)
