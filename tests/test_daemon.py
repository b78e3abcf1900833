"""The daemon whole, in this process: real faces (the sim pack), a real cache and audit trail, the
virtual bus for a lock, a folder for a camera, and no broker to be reached."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from drivers.virtual import VirtualRelay
from edge import config as settings
from edge import roster as rules
from edge import seal
from edge.clock import SystemClock
from edge.daemon import Daemon, Parts, run
from edge.faces import Faces
from edge.keys import create_identity, create_kek, load_kek
from edge.models import face_packs, model_id
from edge.roster import Put, ZoneRoster
from edge.state import State
from edge.store import Store
from edge.terms import (
    AccessEvent,
    DoorId,
    EventKind,
    Grant,
    GrantId,
    PersonId,
    SealedTemplate,
    ZoneId,
)
from edge.trail import export
from hil.residents import Identity as Resident
from hil.residents import Scene, drawn_apart, render

PACK = Path(__file__).parent.parent / "hil" / "simpack" / "pack"
ZONE, DOOR, MEI = ZoneId("lotus"), DoorId("main"), PersonId(b"mei-" * 4)
WAIT_S = 15.0

TOML = """
[gate]
id = "gate-1"
state_dir = "{folder}/state"
zones = ["lotus"]
[key]
file = "{folder}/kek"
[broker]
host = "127.0.0.1"
port = {closed}
plain = true
[faces]
models = "{pack}"
pad = "{pack}/pad"
[[camera]]
id = "cam"
source = "folder:{folder}/camera"
fps = 20
doors = ["main"]
[[bus]]
id = "bus"
port = "{folder}/tty"
baud = 115200
[[device]]
id = "relay"
bus = "bus"
address = 1
[[door]]
id = "main"
zone = "lotus"
device = "relay"
output = 2
pulse_s = 0.5
[health]
listen = "127.0.0.1:{health}"
watchdog_s = 2
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(happened: Callable[[], Any], what: str) -> Any:
    deadline, tick = time.monotonic() + WAIT_S, threading.Event()
    while not (found := happened()):
        assert time.monotonic() < deadline, f"not within {WAIT_S} s: {what}"
        tick.wait(0.02)
    return found


def picture(who: Resident | None, seed: int = 5) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return render(who, Scene(), np.random.default_rng(seed)).image


@dataclass
class Box:
    """A gate box that has joined an office, with mei in its cache."""

    folder: Path
    mei: Resident
    board: VirtualRelay = field(init=False)
    told: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    make_faces: Callable[..., Faces] = Faces
    daemon: Daemon | None = None
    code: int | None = None

    def __post_init__(self) -> None:
        self.health_port = free_port()
        self.board = VirtualRelay(1, 8, 8, SystemClock().mono)
        (self.folder / "camera").mkdir(parents=True)
        self.show(None)
        text = TOML.format(
            folder=self.folder, pack=PACK, closed=free_port(), health=self.health_port
        )
        (self.folder / "gate.toml").write_text(text, "utf-8")
        self.config = settings.load(self.folder / "gate.toml")
        self._join()

    def _join(self) -> None:
        create_kek(self.folder / "kek")
        kek = load_kek(self.folder / "kek", None, {})
        state = State(self.folder / "state")
        create_identity(state.identity, kek, "gate-1")
        root = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
        (state.identity / "root.pub").write_bytes(root)
        pack, _ = face_packs(PACK, None)
        faces, kf = Faces(pack, None), os.urandom(32)
        image = picture(self.mei)
        vector = faces.embed(image, faces.detect(image)[0])
        aad = seal.template_aad(ZONE, MEI, 1, 1, model_id(pack))
        sealed = seal.seal(kf, seal.pack_vector(vector), aad)
        grant = Grant(GrantId("g1"), "T-1", frozenset({DOOR}), 0.0, None)
        put = Put(MEI, 1, 1, (grant,), (SealedTemplate(model_id(pack), 1, sealed),))
        after = rules.apply(ZoneRoster(ZONE, epoch=1), [(put, bytes(32))], first_seq=1)
        store = Store(state.roster_db, kek, "gate-1")
        store.put_zone_key(ZONE, "kf", 1, kf)
        store.save(after.roster, after.changed, after.erased)
        store.close()

    def show(self, who: Resident | None) -> None:
        part = self.folder / "camera" / ".part"
        part.write_bytes(cv2.imencode(".png", picture(who))[1].tobytes())
        part.replace(self.folder / "camera" / "now.png")

    def start(self) -> None:
        ready = threading.Event()

        def on_ready(daemon: Daemon) -> None:
            self.daemon = daemon
            ready.set()

        def notify(state: str) -> bool:
            self.told.append(state)
            return True

        parts = Parts(
            self.config,
            stop=self.stop,
            notify=notify,
            open_port=lambda bus: self.board.open(),
            make_faces=self.make_faces,
            on_ready=on_ready,
        )

        def main() -> None:
            self.code = run(parts)

        self.thread = threading.Thread(target=main, name="gate-under-test")
        self.thread.start()
        assert ready.wait(WAIT_S), "the daemon did not get ready"

    def end(self) -> None:
        self.stop.set()
        if hasattr(self, "thread"):
            self.thread.join(WAIT_S)

    def healthz(self) -> tuple[int, dict[str, Any]]:
        url = f"http://127.0.0.1:{self.health_port}/healthz"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def degraded(self) -> set[str]:
        return {word.partition(":")[0] for word in self.healthz()[1]["degraded"]}

    def metrics(self) -> str:
        url = f"http://127.0.0.1:{self.health_port}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return str(answer.read().decode())

    def kinds(self) -> list[str]:
        return [row["kind"] for row in export(self.folder / "state" / "journal.db")]


