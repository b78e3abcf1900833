"""The MQTT client of both ends, against a real mosquitto with TLS and client certificates."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from live import WAIT_S, ZONE, Estate, GateKit, Tap, free_port, until

from edge import link, wire
from edge.link import Link, Tls

WINDOW = 20  # mosquitto's max_inflight_messages: what it sends before it waits for an ack


@pytest.fixture(scope="module")
def estate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Estate]:
    made = Estate(tmp_path_factory.mktemp("link"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def gates(estate: Estate) -> Iterator[tuple[GateKit, GateKit]]:
    """Two that have joined and do not run: their certificates are used."""
    pair = estate.gate("gate-1"), estate.gate("gate-2")
    yield pair
    for gate in pair:
        gate.drop()


def office_tls(estate: Estate) -> Tls:
    files = estate.home.authority_tls()
    return Tls(files.ca, files.certificate, files.key)


@pytest.fixture
def office(estate: Estate) -> Iterator[Tap]:
    tap = Tap(estate.line("authority", office_tls(estate), ["mj/1/#"]))
    yield tap
    tap.line.close()


@pytest.fixture
def gate(estate: Estate, gates: tuple[GateKit, GateKit]) -> Iterator[Tap]:
    tap = Tap(estate.line("gate-1", gates[0].line._tls, ["mj/1/#"]))
    yield tap
    tap.line.close()


def test_what_is_published_arrives(office: Tap, gate: Tap) -> None:
    assert gate.line.publish("mj/1/g/gate-1/up", b"hello")
    assert office.next() == ("mj/1/g/gate-1/up", b"hello")
    office.line.publish("mj/1/g/gate-1/down", b"welcome")
    assert gate.next() == ("mj/1/g/gate-1/down", b"welcome")


def test_a_gates_certificate_writes_its_own_topics_and_no_others(office: Tap, gate: Tap) -> None:
    """By effect: mosquitto grants the subscription and takes the publish, and drops both."""
    zone, other = wire.zone_topic(ZONE, "log"), wire.gate_topic("gate-2", "up")
    for topic in (zone, wire.zone_topic(ZONE, "beacon"), other, wire.gate_topic("gate-1", "cmd")):
        gate.line.publish(topic, b"forged")
    gate.line.publish("mj/1/g/gate-1/up", b"mine")
    assert office.next() == ("mj/1/g/gate-1/up", b"mine")
    assert office.drain() == []


def test_a_gate_hears_nothing_of_another(office: Tap, gate: Tap) -> None:
    for topic in (wire.gate_topic("gate-2", "down"), wire.desk_topic("desk-1", "up")):
        office.line.publish(topic, b"not for gate-1")
    office.line.publish(wire.zone_topic(ZONE, "log"), b"for all")
    assert gate.next() == (wire.zone_topic(ZONE, "log"), b"for all")


def test_a_message_is_acknowledged_by_its_receiver_only(office: Tap, gate: Tap) -> None:
    """Without an ack the broker's window stays shut; with one it opens by one."""
    for number in range(WINDOW + 1):
        office.line.publish("mj/1/g/gate-1/down", bytes([number]))
    held = [gate.line.inbox.get(timeout=WAIT_S) for _ in range(WINDOW)]
    assert gate.line.receive(0.2) is None
    assert held[0] is not None
    held[0].ack()
    last = gate.line.receive(WAIT_S)
    assert last is not None and last.payload == bytes([WINDOW])


def test_a_full_inbox_does_not_shut_the_brokers_window(
    estate: Estate, office: Tap, gates: tuple[GateKit, GateKit], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "INBOX_MESSAGES", 2)
    slow = Tap(estate.line("gate-2", gates[1].line._tls, ["mj/1/g/gate-2/down"]))
    for _ in range(WINDOW + 10):
        office.line.publish("mj/1/g/gate-2/down", b"flood")
    until(lambda: slow.line.dropped == WINDOW + 8, "the rest is dropped and counted")
    assert len(slow.drain()) == 2
    office.line.publish("mj/1/g/gate-2/down", b"after")
    assert slow.next() == ("mj/1/g/gate-2/down", b"after")
    slow.line.close()


def test_a_waiting_receive_is_woken(gate: Tap) -> None:
    began = time.monotonic()
    threading.Timer(0.05, gate.line.wake).start()
    assert gate.line.receive(WAIT_S) is None
    assert time.monotonic() - began < WAIT_S / 2


def test_the_greeting_comes_after_each_connection(
    estate: Estate, gates: tuple[GateKit, GateKit]
) -> None:
    greeted = threading.Semaphore(0)
    line = estate.line("gate-1", gates[0].line._tls, ["mj/1/#"], on_connect=greeted.release)
    line.start()
    assert greeted.acquire(timeout=WAIT_S)
    estate.broker.stop()
    until(lambda: not line.connected, "the loss is noticed")
    assert not line.publish("mj/1/g/gate-1/up", b"into the void"), "said, not queued for ever"
    estate.broker.start()
    assert greeted.acquire(timeout=WAIT_S)
    line.rebuild()
    assert greeted.acquire(timeout=WAIT_S)
    line.close()


def test_nobody_gets_in_with_a_certificate_of_another_office(
    estate: Estate, gates: tuple[GateKit, GateKit], tmp_path_factory: pytest.TempPathFactory
) -> None:
    from edge.provision import BrokerAddress
    from enroll.home import Home
    from enroll.registrar import init_office

    home = Home(tmp_path_factory.mktemp("other") / "office")
    init_office(home, BrokerAddress(host="127.0.0.1", port=free_port()))
    theirs = home.authority_tls()
    tls = Tls(estate.home.authority_tls().ca, theirs.certificate, theirs.key)
    line = estate.line("authority", tls, ["mj/1/#"])
    line.start()
    assert not line.wait_connected(0.5)
    line.close()


def test_a_broker_of_another_office_is_not_believed(
    estate: Estate, gates: tuple[GateKit, GateKit], tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Estate(tmp_path_factory.mktemp("false"))
    try:
        tls = gates[0].line._tls
        line = Link("gate-1", "127.0.0.1", other.port, tls=tls, subscriptions=["mj/1/#"])
        line.start()
        assert not line.wait_connected(0.5)
        line.close()
    finally:
        other.close()


def test_closing_does_not_wait_for_a_broker_that_is_away() -> None:
    line = Link("gate-1", "127.0.0.1", free_port(), tls=None)
    line.start()
    began = time.monotonic()
    line.close()
    assert time.monotonic() - began < 1
