"""The file behind the audit trail: rows, their chain, the anchor the office signed, and reading it
from outside while a daemon writes.

h_n = SHA-256(h_{n-1} | event_no u64 big-endian | SHA-256(salt | payload)), h_0 = 32 zero bytes.
An event_no is never used twice. Rows the office holds may age out from the front: the chain then
begins at `base`.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cbor2
import sqlite_utils

from edge.terms import (
    AccessEvent,
    DoorId,
    EventKind,
    GrantId,
    PersonId,
    Reason,
    ZoneId,
)

FIRST_HASH = bytes(32)
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
SCHEMA_VERSION = 1
OF_THE_DISK = frozenset({
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM,
})  # fmt: skip
TRIM_ROWS_MAX = 5000  # deleted at once, 7 ms: a recorded row waits no longer for it


class TrailFault(RuntimeError):
    """The disk does not take a row, or the file is no trail; one line. `damaged`: the file itself
    is ruined, which is not of the disk, of another process or of another version."""

    damaged = False


@dataclass(frozen=True, slots=True)
class Row:
    event_no: int
    salt: bytes
    payload: bytes
    hash: bytes
    prev_hash: bytes


@dataclass(frozen=True, slots=True)
class Verified:
    ok: bool
    rows: int
    first_bad_no: int | None
    why: str
    head_no: int
    head_hash: bytes
    anchor_no: int


def encode_event(event: AccessEvent) -> bytes:
    """CBOR with short keys; absent fields are left out."""
    fields: dict[str, object] = {"k": event.kind.value, "at": round(event.at * 1000)}
    optional = {
        "d": event.door,
        "z": event.zone,
        "p": event.person,
        "r": event.reason.value if event.reason else None,
        "g": event.grant_id,
        "f": event.facts or None,
    }
    fields |= {key: value for key, value in optional.items() if value is not None}
    return cbor2.dumps(fields)


def decode_event(payload: bytes) -> AccessEvent:
    """ValueError when it is no event of ours."""
    try:
        fields = cbor2.loads(payload)
        return AccessEvent(
            kind=EventKind(fields["k"]),
            at=fields["at"] / 1000,
            door=DoorId(fields["d"]) if "d" in fields else None,
            zone=ZoneId(fields["z"]) if "z" in fields else None,
            person=PersonId(fields["p"]) if "p" in fields else None,
            reason=Reason(fields["r"]) if "r" in fields else None,
            grant_id=GrantId(fields["g"]) if "g" in fields else None,
            facts=dict(fields.get("f", {})),
        )
    except _UNREADABLE as error:
        raise ValueError(f"not an event: {error}") from None


def link(prev_hash: bytes, event_no: int, salt: bytes, payload: bytes) -> bytes:
    content = hashlib.sha256(salt + payload).digest()
    return hashlib.sha256(prev_hash + event_no.to_bytes(8, "big") + content).digest()


def _chain(
    head: tuple[int, bytes], rows: Sequence[tuple[bytes, bytes]]
) -> tuple[list[dict[str, Any]], tuple[int, bytes]]:
    """(salt, payload) linked behind `head`: what to insert, and the new head."""
    number, prev = head
    chained: list[dict[str, Any]] = []
    for salt, payload in rows:
        number += 1
        prev = link(prev, number, salt, payload)
        chained.append({"event_no": number, "salt": salt, "payload": payload, "hash": prev})
    return chained, (number, prev)


class Trail:
    """One file. `append` on the journal thread; reading and anchoring from the sync thread."""

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self._db = self._open()
            self.head = self._read_head()
            self.anchored_no = self._mark("anchor")[0]
            self.ended_cleanly = self._ended_cleanly()
        except (sqlite3.Error, ValueError, TypeError) as error:
            with contextlib.suppress(AttributeError):
                self._db.conn.close()
            fault = TrailFault(f"{path}: {error}; {_todo(error)}")
            fault.damaged = type(error) in (sqlite3.DatabaseError, UnicodeDecodeError)
            raise fault from None

    def _open(self) -> sqlite_utils.Database:
        connection = sqlite3.connect(self.path, check_same_thread=False, timeout=5.0)
        try:
            return self._prepared(connection)
        except BaseException:
            connection.close()
            raise

    def _prepared(self, connection: sqlite3.Connection) -> sqlite_utils.Database:
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")
        database = sqlite_utils.Database(connection)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise ValueError("written by a newer menjin")
        if version == 0:
            with database.atomic():
                columns = {"event_no": int, "salt": bytes, "payload": bytes, "hash": bytes}
                database.table("rows").create(columns, pk="event_no", if_not_exists=True)
                marks = {"name": str, "event_no": int, "hash": bytes}
                database.table("marks").create(marks, pk="name", if_not_exists=True)
                database.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        self.path.chmod(0o600)
        return database

    def close(self) -> None:
        with self._lock:
            self._db.conn.close()

    def _mark(self, name: str) -> tuple[int, bytes]:
        """`anchor`: what the office acknowledged; `base`: the row before the first one kept."""
        rows = list(self._db.table("marks").rows_where("name = ?", [name]))
        return (rows[0]["event_no"], rows[0]["hash"]) if rows else (0, FIRST_HASH)

    def _read_head(self) -> tuple[int, bytes]:
        last = self._last_row()
        kept = (last["event_no"], last["hash"]) if last else (0, FIRST_HASH)
        return max(kept, self._mark("base"), self._mark("anchor"), key=lambda mark: mark[0])

    def _last_row(self) -> dict[str, Any] | None:
        rows = self._db.table("rows").rows_where(order_by="event_no desc", limit=1)
        return next(iter(rows), None)

    def _ended_cleanly(self) -> bool:
        """An empty trail did; a last row that cannot be read did not, and keeps no gate shut."""
        last = self._last_row()
        try:
            return last is None or decode_event(last["payload"]).kind is EventKind.STOP
        except ValueError:
            return False

    def append(self, rows: Sequence[tuple[bytes, bytes]]) -> int:
        """(salt, payload) in order, in one transaction; the number of the first. TrailFault when
        the disk refuses."""
        with self._lock, _disk():
            first = self.head[0] + 1
            chained, head = _chain(self.head, rows)
            with self._db.atomic():
                self._db.table("rows").insert_all(chained)
            self.head = head
        return first

    def continue_after(self, number: int, chain_hash: bytes) -> None:
        """Put the rows there are behind `number`, which the office holds the last of: how a trail
        that had to begin anew goes on with the one that the office knows."""
        with self._lock, _disk():
            kept = [(row["salt"], row["payload"]) for row in self._ordered()]
            chained, head = _chain((number, chain_hash), kept)
            with self._db.atomic():
                self._db.table("rows").delete_where()
                self._db.table("rows").insert_all(chained)
                for name in ("base", "anchor"):
                    mark = {"name": name, "event_no": number, "hash": chain_hash}
                    self._db.table("marks").insert(mark, replace=True)
            self.head, self.anchored_no = head, number

    def _ordered(self) -> list[dict[str, Any]]:
        return list(self._db.table("rows").rows_where(order_by="event_no"))

    def rows(self, after_no: int, limit: int) -> list[Row]:
        """TrailFault when the disk cannot be read."""
        with self._lock, _disk():
            prev = self._hash_at(after_no) or self._mark("base")[1]
            found = []
            where = "event_no > ?"
            for row in self._db.table("rows").rows_where(
                where, [after_no], order_by="event_no", limit=limit
            ):
                found.append(Row(prev_hash=prev, **row))
                prev = row["hash"]
            return found

    def _hash_at(self, event_no: int) -> bytes | None:
        """Of a row, or of one that is gone but marked; None when nothing here knows it."""
        for row in self._db.table("rows").rows_where("event_no = ?", [event_no]):
            mine: bytes = row["hash"]
            return mine
        marks = (self._mark("anchor"), self._mark("base"), (0, FIRST_HASH))
        return dict(reversed(marks)).get(event_no)

    def anchor(self, upto: int, chain_hash: bytes) -> bool:
        """Keep what the office acknowledged. False when our chain says otherwise; an old
        acknowledgement of rows that aged out says nothing new."""
        with self._lock, _disk():
            mine = self._hash_at(upto)
            if upto <= self.anchored_no:
                return mine in (None, chain_hash)
            if mine != chain_hash:
                return False
            mark = {"name": "anchor", "event_no": upto, "hash": chain_hash}
            with self._db.atomic():
                self._db.table("marks").insert(mark, replace=True)
            self.anchored_no = upto
        return True

    def trim(self, max_rows: int) -> None:
        """Acknowledged rows beyond `max_rows` age out; what the office lacks is never dropped."""
        with self._lock, _disk():
            base = self._mark("base")[0]
            cut = min(self.head[0] - max_rows, self.anchored_no, base + TRIM_ROWS_MAX)
            last = self._hash_at(cut)
            if cut <= base or last is None:
                return
            mark = {"name": "base", "event_no": cut, "hash": last}
            with self._db.atomic():
                self._db.table("rows").delete_where("event_no <= ?", [cut])
                self._db.table("marks").insert(mark, replace=True)


def _todo(error: Exception) -> str:
    """A full disk is no reason to begin another chain, which the office would refuse."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in OF_THE_DISK:
        return "free some space or make it writable, and start again"
    return "move it away and keep it for the office"


