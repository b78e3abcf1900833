"""The embedding matrix: who looks most like this face, exactly. Pure.

float32, one row per template, rows dense at the front; capacity doubles; removing a row moves the
last one into its place, O(1). One writer; readers hold the same lock (see `live`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.terms import Match, PersonId, Vector, ZoneId, is_unit

FIRST_ROWS = 64
ALONE_MARGIN = 2.0  # the widest two cosines can be apart: there is no second person

Who = tuple[ZoneId, PersonId]


@dataclass
class _Rows:
    matrix: NDArray[np.float32]
    owner: NDArray[np.int32]  # index into Gallery._people, per row


class Gallery:
    def __init__(self, size: int) -> None:
        """`size`: length of the embeddings of the model in use."""
        self.size = size
        self.count = 0
        self._rows = _Rows(np.zeros((FIRST_ROWS, size), np.float32), np.zeros(FIRST_ROWS, np.int32))
        self._people: list[Who | None] = []
        self._slot: dict[Who, int] = {}
        self._rows_of: dict[int, list[int]] = {}
        self._free: list[int] = []

    def __len__(self) -> int:
        """People, not templates."""
        return len(self._slot)

    def put(self, zone: ZoneId, person: PersonId, vectors: Sequence[Vector]) -> int:
        """Replace a person's templates; none removes the person. Returns how many were taken.

        What is not a unit vector of this gallery's size is left out: one bad template, sealed by
        a desk where nobody could look at it, must not keep the others from being enrolled.
        """
        self.remove(zone, person)
        fit = [vector for vector in vectors if vector.shape == (self.size,) and is_unit(vector)]
        if not fit:
            return 0
        slot = self._take_slot((zone, person))
        self._reserve(self.count + len(fit))
        for vector in fit:
            self._rows.matrix[self.count] = vector
            self._rows.owner[self.count] = slot
            self._rows_of[slot].append(self.count)
            self.count += 1
        return len(fit)

    def _take_slot(self, who: Who) -> int:
        if self._free:
            slot = self._free.pop()
            self._people[slot] = who
        else:
            slot = len(self._people)
            self._people.append(who)
        self._slot[who], self._rows_of[slot] = slot, []
        return slot

    def _reserve(self, rows: int) -> None:
        capacity = len(self._rows.matrix)
        if rows <= capacity:
            return
        while capacity < rows:
            capacity *= 2
        grown = _Rows(np.zeros((capacity, self.size), np.float32), np.zeros(capacity, np.int32))
        grown.matrix[: self.count] = self._rows.matrix[: self.count]
        grown.owner[: self.count] = self._rows.owner[: self.count]
        self._rows.matrix[:] = 0.0  # or faces removed later would live on in the old copy
        self._rows = grown

    def remove(self, zone: ZoneId, person: PersonId) -> bool:
        """O(templates of the person). False when nobody of that name was there."""
        slot = self._slot.pop((zone, person), None)
        if slot is None:
            return False
        for row in sorted(self._rows_of.pop(slot), reverse=True):
            self._drop_row(row)
        self._people[slot] = None
        self._free.append(slot)
        return True

    def _drop_row(self, row: int) -> None:
        last = self.count - 1
        if row != last:
            owner = int(self._rows.owner[last])
            self._rows.matrix[row] = self._rows.matrix[last]
            self._rows.owner[row] = owner
            rows = self._rows_of[owner]
            rows[rows.index(last)] = row
        self._rows.matrix[last] = 0.0  # nothing of a removed face stays in memory here
        self.count = last

    def best(self, vector: Vector) -> Match | None:
        """The nearest person by cosine, with the margin to the second-best *person*."""
        if self.count == 0:
            return None
        scores = self._rows.matrix[: self.count] @ vector
        top = int(np.argmax(scores))
        slot, score = int(self._rows.owner[top]), float(scores[top])
        scores[self._rows_of[slot]] = -np.inf
        second = float(scores.max())
        margin = score - second if len(self) > 1 else ALONE_MARGIN
        who = self._people[slot]
        assert who is not None, "a row without an owner"
        return Match(person=who[1], zone=who[0], score=score, margin=margin)
