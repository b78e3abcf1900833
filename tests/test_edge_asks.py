"""What `edge` tells of a box to whoever asks: explain, status, audit; with which exit code."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_edge_cli import edge, request, toml

from edge.clock import SystemClock
from edge.health import HealthServer
from edge.journal import Journal
from edge.keys import load_kek
from edge.roster import Op, Put, Revoke, ZoneRoster, apply
from edge.store import Store
from edge.terms import (
    AccessEvent,
    DoorId,
    EventKind,
    Grant,
    GrantId,
    PersonId,
    Reason,
    Window,
    ZoneId,
)

ZONE, DOOR = ZoneId("lotus-garden"), DoorId("main")
MEI, BO, BEA = PersonId(b"\x3f" * 16), PersonId(b"\xa1" * 16), PersonId(b"\xa2" * 16)
NIGHT = Window(0b1111111, 0, 6 * 60)  # 00:00 to 06:00 local


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """A box with three people in its cache: mei may pass, bo at night only, bea no more."""
    request(tmp_path)
    store = Store(tmp_path / "state" / "roster.db", load_kek(tmp_path / "kek", None, {}), "gate-1")
    grant = Grant(GrantId("g1"), "T-1", frozenset({DOOR}), 0.0, None)
    at_night = Grant(GrantId("g2"), "T-2", frozenset({DOOR}), 0.0, None, (NIGHT,))
    ops: list[Op | None] = [
        Put(MEI, 1, 1, (grant,), None),
        Put(BO, 1, 1, (at_night,), None),
        Put(BEA, 1, 1, (grant,), None),
        Revoke(BEA, 2, None),
    ]
    done = apply(ZoneRoster(ZONE, epoch=1), [(op, bytes(32)) for op in ops], first_seq=1)
    store.save(done.roster, done.changed, done.erased)
    store.close()
    toml(tmp_path)
    return tmp_path


def explain(box: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return edge("explain", *arguments, "-c", box / "gate.toml")


# --- explain ---


def test_why_somebody_is_let_in(box: Path) -> None:
    done = explain(box, "3f3f", "main")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "=> granted at main"
    assert all(line.startswith("holds ") for line in lines[:-1]) and len(lines) > 10


@pytest.mark.parametrize(
    ("person", "door", "reason"),
    [("a2", "main", "revoked"), ("3f", "cellar", "door_unknown")],
)
def test_why_somebody_is_not(box: Path, person: str, door: str, reason: str) -> None:
    done = explain(box, person, door)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-2].startswith("FAILS ")
    assert done.stdout.splitlines()[-1] == f"=> {reason} at {door}"


@pytest.mark.parametrize(
    ("at", "code"), [("2026-11-24T05:59+08:00", 0), ("2026-11-24T06:00+08:00", 1)]
)
def test_as_of_another_time(box: Path, at: str, code: int) -> None:
    done = explain(box, "a1", "main", "--at", at, "--json")
    said = json.loads(done.stdout)
    assert done.returncode == code
    assert said["decision"] == ("granted" if code == 0 else "outside_schedule")
    assert {"rule", "holds", "facts"} == set(said["rules"][0])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("ffff", "main"), "nobody in the cache begins with"),
        (("a", "main"), "2 persons in the cache begin with"),
        (("3f", "main", "--at", "tomorrow"), "is not a time"),
        (("3f", "main", "--at", "2026-11-24T06:00"), "needs an offset"),
    ],
)
def test_a_question_that_cannot_be_answered(
    box: Path, arguments: tuple[str, ...], says: str
) -> None:
    done = explain(box, *arguments)
    assert done.returncode in (1, 2)
    assert says in done.stderr


def test_explaining_writes_nothing(box: Path) -> None:
    path = box / "state" / "roster.db"
    before = path.read_bytes()
    assert explain(box, "3f", "main").returncode == 0
    assert path.read_bytes() == before


def test_a_cache_that_does_not_hold_is_said(box: Path) -> None:
    with sqlite3.connect(box / "state" / "roster.db") as db:
        db.execute("update records set pv = 7 where pv = 1")
    db.close()
    done = explain(box, "3f", "main")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith("edge: zone lotus-garden: ")


# --- status ---

FACTS = {
    "gate": "gate-1", "status": "ok", "stuck": [], "degraded": [], "people": 2,
    "doors": {"main": "locked"}, "cameras": {"cam": "streaming"},
    "zones": {"lotus-garden": {"epoch": 1, "applied_seq": 4, "head_seq": 5, "lease": "stale"}},
    "broker": "connected", "audit_rows": 7, "audit_acknowledged": 7, "key_protection": "weak",
    "models": "sim 1 (free)",
}  # fmt: skip


@contextmanager
def daemon(box: Path, **changes: object) -> Iterator[Path]:
    """What answers where the daemon would."""
    server = HealthServer(("127.0.0.1", 0), lambda: {**FACTS, **changes}, bytes)
    server.start()
    try:
        yield at_port(box, server.port)
    finally:
        server.stop()


def at_port(box: Path, port: int) -> Path:
    return toml(box, **{'# listen = "127.0.0.1:9464"': f'listen = "127.0.0.1:{port}"'})


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("degraded", 1), ("failing", 1)])
def test_the_exit_code_says_how_it_is(tmp_path: Path, status: str, code: int) -> None:
    with daemon(tmp_path, status=status, degraded=["camera_no_picture: cam"]) as config:
        done = edge("status", "-c", config)
    assert done.returncode == code
    lines = done.stdout.splitlines()
    assert lines[:2] == [f"gate-1: {status}", "  degraded: camera_no_picture: cam"]
    assert "  zone lotus-garden: at 4 of 5, lease stale" in lines


def test_status_as_the_daemon_says_it(tmp_path: Path) -> None:
    with daemon(tmp_path) as config:
        assert json.loads(edge("status", "-c", config, "--json").stdout) == FACTS


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 404 no\r\n\r\n<html>",
        b"HTTP/1.0 200 ok\r\n\r\n[1, 2]",
        b'HTTP/1.0 200 ok\r\n\r\n{"status": "ok"}',
        b"SSH-2.0-OpenSSH\r\n",
        b"",
    ],
)
def test_something_else_on_the_port_is_no_daemon(tmp_path: Path, answer: bytes) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def one() -> None:
            client, _ = server.accept()
            with client:
                client.recv(1000)
                client.sendall(answer)

        thread = threading.Thread(target=one, daemon=True)
        thread.start()
        done = edge("status", "-c", at_port(tmp_path, server.getsockname()[1]))
        thread.join(5)
    assert done.returncode == 1
    assert "no daemon answers" in done.stderr


def test_a_proxy_of_the_house_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "http_proxy", "http://127.0.0.1:1")
    from test_edge_cli import ENV

    monkeypatch.setitem(ENV, "http_proxy", "http://127.0.0.1:1")
    with daemon(tmp_path) as config:
        assert edge("status", "-c", config).returncode == 0


# --- audit ---


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    journal = Journal(tmp_path / "state" / "journal.db", SystemClock())
    journal.start()
    for _ in range(3):
        event = AccessEvent(EventKind.DECISION, 1.8e9, DOOR, ZONE, MEI, Reason.GRANTED)
        assert journal.record(event, 5).durable
    journal.stop()
    toml(tmp_path)
    return tmp_path


def test_a_trail_that_holds(trail: Path) -> None:
    done = edge("audit", "verify", "-c", trail / "gate.toml")
    assert (done.returncode, done.stdout.startswith("4 rows, the chain holds")) == (0, True)


def test_an_altered_row_is_named(trail: Path) -> None:
    with sqlite3.connect(trail / "state" / "journal.db") as db:
        db.execute("update rows set payload = x'00' where event_no = 2")
    db.close()
    done = edge("audit", "verify", "-c", trail / "gate.toml")
    assert (done.returncode, done.stderr.startswith("row 2: ")) == (1, True)
    said = json.loads(edge("audit", "verify", "-c", trail / "gate.toml", "--json").stdout)
    assert (said["ok"], said["first_bad"]) == (False, 2)


def test_the_rows_by_pseudonym_from_a_number_on(trail: Path) -> None:
    done = edge("audit", "export", "--since", "2", "-c", trail / "gate.toml")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["event_no"], row["kind"]) for row in rows] == [(3, "decision"), (4, "stop")]
    assert (rows[0]["person"], rows[0]["reason"]) == (MEI.hex(), "granted")


@pytest.mark.parametrize("what", ["verify", "export"])
def test_where_there_is_no_trail_it_says_so(tmp_path: Path, what: str) -> None:
    done = edge("audit", what, "-c", toml(tmp_path))
    assert done.returncode == 1
    assert "no audit trail yet" in done.stderr


# --- help ---


@pytest.mark.parametrize(
    "command",
    ["", "run", "check", "status", "doctor", "explain", "provision", "audit", "audit verify",
     "audit export", "models", "models list", "models install", "models verify"],
)  # fmt: skip
def test_every_command_helps(command: str) -> None:
    done = edge(*command.split(), "--help")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) >= 5


def test_a_command_that_is_none_says_so() -> None:
    done = edge("opne")
    assert done.returncode == 2
    assert "No such command" in done.stderr