@pytest.fixture(scope="module")
def mei() -> Resident:
    return drawn_apart(2, 20)[0]


@pytest.fixture
def box(tmp_path: Path, mei: Resident) -> Iterator[Box]:
    made = Box(tmp_path, mei)
    yield made
    made.end()


def test_a_resident_passes_without_any_office(box: Box) -> None:
    box.start()
    until(lambda: box.healthz()[1]["doors"] == {"main": "locked"}, "the lock is read back")
    box.show(box.mei)
    pulse = box.board.relays.wait_pulse(0, WAIT_S)
    assert (pulse.output, pulse.seconds) == (2, 0.5)
    kinds = until(lambda: "unlocked" in box.kinds() and box.kinds(), "the lock confirms")
    assert kinds.index("decision") < kinds.index("unlocked")


def test_what_is_absent_is_named_and_served_around(box: Box) -> None:
    box.start()
    until(lambda: box.degraded() == {"broker_unreachable"}, "only the broker is away")
    (box.folder / "camera" / "now.png").unlink()
    box.board.unplug()
    wanted = {"broker_unreachable", "camera_no_picture", "lock_unreachable"}
    until(lambda: box.degraded() == wanted, "camera and lock are away too")
    assert box.healthz()[0] == 200
    box.board.replug()
    box.show(None)
    until(lambda: box.degraded() == {"broker_unreachable"}, "both are back")
    rows = {"degraded", "recovered", "lock_offline", "lock_online"}
    until(lambda: rows <= set(box.kinds()), "the trail tells of it")


def test_nobody_is_named_on_a_metric_or_in_healthz(box: Box) -> None:
    box.start()
    box.show(box.mei)
    box.board.relays.wait_pulse(0, WAIT_S)
    seen = until(lambda: 'reason="granted"' in box.metrics() and box.metrics(), "it is counted")
    seen += json.dumps(box.healthz()[1])
    assert not any(word in seen for word in (MEI.hex(), "mei", "T-1", "g1"))


def test_it_says_ready_and_feeds_the_watchdog_and_ends_clean(box: Box) -> None:
    before = set(threading.enumerate())
    box.start()
    until(lambda: "WATCHDOG=1" in box.told, "the watchdog is fed")
    assert box.told[0] == "READY=1"
    box.end()
    assert (box.code, box.told[-1]) == (0, "STOPPING=1")
    assert box.kinds()[-1] == "stop"
    assert [t.name for t in set(threading.enumerate()) - before if t.is_alive()] == []


def test_a_start_after_a_clean_end_and_one_after_a_power_cut(box: Box, mei: Resident) -> None:
    box.start()
    box.end()
    assert box.kinds()[0] == "start"
    box.stop = threading.Event()
    box.start()
    assert box.daemon
    box.daemon.journal.stop = lambda: None  # type: ignore[method-assign] # the power goes
    box.end()
    box.daemon.journal._stop.set()
    box.daemon.journal._thread.join(WAIT_S)
    box.stop = threading.Event()
    box.start()
    starts = [kind for kind in box.kinds() if kind.endswith("start")]
    assert starts == ["start", "start", "unclean_start"]


def test_a_loop_that_hangs_starves_the_watchdog(box: Box) -> None:
    let_go, hang = threading.Event(), threading.Event()

    class Hanging(Faces):
        def detect(self, image: Any) -> Any:
            if hang.is_set():
                let_go.wait(WAIT_S)
            return super().detect(image)

    box.make_faces = Hanging
    box.start()
    hang.set()
    try:
        until(lambda: box.healthz()[0] == 503, "healthz says failing")
        assert box.healthz()[1]["stuck"] == ["vision"]
        fed = box.told.count("WATCHDOG=1")
        threading.Event().wait(1.2)
        assert box.told.count("WATCHDOG=1") == fed
    finally:
        hang.clear()
        let_go.set()
    until(lambda: box.healthz()[0] == 200, "it goes on when the loop does")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """24 MiB of memory as a disk; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "menjin-test", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can be mounted by root only")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def box_on(disk: Path, mei: Resident) -> Box:
    """Its state on the small disk, its camera elsewhere."""
    folder = disk.parent / "box"
    folder.mkdir()
    (folder / "state").symlink_to(disk)
    return Box(folder, mei)


def fill(folder: Path) -> None:
    with (folder / "filler").open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(4096))


def test_a_box_starts_and_opens_on_a_full_disk(small_disk: Path, mei: Resident) -> None:
    box = box_on(small_disk, mei)
    box.start()
    box.end()
    fill(small_disk)
    box.stop = threading.Event()
    try:
        box.start()
        fill(small_disk)  # what the start gave back is taken too
        box.show(mei)
        assert box.board.relays.wait_pulse(0, WAIT_S).output == 2
    finally:
        box.end()


def test_a_disk_that_fills_while_it_runs_is_named_and_heals(
    small_disk: Path, mei: Resident
) -> None:
    box = box_on(small_disk, mei)
    box.start()
    assert box.daemon
    try:
        fill(small_disk)
        long = AccessEvent(EventKind.DECISION, 0.0, facts={"note": "x" * 9000})
        kept = box.daemon.journal.record(long)
        while kept.durable:  # until the write-ahead log has to grow
            kept = box.daemon.journal.record(long)
        assert kept.kept
        assert "audit_degraded" in box.degraded()
        assert box.healthz()[0] == 200
        (small_disk / "filler").unlink()
        until(lambda: "audit_degraded" not in box.degraded(), "it heals")
        box.show(mei)
        assert box.board.relays.wait_pulse(0, WAIT_S).output == 2
    finally:
        box.end()
