"""The encrypted cache: what it gives back is what was put in, or nothing of that zone at all."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import records
from edge.keys import Kek
from edge.roster import Put, Revoke, ZoneRoster, apply
from edge.store import Store, StoreFault
from edge.terms import DoorId, Grant, GrantId, ModelId, PersonId, Record, SealedTemplate, ZoneId

KEK = Kek(bytes(range(32)), "weak")
ZONE, SECOND = ZoneId("lotus"), ZoneId("plum")
TENANCY = "T-2026-000118"


def person(number: int) -> PersonId:
    return PersonId(number.to_bytes(16, "big"))


def put(number: int, pv: int = 1, tenancy: str = TENANCY) -> Put:
    grant = Grant(GrantId(f"g{number}"), tenancy, frozenset({DoorId("main")}), 0.0, None)
    sealed = SealedTemplate(ModelId("m1"), 1, bytes([number % 256]) * 12 + os.urandom(256))
    return Put(person(number), pv, pv, (grant,), (sealed,))


def grown(roster: ZoneRoster, *ops: Put | Revoke) -> tuple[ZoneRoster, frozenset[PersonId]]:
    chained = [(op, os.urandom(32)) for op in ops]
    done = apply(roster, chained, first_seq=roster.applied_seq + 1)
    return done.roster, done.changed


def save(store: Store, roster: ZoneRoster, *ops: Put | Revoke) -> ZoneRoster:
    after, changed = grown(roster, *ops)
    store.save(after, changed, ())
    return after


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "roster.db"


def filled(path: Path, people: int = 5) -> ZoneRoster:
    store = Store(path, KEK, "gate-1")
    after = save(store, ZoneRoster(ZONE, epoch=1), *(put(n) for n in range(people)))
    save(store, ZoneRoster(SECOND, epoch=1), *(put(n) for n in range(100, 103)))
    store.close()
    return after


def everything(path: Path) -> tuple[bytes, ZoneRoster]:
    """A small database with a row in every table, closed: (its bytes, its first zone)."""
    store = Store(path, KEK, "gate-1")
    roster = save(store, ZoneRoster(ZONE, epoch=1), *(put(n) for n in range(3)))
    store.put_zone_key(ZONE, "kr", 1, bytes(32))
    store.put_beacon(ZONE, 1, 2, 1_800_000_000.0)
    store.put_trust(b"trust" * 20)
    store.put_member("desk-1", b"member")
    store.save_ahead(ZONE, 9, b"signed-9")
    store.close()
    return path.read_bytes(), roster


def all_bytes(path: Path) -> bytes:
    """Of the database and everything beside it."""
    return b"\n".join(part.read_bytes() for part in sorted(path.parent.iterdir()))


def load(path: Path, kek: Kek = KEK, gate: str = "gate-1") -> tuple[dict[str, ZoneRoster], str]:
    store = Store(path, kek, gate)
    loaded = store.load()
    store.close()
    return {str(zone): roster for zone, roster in loaded.zones.items()}, "; ".join(loaded.refused)


def spoil(path: Path, sql: str, *values: object) -> None:
    with sqlite3.connect(path) as db:
        db.execute(sql, values)
    db.close()


def test_a_zone_comes_back_as_it_was(path: Path) -> None:
    before = filled(path, 200)
    zones, refused = load(path)
    assert zones["lotus"] == before
    assert (len(zones["plum"].people), refused) == (3, "")


def test_it_writes_ahead_and_waits_for_the_disk(path: Path) -> None:
    """WAL and synchronous=FULL (2): the law of this file, whatever the defaults become."""
    store = Store(path, KEK, "gate-1")
    ask = store._db.conn.execute
    assert ask("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert ask("PRAGMA synchronous").fetchone()[0] == 2
    assert ask("PRAGMA secure_delete").fetchone()[0] == 1
    store.close()


SPOILT: dict[str, Callable[[Path], None]] = {
    "a flipped bit of a record": lambda p: spoil(
        p, "update records set sealed = ? where person = ?", os.urandom(300), person(1)
    ),
    "a flipped bit of a wrapped key": lambda p: spoil(
        p, "update records set wrapped = zeroblob(60) where person = ?", person(1)
    ),
    "two people swapped": lambda p: spoil(
        p,
        "update records set (sealed, wrapped) = (select sealed, wrapped from records r where "
        "r.person = ?) where person = ?",
        person(1),
        person(2),
    ),
    "somebody moved in from another zone": lambda p: spoil(
        p, "update records set zone = 'lotus' where person = ?", person(100)
    ),
    "somebody moved to another pseudonym": lambda p: spoil(
        p, "update records set person = ? where person = ?", person(77), person(1)
    ),
    "a version raised": lambda p: spoil(p, "update records set pv = 9 where person = ?", person(1)),
    "a status changed": lambda p: spoil(p, "update records set status = 3 where pv = 1"),
    "a record deleted": lambda p: spoil(p, "delete from records where person = ?", person(1)),
    "the standing altered": lambda p: spoil(
        p, "update standing set sealed = zeroblob(90) where zone = 'lotus'"
    ),
    "the standing of another zone": lambda p: spoil(
        p,
        "update standing set (sealed, wrapped) = (select sealed, wrapped from standing s where "
        "s.zone = 'plum') where zone = 'lotus'",
    ),
    "the standing gone": lambda p: spoil(p, "delete from standing where zone = 'lotus'"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_spoilt_zone_is_refused_whole_and_begins_empty(path: Path, what: str) -> None:
    filled(path)
    SPOILT[what](path)
    zones, refused = load(path)
    assert "lotus" not in zones
    assert "zone lotus" in refused
    zones, refused = load(path)  # it was erased: the next start has nothing to refuse
    assert ("lotus" in zones, "lotus" in refused) == (False, False)


def test_an_older_record_put_back_is_refused(path: Path) -> None:
    """Whole, valid under its key, and from yesterday: the zone's digest does not fit it."""
    before = filled(path)
    with sqlite3.connect(path) as db:
        db.execute("create table old as select * from records where person = ?", [person(1)])
    db.close()
    store = Store(path, KEK, "gate-1")
    save(store, before, Revoke(person(1), 2, None))
    store.close()
    spoil(path, "delete from records where person = ?", person(1))
    spoil(path, "insert into records select * from old")
    zones, refused = load(path)
    assert "lotus" not in zones
    assert "older" in refused


