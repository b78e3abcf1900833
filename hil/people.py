"""`hil people`: real people's photos against the real gate, end to end.

Everybody is enrolled from one photo under a tenancy and a door of their own; every other photo is
shown to the daemon's camera; what the relay board's own record says is the result. Then a video of
strangers, then two tenancies are revoked and every photo is shown again.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge.models import FacePack, install, load_pack
from hil.broker import Kind
from hil.rig import ZONE, Models, Rig, unit_of

PHOTOS = {".jpg", ".jpeg", ".png"}
MOST_PEOPLE = 256  # one relay each on one board
GAP_S = 1.2  # nobody before the camera: the last face has left, the last pulse has ended
# Slow enough that every frame of a crowd is attended to on two busy cores; slower for slow models.
VIDEO_FPS = (4.0, 0.5)
REVOKED_COUNT = 2

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Person:
    name: str
    door: str
    photos: tuple[Path, ...]


@dataclass
class Shown:
    """One photo before the camera, and what came of it."""

    person: str
    photo: str
    opened: list[str]  # whose doors
    pulses: int
    refused: list[str]  # reasons of the faces that were refused

    @property
    def right(self) -> bool:
        return self.opened == [self.person] and self.pulses == 1

    @property
    def wrong(self) -> bool:
        return any(name != self.person for name in self.opened)


@dataclass
class Tally:
    shown: int = 0
    opened_right: int = 0
    opened_wrong: int = 0
    not_opened: int = 0
    refused_by_reason: Counter[str] = field(default_factory=Counter)
    misses: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        return {**vars(self), "refused_by_reason": dict(self.refused_by_reason)}

    def add(self, one: Shown) -> None:
        self.shown += 1
        self.opened_right += one.right
        self.opened_wrong += one.wrong
        self.not_opened += not one.opened
        self.refused_by_reason.update(one.refused)
        if not one.right:
            self.misses.append(
                f"{one.person}/{one.photo}: opened {one.opened or 'nothing'}, "
                f"{one.pulses} pulses, refused {one.refused}"
            )


def find_people(faces: Path) -> list[Person]:
    """`<person>/<photo>` folders, in name order."""
    people = []
    for number, folder in enumerate(sorted(p for p in faces.iterdir() if p.is_dir())):
        photos = sorted(p for p in folder.iterdir() if p.suffix.lower() in PHOTOS)
        if photos:
            people.append(Person(folder.name, f"door-{number + 1:03d}", tuple(photos)))
    if not 1 <= len(people) <= MOST_PEOPLE:
        raise ValueError(
            f"{faces}: {len(people)} people; give a folder of <person>/<photo>.jpg "
            f"with 1 to {MOST_PEOPLE} of them"
        )
    return people


class PeopleRun:
    def __init__(self, rig: Rig, people: Sequence[Person], say: Say) -> None:
        self.rig, self.people, self.say = rig, people, say
        self.owner = {number: person.name for number, person in enumerate(people)}
        self.enrolled: dict[str, Path] = {}
        blank = np.full((480, 640, 3), 96, np.uint8)
        self.blank = blank

    def enrol(self, person: Person) -> None:
        """From the first photo that the desk takes."""
        tenancy = tenancy_of(person)
        self.rig.enroll(
            "tenancy",
            "add",
            tenancy,
            "--zone",
            ZONE,
            "--unit",
            unit_of(person.door),
            "--household",
            "1",
        )
        said = "no photo"
        for photo in person.photos:
            done = self.rig.enroll(
                "person", "add", "--photo", str(photo), "--tenancy", tenancy, "--id", person.name,
                "--consent", "separate_written", "--by", "hil people", "--transfer", "--largest",
                "--desk", str(self.rig.desk), "--models", str(self.rig.models.face),
                "--zone", ZONE, ok=False,
            )  # fmt: skip
            if done.returncode == 0:
                self.enrolled[person.name] = photo
                self.say(f"  enrolled {person.name} from {photo.name}")
                return
            said = (done.stderr or done.stdout).strip()
        self.say(f"  {person.name} could not be enrolled: {said}")

    def wait_templates(self) -> None:
        wanted = len(self.enrolled)

        def there() -> bool:
            health = self.rig.health()
            return health is not None and health["people"] >= wanted

        self.rig.wait("the gate has all templates", there)

    def show(self, person: Person, photo: Path) -> Shown:
        self.rig.show(self.blank)
        time.sleep(GAP_S)
        pulses, after = len(self.rig.board.pulses), self.rig.last_event()
        self.rig.show_file(photo)
        self.rig.look()
        time.sleep(0.1)  # an order on the wire takes 10 ms at 9600 baud
        seen = self.rig.board.pulses[pulses:]
        rows = [row for row in self.rig.events(after) if row["kind"] == "decision"]
        return Shown(
            person=person.name,
            photo=photo.name,
            opened=sorted({self.owner[pulse.output] for pulse in seen}),
            pulses=len(seen),
            refused=[row["reason"] for row in rows if row["reason"] != "granted"],
        )

    def show_all(self, title: str) -> dict[str, Tally]:
        tallies: dict[str, Tally] = {}
        for person in self.people:
            tally = tallies.setdefault(person.name, Tally())
            for photo in person.photos:
                if photo != self.enrolled.get(person.name):
                    tally.add(self.show(person, photo))
            self.say(
                f"  {title} {person.name}: {tally.opened_right} of {tally.shown} opened right, "
                f"{tally.opened_wrong} wrong"
            )
        return tallies

    def revoke(self, person: Person) -> None:
        done = self.rig.enroll(
            "roster",
            "revoke",
            tenancy_of(person),
            "--authority-ref",
            "hil people",
            "--wait",
            "--timeout",
            "10",
            "--json",
        )
        took = json.loads(done.stdout)["last_ms"]
        self.say(f"  revoked {person.name}: receipt after {took:.0f} ms")

    def watch(self, video: Path) -> dict[str, Any]:
        """The daemon with the video as its camera: every frame is attended to, nothing opens."""
        import cv2

        capture = cv2.VideoCapture(str(video))
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        capture.release()
        if frames < 1:
            raise ValueError(f"{video}: not a video that can be read")
        for fps in VIDEO_FPS:
            seen = self._watch_at(video, frames, fps)
            if seen["attended"] == frames:
                break
        self.rig.restart_with(None, self.rig.fps)
        return seen

    def _watch_at(self, video: Path, frames: int, fps: float) -> dict[str, Any]:
        pulses, after = len(self.rig.board.pulses), self.rig.last_event()
        self.rig.restart_with(f"video:{video.resolve()}", fps, loop=False)
        self.rig.wait("the video ends", self._ended, frames / fps + 60)
        rows = [row for row in self.rig.events(after) if row["kind"] == "decision"]
        return {
            "frames": frames,
            "attended": self.rig.frames(),
            "decisions": len(rows),
            "opened": len(self.rig.board.pulses) - pulses,
            "refused_by_reason": dict(Counter(row["reason"] for row in rows)),
        }

    def _ended(self) -> bool:
        health = self.rig.health()
        return health is not None and "has ended" in str(health["cameras"])


def tenancy_of(person: Person) -> str:
    return f"T-{person.door}"


def total(tallies: dict[str, Tally]) -> Tally:
    both = Tally()
    for tally in tallies.values():
        both.shown += tally.shown
        both.opened_right += tally.opened_right
        both.opened_wrong += tally.opened_wrong
        both.not_opened += tally.not_opened
        both.refused_by_reason += tally.refused_by_reason
        both.misses += tally.misses
    return both


def run(
    folder: Path, models: Path, pad: Path, faces: Path, video: Path | None, broker: Kind, say: Say
) -> dict[str, Any]:
    """The whole run. ModelError, ValueError (one line) for what cannot be used."""
    people = find_people(faces)
    packs = folder / "models"
    packed = Models(install(models, packs / "face"), install(pad, packs / "pad"))
    pack = load_pack(packed.face)
    assert isinstance(pack, FacePack), "install gave a face pack"
    say(f"pack {pack.name}: threshold {pack.threshold} ({pack.threshold_reason})")
    with Rig(folder / "rig", packed, [p.door for p in people], broker_kind=broker) as rig:
        one = PeopleRun(rig, people, say)
        for person in people:
            one.enrol(person)
        one.wait_templates()
        before = one.show_all("shown")
        seen = one.watch(video) if video else None
        gone = [p for p in people if p.name in one.enrolled][:REVOKED_COUNT]
        for person in gone:
            one.revoke(person)
        after = one.show_all("after revocation")
    names = {person.name for person in gone}
    return _report(pack, one, before, after, names, seen)


def _report(
    pack: FacePack,
    one: PeopleRun,
    before: dict[str, Tally],
    after: dict[str, Tally],
    gone: set[str],
    video: dict[str, Any] | None,
) -> dict[str, Any]:
    first = total(before)
    revoked = total({name: tally for name, tally in after.items() if name in gone})
    rest = total({name: tally for name, tally in after.items() if name not in gone})
    ok = (
        len(one.enrolled) == len(one.people)
        and first.opened_right == first.shown
        and not (first.opened_wrong or revoked.opened_wrong or rest.opened_wrong)
        and revoked.not_opened == revoked.shown
        and rest.opened_right == rest.shown
        and not (video and video["opened"])
    )
    return {
        "ok": ok,
        "pack": pack.name,
        "threshold": pack.threshold,
        "threshold_reason": pack.threshold_reason,
        "people": len(one.people),
        "enrolled": len(one.enrolled),
        "shown": first.facts(),
        "by_person": {name: tally.facts() for name, tally in before.items()},
        "after_revocation": {"revoked": revoked.facts(), "others": rest.facts()},
        "video": video,
    }


def table(report: dict[str, Any]) -> str:
    """For a person: what was shown, what opened, what was refused and why."""
    head = f"{'':<28}{'shown':>7}{'right':>7}{'wrong':>7}{'none':>7}  refused by reason"
    rows = [(name, tally) for name, tally in report["by_person"].items()]
    rows += [
        ("all", report["shown"]),
        ("after revocation: revoked", report["after_revocation"]["revoked"]),
        ("after revocation: others", report["after_revocation"]["others"]),
    ]
    lines = [
        f"pack {report['pack']}, threshold {report['threshold']}, "
        f"{report['enrolled']} of {report['people']} people enrolled",
        head,
    ]
    for name, tally in rows:
        reasons = ", ".join(f"{why} {n}" for why, n in tally["refused_by_reason"].items()) or "-"
        lines.append(
            f"{name:<28}{tally['shown']:>7}{tally['opened_right']:>7}"
            f"{tally['opened_wrong']:>7}{tally['not_opened']:>7}  {reasons}"
        )
    if report["video"]:
        seen = report["video"]
        lines.append(
            f"video: {seen['attended']} of {seen['frames']} frames attended to, "
            f"{seen['opened']} opened, {seen['decisions']} decisions "
            f"{seen['refused_by_reason']}"
        )
    lines += [f"missed: {miss}" for miss in report["shown"]["misses"]]
    lines.append("every passage as it should be" if report["ok"] else "NOT as it should be")
    return "\n".join(lines)
