"""The encrypted embedding cache and everything the gate knows of its rosters, on the disk.

SQLite through sqlite-utils, WAL and synchronous=FULL: with NORMAL a power cut lost acknowledged
rows in half of all crash states. Written by the sync thread only, inside `db.atomic()`. Corruption
is never an exception for the caller and never a grant: a zone that does not hold is dropped and
pulled again, a file that is no database is set aside.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cbor2
import sqlite_utils

from edge import records
from edge.keys import Envelope, Kek, KeyFault
from edge.roster import ZoneRoster, digest_of
from edge.terms import PersonId, ZoneId
from edge.wire import Which

SCHEMA_VERSION = 1
CHECKPOINT = "PRAGMA wal_checkpoint(TRUNCATE)"
TABLES: dict[str, tuple[dict[str, type], str | tuple[str, ...]]] = {
    "records": (
        {"zone": str, "person": bytes, "pv": int, "tv": int, "status": int,
         "wrapped": bytes, "sealed": bytes},
        ("zone", "person"),
    ),
    "standing": ({"zone": str, "wrapped": bytes, "sealed": bytes}, "zone"),
    "zone_keys": (
        {"zone": str, "which": str, "key_epoch": int, "wrapped": bytes, "sealed": bytes},
        ("zone", "which", "key_epoch"),
    ),
    "papers": ({"name": str, "raw": bytes}, "name"),
    "beacons": ({"zone": str, "epoch": int, "n": int, "at": float}, "zone"),
    "ahead": ({"zone": str, "seq": int, "signed": bytes}, ("zone", "seq")),
    "revocations": ({"zone": str, "seq": int, "signed": bytes}, ("zone", "seq")),
}  # fmt: skip

# The file cannot be read as what was written; a message of SQLite about a damaged schema may not
# even be UTF-8. What is of the disk, or of another process, is no reason to begin anew.
DAMAGE = (sqlite3.DatabaseError, UnicodeDecodeError)
OF_THE_DISK = frozenset({
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM,
})  # fmt: skip

_NO_SIGNED_ROW = "(typeof(seq) <> 'integer' or typeof(signed) <> 'blob')"
_REACHED = "ahead where zone = ? and seq <= ?"

log = logging.getLogger("edge.store")


class StoreFault(RuntimeError):
    """The disk does not take it (full, read-only, failing); one line. A later save may heal."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """`refused`: one line for each zone or file that did not hold and begins empty."""

    zones: Mapping[ZoneId, ZoneRoster] = field(default_factory=dict)
    ahead: Mapping[ZoneId, dict[int, bytes]] = field(default_factory=dict)
    refused: tuple[str, ...] = ()


class Store:
    def __init__(self, path: Path, kek: Kek, gate: str) -> None:
        """Opens or makes the file. StoreFault when it is of a newer menjin or cannot be made."""
        self.path, self._gate, self._envelope = path, gate, Envelope(kek)
        self._set_aside: list[str] = []
        self._erased_waits = True  # of the run before, which may have been cut off
        self._aside_waits = False
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._db = self._open()

    def _open(self) -> sqlite_utils.Database:
        """The file, or a new one where it is damaged."""
        try:
            return self._connect()
        except DAMAGE as error:
            if _of_the_disk(error):
                raise StoreFault(f"{self.path}: {error}") from None
            self._put_aside(str(error))
        try:
            return self._connect()
        except sqlite3.Error as error:
            raise StoreFault(f"{self.path}: {error}") from None

    def _connect(self) -> sqlite_utils.Database:
        connection = sqlite3.connect(self.path, check_same_thread=False, timeout=5.0)
        try:
            database = _prepared(connection, self.path)
        except BaseException:
            connection.close()  # before a rename: closing unlinks the -wal of this name
            raise
        self.path.chmod(0o600)
        return database

    def _put_aside(self, why: str) -> None:
        """The file is no database any more. The box's identity is elsewhere, so it can begin anew:
        papers and keys come again with HELLO, the roster with PULL."""
        number = len(list(self.path.parent.glob(f"{self.path.name}.refused-*"))) + 1
        for suffix in ("", "-wal", "-shm"):
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                part.rename(self.path.with_name(f"{self.path.name}.refused-{number}{suffix}"))
        self._set_aside.append(f"{self.path.name} set aside: {why}")

    def close(self) -> None:
        self._db.conn.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite_utils.Database]:
        """One transaction; whatever the disk says is a StoreFault."""
        try:
            with self._db.atomic():
                yield self._db
        except sqlite3.Error as error:
            raise StoreFault(f"{self.path.name}: {error}") from None

    # --- the roster ---

    def load(self) -> Loaded:
        """Everything that holds. What does not is erased here and named in `refused`."""
        try:
            loaded, bad = _load(self._db, self._envelope, self._gate)
        except DAMAGE as error:
            self._db.conn.close()
            self._put_aside(str(error))
            self._db = self._open()
            return Loaded(refused=tuple(self._set_aside))
        for zone in bad:
            with contextlib.suppress(StoreFault):
                self.reset(zone)
        refused = (*self._set_aside, *(f"zone {zone}: {why}" for zone, why in bad.items()))
        return Loaded(loaded.zones, loaded.ahead, refused)

    @staticmethod
    def peek(path: Path, kek: Kek, gate: str) -> Loaded:
        """What a running daemon's cache holds, without writing a byte."""
        try:
            connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
        except sqlite3.Error as error:
            raise StoreFault(f"{path}: {error}") from None
        connection.text_factory = _text
        try:
            loaded, bad = _load(sqlite_utils.Database(connection), Envelope(kek), gate)
        except DAMAGE as error:
            raise StoreFault(f"{path}: {error}") from None
        finally:
            connection.close()
        return Loaded(loaded.zones, loaded.ahead, tuple(f"zone {z}: {w}" for z, w in bad.items()))

    def save(
        self,
        after: ZoneRoster,
        changed: Iterable[PersonId],
        erased: Iterable[PersonId],
        revocation: tuple[int, bytes] | None = None,
    ) -> None:
        """The changed records and the zone's standing, in ONE transaction. O(changed).

        `revocation`: (seq, signed DELTA), kept for an office restored from an old backup, as are
        those that ran ahead of the log and are reached by it now.
        """
        rows = [
            records.pack(
                self._envelope,
                self._gate,
                after.zone,
                after.people[person],
                after.tombstones.get(person, {}),
            )
            for person in changed
        ]
        with self._writing() as db:
            if rows:
                db.table("records").insert_all(rows, replace=True)
            standing = records.pack_standing(self._envelope, self._gate, after)
            db.table("standing").insert(standing, replace=True)
            if revocation:
                row = {"zone": after.zone, "seq": revocation[0], "signed": revocation[1]}
                db.table("revocations").insert(row, replace=True)
            reached = [after.zone, after.applied_seq]
            db.execute(f"insert or replace into revocations select * from {_REACHED}", reached)
            db.execute(f"delete from {_REACHED}", reached)
        if any(True for _ in erased):
            self._erased_waits = self._aside_waits = True

    def forget_erased(self) -> None:
        """What was erased leaves the write-ahead log too (secure_delete zeroes the pages). After
        the receipt, on the sync thread's next quiet moment: a revocation does not wait for it."""
        if not self._erased_waits:
            return
        with contextlib.suppress(sqlite3.Error, OSError):
            if self._aside_waits:
                self._forget_aside()
            busy = self._db.conn.execute(CHECKPOINT).fetchone()[0]
            self._erased_waits = bool(busy)

    def _forget_aside(self) -> None:
        """A file set aside may hold a template of somebody who is erased by now."""
        for aside in self.path.parent.glob(f"{self.path.name}.refused-*"):
            aside.unlink(missing_ok=True)
        self._aside_waits = False

    def reset(self, zone: str) -> None:
        """Drop a zone's rows: its log is pulled from the beginning. Revocations ahead of the log
        stay, for they were receipted and are believed by their own signature; so does the newest
        beacon, behind which no older one is believed."""
        with self._writing() as db:
            for table in ("records", "standing"):
                db.table(table).delete_where("zone = ?", [zone])
            db.execute(f"delete from ahead where zone = ? and {_NO_SIGNED_ROW}", [zone])
        self._erased_waits = True

    def save_ahead(self, zone: ZoneId, seq: int, signed: bytes) -> None:
        with self._writing() as db:
            row = {"zone": zone, "seq": seq, "signed": signed}
            db.table("ahead").insert(row, replace=True)

    def _rows(self, table: str) -> list[dict[str, Any]]:
        """Those whose columns are of the type they were written with; StoreFault for the disk."""
        types = TABLES[table][0]
        try:
            rows = list(self._db.table(table).rows)
        except DAMAGE as error:
            raise StoreFault(f"{self.path.name}: {error}") from None
        return [row for row in rows if all(isinstance(row[c], t) for c, t in types.items())]

    # --- freshness ---

    def beacon(self, zone: ZoneId) -> tuple[int, int]:
        """(epoch, n) of the newest beacon believed; (0, 0) before any."""
        rows = [row for row in self._rows("beacons") if row["zone"] == zone]
        return (rows[0]["epoch"], rows[0]["n"]) if rows else (0, 0)

    def put_beacon(self, zone: ZoneId, epoch: int, n: int, at: float) -> None:
        with self._writing() as db:
            row = {"zone": zone, "epoch": epoch, "n": n, "at": at}
            db.table("beacons").insert(row, replace=True)

    def time_floor(self) -> float:
        """The latest signed time seen (wall seconds): the clock is not believed below it."""
        times = (row["at"] for row in self._rows("beacons"))
        return max(filter(math.isfinite, times), default=0.0)

    # --- papers and keys (edge.trust.Papers) ---

    def trust(self) -> bytes | None:
        return self._papers().get("trust")

    def put_trust(self, raw: bytes) -> None:
        self._put_paper("trust", raw)

    def members(self) -> Mapping[str, bytes]:
        return {
            name.removeprefix("member:"): raw
            for name, raw in self._papers().items()
            if name.startswith("member:")
        }

    def put_member(self, member: str, raw: bytes) -> None:
        self._put_paper(f"member:{member}", raw)

    def _papers(self) -> dict[str, bytes]:
        return {row["name"]: row["raw"] for row in self._rows("papers")}

    def _put_paper(self, name: str, raw: bytes) -> None:
        with self._writing() as db:
            db.table("papers").insert({"name": name, "raw": raw}, replace=True)

    def zone_keys(self) -> Mapping[tuple[str, Which, int], bytes]:
        """Those that open; one that does not is left out and comes again with HELLO."""
        keys: dict[tuple[str, Which, int], bytes] = {}
        for row in self._rows("zone_keys"):
            name = (row["zone"], row["which"], row["key_epoch"])
            with contextlib.suppress(KeyFault):
                keys[name] = self._envelope.open(row["wrapped"], row["sealed"], self._key_aad(name))
        return keys

    def put_zone_key(self, zone: str, which: Which, key_epoch: int, key: bytes) -> None:
        """ValueError("second_kcv") when another key of this epoch is here: it stays."""
        name = (zone, which, key_epoch)
        held = self.zone_keys().get(name, key)
        if held != key:
            raise ValueError("second_kcv")
        wrapped, sealed = self._envelope.seal(key, self._key_aad(name))
        row: dict[str, Any] = {"zone": zone, "which": which, "key_epoch": key_epoch}
        with self._writing() as db:
            db.table("zone_keys").insert(row | {"wrapped": wrapped, "sealed": sealed}, replace=True)

    def _key_aad(self, name: tuple[str, Which, int]) -> bytes:
        return cbor2.dumps([records.SCHEMA, "zone key", self._gate, *name], canonical=True)


