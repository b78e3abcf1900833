"""The sync thread: what it does with a line, whatever comes over it and however often it breaks."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cbor2
import pytest
from gatekit import GATE, ZONE, GateBox, MemoryLine, Office

from edge import seal, wire
from edge.envelope import Keyring, decode
from edge.journal import Journal
from edge.link import Received
from edge.store import StoreFault
from edge.sync import EVENTS_RETRY_S, NO_BEACON_S, status_message
from edge.terms import AccessEvent, EventKind, Reason
from edge.trail import Row, TrailFault
from edge.wire import Role, Type

WAIT_S = 5.0


@pytest.fixture
def office() -> Office:
    return Office()


@pytest.fixture
def gate(tmp_path: Path, office: Office) -> Iterator[GateBox]:
    made = GateBox(tmp_path, office)
    made.sent()
    yield made
    made.close()


# --- the loop ---


@dataclass
class QueueLine(MemoryLine):
    """A line whose other end is a test."""

    coming: queue.Queue[Received | None] = field(default_factory=queue.Queue)
    changed: threading.Condition = field(default_factory=threading.Condition)
    acked: int = 0

    def receive(self, timeout: float) -> Received | None:
        try:
            return self.coming.get(timeout=timeout)
        except queue.Empty:
            return None

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        with self.changed:
            super().publish(topic, payload, qos=qos, retain=retain)
            self.changed.notify_all()
        return True

    def give(self, topic: str, raw: bytes) -> None:
        self.coming.put(Received(f"mj/1/{topic}", raw, False, self._ack))

    def _ack(self) -> None:
        with self.changed:
            self.acked += 1
            self.changed.notify_all()

    def wait(self, happened: Callable[[], Any], what: str) -> None:
        with self.changed:
            assert self.changed.wait_for(happened, WAIT_S), what


@dataclass
class Running:
    gate: GateBox
    line: QueueLine
    thread: threading.Thread


@pytest.fixture
def running(gate: GateBox) -> Iterator[Running]:
    line = QueueLine()
    gate.line = gate.sync.line = line
    thread = threading.Thread(target=gate.sync.run, name="sync-under-test")
    thread.start()
    yield Running(gate, line, thread)
    gate.sync.stop.set()
    thread.join(WAIT_S)
    assert not thread.is_alive(), "the loop ends when it is told to"


def test_the_loop_outlives_whatever_comes(
    running: Running, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, gate = running.line, running.gate
    line.give(f"z/{ZONE}/log", office.put(1, 1))
    with monkeypatch.context() as patch:
        patch.setattr(gate.replica, "on_beacon", lambda *_, **__: 1 / 0)
        line.give("no/topic/of/ours", b"")
        line.give(f"z/{ZONE}/log", bytes(70_000))
        line.give(f"z/{ZONE}/beacon", office.beacon())
        line.wait(lambda: line.acked == 4, "believed or not, each is acknowledged")
    line.give(f"z/{ZONE}/log", office.revoke(1, 2))
    line.wait(lambda: line.acked == 5, "the next revocation is taken")
    assert gate.says(1) is Reason.REVOKED
    assert gate.sync.counts == {"topic": 1, "header": 1, "handler": 1}


def test_a_message_is_acknowledged_after_the_commit(running: Running, office: Office) -> None:
    at_ack: list[int] = []
    raw = office.put(1, 1)

    def ack() -> None:
        loaded = running.gate.store.load()
        at_ack.append(loaded.zones[ZONE].applied_seq)
        running.line._ack()

    running.line.coming.put(Received(f"mj/1/z/{ZONE}/log", raw, False, ack))
    running.line.wait(lambda: running.line.acked, "acknowledged")
    assert at_ack == [1]


def test_each_connection_is_greeted_by_the_loop(running: Running) -> None:
    def kinds() -> list[int]:
        return [raw[3] for _, raw, _ in running.line.sent]

    for n in (1, 2):
        running.gate.sync.connected.set()
        running.line.wait(lambda n=n: kinds().count(Type.HELLO) == n, "hello")  # type: ignore[misc]
    assert kinds()[:3] == [Type.HELLO, Type.PULL, Type.RECEIPT] or Type.STATUS in kinds()[:3]


def test_the_erased_leaves_the_write_ahead_log_in_the_next_quiet_moment(
    running: Running, office: Office
) -> None:
    line, log = running.line, running.gate.folder / "roster.db-wal"
    line.give(f"z/{ZONE}/log", office.put(1, 1))
    line.give(f"z/{ZONE}/log", office.revoke(1, 2))
    line.wait(lambda: line.acked == 2, "both are taken")
    deadline = threading.Event()
    for _ in range(50):
        if log.stat().st_size == 0:
            return
        deadline.wait(0.1)
    raise AssertionError(f"{log.stat().st_size} B are still there")


# --- a silent line ---


@pytest.mark.parametrize(("silent_s", "rebuilt"), [(NO_BEACON_S, 0), (NO_BEACON_S + 0.1, 1)])
def test_when_a_silent_line_is_given_up(gate: GateBox, silent_s: float, rebuilt: int) -> None:
    gate.sync._greet()
    gate.clock.go(silent_s)
    for _ in range(3):
        gate.sync._timers()
    assert gate.line.rebuilt == rebuilt, "and once, not at every turn"


def test_a_beacon_that_does_not_verify_is_no_sign_of_life(gate: GateBox, office: Office) -> None:
    gate.sync._greet()
    gate.clock.go(NO_BEACON_S)
    gate.beacon(office.sign(Type.BEACON, _beacon(), Role.ROSTER, ZONE))
    gate.clock.go(1)
    gate.sync._timers()
    assert gate.line.rebuilt == 1


def _beacon() -> wire.Beacon:
    return wire.Beacon(
        zone=ZONE, epoch=1, n=1, head_seq=0, head_hash=bytes(32), digest=bytes(32), at=1
    )


def test_without_a_connection_nothing_is_sent(gate: GateBox, office: Office) -> None:
    gate.line.connected = False
    gate.trail.rows = rows(3)
    gate.clock.go(1000)
    gate.sync._timers()
    assert (gate.line.sent, gate.line.rebuilt) == ([], 0)


# --- what is not for us, or not built ---


@pytest.mark.parametrize(
    "kind", sorted(wire.NOT_BUILT - {Type.COMMAND, Type.WITHDRAW, Type.RESEAL, Type.GET_CHUNK})
)
def test_what_is_not_built_is_counted_and_not_answered(
    gate: GateBox, office: Office, kind: Type
) -> None:
    (role,) = wire.SIGNERS[kind]
    body = wire.Gone(zone=ZONE, epoch=1, floor_seq=0)
    gate.down(office.sign(kind, body, role, GATE))
    assert (gate.sync.counts, gate.sent()) == ({"not_built": 1}, [])


def test_what_is_for_desks_is_dropped(gate: GateBox, office: Office) -> None:
    body = wire.Accepted(request=bytes(16), what="enrol")
    gate.down(office.sign(Type.ACCEPTED, body, Role.ROSTER, GATE))
    assert gate.sync.counts == {"type": 1}


def test_a_paper_that_the_disk_does_not_take_is_counted(
    gate: GateBox, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StoreFault("roster.db: database or disk is full")

    monkeypatch.setattr(gate.store, "put_zone_key", full)
    gate.down(office.zone_key("kr", epoch=2))
    assert gate.sync.counts == {"disk": 1}


# --- status ---


def test_status_is_told_when_it_changes_and_retained(gate: GateBox) -> None:
    words = ["lock_unreachable: relay: no answer"]
    gate.sync.degraded = lambda: list(words)
    for _ in range(2):
        gate.sync._timers()
    told = [(raw, retain) for topic, raw, retain in gate.line.sent if topic.endswith("/status")]
    assert [retain for _, retain in told] == [True]
    (status,) = [m.expect(wire.StatusBody) for m in gate.sent() if m.kind is Type.STATUS]
    assert (status.state, status.degraded) == ("online", ["lock_unreachable"])
    words.clear()
    gate.sync._timers()
    assert [m.expect(wire.StatusBody).degraded for m in gate.sent()] == [[]]


def test_the_last_will_says_offline_and_verifies(gate: GateBox) -> None:
    sync = gate.sync
    raw = status_message(sync.identity, GATE, b"s" * 8, gate.clock, gate.replica, None)
    gate.line.publish("will", raw)
    (message,) = gate.sent()
    assert message.expect(wire.StatusBody).state == "offline"


# --- audit rows ---


def rows(upto: int) -> list[Row]:
    return [Row(n, b"s" * 16, b"p", bytes([n % 256]) * 32, bytes(32)) for n in range(1, upto + 1)]


def uploads(gate: GateBox) -> list[int]:
    """First row of each batch sent since the last look."""
    return [m.expect(wire.Events).first_no for m in gate.sent() if m.kind is Type.EVENTS]


def acknowledge(gate: GateBox, office: Office, upto: int) -> None:
    ack = wire.EventAck(upto=upto, chain_hash=bytes(32))
    gate.down(office.sign(Type.EVENT_ACK, ack, Role.BEACON, GATE))


def turns(gate: GateBox, office: Office, upto: int, count: int = 20) -> list[int]:
    """The batches of `count` turns of the loop, each answered with the same acknowledgement."""
    found = []
    for _ in range(count):
        gate.sync._timers()
        sent = uploads(gate)
        found += sent
        for _ in sent:
            acknowledge(gate, office, upto)
    return found


def test_an_office_with_another_chain_is_not_asked_over_and_over(
    gate: GateBox, office: Office
) -> None:
    gate.trail.rows, gate.trail.good = rows(5), False
    assert turns(gate, office, 3) == [1]
    gate.clock.go(EVENTS_RETRY_S)
    assert turns(gate, office, 3) == [1]
    assert gate.sync.counts["audit_chain"] == 2


def test_an_office_that_makes_no_progress_is_not_asked_over_and_over(
    gate: GateBox, office: Office
) -> None:
    gate.trail.rows = rows(5)
    assert turns(gate, office, 0) == [1, 1]  # the first word on where it stands, and no more


def test_a_disk_that_takes_no_acknowledgement_starts_no_storm(
    gate: GateBox, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bool:
        raise TrailFault("database or disk is full")

    gate.trail.rows = rows(5)
    monkeypatch.setattr(gate.trail, "acked", full)
    assert turns(gate, office, 5) == [1]
    assert gate.sync.counts == {"audit_disk": 1}


def test_an_office_restored_from_a_backup_gets_the_rows_again(
    gate: GateBox, office: Office
) -> None:
    gate.trail.rows, gate.trail.acked_no = rows(300), 250
    gate.sync._timers()
    assert uploads(gate) == [251]
    acknowledge(gate, office, 120)  # it has no more than this
    gate.sync._timers()
    assert uploads(gate) == [121]
    acknowledge(gate, office, 220)
    gate.sync._timers()
    assert uploads(gate) == [221]
    gate.sync._greet()
    gate.sent()
    gate.sync._timers()
    assert uploads(gate) == [251], "after a connection we begin where we know"


def test_rows_wait_for_the_rights_key(tmp_path: Path, office: Office) -> None:
    (tmp_path / "g").mkdir()
    gate = GateBox(tmp_path / "g", office, keys=())
    gate.trail.rows = rows(1)
    gate.sync._timers()
    assert uploads(gate) == []
    gate.down(office.zone_key("kr"))
    gate.sync._timers()
    assert uploads(gate) == [1]
    gate.close()


def test_a_trail_that_cannot_be_read_stops_nothing_else(
    gate: GateBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> list[Row]:
        raise TrailFault("disk I/O error")

    monkeypatch.setattr(gate.trail, "outbox", broken)
    gate.clock.go(61)
    gate.sync._heard_mono = gate.clock.mono()
    gate.sync._timers()
    assert Type.RECEIPT in gate.kinds()


def test_real_rows_arrive_whole_and_the_anchor_is_kept(
    gate: GateBox, office: Office, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal.db", gate.clock)
    journal.start()
    gate.sync.journal = journal
    for n in range(150):
        event = AccessEvent(EventKind.DECISION, gate.clock.wall(), facts={"n": n})
        journal.post(event)
    assert journal.record(AccessEvent(EventKind.START, gate.clock.wall()), WAIT_S).durable
    arrived: list[tuple[bytes, bytes]] = []
    hash_ = bytes(32)
    while len(arrived) < 151:
        gate.sync._timers()
        (events,) = [m.expect(wire.Events) for m in gate.sent() if m.kind is Type.EVENTS]
        assert (events.first_no, events.prev_hash) == (len(arrived) + 1, hash_)
        aad = seal.events_aad(GATE, ZONE, events.key_epoch, events.first_no)
        arrived += [tuple(row) for row in cbor2.loads(seal.open_(office.kr, events.sealed, aad))]
        hash_ = journal.outbox(len(arrived) - 1, 1)[0].hash
        ack = wire.EventAck(upto=len(arrived), chain_hash=hash_)
        gate.down(office.sign(Type.EVENT_ACK, ack, Role.BEACON, GATE))
    assert journal.acked_no == 151
    gate.sync._timers()
    assert uploads(gate) == []
    journal.stop()


# --- who may say what ---


def test_what_we_send_is_signed_for_this_gate_alone(gate: GateBox, office: Office) -> None:
    gate.sync._greet()
    raw = gate.line.sent[0][1]
    member = wire.Member(
        id=GATE, role="gate", sign_pub=office.gate_sign.public_key().public_bytes_raw(),
        hpke_pub=bytes(32), zones=[ZONE], version=1,
    )  # fmt: skip
    ring = Keyring.build(office.root, None, {GATE: member})
    decode(raw, ring, direction="up", target=GATE)
    for direction, target in (("up", "gate-2"), ("down", GATE)):
        with pytest.raises(ValueError):
            decode(raw, ring, direction=direction, target=target)  # type: ignore[arg-type]


def test_two_hellos_have_two_nonces(gate: GateBox) -> None:
    gate.sync._greet()
    gate.sync._greet()
    nonces = {m.expect(wire.Hello).nonce for m in gate.sent() if m.kind is Type.HELLO}
    assert len(nonces) == 2
