"""From a door to its relay: orders that expire, one pulse per passage, and what is told of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from gatekit import SteeredClock

from drivers.base import Offline, Online, OrderDone, OrderFailed, OrderSent, Outcome, Unlock
from drivers.errors import LockTimeout, OrderExpired
from edge import config as settings
from edge.locks import ORDER_VALID_S, Locks
from edge.terms import AccessEvent, DoorId, EventKind

ROOT = Path(__file__).parent.parent
MAIN = DoorId("main")


class Bus:
    """Takes orders, or refuses them; reads back what it is told to."""

    def __init__(self) -> None:
        self.orders: list[tuple[str, Unlock]] = []
        self.full = False
        self.reads: bool | None = None

    def unlock(self, device: str, order: Unlock) -> bool:
        if not self.full:
            self.orders.append((device, order))
        return not self.full


class Rig:
    def __init__(self) -> None:
        self.clock, self.bus = SteeredClock(), Bus()
        self.events: list[AccessEvent] = []
        self.sent: list[tuple[DoorId, float]] = []
        self.locks = Locks(
            settings.load(ROOT / "config" / "gate.example.toml"),
            self.bus.unlock,
            self.events.append,
            self.clock,
            lambda door, seconds: self.sent.append((door, seconds)),
            lambda device, output: self.bus.reads,
        )

    def open(self, age: float = 0.1) -> Unlock | None:
        before = len(self.bus.orders)
        self.locks.open(MAIN, taken_mono=self.clock.mono() - age)
        return self.bus.orders[-1][1] if len(self.bus.orders) > before else None

    def kinds(self) -> list[EventKind]:
        return [event.kind for event in self.events]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_an_order_names_the_output_and_when_it_is_too_late(rig: Rig) -> None:
    order = rig.open(age=0.5)
    assert order
    assert (rig.bus.orders[0][0], order.output, order.seconds) == ("relay-1", 0, 3.0)
    assert order.valid_until == rig.clock.mono() - 0.5 + ORDER_VALID_S, "from the picture on"


def test_one_pulse_per_passage(rig: Rig) -> None:
    assert rig.open()
    rig.clock.go(2.9)
    assert rig.open() is None
    rig.clock.go(0.1)
    assert rig.open()


def test_the_time_from_frame_to_wire_is_told(rig: Rig) -> None:
    order = rig.open(age=0.05)
    assert order
    rig.locks.on_event("relay-1", OrderSent(order.order_id, rig.clock.mono() + 0.01))
    rig.locks.on_event("relay-1", OrderDone(order.order_id, Outcome.CONFIRMED))
    assert rig.sent == [(MAIN, pytest.approx(0.06))]
    assert rig.events[0].facts == {"outcome": "confirmed", "frame_to_unlock_ms": 60.0}


def test_a_time_that_was_not_taken_is_not_told(rig: Rig) -> None:
    order = rig.open()
    assert order
    rig.locks.on_event("relay-1", OrderDone(order.order_id, Outcome.ACCEPTED))
    assert rig.events[0].facts == {"outcome": "accepted"}


def test_an_order_that_came_too_late_may_be_given_anew(rig: Rig) -> None:
    order = rig.open()
    assert order
    rig.clock.go(2.0)
    rig.locks.on_event("relay-1", OrderFailed(order.order_id, OrderExpired("2.0 s")))
    assert rig.kinds() == [EventKind.LOCK_FAILED]
    assert rig.events[0].facts == {"why": "OrderExpired: 2.0 s"}
    assert rig.open()


def test_a_cable_that_goes_during_a_pulse_leaves_the_lock_unknown(rig: Rig) -> None:
    order = rig.open()
    assert order
    rig.locks.on_event("relay-1", OrderDone(order.order_id, Outcome.CONFIRMED))
    assert rig.locks.states() == {MAIN: "unlocked"}
    rig.locks.on_event("relay-1", Offline("unplugged"))
    assert rig.locks.states() == {MAIN: "unknown"}


def test_a_lock_that_does_not_answer_is_unknown_and_may_be_tried_again(rig: Rig) -> None:
    order = rig.open()
    assert order
    rig.clock.go(1)
    rig.locks.on_event("relay-1", OrderFailed(order.order_id, LockTimeout("no reply")))
    assert rig.kinds() == [EventKind.LOCK_FAILED]
    assert rig.locks.failed_mono(MAIN) == rig.clock.mono()
    assert rig.locks.states() == {MAIN: "unknown"}
    assert rig.open()


def test_a_full_bus_is_a_failed_order(rig: Rig) -> None:
    rig.bus.full = True
    assert rig.open() is None
    assert rig.kinds() == [EventKind.LOCK_FAILED]
    assert rig.locks.failed_mono(MAIN) == rig.clock.mono()


def test_going_and_coming_back_is_told_once_each(rig: Rig) -> None:
    for event in (Online(), Online(), Offline("mute"), Offline("mute"), Online()):
        rig.locks.on_event("relay-1", event)
    assert rig.kinds() == [EventKind.LOCK_ONLINE, EventKind.LOCK_OFFLINE, EventKind.LOCK_ONLINE]


def test_a_device_not_heard_yet_is_degraded(rig: Rig) -> None:
    assert rig.locks.degraded() == ["lock_unreachable: relay-1: not heard yet"]
    rig.locks.on_event("relay-1", Online())
    assert rig.locks.degraded() == []
    rig.locks.on_event("relay-1", Offline("unplugged"))
    assert rig.locks.degraded() == ["lock_unreachable: relay-1: unplugged"]


@pytest.mark.parametrize(
    ("read", "state"), [(None, "unknown"), (False, "locked"), (True, "unlocked")]
)
def test_what_is_not_known_is_not_guessed(rig: Rig, read: bool | None, state: str) -> None:
    rig.bus.reads = read
    assert rig.locks.states() == {MAIN: state}


def test_an_answer_to_an_order_of_another_life_is_ignored(rig: Rig) -> None:
    rig.locks.on_event("relay-1", OrderDone(4711, Outcome.CONFIRMED))
    rig.locks.on_event("relay-1", OrderFailed(4712, LockTimeout("no reply")))
    assert rig.events == []
