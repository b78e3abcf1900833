"""The rig's brokers: started, stopped, started again on their port; and what the embedded one is
not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from live import WAIT_S, Tap, free_port

import hil.broker
from edge.link import Link
from edge.provision import BrokerAddress
from enroll.home import Home
from enroll.registrar import init_office
from hil.broker import EmbeddedBroker, Mosquitto, choose, mosquitto_program, start_broker

needs_mosquitto = pytest.mark.skipif(mosquitto_program() is None, reason="no mosquitto here")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, int]:
    return _office(tmp_path_factory.mktemp("plain"), plain=True)


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, int]:
    return _office(tmp_path_factory.mktemp("tls"), plain=False)


def _office(folder: Path, *, plain: bool) -> tuple[Home, int]:
    home, port = Home(folder / "office"), free_port()
    init_office(home, BrokerAddress(host="127.0.0.1", port=port, plain=plain))
    return home, port


@pytest.fixture(scope="module")
def embedded(plain: tuple[Home, int]) -> Iterator[EmbeddedBroker]:
    broker = start_broker("auto", plain[0].path, plain[1])
    assert isinstance(broker, EmbeddedBroker), "a plain office gets the embedded one"
    with broker:
        yield broker


def line(port: int, name: str, topic: str) -> Link:
    return Link(
        name, "127.0.0.1", port, tls=None, protocol="3.1.1", subscriptions=[topic], name=name
    )


def test_the_embedded_broker_is_for_loopback_only() -> None:
    with pytest.raises(RuntimeError, match=r"loopback only, not for 192\.168\.1\.5"):
        EmbeddedBroker(1883, host="192.168.1.5")


def test_the_embedded_broker_carries_and_comes_back_on_its_port(embedded: EmbeddedBroker) -> None:
    tap = Tap(line(embedded.port, "a", "mj/1/#"))
    try:
        tap.line.publish("mj/1/x", b"one")
        assert tap.next() == ("mj/1/x", b"one")
        embedded.stop()
        embedded.start()
        assert tap.line.wait_connected(WAIT_S)
        tap.line.publish("mj/1/x", b"two")
        assert tap.next() == ("mj/1/x", b"two")
    finally:
        tap.line.close()
    assert embedded.plain and embedded.name.startswith("embedded amqtt ")


def test_the_embedded_broker_grants_a_shared_subscription_and_delivers_nothing_to_it(
    embedded: EmbeddedBroker,
) -> None:
    """Why the office uses no shared group with it: if this fails, it may."""
    shared = Tap(line(embedded.port, "shared", "$share/group/mj/1/s"))
    alone = Tap(line(embedded.port, "alone", "mj/1/s"))
    try:
        alone.line.publish("mj/1/s", b"to all")
        assert alone.next() == ("mj/1/s", b"to all")
        assert shared.next(0.2) is None
    finally:
        shared.line.close()
        alone.line.close()


def test_a_taken_port_is_said(embedded: EmbeddedBroker) -> None:
    with pytest.raises(RuntimeError, match=f"port {embedded.port} is in use"):
        EmbeddedBroker(embedded.port).start()


def test_an_office_made_for_tls_is_not_served_in_the_clear(closed: tuple[Home, int]) -> None:
    with pytest.raises(RuntimeError, match="made for TLS"):
        start_broker("embedded", closed[0].path, closed[1])


def test_a_plain_office_is_not_given_to_mosquitto(plain: tuple[Home, int]) -> None:
    with pytest.raises(RuntimeError, match="made with --plain"):
        start_broker("mosquitto", plain[0].path, plain[1])


def test_without_mosquitto_auto_is_embedded_and_mosquitto_is_one_line(
    closed: tuple[Home, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hil.broker, "SEARCH_PATH", "/nonexistent")
    assert choose("auto") == "embedded"
    with pytest.raises(RuntimeError, match="mosquitto is not installed"):
        start_broker("mosquitto", closed[0].path, closed[1])


@needs_mosquitto
def test_mosquitto_runs_with_the_offices_settings(closed: tuple[Home, int]) -> None:
    with start_broker("auto", *_args(closed)) as broker:
        assert isinstance(broker, Mosquitto) and not broker.plain
        assert broker.name.startswith("mosquitto 2."), broker.name
        broker.stop()
        broker.start()
        bare = line(broker.port, "bare", "mj/1/#")  # no TLS
        bare.start()
        assert not bare.wait_connected(0.5)
        bare.close()


def _args(office: tuple[Home, int]) -> tuple[Path, int]:
    return office[0].path, office[1]


@needs_mosquitto
def test_broken_settings_are_one_line(tmp_path: Path) -> None:
    home, port = _office(tmp_path, plain=False)
    conf = home.broker_dir / "mosquitto.conf"
    conf.write_text(conf.read_text().replace("server.key", "no-such.key"))
    with pytest.raises(RuntimeError, match=r"mosquitto 2.* does not start: .*no-such\.key"):
        start_broker("mosquitto", home.path, port)