def test_another_key_or_another_gate_opens_nothing(path: Path) -> None:
    filled(path)
    assert load(path, gate="gate-2")[0] == {}
    filled(path)
    assert load(path, kek=Kek(bytes(32), "weak"))[0] == {}


@given(at=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_any_byte_of_the_file_may_be_another(
    tmp_path_factory: pytest.TempPathFactory, at: float, value: int
) -> None:
    """Never an exception, and a zone that comes back is exactly what was saved."""
    path = tmp_path_factory.mktemp("bytes") / "roster.db"
    before = filled(path)
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] = value
    path.write_bytes(data)
    try:
        zones, _ = load(path)
    except StoreFault as error:
        assert "newer menjin" in str(error)  # the byte was the schema's version
        return
    assert zones.get("lotus", before) == before


COLUMNS = [
    (table, column)
    for table, names in {
        "records": ("zone", "person", "pv", "tv", "status", "wrapped", "sealed"),
        "standing": ("zone", "wrapped", "sealed"),
    }.items()
    for column in names
]


@given(
    cell=st.sampled_from(COLUMNS),
    which=st.integers(0, 4),
    at=st.floats(0, 1, exclude_max=True),
    bits=st.integers(1, 255),
)
def test_a_flipped_byte_in_any_column_refuses_the_zone(
    tmp_path_factory: pytest.TempPathFactory,
    cell: tuple[str, str],
    which: int,
    at: float,
    bits: int,
) -> None:
    """Of every column of every row: the sealed parts and those that are only bound to them."""
    path = tmp_path_factory.mktemp("cell") / "roster.db"
    filled(path)
    (table, column), order = cell, "person" if cell[0] == "records" else "zone"
    with sqlite3.connect(path) as db:
        where = f"from {table} where zone = 'lotus' order by {order} limit 1 offset ?"
        offset = which if table == "records" else 0
        rowid, old = db.execute(f"select rowid, {column} {where}", [offset]).fetchone()
        if isinstance(old, int):
            new: object = old ^ bits
        else:
            data = bytearray(old.encode() if isinstance(old, str) else old)
            data[int(at * len(data))] ^= bits
            new = bytes(data).decode(errors="replace") if isinstance(old, str) else bytes(data)
        db.execute(f"update {table} set {column} = ? where rowid = ?", [new, rowid])
    db.close()
    zones, refused = load(path)
    assert "lotus" not in zones
    assert "zone" in refused
    assert len(zones["plum"].people) == 3  # its neighbour is not touched


