"""The log of a zone: one op, one sequence number, one signed DELTA; what is appended stays.

Here is how ops are chained, signed, paged and announced. Which op there should be is `authority`'s
to say; nothing here opens a sealed part.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge import wire
from edge.clock import Clock
from edge.envelope import chain, dump_op, encode
from edge.wire import GENESIS, OPS_PER_PAGE, RECENT_BYTES, Type
from enroll.roster.refusal import Refusal
from enroll.roster.store import Row, Store

FIRST_EPOCH = 1
DELTA_OP_BYTES = 60 * wire.KIB  # of the 64 KiB of a DELTA (roster-protocol.md)
PAGE_BYTES = 240 * wire.KIB  # of the 256 KiB of a PAGE
ITEM_HEAD_BYTES = 5  # what CBOR puts before a byte string of up to 4 GiB
RECENT_MAX = 64  # wire.Beacon.recent


@dataclass(frozen=True, slots=True)
class Position:
    """Where a zone's log is. `digest` covers all persons; ops up to `floor` are gone."""

    epoch: int
    head_seq: int
    head_hash: bytes
    digest: int
    floor: int = 0


def now_ms(clock: Clock) -> int:
    return int(clock.wall() * 1000)


@dataclass(frozen=True, slots=True)
class Log:
    store: Store
    clock: Clock

    def position(self, zone: str) -> Position:
        row = self._zone(zone)
        digest = int.from_bytes(row["digest"], "big")
        return Position(row["epoch"], row["head_seq"], row["head_hash"], digest, row["floor_seq"])

    def append(self, zone: str, op: wire.Op, digest: int, key: Ed25519PrivateKey) -> int:
        """Chain, sign and store one op, inside the caller's transaction; returns its seq.

        `digest`: the zone's digest after it. Refusal("too_large") when no DELTA can hold it.
        """
        before = self.position(zone)
        seq, op_bytes, at = before.head_seq + 1, dump_op(op), now_ms(self.clock)
        if len(op_bytes) > DELTA_OP_BYTES:
            raise Refusal("too_large")
        body = wire.Delta(
            zone=zone,
            epoch=before.epoch,
            first_seq=seq,
            prev_hash=before.head_hash,
            ops=[op_bytes],
            at=at,
        )
        after = {
            "head_hash": chain(before.head_hash, op_bytes),
            "digest": digest.to_bytes(32, "big"),
        }
        entry = {
            "zone": zone,
            "seq": seq,
            "op": op_bytes,
            "hash": after["head_hash"],
            "digest": after["digest"],
            "delta": encode(Type.DELTA, body, key, direction="down", target=zone),
            "is_revocation": int(op.op in ("revoke", "suspend")),
            "at": at,
        }
        with self.store.atomic():
            self.store.insert("log", entry)
            self.store.update("zones", zone, {"head_seq": seq, **after})
        return seq

    def page(
        self,
        zone: str,
        from_seq: int,
        limit_ops: int = OPS_PER_PAGE,
        limit_bytes: int = PAGE_BYTES,
    ) -> wire.Page | wire.Gone:
        """The ops from `from_seq` on, within both limits (but one op always, or nobody would get
        past it); empty for somebody who is at the head or beyond it."""
        head = self.position(zone)
        first = min(max(from_seq, 1), head.head_seq + 1)
        if first <= head.floor:
            return wire.Gone(zone=zone, epoch=head.epoch, floor_seq=head.floor)
        ops: list[bytes] = []
        used = 0
        for row in self._ops(zone, first, min(limit_ops, OPS_PER_PAGE)):
            used += len(row["op"]) + ITEM_HEAD_BYTES
            if ops and used > limit_bytes:
                break
            ops.append(row["op"])
        return wire.Page(
            zone=zone,
            epoch=head.epoch,
            first_seq=first,
            prev_hash=self.hash_at(zone, first - 1) or GENESIS,
            ops=ops,
            head_seq=head.head_seq,
            head_hash=head.head_hash,
            at=now_ms(self.clock),
        )

    def _ops(self, zone: str, first: int, limit: int) -> list[Row]:
        sql = "SELECT op FROM log WHERE zone = ? AND seq >= ? ORDER BY seq LIMIT ?"
        return self.store.rows(sql, (zone, first, limit))

    def hash_at(self, zone: str, seq: int) -> bytes | None:
        """The chain hash after `seq`; None when the log does not hold it."""
        row = self.store.row("SELECT hash FROM log WHERE zone = ? AND seq = ?", (zone, seq))
        found: bytes | None = row["hash"] if row else GENESIS if seq == 0 else None
        return found

    def deltas_after(self, zone: str, seq: int, limit: int = 100) -> list[tuple[int, bytes, bool]]:
        """(seq, signed DELTA, is it a revocation), in log order."""
        sql = """SELECT seq, delta, is_revocation FROM log
                 WHERE zone = ? AND seq > ? ORDER BY seq LIMIT ?"""
        rows = self.store.rows(sql, (zone, seq, limit))
        return [(row["seq"], row["delta"], bool(row["is_revocation"])) for row in rows]

    def recent_revocations(self, zone: str, limit_bytes: int = RECENT_BYTES) -> list[bytes]:
        """The last revocations' signed DELTAs, newest last."""
        sql = """SELECT delta FROM log WHERE zone = ? AND is_revocation
                 ORDER BY seq DESC LIMIT ?"""
        found: list[bytes] = []
        used = 0
        for row in self.store.rows(sql, (zone, RECENT_MAX)):
            used += len(row["delta"]) + ITEM_HEAD_BYTES
            if used > limit_bytes:
                break
            found.append(row["delta"])
        return found[::-1]

    def next_beacon(self, zone: str) -> wire.Beacon:
        """The next beacon: `n` is the authority's milliseconds and never the same twice, whatever
        the clock does and however often we start."""
        with self.store.atomic():
            at = now_ms(self.clock)
            n = max(at, self._zone(zone)["beacon_n"] + 1)
            self.store.update("zones", zone, {"beacon_n": n})
            head = self.position(zone)
            recent = self.recent_revocations(zone)
        return wire.Beacon(
            zone=zone,
            epoch=head.epoch,
            n=n,
            head_seq=head.head_seq,
            head_hash=head.head_hash,
            digest=head.digest.to_bytes(32, "big"),
            at=at,
            recent=recent,
        )

    def _zone(self, zone: str) -> Row:
        row = self.store.row("SELECT * FROM zones WHERE zone = ?", (zone,))
        if row is None:
            raise Refusal("zone_unknown", zone=zone)
        return row
