"""The audit trail: chained, on the disk before it is believed, whole or named where it is not."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.clock import SystemClock
from edge.journal import Journal
from edge.terms import AccessEvent, DoorId, EventKind, GrantId, PersonId, Reason, ZoneId
from edge.trail import (
    FIRST_HASH,
    Trail,
    TrailFault,
    decode_event,
    encode_event,
    export,
    link,
    verify,
)

CLOCK = SystemClock()
WAIT_S = 10.0


def event(number: int = 0, reason: Reason = Reason.UNKNOWN_FACE) -> AccessEvent:
    return AccessEvent(EventKind.DECISION, 1_800_000_000.0 + number, DoorId("main"), reason=reason)


def trail(path: Path, rows: int) -> None:
    made = Trail(path)
    made.append([(bytes([n]) * 16, encode_event(event(n))) for n in range(rows)])
    made.close()


def spoil(path: Path, sql: str, *values: object) -> None:
    with sqlite3.connect(path) as db:
        db.execute(sql, values)
    db.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    made = Journal(path, CLOCK)
    made.start()
    yield made
    made.stop()


# --- the chain ---


@given(
    st.builds(
        AccessEvent,
        kind=st.sampled_from(EventKind),
        at=st.integers(0, 2**41).map(lambda ms: ms / 1000),
        door=st.none() | st.text(max_size=9).map(DoorId),
        zone=st.none() | st.text(max_size=9).map(ZoneId),
        person=st.none() | st.binary(min_size=16, max_size=16).map(PersonId),
        reason=st.none() | st.sampled_from(Reason),
        grant_id=st.none() | st.text(max_size=9).map(GrantId),
        facts=st.dictionaries(st.text(max_size=5), st.booleans() | st.integers(0, 99)),
    )
)
def test_an_event_comes_back(told: AccessEvent) -> None:
    assert decode_event(encode_event(told)) == told


def test_the_link_is_the_one_the_office_computes() -> None:
    content = hashlib.sha256(b"salt" + b"payload").digest()
    wanted = hashlib.sha256(FIRST_HASH + (7).to_bytes(8, "big") + content).digest()
    assert link(FIRST_HASH, 7, b"salt", b"payload") == wanted


SPOILT: dict[str, tuple[Callable[[Path], None], int]] = {
    "altered": (lambda p: spoil(p, "update rows set payload = ? where event_no = 4", b"\xa0"), 4),
    "its salt": (lambda p: spoil(p, "update rows set salt = ? where event_no = 4", b"x"), 4),
    "its hash": (lambda p: spoil(p, "update rows set hash = ? where event_no = 4", bytes(32)), 4),
    "deleted": (lambda p: spoil(p, "delete from rows where event_no = 4"), 5),
    "the first": (lambda p: spoil(p, "delete from rows where event_no = 1"), 2),
    "swapped": (
        lambda p: spoil(
            p,
            "update rows set (salt, payload, hash) = (select salt, payload, hash from rows r "
            "where r.event_no = 13 - rows.event_no) where event_no in (4, 9)",
        ),
        4,
    ),
}


@pytest.mark.parametrize("what", SPOILT)
def test_the_first_bad_row_is_named(path: Path, what: str) -> None:
    trail(path, 10)
    assert verify(path).ok
    how, number = SPOILT[what]
    how(path)
    found = verify(path)
    assert (found.ok, found.first_bad_no) == (False, number)
    assert found.why


def test_rows_cut_from_the_end_are_missed_where_the_office_holds_them(path: Path) -> None:
    trail(path, 10)
    made = Trail(path)
    assert made.anchor(8, made.rows(7, 1)[0].hash)
    made.close()
    spoil(path, "delete from rows where event_no > 6")
    found = verify(path)
    assert (found.ok, found.first_bad_no) == (False, 7)


def test_a_chain_computed_anew_is_not_the_one_the_office_holds(path: Path) -> None:
    trail(path, 10)
    made = Trail(path)
    made.anchor(8, made.rows(7, 1)[0].hash)
    rows = made.rows(0, 10)
    made.close()
    prev = FIRST_HASH
    for row in rows:
        payload = encode_event(event(99)) if row.event_no == 3 else row.payload
        prev = link(prev, row.event_no, row.salt, payload)
        spoil(
            path,
            "update rows set payload = ?, hash = ? where event_no = ?",
            payload,
            prev,
            row.event_no,
        )
    found = verify(path)
    assert (found.ok, found.first_bad_no) == (False, 8)


def test_an_acknowledgement_of_another_chain_moves_nothing(path: Path) -> None:
    trail(path, 3)
    made = Trail(path)
    assert not made.anchor(2, bytes(32))
    assert not made.anchor(9, bytes(32))
    assert made.anchored_no == 0
    made.close()


def test_only_what_the_office_holds_ages_out(path: Path) -> None:
    trail(path, 10)
    made = Trail(path)
    made.trim(4)
    assert len(made.rows(0, 99)) == 10
    made.anchor(5, made.rows(4, 1)[0].hash)
    made.trim(4)
    assert [row.event_no for row in made.rows(0, 99)] == [6, 7, 8, 9, 10]
    made.append([(b"s" * 16, encode_event(event()))])
    made.close()
    found = verify(path)
    assert (found.ok, found.rows, found.head_no) == (True, 6, 11)


def test_a_number_is_never_used_twice(path: Path) -> None:
    trail(path, 5)
    made = Trail(path)
    made.anchor(5, made.head[1])
    made.trim(0)
    made.close()
    made = Trail(path)
    made.append([(b"s" * 16, encode_event(event()))])
    assert made.rows(0, 9)[0].event_no == 6
    made.close()


def test_a_file_that_is_no_trail_is_one_line(path: Path) -> None:
    path.write_bytes(os.urandom(4096))
    with pytest.raises(TrailFault, match="keep it for the office"):
        Trail(path)


def test_verify_says_that_it_cannot_read(path: Path) -> None:
    path.write_bytes(os.urandom(4096))
    found = verify(path)
    assert (found.ok, "cannot be read" in found.why) == (False, True)


@given(
    number=st.integers(1, 10),
    column=st.sampled_from(["salt", "payload", "hash"]),
    at=st.integers(0, 15),
    bit=st.integers(0, 7),
)
def test_any_flipped_bit_is_found_at_its_row(
    tmp_path_factory: pytest.TempPathFactory, number: int, column: str, at: int, bit: int
) -> None:
    path = tmp_path_factory.mktemp("flip") / "journal.db"
    trail(path, 10)
    with sqlite3.connect(path) as db:
        found = db.execute(f"select {column} from rows where event_no = ?", [number]).fetchone()
        data = bytearray(found[0])
        data[at] ^= 1 << bit
        db.execute(f"update rows set {column} = ? where event_no = ?", [bytes(data), number])
    db.close()
    assert verify(path).first_bad_no == number


def test_an_old_acknowledgement_is_still_held_against_our_chain(path: Path) -> None:
    trail(path, 4)
    made = Trail(path)
    rows = made.rows(0, 9)
    assert made.anchor(3, rows[2].hash)
    assert made.anchor(2, rows[1].hash)
    assert not made.anchor(2, bytes(32))
    made.trim(1)  # the rows are gone, and nobody can say what they were
    assert made.anchor(1, rows[0].hash)
    assert not made.anchor(3, bytes(32))  # but of the last one we kept the hash
    assert made.anchored_no == 3
    made.close()


def test_after_a_cut_the_chain_goes_on_from_what_the_office_holds(path: Path) -> None:
    trail(path, 6)
    made = Trail(path)
    held = made.rows(4, 1)[0].hash
    made.anchor(5, held)
    made.close()
    spoil(path, "delete from rows where event_no > 3")
    made = Trail(path)
    made.append([(b"s" * 16, encode_event(event()))])
    row = made.rows(5, 9)[0]
    assert (row.event_no, row.prev_hash) == (6, held)
    made.close()
    assert verify(path).first_bad_no == 6


def test_rows_age_out_a_bounded_number_at_a_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The office is back after a year: no recorded row waits for the deletion of a million."""
    monkeypatch.setattr("edge.trail.TRIM_ROWS_MAX", 4)
    trail(path, 10)
    made = Trail(path)
    made.anchor(10, made.head[1])
    left = []
    for _ in range(3):
        made.trim(0)
        left.append(len(made.rows(0, 99)))
    assert left == [6, 2, 0]
    made.close()
    assert verify(path).ok