def open_trail(path: Path) -> tuple[Trail, str]:
    """The trail at `path`, and "". One whose file is ruined is set aside, with what to say of it,
    and a new one begun: what is left of it stays as evidence, and nobody is locked out by it."""
    try:
        return Trail(path), ""
    except TrailFault as fault:
        if not fault.damaged:
            raise
    number = len(list(path.parent.glob(f"{path.name}.refused-*"))) + 1
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(path.with_name(f"{path.name}.refused-{number}{suffix}"))
    return Trail(path), f"the trail was ruined and is set aside as {path.name}.refused-{number}"


@contextlib.contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite quotes a damaged schema
        raise TrailFault(str(error)) from None


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite_utils.Database]:
    uri = f"{path.resolve().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=5.0, isolation_level=None)
    try:
        connection.execute("BEGIN")  # one moment: a trim between two looks is no missing row
        yield sqlite_utils.Database(connection)
    finally:
        connection.close()


def verify(path: Path) -> Verified:
    """Walk the chain of a file that a daemon may be writing; the first row that does not hold."""
    number, prev, count = 0, FIRST_HASH, 0
    anchor_no = 0
    try:
        with _reading(path) as db:
            marks = {row["name"]: row for row in db.table("marks").rows}
            if "base" in marks:
                number, prev = marks["base"]["event_no"], marks["base"]["hash"]
            anchor = marks.get("anchor")
            anchor_no = anchor["event_no"] if anchor else 0
            if number > anchor_no:
                why = f"rows up to {number}, which the office does not hold, were cut off"
                return Verified(False, 0, anchor_no + 1, why, number, prev, anchor_no)
            for row in db.table("rows").rows_where(order_by="event_no"):
                why = _wrong(row, number, prev, anchor)
                if why:
                    return Verified(False, count, row["event_no"], why, number, prev, anchor_no)
                number, prev, count = row["event_no"], row["hash"], count + 1
    except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
        why = f"cannot be read: {error}"
        return Verified(False, count, number + 1, why, number, prev, anchor_no)
    if number < anchor_no:
        why = f"rows up to {anchor_no}, which the office holds, were cut off"
        return Verified(False, count, number + 1, why, number, prev, anchor_no)
    return Verified(True, count, None, "", number, prev, anchor_no)


