"""The straight line: what happens in which order, and what never happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from gatekit import SteeredClock
from numpy.typing import NDArray

from edge import roster as rules
from edge.live import Live
from edge.passage import Passage
from edge.policy import Policy
from edge.roster import Revoke, ZoneRoster
from edge.terms import (
    AccessEvent,
    DoorId,
    EventKind,
    Grant,
    GrantId,
    Liveness,
    PersonId,
    Reason,
    Record,
    Status,
    Vector,
    ZoneId,
)

ZONE, SECOND = ZoneId("z1"), ZoneId("z2")
MAIN, BACK, OTHER = DoorId("main"), DoorId("back"), DoorId("other")
MEI, BO = PersonId(b"m" * 16), PersonId(b"b" * 16)
SIZE = 8


def unit(index: int) -> Vector:
    vector = np.zeros(SIZE, np.float32)
    vector[index] = 1.0
    return vector


@dataclass(frozen=True)
class Seen:
    """A face: where it is, whose it is, and what the attack check will say."""

    box: NDArray[np.float32]
    vector: Vector
    verdict: Liveness = "live"


@dataclass
class Engine:
    """Sees what it is told to see."""

    seen: list[Seen] = field(default_factory=list)
    looked_for_life: int = 0

    def detect(self, image: NDArray[np.uint8]) -> list[Seen]:
        return self.seen

    def embed(self, image: NDArray[np.uint8], face: Seen) -> Vector:
        return face.vector

    def liveness(self, image: NDArray[np.uint8], face: Seen) -> Seen:
        self.looked_for_life += 1
        return face


@dataclass(frozen=True)
class Kept:
    kept: bool


@dataclass(frozen=True)
class Frame:
    camera: str
    image: NDArray[np.uint8]
    taken_mono: float


@dataclass
class Gate:
    """The passage with everything around it recorded in one list, in order."""

    clock: SteeredClock = field(default_factory=SteeredClock)
    engine: Engine = field(default_factory=Engine)
    happened: list[tuple[str, object]] = field(default_factory=list)
    kept: bool = True
    failed: float = float("-inf")
    while_recording: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.live = Live(SIZE)
        zone_of = {MAIN: ZONE, BACK: ZONE, OTHER: SECOND}
        self.passage = Passage(
            self.engine,
            self.live,
            Policy(zone_of, threshold=0.5),
            self,
            self,
            self.clock,
            {"cam": (MAIN,), "two": (MAIN, BACK), "both": (MAIN, OTHER)},
        )

    # the audit trail

    def record(self, event: AccessEvent) -> Kept:
        self.happened.append(("record", event))
        self.while_recording()
        return Kept(self.kept)

    def post(self, event: AccessEvent) -> None:
        self.happened.append(("post", event))

    # the locks

    def open(self, door: DoorId, *, taken_mono: float) -> None:
        self.happened.append(("open", door))

    def failed_mono(self, door: DoorId) -> float:
        return self.failed

    # what a test does

    def admit(self, zone: ZoneId, person: PersonId, index: int, *doors: DoorId) -> None:
        grant = Grant(GrantId("g1"), "T-1", frozenset(doors), 0.0, None)
        record = Record(person, 1, 1, Status.ACTIVE, (grant,), ())
        people = {**(self.live.view.zones[zone].people if zone in self.live.view.zones else {})}
        people[person] = record
        self.live.set_roster(ZoneRoster(zone, 1, 1, bytes(32), 0, people))
        self.live.set_templates(zone, {person: [unit(index)]})

    def show(self, *faces: Seen, camera: str = "cam", age: float = 0.0) -> list[Reason]:
        self.engine.seen = list(faces)
        frame = Frame(camera, np.zeros((8, 8, 3), np.uint8), self.clock.mono() - age)
        return [decision.reason for decision in self.passage.attend(frame)]

    def did(self) -> list[str]:
        return [what for what, _ in self.happened]

    def events(self) -> list[AccessEvent]:
        return [event for _, event in self.happened if isinstance(event, AccessEvent)]

    def opened(self) -> list[object]:
        return [door for what, door in self.happened if what == "open"]


def face(index: int, verdict: Liveness = "live", x: float = 0.0) -> Seen:
    return Seen(np.array([x, 0, x + 100, 120], np.float32), unit(index), verdict)


@pytest.fixture
def gate() -> Gate:
    gate = Gate()
    gate.admit(ZONE, MEI, 0, MAIN)
    return gate


def test_the_row_is_written_before_the_door_opens(gate: Gate) -> None:
    assert gate.show(face(0)) == [Reason.GRANTED]
    assert gate.did() == ["record", "open"]


def test_a_row_that_is_nowhere_opens_nothing(gate: Gate) -> None:
    gate.kept = False
    gate.show(face(0))
    assert gate.opened() == []
    assert gate.events()[-1].kind is EventKind.WITHDRAWN


def test_a_revocation_during_the_recording_withdraws_the_grant(gate: Gate) -> None:
    revoke = Revoke(MEI, 2, None)
    gate.while_recording = lambda: gate.live.set_ahead(ZONE, rules.deny([revoke]))
    gate.show(face(0))
    assert gate.opened() == []
    assert (gate.events()[-1].kind, gate.events()[-1].reason) == (
        EventKind.WITHDRAWN,
        Reason.REVOKED,
    )


def test_recording_that_takes_too_long_makes_the_picture_stale(gate: Gate) -> None:
    gate.while_recording = lambda: gate.clock.go(2.5)
    gate.show(face(0))
    assert gate.opened() == []
    gate.while_recording = lambda: None
    assert gate.show(face(0)) == [Reason.GRANTED], "the next picture may try again"


@pytest.mark.parametrize(("age", "reason"), [(2.0, "granted"), (2.01, "stale_frame")])
def test_the_age_of_the_picture(gate: Gate, age: float, reason: str) -> None:
    assert gate.show(face(0), age=age) == [Reason(reason)]


def test_a_stranger_is_refused_and_not_named(gate: Gate) -> None:
    assert gate.show(face(3)) == [Reason.UNKNOWN_FACE]
    assert gate.opened() == []
    assert gate.events()[0].person is None


def test_life_is_looked_for_only_in_a_face_that_matches(gate: Gate) -> None:
    gate.show(face(3))
    assert gate.engine.looked_for_life == 0
    gate.show(face(0, x=500))
    assert gate.engine.looked_for_life == 1


def test_an_attack_is_held_against_the_face_for_two_seconds(gate: Gate) -> None:
    assert gate.show(face(0, "attack")) == [Reason.PRESENTATION_ATTACK]
    gate.clock.go(0.9)
    assert gate.show(face(0)) == []  # said already; and not let in
    gate.clock.go(0.9)
    assert gate.show(face(0)) == []
    gate.clock.go(0.9)
    assert gate.show(face(0)) == [Reason.GRANTED]


def test_an_attack_elsewhere_in_the_picture_is_not_held_against_a_neighbour(gate: Gate) -> None:
    shown = gate.show(face(0, "attack"), face(0, x=500))
    assert sorted(shown) == [Reason.GRANTED, Reason.PRESENTATION_ATTACK]


def test_a_face_that_stays_opens_once(gate: Gate) -> None:
    for _ in range(12):  # at 0, 0.9 ... 9.0, 9.9 s
        gate.show(face(0))
        gate.clock.go(0.9)
    assert gate.opened() == [MAIN]
    gate.show(face(0))  # at 10.8 s it is decided aloud again
    assert gate.opened() == [MAIN, MAIN]


def test_a_lock_that_failed_is_tried_again_at_once(gate: Gate) -> None:
    gate.show(face(0))
    gate.clock.go(0.2)
    gate.failed = gate.clock.mono()
    gate.clock.go(0.1)
    assert gate.show(face(0)) == [Reason.GRANTED]
    assert gate.opened() == [MAIN, MAIN]


def test_another_person_in_the_same_place_gets_a_decision_of_their_own(gate: Gate) -> None:
    gate.admit(ZONE, BO, 1, MAIN)
    assert gate.show(face(0)) == [Reason.GRANTED]
    gate.clock.go(0.1)
    assert gate.show(face(1)) == [Reason.GRANTED]
    assert [event.person for event in gate.events()] == [MEI, BO]
    gate.clock.go(0.1)
    assert gate.show(face(3)) == [Reason.UNKNOWN_FACE]


def test_each_face_gets_its_decision(gate: Gate) -> None:
    shown = gate.show(face(0), face(3, x=300), face(4, x=600))
    assert sorted(shown) == [Reason.GRANTED, Reason.UNKNOWN_FACE, Reason.UNKNOWN_FACE]


def test_of_two_doors_the_one_held_opens(gate: Gate) -> None:
    gate.admit(ZONE, BO, 1, BACK)
    assert gate.show(face(1), camera="two") == [Reason.GRANTED]
    assert gate.opened() == [BACK]


def test_a_refusal_at_two_doors_is_told_once(gate: Gate) -> None:
    assert gate.show(face(3), camera="two") == [Reason.UNKNOWN_FACE]


def test_somebody_known_in_two_zones_does_not_compete_with_themselves(gate: Gate) -> None:
    gate.admit(SECOND, PersonId(b"M" * 16), 0, OTHER)
    assert gate.show(face(0), camera="both") == [Reason.GRANTED, Reason.GRANTED]
    assert gate.opened() == [MAIN, OTHER]


def test_nobody_of_another_zone_passes_here(gate: Gate) -> None:
    gate.admit(SECOND, BO, 1, MAIN)  # a grant that names our door, in another zone's roster
    assert gate.show(face(1)) == [Reason.UNKNOWN_FACE]
    assert gate.opened() == []
