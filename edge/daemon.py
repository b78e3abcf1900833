"""The composition root: every part is made, started, watched and stopped here.

`run(parts)` is the only seam: the rig hands in another clock, port, camera or line; no setting and
no flag can. Start order is from the trail outwards: journal, roster, locks, cameras, vision, line;
READY comes when a face could be decided on.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from drivers.base import BytePort, Driver, Unlock
from drivers.modbus import ModbusRelay
from drivers.rs485 import Bus
from drivers.serialport import open_serial
from edge import config as settings
from edge import wire
from edge.camera import Camera
from edge.clock import Clock, SystemClock
from edge.config import Config
from edge.faces import Faces
from edge.health import HealthServer, Metrics, Watchdog, sd_notify
from edge.journal import Journal
from edge.keys import Identity, load_identity, load_kek
from edge.link import Link
from edge.live import Live
from edge.locks import Locks
from edge.models import FacePack, PadPack, face_packs, model_id
from edge.passage import Passage
from edge.policy import Policy
from edge.replica import Replica
from edge.roster import ZoneRoster
from edge.state import State
from edge.store import Store, StoreFault
from edge.sync import Sync, status_message
from edge.terms import AccessEvent, DoorId, EventKind, ZoneId
from edge.trail import TrailFault
from edge.trust import TrustBook
from edge.vision import Vision

log = logging.getLogger("edge.daemon")

MAIN_TICK_S = 0.5
JOIN_S = 5.0


@dataclass
class Parts:
    """What the daemon is made of. Everything but the configuration has its real default."""

    config: Config
    clock: Clock = field(default_factory=SystemClock)
    stop: threading.Event = field(default_factory=threading.Event)
    notify: Callable[[str], bool] = sd_notify
    open_port: Callable[[settings.Bus], BytePort] = lambda bus: open_serial(str(bus.port), bus.baud)
    make_faces: Callable[[FacePack, PadPack | None, tuple[int, int] | None], Faces] = Faces
    make_link: Callable[..., Link] = Link
    on_ready: Callable[[Daemon], None] = lambda daemon: None


def run(parts: Parts) -> int:
    """Run until `parts.stop` is set (or SIGTERM / SIGINT when on the main thread)."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: parts.stop.set())
    daemon = Daemon(parts)
    try:
        daemon.start()
        daemon.watch()
    finally:
        daemon.shut()
    return 0


