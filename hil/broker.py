"""The broker of a rig, as a process that can be stopped and started again on its port: mosquitto
with the office's own settings, or, where there is none, amqtt in pure Python.

The embedded one is for a demo on loopback and for nothing else: no TLS, no access list, MQTT 3.1.1
only, and it grants shared subscriptions but delivers nothing to them (measured with amqtt 0.12).
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal, Self

from edge.config import is_loopback
from enroll.home import Home

Kind = Literal["auto", "mosquitto", "embedded"]
LOOPBACK = "127.0.0.1"
START_TIMEOUT_S = 15.0  # importing amqtt on a busy two-core box took 2 s
STOP_TIMEOUT_S = 5.0
POLL_S = 0.02
PATIENCE_S = 0.05  # mosquitto listens first, then reads its keys and may give up
SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


class _Process:
    """A broker as a process of its own. `start` again after `stop` uses the same port."""

    name: str
    plain: bool

    def __init__(self, port: int) -> None:
        self.port = port
        self._running: subprocess.Popen[bytes] | None = None

    def _command(self, folder: Path) -> list[str]:
        """`folder` is there while the broker starts."""
        raise NotImplementedError

    def start(self) -> None:
        """Returns when it accepts connections. RuntimeError (one line) when it does not."""
        if self._running is not None:
            return
        if _accepts(self.port):
            raise RuntimeError(f"port {self.port} is in use; choose another")
        with (
            tempfile.TemporaryFile() as said,
            tempfile.TemporaryDirectory(prefix="menjin-broker-") as folder,
        ):
            process = subprocess.Popen(self._command(Path(folder)), stdout=said, stderr=said)
            self._running = process
            deadline = time.monotonic() + START_TIMEOUT_S
            while not _accepts(self.port, patience_s=PATIENCE_S):
                if process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    said.seek(0)
                    why = _fault(said.read().decode(errors="replace"))
                    raise RuntimeError(f"{self.name} does not start: {why}")
                time.sleep(POLL_S)

    def stop(self) -> None:
        process, self._running = self._running, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def close(self) -> None:
        self.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Mosquitto(_Process):
    """mosquitto with the office's rendered settings: TLS, client certificates, access list."""

    plain = False

    def __init__(self, home: Path, port: int) -> None:
        super().__init__(port)
        program = mosquitto_program()
        if program is None:
            raise RuntimeError("mosquitto is not installed; install it, or use --broker embedded")
        self._program, self._conf = program, Home(home).broker_dir / "mosquitto.conf"
        self.name = f"mosquitto {_version(program)}"

    def _command(self, folder: Path) -> list[str]:
        conf = self._conf
        if os.geteuid() == 0:  # it would become the user `mosquitto`, who may not read the keys
            conf = folder / "mosquitto.conf"
            conf.write_text(self._conf.read_text() + "\nuser root\n")
        return [self._program, "-c", str(conf)]


class EmbeddedBroker(_Process):
    """amqtt on loopback: everything in the clear, nothing checked."""

    plain = True

    def __init__(self, port: int, host: str = LOOPBACK) -> None:
        if not is_loopback(host):
            raise RuntimeError(f"the embedded broker is for loopback only, not for {host}")
        super().__init__(port)
        self.name = f"embedded amqtt {importlib.metadata.version('amqtt')}"

    def _command(self, folder: Path) -> list[str]:
        return [sys.executable, "-m", "hil.broker", "--port", str(self.port)]


Broker = Mosquitto | EmbeddedBroker


def mosquitto_program() -> str | None:
    return shutil.which("mosquitto", path=SEARCH_PATH)


def choose(kind: Kind) -> Literal["mosquitto", "embedded"]:
    """What `auto` means on this machine."""
    if kind == "auto":
        return "mosquitto" if mosquitto_program() else "embedded"
    return kind


def start_broker(kind: Kind, home: Path, port: int) -> Broker:
    """A running broker for the office in `home`. RuntimeError (one line) when it cannot be: an
    office made for TLS needs mosquitto, a plain one the embedded broker."""
    plain = Home(home).office().broker.plain
    chosen = "embedded" if kind == "auto" and plain else choose(kind)
    if chosen == "embedded" and not plain:
        raise RuntimeError(f"{home}: made for TLS, which the embedded broker has not; use --plain")
    if chosen == "mosquitto" and plain:
        raise RuntimeError(f"{home}: made with --plain; mosquitto is for an office with TLS")
    broker: Broker = EmbeddedBroker(port) if chosen == "embedded" else Mosquitto(home, port)
    broker.start()
    return broker


def _accepts(port: int, patience_s: float = 0.0) -> bool:
    """With patience: it also still waits for our first word then."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1) as probe:
            probe.settimeout(patience_s)
            return not patience_s or bool(probe.recv(1))
    except TimeoutError:
        return True
    except OSError:
        return False


def _fault(said: str) -> str:
    """The line that tells what is wrong, of a broker's last words."""
    lines = said.strip().splitlines() or ["it says nothing"]
    return next((line for line in lines if "Error:" in line), lines[-1])


def _version(program: str) -> str:
    """mosquitto -h says it in its first line and exits with 3."""
    done = subprocess.run([program, "-h"], capture_output=True, text=True, check=False)
    words = done.stdout.split()
    return words[2] if words[:2] == ["mosquitto", "version"] else "of unknown version"


async def _serve(port: int) -> None:
    from amqtt.broker import Broker as Amqtt
    from amqtt.contexts import BrokerConfig, ListenerConfig

    broker = Amqtt(
        BrokerConfig(
            listeners={"default": ListenerConfig(bind=f"{LOOPBACK}:{port}")},
            plugins={"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        )
    )
    await broker.start()
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="An MQTT broker on loopback, for a demo only.")
    parser.add_argument("--port", type=int, required=True)
    logging.disable(logging.CRITICAL)
    asyncio.run(_serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