def test_a_row_that_cannot_be_read_hides_no_other(path: Path) -> None:
    trail(path, 3)
    spoil(path, "update rows set payload = x'80' where event_no = 2")
    assert [row["kind"] for row in export(path)] == ["decision", "unreadable", "decision"]


def test_a_last_row_that_cannot_be_read_keeps_no_gate_shut(path: Path) -> None:
    trail(path, 3)
    spoil(path, "update rows set payload = x'80' where event_no = 3")
    made = Trail(path)
    assert not made.ended_cleanly
    made.append([(b"s" * 16, encode_event(event()))])
    made.close()
    assert verify(path).first_bad_no == 3


def test_export_of_what_is_no_trail_is_one_line(path: Path) -> None:
    path.write_bytes(os.urandom(4096))
    with pytest.raises(TrailFault):
        list(export(path))


# --- the journal ---


def test_a_recorded_row_is_in_the_file(journal: Journal, path: Path) -> None:
    kept = journal.record(event(1, Reason.GRANTED))
    assert (kept.kept, kept.durable) == (True, True)
    assert [row["reason"] for row in export(path)] == ["granted"]


def test_it_is_read_while_the_daemon_writes_wherever_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "100% #1?mode=rw" / "journal.db"
    journal = Journal(path, CLOCK)
    journal.start()
    assert journal.record(event()).event_no == 1
    assert (verify(path).rows, len(list(export(path)))) == (1, 1)
    assert journal.record(event()).event_no == 2
    journal.stop()