@pytest.mark.parametrize("value", [None, 7, -1, 2.5, "text", b"", b"bytes", 2**62])
@pytest.mark.parametrize("cell", COLUMNS, ids="-".join)
def test_a_column_of_another_type_refuses_the_zone(
    path: Path, cell: tuple[str, str], value: object
) -> None:
    filled(path)
    first = f"select min(rowid) from {cell[0]} where zone = 'lotus'"
    try:
        spoil(path, f"update {cell[0]} set {cell[1]} = ? where rowid = ({first})", value)
    except sqlite3.IntegrityError:
        return  # a key that SQLite itself does not take
    assert "lotus" not in load(path)[0]


def test_a_record_too_many_is_refused(path: Path) -> None:
    """Well sealed for this place under this key, by a copy of the box: not in the standing."""
    filled(path)
    store = Store(path, KEK, "gate-1")
    row = records.pack(store._envelope, "gate-1", ZONE, grown_one(put(50)), {})
    with store._db.atomic():
        store._db.table("records").insert(row)
    store.close()
    zones, refused = load(path)
    assert "lotus" not in zones
    assert "added" in refused


def grown_one(op: Put) -> Record:
    return grown(ZoneRoster(ZONE, epoch=1), op)[0].people[op.person]


def test_an_older_standing_put_back_is_refused(path: Path) -> None:
    before = filled(path)
    with sqlite3.connect(path) as db:
        old = db.execute("select wrapped, sealed from standing where zone = 'lotus'").fetchone()
    db.close()
    store = Store(path, KEK, "gate-1")
    save(store, before, Revoke(person(1), 2, None))
    store.close()
    spoil(path, "update standing set wrapped = ?, sealed = ? where zone = 'lotus'", *old)
    assert "lotus" not in load(path)[0]


def test_whatever_a_disk_makes_of_the_file_nothing_raises_and_nothing_is_wrong(
    path: Path,
) -> None:
    """200 ruined files: every header byte first, then bytes anywhere. What comes back is what was
    saved or nothing; every reader answers; and the file that begins anew can be written."""
    whole, before = everything(path)
    rng = random.Random(20260304)
    ruins = [[(at, whole[at] ^ 0xFF)] for at in range(20, 100) if not 60 <= at < 64]
    while len(ruins) < 200:  # 60..63 is user_version: a newer menjin, tested below
        many = rng.choice((1, 8, 300, 3000))
        ruins.append([(rng.randrange(100, len(whole)), rng.randrange(256)) for _ in range(many)])
    held = 0
    for ruin in ruins:
        for part in path.parent.iterdir():
            part.unlink()
        data = bytearray(whole)
        for at, value in ruin:
            data[at] = value
        path.write_bytes(data)
        store = Store(path, KEK, "gate-1")
        roster = store.load().zones.get(ZONE)
        held += roster is not None
        assert roster in (None, before)
        assert store.time_floor() >= 0.0
        assert (len(store.zone_keys()) <= 1, len(store.members()) <= 1) == (True, True)
        assert isinstance(store.trust() or b"", bytes)
        assert len(store.beacon(ZONE)) == 2
        store.close()
    assert 20 < held < 180  # both kinds were seen


@pytest.mark.parametrize("size", [0, 1, 99, 100, 4096, 5000, 30000])
def test_a_file_cut_short_begins_anew_or_holds(path: Path, size: int) -> None:
    whole, _ = everything(path)
    path.write_bytes(whole[:size])
    assert load(path)[0] == {}
    store = Store(path, KEK, "gate-1")
    after = save(store, ZoneRoster(ZONE, epoch=1), put(1))
    store.close()
    assert load(path)[0]["lotus"] == after


def test_a_damaged_table_is_found_when_the_file_is_opened(path: Path) -> None:
    """Not at the first save: a cache that cannot be written is of no use until somebody comes."""
    everything(path)
    spoil(path, "alter table standing rename column sealed to other")
    assert "standing" in load(path)[1]
    assert path.with_name("roster.db.refused-1").exists()


