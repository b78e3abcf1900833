"""`hil demo`: the product told as a story, everything real but the hardware.

Each step is done through the product's own commands, and told with what was measured. A step that
does not happen ends the demo with exit code 1.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hil.broker import Kind
from hil.residents import Identity, Scene, drawn_apart, render, resident
from hil.rig import DESK, GATE, ZONE, Image, Models, Rig, RigError, unit_of

PACK = Path(__file__).parent / "simpack" / "pack"
DOOR = "main"
CAST_SEED = 20  # the demo's residents, well apart
STRANGER_SEED = 7_000_003
LOOKS, LOOK_S = 20, 0.4  # a person moves: another picture until the gate has decided
SETTLE_S = 0.3  # an order on the wire and its pulse's begin take 20 ms

Say = Callable[[str], None]


@dataclass
class Step:
    name: str
    says: str
    figures: dict[str, float] = field(default_factory=dict)


@dataclass
class Demo:
    rig: Rig
    say: Say
    steps: list[Step] = field(default_factory=list)

    def told(self, name: str, says: str, **figures: float) -> None:
        step = Step(name, says, {key: round(value, 1) for key, value in figures.items()})
        self.steps.append(step)
        self.say(f"  {len(self.steps):>2}. {says}")

    # --- the cast ---

    def cast(self) -> None:
        self.mei, self.bo = drawn_apart(2, CAST_SEED)
        self.stranger = resident(STRANGER_SEED)

    def picture(self, who: Identity | None, seed: int, attack: Any = None) -> Image:
        """One picture of a walk up to the gate: pose, light and noise vary by the seed."""
        rng = np.random.default_rng(seed)
        scene = Scene.typical(rng, attack=attack) if attack else Scene.typical(rng)
        return render(who, scene, rng).image

    def empty(self) -> None:
        """Nobody before the camera, long enough for the last face to have left."""
        self.rig.show(self.picture(None, 1))
        time.sleep(1.2)

    def appear(
        self, who: Identity, seed: int, wanted: str, attack: Any = None
    ) -> tuple[dict[str, Any], int]:
        """Walk up and move about until the gate says `wanted`: its decision, and the pulses."""
        self.empty()
        before, pulses = self.rig.last_event(), len(self.rig.board.pulses)
        seen: list[str] = []
        for look in range(LOOKS):
            self.rig.show(self.picture(who, seed + look, attack))
            deadline = time.monotonic() + LOOK_S
            while time.monotonic() < deadline:
                rows = [row for row in self.rig.events(before) if row["kind"] == "decision"]
                seen = [row["reason"] for row in rows]
                if wanted in seen:
                    time.sleep(SETTLE_S)
                    return rows[seen.index(wanted)], len(self.rig.board.pulses) - pulses
                time.sleep(0.02)
        raise RigError(f"not {wanted} in {LOOKS} looks, but {seen or 'nothing'}")

    # --- the story ---

    def play(self) -> None:
        self.cast()
        broker = self.rig.broker
        self.say(
            f"broker: {broker.name}"
            + (
                " on loopback, no TLS: transport security was NOT exercised"
                if broker.plain
                else " with TLS and client certificates"
            )
        )
        self.enrolled("mei", self.mei, 100)
        self.passes("mei", self.mei, 200)
        self.enrolled("bo", self.bo, 300)
        self.refused("a stranger", self.stranger, 400)
        self.refused("mei's photo on paper", self.mei, 500, attack="print")
        self.refused("mei's photo on a phone", self.mei, 600, attack="replay")
        self.revoked("mei")
        self.refused("mei, whose tenancy has ended,", self.mei, 200)
        self.broker_gone()
        self.killed()
        self.trail_holds()

    def enrolled(self, name: str, who: Identity, seed: int) -> None:
        tenancy, photo = f"T-{name}", self.rig.folder / f"{name}.png"
        _write(photo, render(who, Scene(), np.random.default_rng(seed)).image)
        self.rig.enroll(
            "tenancy", "add", tenancy, "--zone", ZONE, "--unit", unit_of(DOOR), "--household", "1"
        )
        people, began = self._people(), time.monotonic()
        self.rig.enroll(
            "person", "add", "--photo", str(photo), "--tenancy", tenancy, "--id", name,
            "--consent", "separate_written", "--by", "desk clerk", "--transfer",
            "--desk", str(self.rig.desk), "--models", str(self.rig.models.face), "--zone", ZONE,
        )  # fmt: skip
        photo.unlink()
        self.rig.wait("the gate has the template", lambda: self._people() > people)
        took = (time.monotonic() - began) * 1000
        self.told(
            f"enrolled_{name}",
            f"{name} is enrolled at the desk; the gate knows the face "
            f"{took:.0f} ms after the command began",
            enrol_ms=took,
        )

    def _people(self) -> int:
        health = self.rig.health()
        return int(health["people"]) if health else 0

    def passes(self, name: str, who: Identity, seed: int, note: str = "") -> None:
        row, pulses = self.appear(who, seed, "granted")
        if pulses != 1:
            raise RigError(f"{name} was let in with {pulses} pulses")
        done = self.rig.wait_event(
            "the lock confirms", lambda r: r["kind"] == "unlocked", row["event_no"] - 1
        )
        took = float(done["facts"]["frame_to_unlock_ms"])
        self.told(
            f"passed_{name}{'_' + note.split()[-1] if note else ''}",
            f"{name} passes{' ' + note if note else ''}: camera frame -> unlock bytes in "
            f"{took:.0f} ms, one pulse on relay 1, read back as {done['facts']['outcome']}",
            frame_to_unlock_ms=took,
        )

    def refused(self, whom: str, who: Identity, seed: int, attack: Any = None) -> None:
        row, pulses = self.appear(
            who, seed, "presentation_attack" if attack else "unknown_face", attack
        )
        if pulses:
            raise RigError(f"{whom}: {row['reason']}, and yet {pulses} pulses")
        why = " (the template was erased with the last grant)" if "ended" in whom else ""
        name = f"refused_{attack or ('revoked' if why else 'stranger')}"
        self.told(name, f"{whom} is refused: {row['reason']}{why}")

    def revoked(self, name: str) -> None:
        done = self.rig.enroll(
            "roster", "revoke", f"T-{name}", "--authority-ref", "court 2026/114", "--wait",
            "--timeout", "10", "--json",
        )  # fmt: skip
        facts = json.loads(done.stdout)
        took = float(facts["last_ms"])
        self.told(
            "revoked",
            f"the tenancy of {name} is revoked; the office holds the receipt of "
            f"{facts['enforced']} of {facts['total']} gates after {took:.0f} ms",
            receipt_ms=took,
        )

    def broker_gone(self) -> None:
        self.rig.broker.stop()
        self.rig.wait("the gate notices", lambda: self._broker_state() == "not connected", 60)
        self.told("broker_stopped", "the broker is stopped; the gate says: broker_unreachable")
        self.passes("bo", self.bo, 700, "without the broker")

    def _broker_state(self) -> str:
        health = self.rig.health()
        return str(health["broker"]) if health else ""

    def killed(self) -> None:
        self.rig.kill_gate()
        took = self.rig.start_gate() * 1000
        self.told(
            "restarted",
            f"the daemon is killed (SIGKILL) and serves again after {took:.0f} ms, "
            "broker still gone",
            restart_ms=took,
        )
        self.refused("mei, whose tenancy has ended, after the restart,", self.mei, 200)
        self.passes("bo", self.bo, 800, "after the restart")

    def trail_holds(self) -> None:
        self.rig.broker.start()
        last = self.rig.last_event()
        self.rig.wait("the office has every audit row", lambda: self._acknowledged() >= last, 60)
        rows = json.loads(
            self.rig.edge("audit", "verify", "-c", str(self.rig.config), "--json").stdout
        )
        self.told(
            "audit_verified",
            f"the broker is back: the office acknowledged all rows, and the audit "
            f"trail of {rows['rows']} rows verifies",
            rows=float(rows["rows"]),
        )

    def _acknowledged(self) -> int:
        health = self.rig.health()
        return int(health["audit_acknowledged"]) if health else 0


def _write(path: Path, image: Image) -> None:
    if not cv2.imwrite(str(path), image):
        raise RigError(f"{path} cannot be written")


def play(folder: Path, broker: Kind, say: Say) -> dict[str, Any]:
    """The whole demo in `folder`. Always returns its report; `ok` says if each step happened."""
    began = time.monotonic()
    rig = Rig(folder, Models(PACK, PACK / "pad"), [DOOR], broker_kind=broker)
    demo, fault = Demo(rig, say), ""
    say("building: broker, office, desk, gate, relay board on a paced RS-485 line, camera ...")
    try:
        with rig:
            say(f"built in {time.monotonic() - began:.0f} s: gate {GATE}, desk {DESK}, zone {ZONE}")
            demo.play()
    except RuntimeError as error:  # a RigError, or a part that did not start
        fault = str(error)
        say(f"FAILED: {fault}")
    return {
        "ok": not fault,
        "fault": fault,
        "broker": rig.broker.name if hasattr(rig, "broker") else broker,
        "tls": hasattr(rig, "broker") and not rig.broker.plain,
        "seconds": round(time.monotonic() - began, 1),
        "steps": [asdict(step) for step in demo.steps],
    }
