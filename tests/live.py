"""An estate that runs: a real broker, `roster serve` as a process or a thread, a desk, and gates
made of the product's own parts (book, store, replica, sync, journal, line); only cameras and locks
are missing."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from edge import wire
from edge.clock import SystemClock
from edge.journal import Journal
from edge.keys import Identity, Kek, create_identity
from edge.link import Link, Tls
from edge.live import Live
from edge.provision import BrokerAddress, Bundle
from edge.replica import Replica
from edge.roster import ZoneRoster
from edge.state import State
from edge.store import Store
from edge.sync import Sync
from edge.terms import ModelId, Vector, ZoneId
from edge.trust import TrustBook
from enroll.consent import consent
from enroll.desk import Desk
from enroll.desk_session import Session, session
from enroll.home import AUTHORITY_ID, Home
from enroll.registrar import add_member, init_office
from enroll.roster.authority import Authority
from enroll.roster.bell import Bell
from enroll.roster.serve import Serve, subscriptions
from hil.broker import Broker, Kind, mosquitto_program, start_broker

ZONE, DOOR, UNIT, DESK = "lotus", "main", "3-1201", "desk-1"
MODEL = ModelId("0123456789abcdef")
SIZE = 32  # of an embedding: a template of 64 B
WAIT_S = 10.0
ENV = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "LANG": "C.UTF-8"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(happened: Callable[[], object], what: str) -> None:
    """Wait for another process; AssertionError names what did not happen."""
    deadline = time.monotonic() + WAIT_S
    tick = threading.Event()
    while not happened():
        assert time.monotonic() < deadline, f"not within {WAIT_S} s: {what}"
        tick.wait(0.01)


def vector(seed: int) -> Vector:
    value = np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)
    unit: Vector = value / np.float32(np.linalg.norm(value))
    return unit


@dataclass
class GateKit:
    """A gate without cameras and locks."""

    id: str
    identity: Identity
    store: Store
    live: Live
    replica: Replica
    line: Link
    sync: Sync
    journal: Journal
    _thread: threading.Thread = field(init=False)

    def start(self) -> None:
        self.journal.start()
        self.line.start()
        self._thread = threading.Thread(target=self.sync.run, name=f"sync-{self.id}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.sync.stop.set()
        self._thread.join(5)
        self.line.close()
        self.journal.stop()
        self.store.close()

    @property
    def applied(self) -> int:
        (zone,) = self.replica.zones.values()
        return zone.roster.applied_seq

    def drop(self) -> None:
        """Of one that was never started."""
        self.journal._trail.close()
        self.store.close()


class Estate:
    """An office in `folder` with a door and a unit in each zone; a broker; later serve and desk."""

    def __init__(
        self, folder: Path, broker: Kind = "mosquitto", zones: Sequence[str] = (ZONE,)
    ) -> None:
        if broker == "mosquitto" and mosquitto_program() is None:
            pytest.skip("mosquitto is not installed; .ci/run installs it")
        self.folder, self.clock, port = folder, SystemClock(), free_port()
        self.home = Home(folder / "office")
        self.plain = broker == "embedded"
        init_office(self.home, BrokerAddress(host="127.0.0.1", port=port, plain=self.plain))
        for zone in zones:
            with self.authority() as authority:
                authority.add_zone(zone)
                authority.add_door(zone, DOOR)
                authority.add_unit(zone, UNIT, [DOOR])
        self.port = port
        self.broker: Broker = start_broker(broker, self.home.path, port)
        self.ends: list[Callable[[], object]] = [self.broker.close]

    def close(self) -> None:
        for end in reversed(self.ends):
            end()

    @contextlib.contextmanager
    def authority(self) -> Iterator[Authority]:
        with Authority.open(self.home, self.clock) as authority:
            yield authority

    # --- processes ---

    def enroll(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "enroll", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**ENV, "MENJIN_OFFICE": str(self.home.path)},
        )

    def serve(self) -> Path:
        """`enroll roster serve` as a process; returns its log."""
        log = self.folder / "serve.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "enroll", "roster", "serve"],
                stdout=subprocess.PIPE,
                stderr=out,
                text=True,
                env={**ENV, "MENJIN_OFFICE": str(self.home.path)},
            )
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("serving"), log.read_text()

        def end() -> None:
            process.terminate()
            process.wait(10)
            assert process.stdout is not None
            process.stdout.close()

        self.ends.append(end)
        return log

    def serve_here(self) -> Serve:
        """The same in a thread of ours, for a test that looks inside or alters a part."""
        authority, greeted = Authority.open(self.home, self.clock), threading.Event()
        files = None if self.plain else self.home.authority_tls()
        tls = Tls(files.ca, files.certificate, files.key) if files else None
        line = self.line(AUTHORITY_ID, tls, subscriptions(""), on_connect=greeted.set)
        serve = Serve(authority, line, self.clock, threading.Event(), greeted)
        bell = Bell(self.home.serve_socket, lambda: (serve.poked.set(), line.wake())[0])
        thread = threading.Thread(target=serve.run, name="serve", daemon=True)
        for part in (bell, line, thread):
            part.start()
        assert line.wait_connected(WAIT_S)

        def end() -> None:
            serve.stop.set()
            line.wake()
            thread.join(5)
            line.close()
            bell.stop()
            authority.close()

        self.ends.append(end)
        return serve

    # --- members ---

    def desk(self, zones: Sequence[str] = (ZONE,), name: str = DESK) -> Desk:
        desk, request = Desk.init(self.folder / name, name)
        desk.join(add_member(self.home, request, list(zones)))
        return desk

    def at_desk(self, desk: Desk) -> contextlib.AbstractContextManager[Session]:
        return session(desk, self.clock)

    def gate(self, gate: str, zone: str = ZONE) -> GateKit:
        """A gate that has joined; the caller starts it."""
        state = State(self.folder / gate)
        state.folder.mkdir()
        kek = Kek(bytes(32), "weak")
        identity = create_identity(state.identity, kek, gate)
        bundle: Bundle = add_member(self.home, identity.request(), [zone])
        store = Store(state.roster_db, kek, gate)
        state.join(bundle, identity, store)
        return self._assemble(gate, ZoneId(zone), state, identity, store)

    def _assemble(
        self, gate: str, zone: ZoneId, state: State, identity: Identity, store: Store
    ) -> GateKit:
        journal, live = Journal(state.journal_db, self.clock), Live(SIZE)
        book = TrustBook(gate, state.root_pub(), identity.hpke, store)
        assert book.load() == []
        ids = (os.urandom(8), os.urandom(16))
        replica = Replica(store, live, book, journal.post, self.clock, MODEL, *ids)
        replica.load({zone: ZoneRoster(zone)}, {})
        connected = threading.Event()
        topics = [wire.gate_topic(gate, "down"), wire.gate_topic(gate, "cmd")]
        topics += [wire.zone_topic(zone, "beacon"), wire.zone_topic(zone, "log")]
        line = self.line(gate, state.tls(identity), topics, on_connect=connected.set)
        sync = Sync(
            gate=gate,
            identity=identity,
            line=line,
            book=book,
            replica=replica,
            journal=journal,
            clock=self.clock,
            degraded=list,
            session=ids[0],
            boot_id=ids[1],
            stop=threading.Event(),
            connected=connected,
        )
        return GateKit(gate, identity, store, live, replica, line, sync, journal)

    def line(
        self,
        client: str,
        tls: Tls | None,
        topics: list[str],
        on_connect: Callable[[], None] | None = None,
    ) -> Link:
        return Link(
            client,
            "127.0.0.1",
            self.port,
            tls=None if self.plain else tls,
            protocol="3.1.1" if self.plain else "5",
            subscriptions=topics,
            on_connect=on_connect,
            name=client,
        )

    def started(self, gate: str) -> GateKit:
        kit = self.gate(gate)
        kit.start()
        self.ends.append(kit.stop)
        return kit

    # --- people ---

    def tenancy(self, tenancy: str, household: int = 1, zone: str = ZONE) -> None:
        with self.authority() as authority:
            authority.add_tenancy(tenancy, zone, UNIT, None, None, household)

    def enrol(
        self, at: Session, person: str, tenancy: str, seed: int = 1, zone: str = ZONE
    ) -> None:
        asked = wire.EnrolRequest(internal_id=person, tenancy=tenancy, consent=self.consent())
        at.enrol(zone, asked, [vector(seed)], MODEL)

    def consent(self) -> wire.Consent:
        return consent("separate_written", by="front", transfer=True, at=self.clock.wall())


class Tap:
    """A connected client that keeps what it hears."""

    def __init__(self, line: Link) -> None:
        self.line = line
        line.start()
        assert line.wait_connected(WAIT_S)

    def next(self, timeout: float = WAIT_S) -> tuple[str, bytes] | None:
        received = self.line.receive(timeout)
        if received is None:
            return None
        received.ack()
        return received.topic, received.payload

    def drain(self) -> list[tuple[str, bytes]]:
        """What has come so far."""
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                item = self.line.inbox.get_nowait()
                if item is not None:
                    item.ack()
                    found.append((item.topic, item.payload))
        return found