def test_a_damaged_page_that_loading_never_reads_is_found_too(path: Path) -> None:
    whole, _ = everything(path)
    with sqlite3.connect(path) as db:
        ask = "select rootpage from sqlite_master where name = 'revocations'"
        page, size = db.execute(ask).fetchone()[0], db.execute("PRAGMA page_size").fetchone()[0]
    db.close()
    path.write_bytes(whole[: (page - 1) * size] + b"\xff" * size + whole[page * size :])
    assert "set aside" in load(path)[1]


@pytest.mark.parametrize("table", ["papers", "zone_keys", "beacons"])
def test_a_name_that_is_not_utf8_spoils_its_own_row_only(path: Path, table: str) -> None:
    _, before = everything(path)
    column = "name" if table == "papers" else "zone"
    spoil(path, f"update {table} set {column} = cast(x'ff' as text) where rowid = 1")
    store = Store(path, KEK, "gate-1")
    assert store.load().zones[ZONE] == before
    found = [store.trust() is None, store.zone_keys() == {}, store.beacon(ZONE) == (0, 0)]
    assert found == [table == "papers", table == "zone_keys", table == "beacons"]
    assert set(store.members()) == {"desk-1"}
    store.close()


def test_an_altered_revocation_ahead_of_the_log_refuses_its_zone(path: Path) -> None:
    everything(path)
    spoil(path, "update ahead set signed = null")
    zones, refused = load(path)
    assert (zones, "zone lotus" in refused) == ({}, True)


@pytest.mark.parametrize("at", [None, "soon", b"x", float("inf"), float("-inf")])
def test_a_time_that_is_none_is_no_floor_under_the_clock(path: Path, at: object) -> None:
    everything(path)
    spoil(path, "update beacons set at = ?", at)
    store = Store(path, KEK, "gate-1")
    assert store.time_floor() == 0.0
    store.close()


def test_what_is_no_database_is_set_aside(path: Path) -> None:
    path.write_bytes(os.urandom(8192))
    zones, refused = load(path)
    assert (zones, "set aside" in refused) == ({}, True)
    assert path.with_name("roster.db.refused-1").exists()
    filled(path)
    assert load(path)[1] == ""


def test_a_file_of_a_newer_menjin_is_left_alone(path: Path) -> None:
    filled(path)
    spoil(path, "PRAGMA user_version = 99")
    with pytest.raises(StoreFault, match="newer menjin"):
        Store(path, KEK, "gate-1")


def test_nothing_is_in_the_clear(path: Path) -> None:
    """Every 16-byte window of what is secret, in all files of the database, while it is open."""
    kf = os.urandom(32)
    kr = os.urandom(32)
    vector = np.linspace(-1, 1, 128)
    template, wide = (vector.astype(kind).tobytes() for kind in ("<f2", "<f4"))
    store = Store(path, KEK, "gate-1")
    store.put_zone_key(ZONE, "kf", 1, kf)
    grant = Grant(GrantId("g1"), TENANCY, frozenset({DoorId("main")}), 0.0, None)
    store.put_zone_key(ZONE, "kr", 1, kr)
    sealed = SealedTemplate(ModelId("m1"), 1, template + wide)  # as if a desk had not sealed it
    save(store, ZoneRoster(ZONE, epoch=1), Put(person(1), 1, 1, (grant,), (sealed,)))
    seen = b"".join(part.read_bytes() for part in path.parent.iterdir())
    secrets = {"Kf": kf, "Kr": kr, "float16": template, "float32": wide, "KEK": KEK.key}
    for name, secret in secrets.items():
        windows = (secret[i : i + 16] for i in range(len(secret) - 15))
        assert not any(window in seen for window in windows), name
    assert not any(TENANCY[i : i + 8].encode() in seen for i in range(len(TENANCY) - 7))
    assert ZONE.encode() in seen  # the look itself works: a zone's name is no secret
    store.close()


def test_what_was_erased_is_in_no_file(path: Path) -> None:
    store = Store(path, KEK, "gate-1")
    roster = save(store, ZoneRoster(ZONE, epoch=1), put(1), put(2))
    rows = store._db.query("select sealed from records where person = ?", [person(1)])
    sealed = next(iter(rows))["sealed"]
    after, changed = grown(roster, Revoke(person(1), 2, None))
    store.save(after, changed, changed)
    store.forget_erased()
    seen = b"".join(part.read_bytes() for part in path.parent.iterdir())
    assert sealed[12:44] not in seen
    store.close()