def test_an_event_that_cannot_be_written_down_is_its_callers_fault(journal: Journal) -> None:
    with pytest.raises(ValueError):
        journal.record(AccessEvent(EventKind.DECISION, float("nan")))
    with pytest.raises(ValueError):
        journal.post(AccessEvent(EventKind.DECISION, float("nan")))
    assert journal.record(event(), timeout_s=WAIT_S).durable


def test_after_the_end_nothing_is_kept_so_nothing_may_be_unlocked(path: Path) -> None:
    journal = Journal(path, CLOCK)
    journal.start()
    journal.record(event())
    journal.stop()
    assert [row["kind"] for row in export(path)] == ["decision", "stop"]
    late = journal.record(event(), timeout_s=0.01)
    assert (late.kept, late.durable, late.event_no) == (False, False, None)


def test_a_trim_that_fails_writes_no_row_twice(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk takes no deletion either; the row itself is on the disk by then."""
    monkeypatch.setattr("edge.journal.TRIM_EVERY_ROWS", 1)
    journal = Journal(path, CLOCK, max_rows=1)
    journal.start()
    for number in (1, 2, 3):
        journal.record(event(number))
    journal.acked(3, journal.head()[1])
    spoil(path, "create trigger full before delete on rows begin select raise(abort,'no'); end")
    assert journal.record(event(4), timeout_s=WAIT_S).durable
    assert journal.degraded() is None
    spoil(path, "drop trigger full")
    journal.stop()
    at = [decode_event(row.payload).at - 1_800_000_000 for row in Trail(path).rows(0, 99)]
    assert at.count(4.0) <= 1
    assert verify(path).head_no == 5


def test_many_at_once_share_one_chain(journal: Journal, path: Path) -> None:
    def record(number: int) -> None:
        for _ in range(20):
            assert journal.record(event(number), timeout_s=WAIT_S).durable

    threads = [threading.Thread(target=record, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    found = verify(path)
    assert (found.ok, found.rows) == (True, 160)


def test_rows_go_to_the_office_in_order(journal: Journal) -> None:
    for number in range(5):
        journal.record(event(number))
    rows = journal.outbox(0, 3)
    assert [row.event_no for row in rows] == [1, 2, 3]
    assert [row.prev_hash for row in rows] == [FIRST_HASH, rows[0].hash, rows[1].hash]
    assert journal.acked(3, rows[2].hash)
    assert [row.event_no for row in journal.outbox(journal.acked_no, 9)] == [4, 5]


def test_a_disk_that_refuses_locks_nobody_out_and_loses_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages run out (as on a full disk): rows wait in memory and are written when it heals."""
    monkeypatch.setattr("edge.journal.RETRY_S", 0.05)
    journal = Journal(path, CLOCK)
    journal.start()
    journal.record(event(1))
    ask = journal._trail._db.conn.execute
    ask(f"PRAGMA max_page_count = {ask('PRAGMA page_count').fetchone()[0]}")
    kept = journal.record(event(2))
    while kept.durable:  # the last page has room for some
        kept = journal.record(event(2))
    assert kept.kept
    degraded = journal.degraded()
    assert degraded and degraded.startswith("audit_degraded: ")
    waiting = journal.record(event(3))
    assert (waiting.kept, waiting.durable) == (True, False)
    ask("PRAGMA max_page_count = 1000000")
    done = threading.Event()
    while journal.degraded() and not done.wait(0.02):
        pass
    journal.stop()
    rows = [decode_event(row.payload).at - 1_800_000_000 for row in Trail(path).rows(0, 999)]
    assert rows[:1] == [1.0]
    assert rows[1:-1] == sorted(rows[1:-1])
    assert 3.0 in rows
    assert verify(path).ok


def test_what_waits_in_memory_is_tried_once_more_at_the_end(path: Path) -> None:
    journal = Journal(path, CLOCK)
    journal.start()
    ask = journal._trail._db.conn.execute
    ask(f"PRAGMA max_page_count = {ask('PRAGMA page_count').fetchone()[0]}")
    big = AccessEvent(EventKind.DECISION, 0.0, facts={"x": "y" * 9000})
    assert not journal.record(big, timeout_s=WAIT_S).durable
    ask("PRAGMA max_page_count = 1000000")
    journal.stop()  # sooner than the next attempt was due
    assert [row["kind"] for row in export(path)] == ["decision", "stop"]


def test_what_neither_disk_nor_ring_could_keep_is_counted(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.journal.RETRY_S", 0.05)
    monkeypatch.setattr("edge.journal.RING_ROWS", 3)
    journal = Journal(path, CLOCK)
    journal.start()
    ask = journal._trail._db.conn.execute
    ask(f"PRAGMA max_page_count = {ask('PRAGMA page_count').fetchone()[0]}")
    big = AccessEvent(EventKind.DECISION, 0.0, facts={"x": "y" * 9000})
    for _ in range(8):
        journal.record(big)
    ask("PRAGMA max_page_count = 1000000")
    done = threading.Event()
    while journal.degraded() and not done.wait(0.02):
        pass
    journal.stop()
    kinds = [(row["kind"], row["facts"].get("rows")) for row in export(path)]
    assert ("gap", 5) in kinds
    assert [kind for kind, _ in kinds].count("decision") == 3


def test_what_finds_the_queue_full_is_counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told before the thread starts: two have room, three posted and one recorded have none."""
    monkeypatch.setattr("edge.journal.QUEUE_EVENTS", 2)
    journal = Journal(path, CLOCK)
    for number in range(5):
        journal.post(event(number))
    refused = journal.record(event(5), timeout_s=0.0)
    assert (refused.kept, refused.durable) == (False, False)
    journal.start()
    journal.stop()
    told = [(row["kind"], row["facts"].get("rows")) for row in export(path)]
    assert sorted(told, key=str) == [
        ("decision", None), ("decision", None), ("gap", 4), ("stop", None),
    ]  # fmt: skip


def test_a_clean_end_and_a_power_cut_are_told_apart(path: Path) -> None:
    journal = Journal(path, CLOCK)
    assert journal.clean_start
    journal.start()
    journal.record(event())
    journal.stop()
    assert Journal(path, CLOCK).clean_start
    trail(path, 1)
    assert not Journal(path, CLOCK).clean_start


WRITER = """
import sys
from pathlib import Path
from edge.clock import SystemClock
from edge.journal import Journal
from edge.terms import AccessEvent, EventKind
journal = Journal(Path(sys.argv[1]), SystemClock())
journal.start()
for number in range(100000):
    if journal.record(AccessEvent(EventKind.DECISION, float(number))).durable:
        print(number, flush=True)
"""


def test_no_acknowledged_row_is_lost_to_a_kill(path: Path) -> None:
    """What a kill can show: no row that was only in the process. What a power cut does needs
    replayed crash states (fault F1), which a kill cannot stand for."""
    root = Path(__file__).parent.parent
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, cwd=root
    ) as writer:
        assert writer.stdout
        said = [writer.stdout.readline() for _ in range(50)]
        writer.send_signal(signal.SIGKILL)
        said += writer.stdout.readlines()
    last = max(int(line) for line in said if line.endswith("\n") and line.strip())
    rows = list(export(path))
    assert len(rows) >= last + 1
    assert verify(path).ok


FILLER = """
import resource, sys
from pathlib import Path
from edge import journal as module
from edge.clock import SystemClock
from edge.terms import AccessEvent, EventKind
module.RETRY_S = 0.01
journal = module.Journal(Path(sys.argv[1]), SystemClock())
journal.start()
def record(n):
    return journal.record(AccessEvent(EventKind.DECISION, float(n), facts={"x": "y" * 4000}), 10.0)
assert record(0).durable
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # write() fails from here on
n = 1
while record(n).durable:
    n += 1
late = [record(n + k) for k in (1, 2)]
assert all(r.kept and not r.durable for r in late), late
print(journal.degraded(), n)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
journal.stop()
"""


def test_a_write_that_the_system_refuses_is_healed_in_order(path: Path) -> None:
    """The kernel itself refuses to write (a limit on the size of files), then does not."""
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", FILLER, str(path)],
        capture_output=True, text=True, cwd=root, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("audit_degraded: ")
    refused = int(done.stdout.split()[-1])
    kinds = [row["kind"] for row in export(path)]
    at = [decode_event(row.payload).at for row in Trail(path).rows(0, 999)]
    assert at[:-1] == [float(n) for n in range(refused + 3)]
    assert kinds[-1] == "stop"
    assert verify(path).ok


def test_a_start_on_a_full_disk_does_not_ask_for_the_trail_to_be_moved(path: Path) -> None:
    """Another trail would begin at 1, and the office would refuse its chain."""
    trail(path, 3)
    probe = (
        "import resource, sys; from pathlib import Path; from edge.trail import Trail\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "Trail(Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, str(path)],
        capture_output=True, text=True, cwd=Path(__file__).parent.parent, timeout=30,
    )  # fmt: skip
    fault = done.stderr.splitlines()[-1]
    assert "TrailFault" in fault
    assert "free some space" in fault
    assert (verify(path).ok, verify(path).rows) == (True, 3)


def test_a_ruined_trail_is_set_aside_and_goes_on_behind_what_the_office_holds(path: Path) -> None:
    trail(path, 7)
    seventh = Trail(path)
    held = seventh.head
    seventh.close()
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.write_bytes(os.urandom(4096))
    journal = Journal(path, CLOCK)
    journal.start()
    assert path.with_name("journal.db.refused-1").exists()
    assert "set aside" in str(journal.degraded())
    journal.record(event(50))
    assert journal.acked(*held)
    journal.record(event(51))
    assert [row.event_no for row in journal.outbox(journal.acked_no, 9)] == [8, 9]
    assert journal.outbox(7, 1)[0].prev_hash == held[1]
    assert not journal.acked(9, bytes(32)), "once, and never again"
    journal.stop()
    assert verify(path).ok
