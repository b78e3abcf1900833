"""The office's database: the tables, and how they are read and written.

Every write happens inside `store.atomic()`, which takes the write lock first (BEGIN IMMEDIATE), so
that what is read in it is still true when it commits: the CLI and `roster serve` append to one
log. Here is no rule of rights and no message; times are integer milliseconds.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from enroll.home import PRIVATE_MODE, OfficeError

# The other process holds the lock for one commit, about 1 ms with synchronous=FULL; 30 s is a
# disk that hangs.
LOCK_TIMEOUT_S = 30.0
SCHEMA_VERSION = 1

SCHEMA = (
    """CREATE TABLE zones (zone TEXT PRIMARY KEY, epoch INTEGER NOT NULL, head_seq INTEGER NOT NULL,
       head_hash BLOB NOT NULL, digest BLOB NOT NULL, floor_seq INTEGER NOT NULL,
       beacon_n INTEGER NOT NULL)""",
    "CREATE TABLE doors (zone TEXT NOT NULL, door TEXT NOT NULL, PRIMARY KEY (zone, door))",
    """CREATE TABLE units (zone TEXT NOT NULL, unit TEXT NOT NULL, doors TEXT NOT NULL,
       PRIMARY KEY (zone, unit))""",
    # An ended tenancy keeps on whose word it ended, and where in the log.
    """CREATE TABLE tenancies (tenancy TEXT PRIMARY KEY, zone TEXT NOT NULL, unit TEXT NOT NULL,
       starts INTEGER NOT NULL, ends INTEGER, household INTEGER NOT NULL, ended_at INTEGER,
       authority_ref TEXT, ended_by TEXT, first_seq INTEGER, last_seq INTEGER, people INTEGER)""",
    """CREATE TABLE people (zone TEXT NOT NULL, person BLOB NOT NULL, internal_id TEXT NOT NULL,
       pv INTEGER NOT NULL, tv INTEGER NOT NULL, status INTEGER NOT NULL,
       PRIMARY KEY (zone, person))""",
    """CREATE TABLE grants (grant_id TEXT PRIMARY KEY, zone TEXT NOT NULL, person BLOB NOT NULL,
       tenancy TEXT NOT NULL, doors TEXT NOT NULL, not_before INTEGER NOT NULL, expires INTEGER,
       revoked_at INTEGER, consent BLOB NOT NULL)""",
    "CREATE INDEX grants_person ON grants (zone, person)",
    "CREATE INDEX grants_tenancy ON grants (tenancy)",
    # Which desk asked for which op: a repeated request is recognised, a lost desk's work is listed.
    """CREATE TABLE enrolments (request BLOB PRIMARY KEY, desk TEXT NOT NULL, zone TEXT NOT NULL,
       seq INTEGER NOT NULL, at INTEGER NOT NULL)""",
    """CREATE TABLE log (zone TEXT NOT NULL, seq INTEGER NOT NULL, op BLOB NOT NULL,
       hash BLOB NOT NULL, digest BLOB NOT NULL, delta BLOB NOT NULL,
       is_revocation INTEGER NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (zone, seq))""",
    "CREATE INDEX log_revocations ON log (zone, seq) WHERE is_revocation",
    """CREATE TABLE members (id TEXT PRIMARY KEY, role TEXT NOT NULL, version INTEGER NOT NULL,
       signed BLOB NOT NULL, fingerprint TEXT NOT NULL, at INTEGER NOT NULL)""",
    """CREATE TABLE zone_keys (zone TEXT NOT NULL, which TEXT NOT NULL, key_epoch INTEGER NOT NULL,
       member TEXT NOT NULL, kcv BLOB NOT NULL, signed BLOB NOT NULL,
       PRIMARY KEY (zone, which, key_epoch, member))""",
    # The last receipt that agrees with our log; one that does not only sets diverged_at.
    """CREATE TABLE receipts (zone TEXT NOT NULL, gate TEXT NOT NULL, epoch INTEGER NOT NULL,
       applied_seq INTEGER NOT NULL, chain_hash BLOB NOT NULL, active INTEGER NOT NULL,
       early TEXT NOT NULL, gate_at INTEGER NOT NULL, at INTEGER NOT NULL, diverged_at INTEGER,
       PRIMARY KEY (zone, gate))""",
    """CREATE TABLE enforcements (zone TEXT NOT NULL, seq INTEGER NOT NULL, gate TEXT NOT NULL,
       at INTEGER NOT NULL, PRIMARY KEY (zone, seq, gate))""",
    """CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, gate TEXT NOT NULL,
       event_no INTEGER NOT NULL, salt BLOB NOT NULL, payload BLOB NOT NULL, hash BLOB NOT NULL,
       at INTEGER NOT NULL, UNIQUE (gate, event_no))""",
    """CREATE TABLE statuses (gate TEXT PRIMARY KEY, state TEXT NOT NULL, degraded TEXT NOT NULL,
       gate_at INTEGER NOT NULL, at INTEGER NOT NULL)""",
)

Row = dict[str, Any]


class Store:
    """One connection; used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open the database; OfficeError when it is not there or not ours."""
        if not path.is_file():
            raise OfficeError(f"{path}: no database; restore the backup of the office")
        connection = sqlite3.connect(path, timeout=LOCK_TIMEOUT_S, check_same_thread=False)
        try:
            self.db = Database(connection)
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
                self.db.execute(f"PRAGMA {pragma}").fetchall()
            (version,) = self.db.execute("PRAGMA user_version").fetchone()
        except sqlite3.DatabaseError as error:
            connection.close()
            raise OfficeError(f"{path}: {error}; restore the backup of the office") from None
        if version != SCHEMA_VERSION:
            connection.close()
            raise OfficeError(
                f"{path}: made by another version of menjin (schema {version}, "
                f"this one knows {SCHEMA_VERSION}); use that version"
            )

    @staticmethod
    def create(path: Path) -> None:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE))
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchall()
            connection.execute("BEGIN IMMEDIATE")
            for statement in SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            connection.execute("COMMIT")
        finally:
            connection.close()

    def close(self) -> None:
        self.db.close()

    @contextmanager
    def atomic(self) -> Iterator[None]:
        """All or nothing, and alone: nobody else writes between our reads and our commit."""
        if self.db.conn.in_transaction:
            with self.db.atomic():
                yield
            return
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.db.rollback()
            raise
        self.db.execute("COMMIT")

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """A SELECT's rows, read to the end (an open cursor would hold back checkpoints)."""
        cursor = self.db.execute(sql, values)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def row(self, sql: str, values: Sequence[Any] = ()) -> Row | None:
        found = self.rows(sql, values)
        return found[0] if found else None

    def insert(self, table: str, row: Row, *, replace: bool = False) -> None:
        with self.atomic():
            self.db.table(table).insert(row, replace=replace)

    def update(self, table: str, key: str | tuple[Any, ...], changes: Row) -> None:
        with self.atomic():
            self.db.table(table).update(key, changes)
