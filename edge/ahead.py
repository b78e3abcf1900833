"""Revocations of one zone that run ahead of its log: in force from the instant they are heard, each
bound to its place in the log. Pure.

What is in memory only is enforced and not receipted: after a power cut it would be forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from edge import roster as rules
from edge.envelope import WireError
from edge.oplog import MissingKey, open_op, parse_op
from edge.roster import DenySet, Revoke
from edge.seal import SealError

Place = tuple[int, bytes]  # (seq, op bytes): two different ops at one seq are both enforced


@dataclass(slots=True)
class Ahead:
    zone: str
    _ops: dict[Place, Revoke] = field(default_factory=dict)
    _kept: set[Place] = field(default_factory=set)

    def note(self, first: int, ops: Sequence[bytes]) -> None:
        """Take the revocations among the ops from `first` on."""
        for place in enumerate(ops, first):
            op = self._revocation(place[1])
            if op is not None:
                self._ops[place] = op

    def _revocation(self, data: bytes) -> Revoke | None:
        try:
            op = open_op(self.zone, parse_op(data), {})
        except (WireError, MissingKey, SealError):
            return None
        return op if isinstance(op, Revoke) else None

    def unkept(self, first: int, ops: Sequence[bytes]) -> bool:
        """True when one of these is not on the disk."""
        return bool((self._ops.keys() & set(enumerate(ops, first))) - self._kept)

    def keep(self, first: int, ops: Sequence[bytes]) -> None:
        """These are on the disk."""
        self._kept |= self._ops.keys() & set(enumerate(ops, first))

    def contradicted(self, first: int, ops: Sequence[bytes]) -> list[int]:
        """Drop what the log, which reads `ops` from `first` on, does not bear out; says where."""
        log = dict(enumerate(ops, first))
        wrong = [place for place in self._ops if log.get(place[0], place[1]) != place[1]]
        self._drop(wrong)
        return sorted(seq for seq, _ in wrong)

    def reach(self, applied_seq: int) -> None:
        """The log has come this far: what it says holds from now on."""
        self._drop([place for place in self._ops if place[0] <= applied_seq])

    def _drop(self, places: Iterable[Place]) -> None:
        for place in places:
            del self._ops[place]
            self._kept.discard(place)

    def denied(self) -> DenySet:
        return rules.deny(self._ops.values())

    def within(self, applied_seq: int) -> bool:
        """True when one of them is reached by a log that has come to `applied_seq`."""
        return any(seq <= applied_seq for seq, _ in self._ops)

    def receipted(self) -> list[int]:
        """Where they are, those on the disk."""
        return sorted({seq for seq, _ in self._kept})

    def split(self) -> list[int]:
        """Where two different revocations were announced for one place."""
        seqs = [seq for seq, _ in self._ops]
        return sorted({seq for seq in seqs if seqs.count(seq) > 1}) if len(seqs) > 1 else []