def test_half_a_building_revoked_is_in_no_file(path: Path) -> None:
    """Pages split, merge and move: no 16 bytes of any old sealed record or data key are left."""
    store = Store(path, KEK, "gate-1")
    roster = save(store, ZoneRoster(ZONE, epoch=1), *(put(n) for n in range(60)))
    gone = range(0, 60, 2)
    rows = {row["person"]: row for row in store._db.query("select * from records")}
    old = [rows[person(n)][column] for n in gone for column in ("sealed", "wrapped")]
    assert all(data[20:36] in all_bytes(path) for data in old)
    after, changed = grown(roster, *(Revoke(person(n), 2, None) for n in gone))
    store.save(after, changed, changed)
    store.forget_erased()
    windows = {data[i : i + 16] for data in old for i in range(len(data) - 15)}
    seen = all_bytes(path)
    assert not any(seen[i : i + 16] in windows for i in range(len(seen) - 15))
    assert store.load().zones[ZONE] == after
    store.close()


def test_a_zone_that_is_dropped_is_in_no_file(path: Path) -> None:
    store = Store(path, KEK, "gate-1")
    save(store, ZoneRoster(ZONE, epoch=1), put(1))
    store.forget_erased()
    sealed = next(iter(store._db.query("select sealed from records")))["sealed"]
    store.reset(ZONE)
    store.forget_erased()
    assert sealed[20:36] not in all_bytes(path)
    store.close()


def test_a_save_that_breaks_off_leaves_nothing_half(path: Path) -> None:
    before = filled(path)
    spoil(path, "create trigger full before insert on standing begin select raise(abort,'no'); end")
    store = Store(path, KEK, "gate-1")
    with pytest.raises(StoreFault):
        save(store, before, put(6))
    store.close()
    spoil(path, "drop trigger full")
    assert load(path)[0]["lotus"] == before


def test_a_full_disk_is_a_fault_and_heals(path: Path) -> None:
    before = filled(path)
    store = Store(path, KEK, "gate-1")
    pages = store._db.conn.execute("PRAGMA page_count").fetchone()[0]
    store._db.conn.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreFault, match="full"):
        save(store, before, *(put(n) for n in range(10, 60)))
    store._db.conn.execute("PRAGMA max_page_count = 1000000")
    after = save(store, before, *(put(n) for n in range(10, 60)))
    store.close()
    assert load(path)[0]["lotus"] == after