def _of_the_disk(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in OF_THE_DISK  # without the extended code


def _text(data: bytes) -> str:
    """A column that is not UTF-8 any more fits no name; it does not spoil the whole table."""
    return data.decode(errors="replace")


def _prepared(connection: sqlite3.Connection, path: Path) -> sqlite_utils.Database:
    """Set up, made where it is new, and whole. DatabaseError when it is damaged."""
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")
    connection.isolation_level = None  # transactions are begun and ended by db.atomic() alone
    connection.text_factory = _text
    database = sqlite_utils.Database(connection)
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        with database.atomic():
            for name, (columns, key) in TABLES.items():
                database.table(name).create(columns, pk=key, if_not_exists=True)
            database.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    whole = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if whole != "ok":
        raise sqlite3.DatabaseError(whole.splitlines()[-1])
    if version > SCHEMA_VERSION:
        raise StoreFault(f"{path}: written by a newer menjin; install that version")
    for name, (columns, _) in TABLES.items():
        if database.table(name).columns_dict != columns:
            raise sqlite3.DatabaseError(f"table {name} is not as it was made")
    return database


def _load(
    db: sqlite_utils.Database, envelope: Envelope, gate: str
) -> tuple[Loaded, dict[str, str]]:
    """What holds, and why each other zone does not."""
    people: dict[str, dict[PersonId, Any]] = {}
    bad: dict[str, str] = {}
    for row in db.table("records").rows:
        try:
            record, denied = records.unpack(envelope, gate, row)
            people.setdefault(row["zone"], {})[record.person] = (record, denied)
        except (KeyFault, ValueError, TypeError) as error:
            bad[str(row["zone"])] = f"a record was swapped, moved or altered ({error})"
    zones: dict[ZoneId, ZoneRoster] = {}
    for row in db.table("standing").rows:
        mine = people.pop(row["zone"], {})
        if row["zone"] in bad:
            continue
        try:
            standing, count = records.unpack_standing(envelope, gate, row)
            digest = digest_of(record for record, _ in mine.values())
            zones[standing.zone] = records.assemble(standing, count, mine, digest)
        except (KeyFault, ValueError, TypeError) as error:
            bad[str(row["zone"])] = str(error)
    bad |= {zone: "records without a standing" for zone in people if zone not in bad}
    ahead: dict[ZoneId, dict[int, bytes]] = {}
    for row in db.table("ahead").rows:
        if not isinstance(row["seq"], int) or not isinstance(row["signed"], bytes):
            bad[str(row["zone"])] = "a revocation ahead of the log was altered"
            continue
        ahead.setdefault(ZoneId(row["zone"]), {})[row["seq"]] = row["signed"]
    return Loaded({z: roster for z, roster in zones.items() if z not in bad}, ahead), bad
