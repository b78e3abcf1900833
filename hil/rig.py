"""A whole installation in one folder: broker, office, desk, gate daemon, relay board, camera.

Everything is the product's own command as its own process; simulated are the relay board (pymodbus
on a paced pseudo-terminal) and what stands before the camera. Used by the demo, the people run, the
benchmark and the end-to-end tests.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.trail import export
from hil.broker import Broker, Kind, choose, start_broker
from hil.relayboard import RelayBoard

Image = NDArray[np.uint8]
ZONE, GATE, DESK, AUTHORITY = "lotus-garden", "gate-1", "desk-1", "authority"
COMMAND_TIMEOUT_S = 60.0
POLL_S = 0.02


class RigError(RuntimeError):
    """A step that did not happen: what was run, and what it said."""


@dataclass(frozen=True, slots=True)
class Models:
    """Face pack and presentation-attack pack, as `edge models` knows them."""

    face: Path
    pad: Path


@dataclass
class Rig:
    """`doors`: door ids in relay order; each also gives a unit `unit-<door>`."""

    folder: Path
    models: Models
    doors: Sequence[str]
    broker_kind: Kind = "auto"
    fps: float = 10.0
    source: str | None = None  # a camera source instead of the folder that `show` writes
    source_fps: float | None = None
    loop: bool = True
    broker: Broker = field(init=False)
    board: RelayBoard = field(init=False)
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    # --- places ---

    @property
    def home(self) -> Path:
        return self.folder / "office"

    @property
    def desk(self) -> Path:
        return self.home / "desk" / DESK

    @property
    def state(self) -> Path:
        return self.folder / "gate"

    @property
    def camera(self) -> Path:
        return self.folder / "camera"

    @property
    def config(self) -> Path:
        return self.folder / "gate.toml"

    # --- building ---

    def __enter__(self) -> Self:
        try:
            self.build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def build(self) -> None:
        """From an empty folder to a serving gate that has its zone keys."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.camera.mkdir()
        self.board = RelayBoard(relays=max(8, len(self.doors)), link=self.folder / "tty-relay")
        self.make_office()
        self.start_office()
        self.join_gate()
        self.join_desk()
        self.start_gate()

    def make_office(self) -> None:
        port = free_port()
        kind = choose(self.broker_kind)
        plain = ["--plain"] if kind == "embedded" else []
        self.enroll("roster", "init", "--broker", f"127.0.0.1:{port}", *plain)
        self.broker = start_broker(kind, self.home, port)
        self.enroll("zone", "add", ZONE)
        for door in self.doors:
            self.enroll("door", "add", door, "--zone", ZONE)
            self.enroll("unit", "add", unit_of(door), "--zone", ZONE, "--door", door)

    def start_office(self) -> None:
        self.spawn("office", [*ENROLL, "roster", "serve"])

    def join_gate(self) -> None:
        request, bundle = self.folder / "gate.request", self.folder / "gate.bundle"
        key = ["--state", str(self.state), "--key", str(self.folder / "kek")]
        self.edge("provision", "--id", GATE, *key, "--request", str(request))
        self.enroll("gate", "add", "--request", str(request), "--zone", ZONE, "--out", str(bundle))
        self.edge("provision", *key, "--bundle", str(bundle))
        self.config.write_text(self.gate_toml(), encoding="utf-8")

    def join_desk(self) -> None:
        request, bundle = self.folder / "desk.request", self.folder / "desk.bundle"
        self.enroll(
            "desk", "init", "--id", DESK, "--desk", str(self.desk), "--request", str(request)
        )
        self.enroll("desk", "add", "--request", str(request), "--zone", ZONE, "--out", str(bundle))
        self.enroll("desk", "join", "--desk", str(self.desk), "--bundle", str(bundle))
        self.enroll("desk", "sync", "--desk", str(self.desk))

    def gate_toml(self) -> str:
        self.health_port = free_port()
        plain = "true" if self.broker.plain else "false"
        protocol = "3.1.1" if self.broker.plain else "5"
        source = self.source or f"folder:{self.camera}"
        lines = [
            f'[gate]\nid = "{GATE}"\nstate_dir = "{self.state}"\nzones = ["{ZONE}"]',
            f'[key]\nfile = "{self.folder / "kek"}"',
            f'[broker]\nhost = "127.0.0.1"\nport = {self.broker.port}\nplain = {plain}\n'
            f'protocol = "{protocol}"',
            f'[faces]\nmodels = "{self.models.face}"\npad = "{self.models.pad}"',
            f'[[camera]]\nid = "cam-1"\nsource = "{source}"\nfps = {self.source_fps or self.fps}\n'
            f"loop = {str(self.loop).lower()}\n"
            f"doors = {json.dumps(list(self.doors))}",
            f'[[bus]]\nid = "rs485-1"\nport = "{self.folder / "tty-relay"}"',
            f'[[device]]\nid = "relay-1"\nbus = "rs485-1"\naddress = 1\n'
            f"outputs = {max(8, len(self.doors))}",
            *(
                f'[[door]]\nid = "{door}"\nzone = "{ZONE}"\ndevice = "relay-1"\noutput = {number}\n'
                "pulse_s = 1.0"
                for number, door in enumerate(self.doors)
            ),
            f'[health]\nlisten = "127.0.0.1:{self.health_port}"',
        ]
        return "\n\n".join(lines) + "\n"

    # --- processes ---

    def enroll(self, *arguments: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        return self._run([*ENROLL, *arguments], ok)

    def edge(self, *arguments: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        return self._run([*EDGE, *arguments], ok)

    def _run(self, command: list[str], ok: bool) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
            env=self._env(),
        )
        if ok and done.returncode:
            said = (done.stderr or done.stdout).strip()
            raise RigError(f"`{' '.join(command[2:])}` ended with {done.returncode}: {said}")
        return done

    def _env(self) -> dict[str, str]:
        return {**ENV, "MENJIN_OFFICE": str(self.home)}

    def spawn(self, name: str, command: list[str]) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        with log:
            self._processes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, env=self._env()
            )

    def start_gate(self) -> float:
        """Start `edge run`; returns the seconds until it serves and has its keys."""
        began = time.monotonic()
        self.spawn("gate", [*EDGE, "run", "-c", str(self.config)])
        self.wait("the gate serves", lambda: self.health() is not None)
        return time.monotonic() - began

    def restart_with(self, source: str | None, fps: float, *, loop: bool = True) -> None:
        """The same gate with another camera before it."""
        self.end("gate")
        self.source, self.source_fps, self.loop = source, fps, loop
        self.config.write_text(self.gate_toml(), encoding="utf-8")
        self.start_gate()

    def kill_gate(self) -> None:
        self._processes["gate"].send_signal(signal.SIGKILL)
        self._processes["gate"].wait()

    def end(self, name: str) -> None:
        process = self._processes.pop(name, None)
        if process and process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            if process.poll() is None:
                process.kill()
                process.wait()

    def close(self) -> None:
        for name in list(self._processes):
            self.end(name)
        for part in ("broker", "board"):
            if hasattr(self, part):
                getattr(self, part).close()

    # --- what stands before the camera ---

    def show(self, image: Image) -> float:
        """Put a picture before the camera; returns the monotonic second it stood there."""
        part = self.camera / ".now.part"
        part.write_bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())
        part.replace(self.camera / "now.jpg")
        return time.monotonic()

    def show_file(self, picture: Path) -> None:
        """The file's own bytes before the camera, so that nothing is encoded twice."""
        part = self.camera / ".now.part"
        part.write_bytes(picture.read_bytes())
        part.replace(self.camera / "now.jpg")

    # --- what the gate says ---

    def frames(self) -> int:
        """Frames the gate has attended to since it started."""
        url = f"http://127.0.0.1:{self.health_port}/metrics"
        with urllib.request.urlopen(url, timeout=2) as answer:
            lines = answer.read().decode().splitlines()
        counts = [line.split()[-1] for line in lines if line.startswith("menjin_frames_total")]
        return int(float(counts[0])) if counts else 0

    def look(self, frames: int = 3) -> None:
        """Wait until the gate has attended to this many frames taken from now on."""
        wanted = self.frames() + frames + 1  # one may be under way
        self.wait("the gate looks", lambda: self.frames() >= wanted)

    def health(self) -> dict[str, Any] | None:
        try:
            url = f"http://127.0.0.1:{self.health_port}/healthz"
            with urllib.request.urlopen(url, timeout=2) as answer:
                return dict(json.load(answer))
        except (OSError, ValueError):
            return None

    def events(self, after: int = 0) -> list[dict[str, Any]]:
        """Rows of the gate's audit trail, read from its file while it runs."""
        path = self.state / "journal.db"
        rows = list(export(path)) if path.exists() else []
        return [row for row in rows if row["event_no"] > after]

    def last_event(self) -> int:
        rows = self.events()
        return int(rows[-1]["event_no"]) if rows else 0

    def wait(self, what: str, happened: Callable[[], Any], timeout: float = 30.0) -> Any:
        """Poll until `happened()` is true; RigError names what did not."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            found = happened()
            if found:
                return found
            self._still_alive()
            time.sleep(POLL_S)
        raise RigError(f"not within {timeout:.0f} s: {what}")

    def _still_alive(self) -> None:
        for name, process in self._processes.items():
            if process.poll() not in (None, -signal.SIGKILL):
                tail = (self.folder / f"{name}.log").read_text(errors="replace")[-800:]
                raise RigError(f"{name} ended with {process.returncode}: {tail}")

    def wait_event(
        self, what: str, wanted: Callable[[dict[str, Any]], bool], after: int, timeout: float = 15.0
    ) -> dict[str, Any]:
        found: dict[str, Any] = self.wait(
            what, lambda: next((row for row in self.events(after) if wanted(row)), None), timeout
        )
        return found


def unit_of(door: str) -> str:
    return f"unit-{door}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


ENROLL, EDGE = [sys.executable, "-m", "enroll"], [sys.executable, "-m", "edge"]
ENV = {
    **os.environ,
    "ORT_DISABLE_TELEMETRY": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "LANG": "C.UTF-8",
}
