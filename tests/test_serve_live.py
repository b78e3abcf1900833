"""The office on a real mosquitto with TLS: `roster serve` as a process that has neither root/, nor
registrar/, nor a desk's folder; gates made of the product's own parts."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from live import WAIT_S, ZONE, Estate, GateKit, Tap, until

from edge import wire
from edge.envelope import decode
from edge.state import State
from edge.terms import AccessEvent, EventKind, ZoneId
from enroll.desk import Desk

FAR = "far"  # a zone whose only gate never runs


@dataclass
class Running:
    estate: Estate
    desk: Desk
    gate: GateKit
    log: Path

    def enrolled(self, person: str, tenancy: str, zone: str = ZONE) -> None:
        before = self.gate.applied
        self.estate.tenancy(tenancy, zone=zone)
        with self.estate.at_desk(self.desk) as at:
            self.estate.enrol(at, person, tenancy, zone=zone)
        if zone == ZONE:
            until(lambda: self.gate.applied > before, "the gate has it")

    def json(self, *arguments: str, code: int = 0) -> object:
        done = self.estate.enroll(*arguments, "--json")
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    estate = Estate(tmp_path_factory.mktemp("serve"), zones=(ZONE, FAR))
    far = estate.gate("gate-far", FAR)
    desk, gate = estate.desk((ZONE, FAR)), estate.gate("gate-1")
    for secret in (estate.home.root_dir, estate.home.registrar_dir, estate.home.path / "desk"):
        shutil.move(secret, estate.folder / "away" / secret.name)
    log = estate.serve()
    with estate.at_desk(desk) as at:
        assert at.sync().wrapped == 2
    gate.start()
    estate.ends += [gate.stop, far.drop]
    yield Running(estate, desk, gate, log)
    estate.close()


def test_a_revocation_reaches_the_gate_and_its_receipt_the_office(running: Running) -> None:
    running.enrolled("wang", "T-1")
    assert running.gate.live.people == 1, "rights and template arrived and opened"
    facts = running.json("roster", "revoke", "T-1", "--authority-ref", "notice", "--wait")
    assert isinstance(facts, dict)
    assert {k: facts[k] for k in ("tenancy", "zone", "total", "enforced", "missing")} == {
        "tenancy": "T-1",
        "zone": ZONE,
        "total": 1,
        "enforced": 1,
        "missing": [],
    }
    assert 0 < facts["first_ms"] <= facts["last_ms"] < 5000
    assert facts["seq"] == running.gate.applied
    assert running.gate.live.people == 0


def test_waiting_again_for_an_ended_tenancy_returns_the_same(running: Running) -> None:
    running.enrolled("lin", "T-again")
    revoke = ("roster", "revoke", "T-again", "--authority-ref", "notice", "--wait")
    first, again = running.json(*revoke), running.json(*revoke)
    assert isinstance(first, dict) and isinstance(again, dict)
    assert again.pop("last_ms") <= first.pop("last_ms"), "of the first time, not of the second"
    assert again.pop("first_ms") <= first.pop("first_ms")
    assert again == first


def test_a_gate_that_does_not_answer_is_named(running: Running) -> None:
    running.enrolled("zhao", "T-far", FAR)
    done = running.estate.enroll(
        *("roster", "revoke", "T-far", "--authority-ref", "notice", "--wait"),
        *("--timeout", "0.3", "--json"),
    )
    facts = json.loads(done.stdout)
    assert (done.returncode, facts["missing"], facts["enforced"]) == (1, ["gate-far"], 0)
    assert (facts["first_ms"], facts["last_ms"]) == (None, None)
    assert "gate-far" in done.stderr and len(done.stderr.splitlines()) == 1


def test_without_wait_a_revocation_is_done_and_said(running: Running) -> None:
    running.enrolled("qian", "T-now", FAR)
    done = running.estate.enroll("roster", "revoke", "T-now", "--authority-ref", "notice")
    assert done.returncode == 0 and "0 of 1" in done.stdout


def test_the_audit_trail_of_the_gate_arrives_and_is_acknowledged(running: Running) -> None:
    facts: dict[str, str | int | float | bool] = {"what": "a lamp"}
    running.gate.journal.post(AccessEvent(EventKind.DEGRADED, 1.0, facts=facts))
    head = running.gate.journal.head
    until(lambda: head()[0] and running.gate.journal.acked_no == head()[0], "acknowledged")
    lines = running.estate.enroll("events", "--gate", "gate-1", "--json").stdout.splitlines()
    assert {"what": "a lamp"} in [json.loads(line)["facts"] for line in lines]


def test_status_tells_how_far_each_gate_is(running: Running) -> None:
    until(lambda: running.estate.enroll("roster", "status").returncode == 0, "the office answers")
    rows = running.json("roster", "status")
    assert isinstance(rows, list)
    near, far = ({r["gate"]: r for r in rows}[gate] for gate in ("gate-1", "gate-far"))
    assert (near["state"], near["diverged"]) == ("online", False)
    assert near["applied_seq"] == near["head_seq"] == running.gate.applied
    assert (far["state"], far["applied_seq"]) == ("unknown", None)


@contextlib.contextmanager
def stopped(running: Running) -> Iterator[None]:
    """The gate's box is off; afterwards it starts from its own disk."""
    old, estate = running.gate, running.estate
    old.sync.stop.set()
    old._thread.join(5)
    old.line.close()
    old.journal.stop()
    yield
    running.gate = estate._assemble(
        "gate-1", ZoneId(ZONE), State(estate.folder / "gate-1"), old.identity, old.store
    )
    loaded = old.store.load()
    running.gate.replica.load(dict(loaded.zones), dict(loaded.ahead))
    running.gate.start()
    estate.ends.append(running.gate.stop)
    assert running.gate.line.wait_connected(WAIT_S)


