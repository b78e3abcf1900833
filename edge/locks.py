"""From a door's name to its bus, device and output: orders that expire, one door state machine
each. `open` is called by the vision thread, `on_event` by the bus threads; one short lock between
them. Nothing here decides who may pass.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from drivers.base import (
    Event,
    Offline,
    Online,
    OrderDone,
    OrderFailed,
    OrderSent,
    Unlock,
)
from edge.clock import Clock
from edge.config import Config
from edge.door import (
    DoorState,
    Granted,
    Input,
    Lock,
    LockAnswered,
    LockLost,
    SendUnlock,
    Tick,
    step,
)
from edge.terms import AccessEvent, DoorId, EventKind

# Credential to actuator within 2 s (GB 50396), counted from the picture: an order that could not
# leave by then never does.
ORDER_VALID_S = 2.0

log = logging.getLogger("edge.locks")


ReadBack = Callable[[str, int], bool | None]  # (device, output): unlocked, as last read
Send = Callable[[str, Unlock], bool]  # (device, order) to its bus; False when its queue is full


@dataclass
class _Door:
    device: str
    output: int
    pulse_s: float
    state: DoorState = field(default_factory=DoorState)
    failed_mono: float = float("-inf")


@dataclass(slots=True)
class _Order:
    door: DoorId
    taken_mono: float
    sent_s: float | None = None  # camera frame taken to the last byte handed over


class Locks:
    """`on_sent(door, seconds)`: camera frame taken to the last byte of the order, for metrics."""

    def __init__(
        self,
        config: Config,
        send: Send,
        post: Callable[[AccessEvent], object],
        clock: Clock,
        on_sent: Callable[[DoorId, float], None],
        read_back: ReadBack = lambda device, output: None,
    ) -> None:
        self._read_back = read_back
        self._order, self._clock, self._post, self._on_sent = send, clock, post, on_sent
        self._doors = {
            DoorId(door.id): _Door(door.device, door.output, door.pulse_s) for door in config.door
        }
        self._orders: dict[int, _Order] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._offline: dict[str, str] = {device.id: "not heard yet" for device in config.device}

    def open(self, door: DoorId, *, taken_mono: float) -> None:
        now = self._clock.mono()
        with self._lock:
            for output in self._step(door, Granted(self._doors[door].pulse_s), now):
                self._send(door, output, taken_mono)

    def failed_mono(self, door: DoorId) -> float:
        return self._doors[door].failed_mono

    def degraded(self) -> list[str]:
        """Devices that do not answer, for `/healthz`."""
        with self._lock:
            return [f"lock_unreachable: {name}: {why}" for name, why in self._offline.items()]

    def states(self) -> dict[str, str]:
        now = self._clock.mono()
        with self._lock:
            for name, door in self._doors.items():
                self._step(name, Tick(), now)
                seen = self._read_back(door.device, door.output)
                if door.state.lock is Lock.UNKNOWN and seen is not None:
                    self._step(name, LockAnswered(seen), now)
            return {name: door.state.lock.value for name, door in self._doors.items()}

    def _step(self, name: DoorId, event: Input, now: float) -> tuple[SendUnlock, ...]:
        door = self._doors[name]
        door.state, outputs = step(door.state, event, now)
        return outputs

    def _send(self, name: DoorId, output: SendUnlock, taken_mono: float) -> None:
        door, number = self._doors[name], next(self._numbers)
        valid_until = taken_mono + ORDER_VALID_S
        order = Unlock(number, door.output, output.pulse_s, valid_until)
        self._orders[number] = _Order(name, taken_mono)
        if not self._order(door.device, order):
            self._failed(number, "the bus has too many orders waiting")

    # --- bus threads ---

    def on_event(self, device: str, event: Event) -> None:
        with self._lock:
            if isinstance(event, OrderSent):
                order = self._orders.get(event.order_id)
                if order:
                    order.sent_s = event.at - order.taken_mono
                    self._on_sent(order.door, order.sent_s)
            elif isinstance(event, OrderDone):
                self._done(event)
            elif isinstance(event, OrderFailed):
                self._failed(event.order_id, f"{type(event.error).__name__}: {event.error}")
            elif isinstance(event, Online):
                self._standing(device, EventKind.LOCK_ONLINE, None)
            elif isinstance(event, Offline):
                self._standing(device, EventKind.LOCK_OFFLINE, event.why)

    def _done(self, event: OrderDone) -> None:
        order = self._orders.pop(event.order_id, None)
        if order is None:
            return
        self._step(order.door, LockAnswered(unlocked=True), self._clock.mono())
        facts: dict[str, str | float] = {"outcome": event.outcome.value}
        if order.sent_s is not None:
            facts["frame_to_unlock_ms"] = round(order.sent_s * 1000, 1)
        self._tell(EventKind.UNLOCKED, order.door, **facts)

    def _failed(self, number: int, why: str) -> None:
        order = self._orders.pop(number, None)
        if order is None:
            return
        now = self._clock.mono()
        self._doors[order.door].failed_mono = now
        self._step(order.door, LockLost(), now)
        self._tell(EventKind.LOCK_FAILED, order.door, why=why)
        log.warning("lock did not take the order", extra={"door": order.door, "why": why})

    def _standing(self, device: str, kind: EventKind, why: str | None) -> None:
        known = self._offline.get(device)
        if why is None:
            self._offline.pop(device, None)
        else:
            self._offline[device] = why
            now = self._clock.mono()
            for name, door in self._doors.items():
                if door.device == device:
                    self._step(name, LockLost(), now)
        if (known is None) == (why is None):
            return
        facts: dict[str, str | int | float | bool] = {"device": device}
        if why:
            facts["why"] = why
        self._post(AccessEvent(kind=kind, at=self._clock.wall(), facts=facts))

    def _tell(self, kind: EventKind, door: DoorId, **facts: str | int | float | bool) -> None:
        self._post(AccessEvent(kind=kind, at=self._clock.wall(), door=door, facts=facts))
