"""The gates' audit trails as they arrive at the office: kept as bytes, chained per gate, read as
facts. Taking the same rows twice changes nothing; a chain that breaks is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import cbor2

from edge import seal, wire
from edge.wire import GENESIS
from enroll.home import ZoneSecrets
from enroll.roster.refusal import Refusal
from enroll.roster.store import Row, Store

SALT_BYTES = 16
READ_BATCH = 500
# cbor2 6 no longer derives its error from ValueError.
_UNREADABLE = (
    cbor2.CBORDecodeError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RecursionError,
    OverflowError,
)
EventRow = tuple[bytes, bytes]  # salt, payload (CBOR)


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One event of one gate. `id` rises with arrival; `at` is the gate's wall time in seconds;
    a payload that cannot be read is of kind "unreadable"."""

    id: int
    gate: str
    event_no: int
    received_at: float
    kind: str
    at: float
    door: str | None = None
    zone: str | None = None
    person: bytes | None = None
    reason: str | None = None
    grant_id: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def next_hash(previous: bytes, event_no: int, salt: bytes, payload: bytes) -> bytes:
    """h_n = SHA-256(h_{n-1} | event_no | SHA-256(salt | payload))."""
    inner = hashlib.sha256(salt + payload).digest()
    return hashlib.sha256(previous + event_no.to_bytes(8, "big") + inner).digest()


def open_rows(gate: str, body: wire.Events, secrets: ZoneSecrets) -> list[EventRow]:
    """The rows of an EVENTS. Refusal: wrong_key, unreadable."""
    if body.key_epoch != secrets.key_epoch:
        raise Refusal("wrong_key")
    aad = seal.events_aad(gate, body.zone, body.key_epoch, body.first_no)
    try:
        rows = cbor2.loads(seal.open_(secrets.kr, body.sealed, aad))
        checked = [
            (bytes(salt), bytes(payload)) for salt, payload in rows if _is_row(salt, payload)
        ]
    except (seal.SealError, *_UNREADABLE):
        raise Refusal("unreadable") from None
    if len(checked) != body.count:
        raise Refusal("unreadable")
    return checked


def _is_row(salt: object, payload: object) -> bool:
    return isinstance(salt, bytes) and len(salt) == SALT_BYTES and isinstance(payload, bytes)


@dataclass(frozen=True, slots=True)
class Trail:
    store: Store

    def put(self, gate: str, body: wire.Events, rows: Sequence[EventRow], at: int) -> wire.EventAck:
        """Keep rows that continue the gate's chain; the answer says up to where we have it, which
        with a gap is where we had it. Refusal("broken_chain") when they contradict what we have.
        """
        with self.store.atomic():
            upto, head = self._head(gate)
            if body.first_no > upto + 1:
                return wire.EventAck(upto=upto, chain_hash=head)
            before = self._hash_at(gate, body.first_no - 1)
            if before != body.prev_hash:
                raise Refusal("broken_chain", gate=gate, event_no=body.first_no)
            after = before
            for event_no, (salt, payload) in enumerate(rows, body.first_no):
                after = next_hash(after, event_no, salt, payload)
                if event_no > upto:
                    self._keep(gate, event_no, salt, payload, after, at)
                elif self._hash_at(gate, event_no) != after:
                    raise Refusal("broken_chain", gate=gate, event_no=event_no)
            upto, head = self._head(gate)
        return wire.EventAck(upto=upto, chain_hash=head)

    def _head(self, gate: str) -> tuple[int, bytes]:
        sql = "SELECT event_no, hash FROM events WHERE gate = ? ORDER BY event_no DESC LIMIT 1"
        row = self.store.row(sql, (gate,))
        return (row["event_no"], row["hash"]) if row else (0, GENESIS)

    def _hash_at(self, gate: str, event_no: int) -> bytes | None:
        if event_no == 0:
            return GENESIS
        sql = "SELECT hash FROM events WHERE gate = ? AND event_no = ?"
        row = self.store.row(sql, (gate, event_no))
        return row["hash"] if row else None

    def _keep(
        self, gate: str, event_no: int, salt: bytes, payload: bytes, after: bytes, at: int
    ) -> None:
        row = {"gate": gate, "event_no": event_no, "salt": salt, "payload": payload}
        self.store.insert("events", {**row, "hash": after, "at": at})

    def events(self, after: int = 0, gate: str | None = None) -> Iterator[StoredEvent]:
        """Those that arrived after the one with id `after`, in order of arrival."""
        sql = """SELECT * FROM events WHERE id > ? AND gate = coalesce(?, gate)
                 ORDER BY id LIMIT ?"""
        while rows := self.store.rows(sql, (after, gate, READ_BATCH)):
            yield from map(_read, rows)
            after = rows[-1]["id"]


def _read(row: Row) -> StoredEvent:
    place = (row["id"], row["gate"], row["event_no"], row["at"] / 1000)
    try:
        facts = cbor2.loads(row["payload"])
        return StoredEvent(
            *place,
            kind=str(facts["k"]),
            at=int(facts["at"]) / 1000,
            door=facts.get("d"),
            zone=facts.get("z"),
            person=facts.get("p"),
            reason=facts.get("r"),
            grant_id=facts.get("g"),
            facts=dict(facts.get("f") or {}),
        )
    except _UNREADABLE:
        return StoredEvent(*place, kind="unreadable", at=row["at"] / 1000)