def test_the_beacon_is_retained_and_verifies(running: Running) -> None:
    book, tls = running.gate.sync.book, running.gate.line._tls
    with stopped(running):  # its certificate is needed: one name is let in once
        tap = Tap(running.estate.line("gate-1", tls, [wire.zone_topic(ZONE, "beacon")]))
        found = tap.next()
        tap.line.close()
    assert found is not None
    message = decode(found[1], book.keyring, direction="down", target=ZONE)
    with running.estate.authority() as authority:
        assert message.expect(wire.Beacon).head_seq == authority.position(ZONE).head_seq


def test_what_a_gate_missed_it_pulls(running: Running) -> None:
    running.estate.tenancy("T-missed")
    with stopped(running), running.estate.at_desk(running.desk) as at:
        running.estate.enrol(at, "sun", "T-missed")
    with running.estate.authority() as authority:
        head = authority.position(ZONE).head_seq
    until(lambda: running.gate.applied == head, "the gate has caught up")


def test_garbage_from_a_gate_does_not_stop_the_next_revocation(running: Running) -> None:
    running.enrolled("li", "T-garbage")
    line = running.gate.line
    for size in (0, 3, 76, 4000):
        line.publish(wire.gate_topic("gate-1", "up"), bytes(size))
        line.publish(wire.gate_topic("gate-1", "events"), b"mj\x01\x23" + bytes(size))
    running.json("roster", "revoke", "T-garbage", "--authority-ref", "notice", "--wait")
    assert "message dropped" in running.log.read_text()


def test_the_office_comes_back_with_the_broker(running: Running) -> None:
    running.enrolled("zhou", "T-broker")
    people = running.gate.live.people
    running.estate.broker.stop()
    until(lambda: not running.gate.line.connected, "the gate notices")
    with running.estate.authority() as authority:
        change = authority.revoke("T-broker", "notice", "front")
    running.estate.broker.start()
    until(lambda: running.gate.applied >= change.last_seq, "the revocation arrives")
    until(lambda: running.gate.live.people == people - 1, "and is enforced")


def test_a_second_serve_is_refused(running: Running) -> None:
    done = running.estate.enroll("roster", "serve")
    assert (done.returncode, done.stdout) == (2, "")
    assert "running here already" in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_log_names_nobody(running: Running) -> None:
    """Runs last: everything above is in it."""
    said = running.log.read_text()
    assert said, "it said something"
    rows = running.json("person", "list")
    assert isinstance(rows, list) and len(rows) >= 5
    for row in rows:
        for secret in (row["id"], row["pseudonym"], *row["tenancies"], "T-1", "T-garbage"):
            assert f'"{secret}"' not in said and f" {secret} " not in said
    assert all(json.loads(line)["level"] for line in said.splitlines())