def _wrong(row: dict[str, Any], number: int, prev: bytes, anchor: dict[str, Any] | None) -> str:
    if row["event_no"] != number + 1:
        return f"row {number + 1} is missing"
    if link(prev, row["event_no"], row["salt"], row["payload"]) != row["hash"]:
        return "altered, or the row before it was"
    if anchor and anchor["event_no"] == row["event_no"] and anchor["hash"] != row["hash"]:
        return "not the row that the office acknowledged"
    return ""


def export(path: Path) -> Iterator[dict[str, Any]]:
    """The rows for a person or a program, oldest first; persons by pseudonym. A row that cannot
    be read says so and hides no other. TrailFault when the file is no trail."""
    with _disk(), _reading(path) as db:
        for row in db.table("rows").rows_where(order_by="event_no"):
            yield _told(row["event_no"], row["payload"])


def _told(event_no: int, payload: bytes) -> dict[str, Any]:
    try:
        event = decode_event(payload)
        at = datetime.fromtimestamp(event.at, UTC).isoformat(timespec="milliseconds")
        person = event.person.hex() if event.person else None
    except _UNREADABLE:
        return {"event_no": event_no, "kind": "unreadable"}
    return {
        "event_no": event_no,
        "at": at,
        "kind": event.kind.value,
        "door": event.door,
        "zone": event.zone,
        "person": person,
        "reason": event.reason.value if event.reason else None,
        "grant_id": event.grant_id,
        "facts": event.facts,
    }