class Daemon:
    """The parts of one gate box, tied together; nothing here decides."""

    def __init__(self, parts: Parts) -> None:
        config = parts.config
        self.parts, self.config, self.clock = parts, config, parts.clock
        self.metrics, self.watchdog = Metrics(), Watchdog(config.health.watchdog_s)
        kek = load_kek(config.key.file, config.key.credential, os.environ)
        self.key_protection = kek.protection
        self.metrics.key_weak.set(kek.protection == "weak")
        state = State(config.gate.state_dir)
        identity = load_identity(state.identity, kek)
        self.pack, pad = face_packs(config.faces.models, config.faces.pad)
        self.faces = parts.make_faces(self.pack, pad, config.faces.detector_size)
        self.journal, self.store = _open_on_disk(
            state,
            lambda: (
                Journal(state.journal_db, self.clock, max_rows=config.audit.max_rows),
                Store(state.roster_db, kek, config.gate.id),
            ),
        )
        state.keep_reserve()
        self.live = Live(self.pack.embedding_size)
        self.book = TrustBook(config.gate.id, state.root_pub(), identity.hpke, self.store)
        self._devices: dict[str, Driver] = {}
        self.locks = Locks(
            config, self._send, self.journal.post, self.clock, self._sent, self._read_back
        )
        self.buses = {bus.id: self._bus(bus) for bus in config.bus}
        self._bus_of = {device.id: self.buses[device.bus] for device in config.device}
        self.cameras = [
            Camera(camera.id, camera.source, camera.fps, self.clock, loop=camera.loop)
            for camera in config.camera
        ]
        self.vision = Vision(self._passage(), self.cameras, self.clock, parts.stop, self.metrics)
        self.replica, self.line, self.sync = self._roster(state, identity)
        self.health = HealthServer(config.health.address, self.report, self._render)
        self._threads: list[threading.Thread] = []

    # --- making ---

    def _bus(self, bus: settings.Bus) -> Bus:
        devices: dict[str, Driver] = {
            device.id: ModbusRelay(
                device.address, device.outputs, device.inputs, timed=device.timed, baud=bus.baud
            )
            for device in self.config.device
            if device.bus == bus.id
        }
        self._devices |= devices
        return Bus(
            bus.id,
            lambda: self.parts.open_port(bus),
            devices,
            self.locks.on_event,
            self.clock.mono,
            bus.baud,
            local_echo=bus.echo,
        )

    def _send(self, device: str, order: Unlock) -> bool:
        return self._bus_of[device].unlock(device, order)

    def _read_back(self, device: str, output: int) -> bool | None:
        return self._devices[device].state(output)

    def _sent(self, door: DoorId, seconds: float) -> None:
        self.metrics.unlock_s.labels(door).observe(seconds)

    def _passage(self) -> Passage:
        config = self.config
        policy = Policy(
            zone_of={DoorId(door.id): ZoneId(door.zone) for door in config.door},
            threshold=config.faces.threshold or self.pack.threshold,
            margin=config.faces.margin,
            require_liveness=config.faces.require_liveness,
            utc_offset_s=config.gate.utc_offset_s,
        )
        doors = {camera.id: tuple(map(DoorId, camera.doors)) for camera in config.camera}
        return Passage(self.faces, self.live, policy, self.journal, self.locks, self.clock, doors)

    def _roster(self, state: State, identity: Identity) -> tuple[Replica, Link, Sync]:
        gate, session, boot_id = self.config.gate.id, os.urandom(8), _boot_id()
        connected = threading.Event()
        replica = Replica(
            self.store,
            self.live,
            self.book,
            self.journal.post,
            self.clock,
            model_id(self.pack),
            session,
            boot_id,
        )
        self._load(replica)
        line = self.parts.make_link(
            gate,
            self.config.broker.host,
            self.config.broker.port,
            tls=None if self.config.broker.plain else state.tls(identity),
            protocol=self.config.broker.protocol,
            subscriptions=_subscriptions(gate, self.config.gate.zones),
            will=(
                wire.gate_topic(gate, "status"),
                status_message(identity, gate, session, self.clock, replica, None),
                True,
            ),
            on_connect=connected.set,
            name="sync",
        )
        sync = Sync(
            gate=gate,
            identity=identity,
            line=line,
            book=self.book,
            replica=replica,
            journal=self.journal,
            clock=self.clock,
            degraded=self.degraded,
            session=session,
            boot_id=boot_id,
            stop=self.parts.stop,
            connected=connected,
        )
        return replica, line, sync

    def _load(self, replica: Replica) -> None:
        """The cache as it was; what is refused begins empty and is pulled again from the office."""
        for fault in self.book.load():
            log.warning("paper does not verify", extra={"why": fault})
        loaded = self.store.load()
        self.clock.raise_floor(self.store.time_floor())
        zones = {ZoneId(zone): ZoneRoster(ZoneId(zone)) for zone in self.config.gate.zones}
        rosters = {zone: loaded.zones.get(zone, empty) for zone, empty in zones.items()}
        replica.load(rosters, dict(loaded.ahead))
        for why in loaded.refused:
            log.error("cache refused", extra={"why": why})
            self.journal.post(
                AccessEvent(EventKind.ROSTER_RESET, self.clock.wall(), facts={"why": why})
            )

    # --- running ---

    def start(self) -> None:
        self.journal.start()
        kind = EventKind.START if self.journal.clean_start else EventKind.UNCLEAN_START
        self.journal.post(AccessEvent(kind, self.clock.wall()))
        self.health.start()
        for bus in self.buses.values():
            bus.start()
        self.faces.warm_up()
        for camera in self.cameras:
            camera.start()
        self.line.start()
        self._spawn("vision", self.vision.run)
        self._spawn("sync", self.sync.run)
        self._watch_loops()
        log.info("serving", extra={"gate": self.config.gate.id, "people": self.live.people})
        self.parts.notify("READY=1")
        self.parts.on_ready(self)

    def _spawn(self, name: str, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _watch_loops(self) -> None:
        loops = self.watchdog.loops
        loops["vision"] = lambda: self.vision.ticked_mono
        loops["sync"] = lambda: self.sync.ticked_mono
        loops["journal"] = lambda: self.journal.ticked_mono
        for bus in self.buses.values():
            loops[f"bus-{bus.name}"] = lambda bus=bus: bus.ticked_mono  # type: ignore[misc]
        for camera in self.cameras:
            loops[f"camera-{camera.id}"] = lambda c=camera: c.ticked_mono  # type: ignore[misc]

    def watch(self) -> None:
        """The main thread: feed the watchdog while every loop goes round, tell what changes."""
        told: set[str] = set()
        while not self.parts.stop.wait(MAIN_TICK_S):
            stuck = self.watchdog.stuck(self.clock.mono())
            if stuck:
                log.error("loops are stuck, the watchdog starves", extra={"loops": stuck})
            else:
                self.parts.notify("WATCHDOG=1")
            told = self._tell_changes(told)

    def _tell_changes(self, told: set[str]) -> set[str]:
        now = {word.partition(":")[0]: word for word in self.degraded()}
        for word in now.keys() - told:
            self._event(EventKind.DEGRADED, what=word, why=now[word])
        for word in told - now.keys():
            self._event(EventKind.RECOVERED, what=word)
        return set(now)

    def _event(self, kind: EventKind, **facts: str) -> None:
        log.warning(kind.value, extra=facts)
        self.journal.post(AccessEvent(kind, self.clock.wall(), facts=dict(facts)))

    def shut(self) -> None:
        """Line, eyes, locks, trail: the trail last, so that it hears of everything."""
        self.parts.notify("STOPPING=1")
        self.parts.stop.set()
        for camera in self.cameras:
            camera.stop()
        for thread in self._threads:
            thread.join(JOIN_S)
        self.line.close()
        for bus in self.buses.values():
            bus.stop()
        self.health.stop()
        self.journal.stop()
        self.store.close()

    # --- telling ---

    def degraded(self) -> list[str]:
        """Every degraded state by its name, a colon, and why."""
        words = [*self.locks.degraded(), *self._eyes_degraded()]
        if not self.line.connected:
            words.append(f"broker_unreachable: {self.config.broker.host} does not answer")
        audit = self.journal.degraded()
        if audit:
            words.append(audit)
        if self.replica.unsaved:
            words.append(f"roster_not_saved: {self.replica.unsaved}")
        for zone, fault in self.replica.standing_faults().items():
            words.append(f"{fault}: zone {zone}")
        return words

    def _eyes_degraded(self) -> list[str]:
        return [
            f"camera_{camera.state} ({camera.id})"
            for camera in self.cameras
            if camera.state != "ok"
        ]

    def report(self) -> dict[str, object]:
        """What `/healthz` and `edge status` show: names of parts and counts, never persons."""
        now = self.clock.mono()
        stuck, degraded = self.watchdog.stuck(now), self.degraded()
        leases = self.live.leases(now)
        return {
            "status": "failing" if stuck else "degraded" if degraded else "ok",
            "gate": self.config.gate.id,
            "stuck": stuck,
            "degraded": degraded,
            "people": self.live.people,
            "doors": self.locks.states(),
            "cameras": {camera.id: camera.state for camera in self.cameras},
            "zones": {
                zone: {
                    "epoch": state.roster.epoch,
                    "applied_seq": state.roster.applied_seq,
                    "head_seq": state.head_seq,
                    "lease": leases.get(zone, "restricted"),
                }
                for zone, state in self.replica.zones.items()
            },
            "broker": "connected" if self.line.connected else "not connected",
            "audit_rows": self.journal.head()[0],
            "audit_acknowledged": self.journal.acked_no,
            "key_protection": self.key_protection,
            "models": f"{self.pack.name} {self.pack.version} ({self.pack.licence_state})",
            "dropped": dict(self.sync.counts),
            "faults": dict(self.replica.counts),
        }

    def _render(self) -> bytes:
        self.metrics.people.set(self.live.people)
        self.metrics.degraded.set(len(self.degraded()))
        for why, count in dict(self.sync.counts).items():
            self.metrics.dropped.labels(why).set(count)
        for why, count in dict(self.replica.counts).items():
            self.metrics.faults.labels(why).set(count)
        for zone, state in self.replica.zones.items():
            self.metrics.applied.labels(zone).set(state.roster.applied_seq)
        return self.metrics.render()


def _open_on_disk(state: State, make: Callable[[], tuple[Journal, Store]]) -> tuple[Journal, Store]:
    """Trail and cache; on a full disk once more in the room that was held for this."""
    try:
        return make()
    except (TrailFault, StoreFault):
        if not state.spend_reserve():
            raise
        log.error("the disk is full: started in the reserve", extra={"folder": str(state.folder)})
        return make()


def _subscriptions(gate: str, zones: list[str]) -> list[str]:
    mine = [wire.gate_topic(gate, "down"), wire.gate_topic(gate, "cmd")]
    return mine + [
        t for z in zones for t in (wire.zone_topic(z, "beacon"), wire.zone_topic(z, "log"))
    ]


def _boot_id() -> bytes:
    """The kernel's, the same until the next boot."""
    try:
        return uuid.UUID(Path("/proc/sys/kernel/random/boot_id").read_text().strip()).bytes
    except (OSError, ValueError):
        return os.urandom(16)
