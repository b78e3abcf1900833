"""The rendered broker settings under a real mosquitto: who gets in, who may write what."""

from __future__ import annotations

import os
import queue
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator

import paho.mqtt.client as mqtt
import pytest
from office import Box
from paho.mqtt.enums import CallbackAPIVersion

from edge.provision import BrokerAddress
from enroll.home import Home, TlsFiles, write_file, write_private
from enroll.registrar import add_member, init_office
from enroll.roster.store import Store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("mosquitto") is None, reason="mosquitto is not installed"),
]
WAIT_S = 10.0


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, int]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = Home(tmp_path_factory.mktemp("live") / "office")
    init_office(home, BrokerAddress(host="127.0.0.1", port=port))
    if os.geteuid() == 0:  # else it becomes `mosquitto`, who cannot read this folder
        conf = home.broker_dir / "mosquitto.conf"
        conf.write_text(conf.read_text() + "user root\n")
    command = [str(shutil.which("mosquitto")), "-c", str(home.broker_dir / "mosquitto.conf")]
    with (home.data_dir / "broker.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        _await_port(port, process)
        yield home, port
    finally:
        process.terminate()
        process.wait(WAIT_S)


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + WAIT_S
    while process.poll() is None and time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
    raise AssertionError("mosquitto does not listen")


class Client:
    def __init__(self, port: int, tls: TlsFiles, topics: list[str]) -> None:
        self.heard: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.ready: queue.Queue[bool] = queue.Queue()
        self.mqtt = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self.mqtt.tls_set(str(tls.ca), str(tls.certificate), str(tls.key))
        self.mqtt.on_message = lambda c, u, m: self.heard.put((m.topic, m.payload))
        self.mqtt.on_subscribe = lambda *facts: self.ready.put(True)
        self.mqtt.connect("127.0.0.1", port)
        self.mqtt.loop_start()
        self.mqtt.subscribe([(topic, 1) for topic in topics])
        self.ready.get(timeout=WAIT_S)

    def say(self, topic: str, payload: bytes) -> None:
        self.mqtt.publish(topic, payload, qos=1).wait_for_publish(WAIT_S)

    def close(self) -> None:
        self.mqtt.disconnect()
        self.mqtt.loop_stop()


def _gate(home: Home, name: str) -> TlsFiles:
    store = Store(home.db_path)
    store.db.execute("INSERT OR IGNORE INTO zones VALUES ('z', 1, 0, x'', x'', 0, 0)")
    store.close()
    box, folder = Box(name, "gate"), home.data_dir / name
    folder.mkdir()
    bundle = add_member(home, box.request, ["z"])
    write_private(folder / "key", box.tls)
    write_file(folder / "crt", bundle.certificate.encode())
    return TlsFiles(home.public_dir / "ca.crt", folder / "crt", folder / "key")


@pytest.mark.filterwarnings("ignore::DeprecationWarning:paho.*")
def test_a_gate_writes_its_own_topics_and_no_others(broker: tuple[Home, int]) -> None:
    home, port = broker
    authority = Client(port, home.authority_tls(), ["$share/authority/mj/1/g/+/up", "mj/1/z/#"])
    gate = Client(port, _gate(home, "gate-1"), ["mj/1/#"])
    other = Client(port, _gate(home, "gate-2"), ["mj/1/#"])
    try:
        for topic in ("mj/1/z/z/log", "mj/1/z/z/beacon", "mj/1/g/gate-2/up", "mj/1/g/gate-2/cmd"):
            gate.say(topic, b"forged")
        gate.say("mj/1/g/gate-1/up", b"mine")
        assert authority.heard.get(timeout=WAIT_S) == ("mj/1/g/gate-1/up", b"mine")
        authority.say("mj/1/g/gate-1/down", b"for gate-1")
        authority.say("mj/1/z/z/log", b"for all")
        first = [gate.heard.get(timeout=WAIT_S) for _ in range(2)]
        assert first == [("mj/1/g/gate-1/down", b"for gate-1"), ("mj/1/z/z/log", b"for all")]
        assert other.heard.get(timeout=WAIT_S) == ("mj/1/z/z/log", b"for all")
    finally:
        for client in (authority, gate, other):
            client.close()


def test_without_a_certificate_nobody_gets_in(broker: tuple[Home, int]) -> None:
    home, port = broker
    context = ssl.create_default_context(cafile=str(home.public_dir / "ca.crt"))
    hello = b"\x10\x0f\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x02ab"
    with (
        socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as raw,
        pytest.raises((ssl.SSLError, ConnectionError)),
        context.wrap_socket(raw, server_hostname="127.0.0.1") as tls,
    ):
        tls.settimeout(WAIT_S)
        tls.sendall(hello)
        if not tls.recv(1):
            raise ConnectionResetError
