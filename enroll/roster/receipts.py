"""What the gates say they have enforced. A receipt counts only when it agrees with our log, and
what was enforced once does not become unenforced by an older receipt."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from edge import wire
from enroll.roster.log import Log
from enroll.roster.refusal import Refusal
from enroll.roster.store import Row, Store

Outcome = Literal["kept", "old", "diverged"]


@dataclass(frozen=True, slots=True)
class GateReceipt:
    """The newest receipt of a gate for a zone that agrees with our log. Times in ms.

    `diverged_at`: since then the gate has another log or another roster than we have (None: no).
    """

    gate: str
    zone: str
    epoch: int
    applied_seq: int
    active: int
    early: tuple[int, ...]
    gate_at: int
    at: int
    diverged_at: int | None


@dataclass(frozen=True, slots=True)
class Enforcement:
    """How far a change has come: the gates that have it, with our ms, and those that have not."""

    total: int
    enforced: tuple[tuple[str, int], ...]
    missing: tuple[str, ...]

    @property
    def complete(self) -> bool:
        return not self.missing


@dataclass(frozen=True, slots=True)
class Receipts:
    store: Store
    log: Log

    def put(self, gate: str, body: wire.Receipt, at: int) -> Outcome:
        """`at`: our ms. "diverged": it does not agree with the log, so it proves nothing."""
        with self.store.atomic():
            before = self._row(body.zone, gate)
            if not self._agrees(body):
                self._mark_diverged(gate, body, at, before)
                return "diverged"
            if before and _order(body) < (
                before["epoch"],
                before["applied_seq"],
                before["gate_at"],
            ):
                return "old"
            self._enforce(gate, body, at, before["applied_seq"] if before else 0)
            self._save(gate, body, at)
        return "kept"

    def _row(self, zone: str, gate: str) -> Row | None:
        return self.store.row("SELECT * FROM receipts WHERE zone = ? AND gate = ?", (zone, gate))

    def _agrees(self, body: wire.Receipt) -> bool:
        if body.epoch != self.log.position(body.zone).epoch:
            return False
        sql = "SELECT hash, digest FROM log WHERE zone = ? AND seq = ?"
        row = self.store.row(sql, (body.zone, body.applied_seq))
        if row is None:  # nothing applied yet, or more than we have
            return body.applied_seq == 0 and body.chain_hash == wire.GENESIS
        return (row["hash"], row["digest"]) == (body.chain_hash, body.digest)

    def _mark_diverged(self, gate: str, body: wire.Receipt, at: int, before: Row | None) -> None:
        if before is None:
            nothing = {"epoch": 0, "applied_seq": 0, "chain_hash": wire.GENESIS}
            never = {"active": 0, "early": "[]", "gate_at": 0, "at": at, "diverged_at": at}
            self.store.insert("receipts", {"zone": body.zone, "gate": gate, **nothing, **never})
        elif before["diverged_at"] is None:
            self.store.update("receipts", (body.zone, gate), {"diverged_at": at})

    def _enforce(self, gate: str, body: wire.Receipt, at: int, before_seq: int) -> None:
        """Note when each revocation was first receipted: newly applied, or ahead of the log."""
        sql = """INSERT OR IGNORE INTO enforcements (zone, seq, gate, at)
                 SELECT zone, seq, ?, ? FROM log WHERE zone = ? AND is_revocation AND
                 ((seq > ? AND seq <= ?) OR seq IN (SELECT value FROM json_each(?)))"""
        early = json.dumps(body.early)
        values = (gate, at, body.zone, before_seq, body.applied_seq, early)
        self.store.db.execute(sql, values)

    def _save(self, gate: str, body: wire.Receipt, at: int) -> None:
        row = body.model_dump(include={"zone", "epoch", "applied_seq", "chain_hash", "active"})
        seen = {"early": json.dumps(body.early), "gate_at": body.at, "at": at, "diverged_at": None}
        self.store.insert("receipts", {**row, "gate": gate, **seen}, replace=True)

    def receipts(self, zone: str) -> list[GateReceipt]:
        return [
            GateReceipt(
                row["gate"],
                row["zone"],
                row["epoch"],
                row["applied_seq"],
                row["active"],
                tuple(json.loads(row["early"])),
                row["gate_at"],
                row["at"],
                row["diverged_at"],
            )
            for row in self.store.rows("SELECT * FROM receipts WHERE zone = ?", (zone,))
        ]

    def enforced(self, zone: str, first_seq: int, last_seq: int, gates: list[str]) -> Enforcement:
        """A gate has a run of revocations when it has receipted each of them."""
        sql = """SELECT gate, count(*) AS n, max(at) AS at FROM enforcements
                 WHERE zone = ? AND seq BETWEEN ? AND ? GROUP BY gate"""
        need = last_seq - first_seq + 1
        rows = self.store.rows(sql, (zone, first_seq, last_seq))
        have = {row["gate"]: row["at"] for row in rows if row["n"] >= need}
        if need <= 0:  # nobody was enrolled: there is nothing to enforce
            have = dict.fromkeys(gates, 0)
        done = tuple((gate, have[gate]) for gate in gates if gate in have)
        return Enforcement(len(gates), done, tuple(gate for gate in gates if gate not in have))

    def of_tenancy(self, tenancy: str) -> tuple[str, int, int]:
        """(zone, first seq, last seq) of the tenancy's end; Refusal while it has none."""
        row = self.store.row("SELECT * FROM tenancies WHERE tenancy = ?", (tenancy,))
        if row is None:
            raise Refusal("tenancy_unknown")
        if row["ended_at"] is None:
            raise Refusal("tenancy_open")
        return row["zone"], row["first_seq"], row["last_seq"]


def _order(body: wire.Receipt) -> tuple[int, int, int]:
    return body.epoch, body.applied_seq, body.at
