"""The encrypted cache: what it gives back is what was put in, or nothing of that zone at all."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.keys import Kek
from edge.roster import Put, Revoke, ZoneRoster, apply
from edge.store import Store, StoreFault
from edge.terms import DoorId, Grant, GrantId, ModelId, PersonId, SealedTemplate, ZoneId

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
    template = np.linspace(-1, 1, 128).astype(np.float16).tobytes()
    store = Store(path, KEK, "gate-1")
    store.put_zone_key(ZONE, "kf", 1, kf)
    grant = Grant(GrantId("g1"), TENANCY, frozenset({DoorId("main")}), 0.0, None)
    sealed = SealedTemplate(ModelId("m1"), 1, template)  # as if a desk had not sealed it
    save(store, ZoneRoster(ZONE, epoch=1), Put(person(1), 1, 1, (grant,), (sealed,)))
    seen = b"".join(part.read_bytes() for part in path.parent.iterdir())
    secrets = {"Kf": kf, "template": template, "KEK": KEK.key}
    for name, secret in secrets.items():
        windows = (secret[i : i + 16] for i in range(len(secret) - 15))
        assert not any(window in seen for window in windows), name
    assert TENANCY.encode() not in seen
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
