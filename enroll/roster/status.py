"""What each gate last said of itself."""

from __future__ import annotations

import json
from dataclasses import dataclass

from edge import wire
from enroll.roster.store import Store


@dataclass(frozen=True, slots=True)
class GateStatus:
    """`gate_at` is the gate's time of speaking, `at` ours of hearing; seconds."""

    gate: str
    state: str  # online | offline
    degraded: tuple[str, ...]
    gate_at: float
    at: float


@dataclass(frozen=True, slots=True)
class Statuses:
    store: Store

    def put(self, gate: str, body: wire.StatusBody, at: int) -> bool:
        """Keep the newest: false for an older one. A last will is signed at the start of its
        session, so "offline" counts whenever it comes."""
        with self.store.atomic():
            before = self.store.row("SELECT gate_at FROM statuses WHERE gate = ?", (gate,))
            if before and body.at < before["gate_at"] and body.state == "online":
                return False
            gate_at = max(body.at, before["gate_at"]) if before else body.at
            row = {"gate": gate, "state": body.state, "degraded": json.dumps(body.degraded)}
            self.store.insert("statuses", {**row, "gate_at": gate_at, "at": at}, replace=True)
        return True

    def statuses(self) -> list[GateStatus]:
        return [
            GateStatus(
                row["gate"],
                row["state"],
                tuple(json.loads(row["degraded"])),
                row["gate_at"] / 1000,
                row["at"] / 1000,
            )
            for row in self.store.rows("SELECT * FROM statuses ORDER BY gate")
        ]
