"""The file of the audit trail under a hostile hand, a failing disk, and a daemon that writes.

The chain, the anchor and what a journal does with them are in test_journal.py."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
from pathlib import Path

import cbor2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.terms import AccessEvent, EventKind
from edge.trail import FIRST_HASH, Trail, TrailFault, decode_event, encode_event, export, verify

WAIT_S = 10.0


def payload(number: int) -> bytes:
    return encode_event(AccessEvent(EventKind.DECISION, 1_800_000_000.0 + number))


def rows(first: int, many: int) -> list[tuple[bytes, bytes]]:
    return [(os.urandom(16), payload(n)) for n in range(first, first + many)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def filled(path: Path, many: int = 10, anchored: int = 0) -> None:
    made = Trail(path)
    made.append(rows(1, many))
    if anchored:
        assert made.anchor(anchored, made.rows(anchored - 1, 1)[0].hash)
    made.close()


def spoil(path: Path, sql: str, *values: object) -> None:
    with sqlite3.connect(path) as db:
        db.execute(sql, values)
    db.close()


def test_it_writes_ahead_and_waits_for_the_disk(path: Path) -> None:
    """WAL and synchronous=FULL (2): the law of this file, whatever the defaults become."""
    made = Trail(path)
    ask = made._db.conn.execute
    assert ask("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert ask("PRAGMA synchronous").fetchone()[0] == 2
    assert path.stat().st_mode & 0o777 == 0o600
    made.close()


# --- a hostile hand ---


def test_a_row_put_in_between_is_named(path: Path) -> None:
    """Later numbers moved up to make room, the way somebody would."""
    filled(path)
    spoil(path, "update rows set event_no = event_no + 100 where event_no >= 4")
    spoil(path, "update rows set event_no = event_no - 99 where event_no >= 100")
    spoil(path, "insert into rows values (4, x'00', ?, ?)", payload(4), bytes(32))
    assert verify(path).first_bad_no == 4


def test_a_row_put_behind_the_last_is_named(path: Path) -> None:
    filled(path)
    spoil(path, "insert into rows values (11, x'00', ?, ?)", payload(11), bytes(32))
    assert verify(path).first_bad_no == 11


@pytest.mark.parametrize("value", [None, 7, "text", b"", 2.5])
@pytest.mark.parametrize("column", ["salt", "payload", "hash"])
def test_a_column_of_another_type_is_named(path: Path, column: str, value: object) -> None:
    filled(path)
    spoil(path, f"update rows set {column} = ? where event_no = 4", value)
    assert verify(path).first_bad_no == 4
    assert [row["event_no"] for row in export(path)] == list(range(1, 11))  # none is hidden
    Trail(path).close()


def test_a_beginning_that_the_office_does_not_hold_was_cut_off(path: Path) -> None:
    """The rows go and the mark of a trim is set over them: only acknowledged rows age out."""
    filled(path, anchored=3)
    with sqlite3.connect(path) as db:
        gone = db.execute("select hash from rows where event_no = 6").fetchone()[0]
        db.execute("delete from rows where event_no <= 6")
        db.execute("insert into marks values ('base', 6, ?)", [gone])
    db.close()
    found = verify(path)
    assert (found.ok, found.first_bad_no) == (False, 4)
    assert "does not hold" in found.why


def test_a_trail_emptied_whole_is_missed_where_the_office_holds_it(path: Path) -> None:
    filled(path, anchored=3)
    spoil(path, "delete from rows")
    found = verify(path)
    assert (found.ok, found.first_bad_no) == (False, 1)


def test_without_an_anchor_a_cut_end_cannot_be_seen_here(path: Path) -> None:
    """What the box alone cannot know, said aloud: only the office can (EVENT-ACK)."""
    filled(path)
    spoil(path, "delete from rows where event_no > 6")
    assert verify(path).ok


@pytest.mark.parametrize("column", ["event_no", "hash"])
@pytest.mark.parametrize("value", [None, "text", b"x"])
def test_a_mark_of_another_type_is_a_fault_and_no_crash(
    path: Path, column: str, value: object
) -> None:
    filled(path, anchored=3)
    spoil(path, f"update marks set {column} = ?", value)
    assert not verify(path).ok
    try:
        Trail(path).close()
    except TrailFault as fault:
        assert "\n" not in str(fault)


# --- bytes that are no trail ---


def test_whatever_a_disk_makes_of_the_file_it_is_named_and_nothing_raises(path: Path) -> None:
    """200 ruined files. A chain that verifies has the rows that were written."""
    filled(path, 20, anchored=5)
    whole, told = path.read_bytes(), list(export(path))
    rng, held = random.Random(20260304), 0
    ruins = [[(at, whole[at] ^ 0xFF)] for at in range(100)]
    while len(ruins) < 200:
        many = rng.choice((1, 8, 300, 3000))
        ruins.append([(rng.randrange(100, len(whole)), rng.randrange(256)) for _ in range(many)])
    for ruin in ruins:
        for part in path.parent.iterdir():
            part.unlink()
        data = bytearray(whole)
        for at, value in ruin:
            data[at] = value
        path.write_bytes(data)
        if verify(path).ok:
            held += 1
            assert list(export(path)) == told
        try:
            list(export(path))
            made = Trail(path)
            made.append(rows(21, 1))
            made.close()
        except TrailFault as fault:
            assert str(fault)
    assert 20 < held < 180  # both kinds were seen


@given(st.binary(max_size=60))
@example(cbor2.dumps({"k": "decision", "at": 10**400}))
@example(cbor2.dumps({"k": "decision", "at": 1, "f": [1]}))
@example(cbor2.dumps({"k": ["decision"], "at": 1}))
@example(cbor2.dumps(["k", "at"]))
@example(b"\x81" * 2000 + b"\x00")
def test_bytes_that_are_no_event_are_a_value_error(data: bytes) -> None:
    try:
        event = decode_event(data)
    except ValueError:
        return
    assert isinstance(event, AccessEvent)


@pytest.mark.parametrize("what", ["missing", "garbage", "folder"])
def test_reading_what_is_no_trail_is_one_line(path: Path, what: str) -> None:
    if what == "garbage":
        path.write_bytes(os.urandom(4096))
    elif what == "folder":
        path.mkdir()
    assert "cannot be read" in verify(path).why
    with pytest.raises(TrailFault):
        list(export(path))
    assert path.exists() == (what != "missing")


def test_a_trail_of_a_newer_menjin_is_left_alone(path: Path) -> None:
    filled(path)
    spoil(path, "PRAGMA user_version = 99")
    with pytest.raises(TrailFault, match="newer menjin"):
        Trail(path)
    assert len(list(export(path))) == 10


# --- beside a daemon ---


def test_reading_beside_a_writer_sees_one_moment(path: Path) -> None:
    """Rows come, are acknowledged and age out all the while: never a false alarm, and every look
    is a run of numbers without a gap."""
    made, done, faults = Trail(path), threading.Event(), list[BaseException]()
    made.append(rows(1, 5))

    def write() -> None:
        try:
            while not done.is_set():
                made.append(rows(1, 3))
                assert made.anchor(*made.head)
                made.trim(4)
        except BaseException as error:
            faults.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    try:
        for _ in range(150):
            found = verify(path)
            assert found.ok, found
            seen.add(found.head_no)
            numbers = [row["event_no"] for row in export(path)]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    finally:
        done.set()
        writer.join(WAIT_S)
        made.close()
    assert not faults
    assert len(seen) > 5  # it did write meanwhile


def test_an_export_begun_before_a_row_ends_without_it(path: Path) -> None:
    filled(path, 3)
    made = Trail(path)
    reader = export(path)
    first = next(reader)["event_no"]
    made.append(rows(4, 1))
    assert [first, *(row["event_no"] for row in reader)] == [1, 2, 3]
    assert len(list(export(path))) == 4
    made.close()


def test_reading_writes_nothing(path: Path) -> None:
    filled(path)
    stamp = (path.read_bytes(), path.stat().st_mtime_ns)
    assert verify(path).ok
    assert len(list(export(path))) == 10
    assert (path.read_bytes(), path.stat().st_mtime_ns) == stamp


def test_a_write_that_breaks_off_leaves_no_row_and_no_number(path: Path) -> None:
    filled(path, 3)
    spoil(
        path,
        "create trigger full before insert on rows when new.event_no = 5 "
        "begin select raise(abort, 'no'); end",
    )
    made = Trail(path)
    head = made.head
    with pytest.raises(TrailFault, match="no"):
        made.append(rows(4, 3))
    assert (made.head, len(made.rows(0, 99))) == (head, 3)
    assert made.append(rows(4, 1)) == 4
    made.close()
    assert verify(path).ok


def test_a_trim_that_breaks_off_drops_nothing(path: Path) -> None:
    filled(path, anchored=9)
    spoil(
        path,
        "create trigger full before insert on marks when new.name = 'base' "
        "begin select raise(abort, 'no'); end",
    )
    made = Trail(path)
    with pytest.raises(TrailFault):
        made.trim(2)
    assert made.rows(0, 1)[0].prev_hash == FIRST_HASH
    made.close()
    assert verify(path).rows == 10
