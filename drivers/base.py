"""The driver interface: what a lock can be told and what a device can report.

A driver is a protocol object for ONE device on a bus: no port, no thread, no clock, no logger.
Bytes go in with `feed`, silence with `gap`, time with `tick`; values come out. Times are seconds
of one monotonic clock that the bus passes in. A lock speaks in unlock / lock, never on / off:
whether the coil is energised is the driver's configuration (`fail_safe`).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


class Outcome(enum.Enum):
    """How far an order is known to have come."""

    SENT = "sent"  # the bytes left; the device does not answer
    ACCEPTED = "accepted"  # the device acknowledged the order
    CONFIRMED = "confirmed"  # the output was read back as unlocked


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a device can do; the rest of the house asks here, never by driver name."""

    outputs: int
    inputs: int
    timed_unlock: bool  # the board ends the pulse itself, so a dead daemon cannot leave it open
    confirms: bool  # the output can be read back
    secure: bool  # the wire is authenticated


@dataclass(frozen=True, slots=True)
class Unlock:
    """One order to one output. `order_id` comes back in the events about it."""

    order_id: int
    output: int  # 0-based
    seconds: float  # length of the pulse
    valid_until: float  # monotonic; after it the order is dropped, never sent


@dataclass(frozen=True, slots=True)
class OrderSent:
    """The last byte of the order's frame was handed to the port at `at` (monotonic seconds).

    Once per order, at its first transmission. A driver puts the time of its `tick`; the bus
    replaces it by the time at which the write had drained, and drops it when the write failed."""

    order_id: int
    at: float


@dataclass(frozen=True, slots=True)
class OrderDone:
    order_id: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class OrderFailed:
    order_id: int
    error: Exception  # a drivers.errors.LockError


@dataclass(frozen=True, slots=True)
class InputChanged:
    input: int
    active: bool | None  # None: unknown, never a guess


@dataclass(frozen=True, slots=True)
class Online:
    """The device answers (again)."""


@dataclass(frozen=True, slots=True)
class Offline:
    why: str


Event = OrderSent | OrderDone | OrderFailed | InputChanged | Online | Offline


class Driver(Protocol):
    """One device. The bus calls `tick` when it is this device's turn, sends what it returns, and
    feeds every byte received until `busy` is false again."""

    capabilities: Capabilities

    def unlock(self, order: Unlock) -> None:
        """Queue an order; it is sent by the next `tick`."""

    def relock(self, output: int) -> None:
        """Queue the end of a pulse, for devices without `timed_unlock`."""

    def state(self, output: int) -> bool | None:
        """Last read-back of an output: True = unlocked. None = not known."""

    @property
    def busy(self) -> bool:
        """True while a reply is outstanding: the bus gives the turn to nobody else."""

    @property
    def urgent(self) -> bool:
        """True while an order waits: the bus gives this device the next turn."""

    def tick(self, now: float) -> bytes:
        """Bytes to send now (b"" = nothing). Drops expired orders (OrderFailed in `events`)."""

    def feed(self, data: bytes, now: float) -> None: ...

    def gap(self, now: float) -> None:
        """The line fell silent inside a frame: whatever is half received is noise.

        From the deadline of the outstanding reply on, `gap` and `feed` also end the wait
        (`busy` turns false), so that a silent device costs its neighbours one slot only."""

    def lost(self, why: str) -> None:
        """The port is gone: fail what is outstanding as *unknown*, forget read-backs."""

    def next_deadline(self) -> float | None:
        """When `tick` wants to be called next, even without bytes; None = whenever idle. While
        `busy`: when the wait for the reply is over (never None)."""

    def events(self) -> Sequence[Event]:
        """What happened since the last call, oldest first; empties the list."""


class BytePort(Protocol):
    """What the bus needs of a serial port (pyserial, a pty, the virtual bus)."""

    def read(self, timeout: float) -> bytes:
        """All bytes there are, waiting at most `timeout` s for the first. LinkDown when gone."""

    def write(self, data: bytes) -> None:
        """Hand over all of `data` and return when it has left (drained). LinkDown when gone."""

    def close(self) -> None: ...


OpenPort = Callable[[], BytePort]  # raises LinkDown while the port is not there
DeviceEvent = Callable[[str, Event], None]  # (device name, event); called on the bus thread