SAVER = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from edge.roster import ZoneRoster
from edge.store import Store, StoreFault
from test_store import KEK, ZONE, put, save
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = Store(Path(sys.argv[1]), KEK, "gate-1")
before = save(store, ZoneRoster(ZONE, epoch=1), put(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
try:
    save(store, before, *(put(n) for n in range(2, 900)))
except StoreFault as error:
    print("fault", "\\n" in str(error))
print("kept", store.load().zones[ZONE] == before)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
after = save(store, before, *(put(n) for n in range(2, 900)))
print("healed", store.load().zones[ZONE] == after)
"""


def test_a_disk_that_takes_no_more_bytes_is_a_fault_and_heals(path: Path) -> None:
    """The kernel itself refuses the write, in a process of its own."""
    tests = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", SAVER, str(path), str(tests)],
        cwd=tests.parent,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stdout.splitlines(), done.stderr) == (
        ["fault False", "kept True", "healed True"],
        "",
    )


def test_revocations_ahead_of_the_log_stay_until_it_reaches_them(path: Path) -> None:
    store = Store(path, KEK, "gate-1")
    store.save_ahead(ZONE, 3, b"signed-3")
    store.save_ahead(ZONE, 9, b"signed-9")
    save(store, ZoneRoster(ZONE, epoch=1), put(1), put(2), put(3))
    assert store.load().ahead == {ZONE: {9: b"signed-9"}}
    kept = [(row["seq"], row["signed"]) for row in store._db.query("select * from revocations")]
    assert kept == [(3, b"signed-3")]
    store.close()


def test_beacons_and_the_time_floor_outlive_a_restart(path: Path) -> None:
    store = Store(path, KEK, "gate-1")
    assert (store.beacon(ZONE), store.time_floor()) == ((0, 0), 0.0)
    store.put_beacon(ZONE, 1, 42, 1_800_000_000.5)
    store.close()
    store = Store(path, KEK, "gate-1")
    assert (store.beacon(ZONE), store.time_floor()) == ((1, 42), 1_800_000_000.5)
    store.close()


def test_a_zone_key_that_was_altered_is_as_if_it_had_not_come(path: Path) -> None:
    store = Store(path, KEK, "gate-1")
    store.put_zone_key(ZONE, "kr", 1, bytes(32))
    store.put_zone_key(ZONE, "kf", 1, bytes(range(32)))
    store.close()
    spoil(path, "update zone_keys set which = 'ks' where which = 'kr'")
    store = Store(path, KEK, "gate-1")
    assert dict(store.zone_keys()) == {(ZONE, "kf", 1): bytes(range(32))}
    store.close()


def test_peeking_writes_nothing(path: Path) -> None:
    before = filled(path)
    stamp = (path.read_bytes(), path.stat().st_mtime_ns)
    assert Store.peek(path, KEK, "gate-1").zones[ZONE] == before
    assert (path.read_bytes(), path.stat().st_mtime_ns) == stamp


def test_peeking_works_beside_a_writer(path: Path) -> None:
    """What is committed is seen although it is in the -wal alone; a transaction is not."""
    store = Store(path, KEK, "gate-1")
    before = save(store, ZoneRoster(ZONE, epoch=1), put(1))
    with store._db.atomic():
        store._db.execute("delete from records")
        assert Store.peek(path, KEK, "gate-1").zones[ZONE] == before
        store._db.execute("delete from standing")
    assert Store.peek(path, KEK, "gate-1").zones == {}
    store.close()


def test_peeking_at_what_does_not_hold_erases_nothing(path: Path) -> None:
    filled(path)
    SPOILT["a record deleted"](path)
    data = path.read_bytes()
    for _ in range(2):
        assert Store.peek(path, KEK, "gate-1").refused == (
            "zone lotus: rows are missing, older or added",
        )
    assert path.read_bytes() == data


@pytest.mark.parametrize("what", ["missing", "garbage"])
def test_peeking_at_nothing_is_one_line(path: Path, what: str) -> None:
    if what == "garbage":
        path.write_bytes(os.urandom(4096))
    with pytest.raises(StoreFault) as fault:
        Store.peek(path, KEK, "gate-1")
    assert "\n" not in str(fault.value)
    assert path.exists() == (what == "garbage")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look into another user's cache")
def test_a_look_by_root_leaves_no_file_that_locks_the_daemon_out(path: Path) -> None:
    filled(path)
    os.chown(path, 12345, 12345)
    Store.peek(path, KEK, "gate-1")
    assert {part.stat().st_uid for part in path.parent.iterdir()} == {12345}


def test_a_second_key_of_one_epoch_is_refused_and_the_first_stays(path: Path) -> None:
    store = Store(path, KEK, "gate-1")
    store.put_zone_key(ZONE, "kf", 1, bytes(range(32)))
    store.put_zone_key(ZONE, "kf", 1, bytes(range(32)))  # the same again is no fault
    with pytest.raises(ValueError, match=r"^second_kcv$"):
        store.put_zone_key(ZONE, "kf", 1, bytes(32))
    store.put_zone_key(ZONE, "kf", 2, bytes(32))
    assert dict(store.zone_keys()) == {
        (ZONE, "kf", 1): bytes(range(32)),
        (ZONE, "kf", 2): bytes(32),
    }
    store.close()


def test_what_was_set_aside_goes_when_somebody_is_erased(path: Path) -> None:
    """It may hold their template; until then it is kept for whoever looks into the damage."""
    path.write_bytes(os.urandom(8192))
    store = Store(path, KEK, "gate-1")
    aside = path.with_name("roster.db.refused-1")
    roster = save(store, ZoneRoster(ZONE, epoch=1), put(1))
    store.forget_erased()
    assert aside.exists()
    after, changed = grown(roster, Revoke(person(1), 2, None))
    store.save(after, changed, changed)
    store.forget_erased()
    assert not aside.exists()
    store.close()
