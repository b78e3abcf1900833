"""The bus thread: turns, the order queue, echoes, silence, hang-ups and the end.

Ports here are fakes that keep the promises of `BytePort`: a virtual board behind a recorder.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from listening import WAIT_S, Heard

from drivers import rtu
from drivers.base import (
    BytePort,
    Offline,
    Online,
    OrderDone,
    OrderFailed,
    OrderSent,
    Outcome,
    Unlock,
)
from drivers.errors import LinkDown, LockTimeout, OrderExpired
from drivers.modbus import ModbusRelay
from drivers.rs485 import Bus
from drivers.virtual import VirtualRelay

BAUD = 115200
ALIVE, DEAD = 1, 2


class Recorder:
    """A `BytePort` in front of another one: what went out, when, and how often it was closed."""

    def __init__(self, board: VirtualRelay, on_write: Callable[[bytes], None] | None = None):
        self.board = board
        self.frames: list[tuple[float, bytes]] = []
        self.history: list[str] = []
        self._on_write = on_write or board.write

    def open(self) -> BytePort:
        self.history.append("open")
        self.board.open()
        return self

    def read(self, timeout: float) -> bytes:
        return self.board.read(timeout)

    def write(self, data: bytes) -> None:
        self.frames.append((time.monotonic(), data))
        self._on_write(data)

    def close(self) -> None:
        self.history.append("close")
        self.board.close()

    def unlocks(self, address: int = ALIVE) -> int:
        return sum(f[0] == address and f[1] == rtu.WRITE_COIL for _, f in self.frames)


def relay(address: int = ALIVE, *, poll_s: float = 0.1) -> ModbusRelay:
    return ModbusRelay(address, 8, 0, baud=BAUD, poll_s=poll_s)


def order(order_id: int, output: int = 0, *, seconds: float = 1.0, good_for: float = 2.0) -> Unlock:
    return Unlock(order_id, output, seconds, time.monotonic() + good_for)


@contextmanager
def running(
    port: Recorder,
    devices: dict[str, ModbusRelay] | None = None,
    *,
    max_orders: int = 32,
    local_echo: bool = False,
) -> Iterator[tuple[Bus, Heard]]:
    heard = Heard()
    devices = devices or {"alive": relay()}
    bus = Bus(
        "t", port.open, devices, heard, time.monotonic, BAUD, max_orders, local_echo=local_echo
    )
    bus.start()
    try:
        yield bus, heard
    finally:
        bus.stop()
        assert "bus-t" not in {t.name for t in threading.enumerate()}


@pytest.fixture
def port() -> Recorder:
    return Recorder(VirtualRelay(ALIVE, 8, 0, time.monotonic))


# --- turns ---


def test_a_dead_neighbour_takes_one_slot_at_a_time(port: Recorder) -> None:
    devices = {"alive": relay(), "dead": relay(DEAD)}
    with running(port, devices) as (bus, heard):
        heard.wait(Online, "alive")
        for n in range(4):  # urgent for a dead device, until they expire
            bus.unlock("dead", order(n, good_for=1.0))
        heard.wait(OrderFailed, "dead", count=4)
        turns = [frame[0] for _, frame in port.frames]
    runs = [len(list(run)) for address, run in itertools.groupby(turns) if address == DEAD]
    assert len(runs) >= 3, "it was asked again and again"
    assert max(runs) == 1, "and the living one had its poll in between"


def test_an_order_passes_the_urgent_dead(port: Recorder) -> None:
    devices = {"dead": relay(DEAD), "alive": relay(poll_s=30.0)}
    with running(port, devices) as (bus, heard):
        heard.wait(Online, "alive")
        heard.wait(Offline, "dead")
        for n in range(4):
            bus.unlock("dead", order(n, good_for=1.5))
        before = len(port.frames)
        bus.unlock("alive", order(9))
        assert heard.end(9) == OrderDone(9, Outcome.CONFIRMED)
        waited = [f[0] for _, f in port.frames[before:]]
        assert waited.count(DEAD) <= 1, "at most the request that was on the line already"
        assert isinstance(heard.error(0), OrderExpired)


def test_an_order_goes_before_every_poll(port: Recorder) -> None:
    """Two silent boards and one with polls always due: whoever waited longest is not the order."""
    asked_dead = threading.Event()

    def watched(data: bytes) -> None:
        if data[0] == DEAD:
            asked_dead.set()
        port.board.write(data)

    port._on_write = watched
    devices = {"alive": relay(poll_s=0.0), "dead": relay(DEAD), "dead too": relay(DEAD + 1)}
    with running(port, devices) as (bus, heard):
        heard.wait(Offline, "dead")
        heard.wait(Offline, "dead too")
        for n in range(3):
            bus.unlock("dead", order(n, good_for=1.5))
            bus.unlock("dead too", order(10 + n, good_for=1.5))
        asked_dead.clear()
        assert asked_dead.wait(WAIT_S)
        before = len(port.frames)
        bus.unlock("alive", order(9))
        heard.wait(OrderSent, "alive")
        assert port.frames[before][1][:2] == bytes((ALIVE, rtu.WRITE_COIL))


def test_orders_for_a_dead_device_end_when_they_expire_with_nothing_sent(port: Recorder) -> None:
    with running(port, {"dead": relay(DEAD)}) as (bus, heard):
        bus.unlock("dead", order(1, good_for=0.4))
        assert isinstance(heard.error(1), OrderExpired)
        assert port.unlocks(DEAD) == 0


# --- the queue ---


def test_a_full_queue_says_so_and_has_room_again_after_an_end(port: Recorder) -> None:
    with running(port, max_orders=2) as (bus, heard):
        heard.wait(Online, "alive")
        port.board.mute(True)
        assert bus.unlock("alive", order(1, good_for=0.3))
        assert bus.unlock("alive", order(2, good_for=0.3))
        assert not bus.unlock("alive", order(3))
        heard.end(1)
        heard.end(2)
        assert bus.unlock("alive", order(4, good_for=0.3))
        heard.end(4)
        assert 3 not in {getattr(e, "order_id", None) for _, e in heard.events}


def test_an_unknown_device_is_the_callers_fault(port: Recorder) -> None:
    with running(port) as (bus, _), pytest.raises(KeyError):
        bus.unlock("nowhere", order(1))


def test_a_stopped_bus_ends_every_order_it_took(port: Recorder) -> None:
    with running(port) as (bus, heard):
        heard.wait(Online, "alive")
        port.board.mute(True)
        for n in range(5):
            assert bus.unlock("alive", order(n))
        bus.stop()
        ends = [e.order_id for _, e in heard.events if isinstance(e, OrderDone | OrderFailed)]
        assert sorted(ends) == list(range(5))
        assert not bus.unlock("alive", order(9))


# --- what left, and when ---


def test_sent_is_the_time_at_which_the_write_had_drained(port: Recorder) -> None:
    drained: list[float] = []

    def slow(data: bytes) -> None:
        if data[1] == rtu.WRITE_COIL:
            threading.Event().wait(0.05)  # the UART at work
            drained.append(time.monotonic())
        port.board.write(data)

    port._on_write = slow
    with running(port) as (bus, heard):
        heard.wait(Online, "alive")
        bus.unlock("alive", order(1))
        (sent,) = heard.wait(OrderSent, "alive")
    assert sent.at >= drained[0]


def test_a_frame_that_never_left_was_not_sent(port: Recorder) -> None:
    def pulled(data: bytes) -> None:
        if data[1] == rtu.WRITE_COIL:
            raise LinkDown("pulled out")
        port.board.write(data)

    port._on_write = pulled
    with running(port) as (bus, heard):
        heard.wait(Online, "alive")
        bus.unlock("alive", order(1))
        assert isinstance(heard.error(1), LockTimeout), "some of it may have left: unknown"
        assert OrderSent not in {type(e) for _, e in heard.events}


# --- local echo, silence, noise ---


@pytest.mark.parametrize(
    ("local_echo", "outcome"),
    [(True, None), (False, Outcome.ACCEPTED)],  # the control: our own echo passes for a reply
)
def test_our_own_echo_is_not_the_boards_reply(
    port: Recorder, local_echo: bool, outcome: Outcome | None
) -> None:
    def echoing(data: bytes) -> None:
        with port.board._line:
            port.board._replies += data
            port.board._line.notify_all()
        port.board.write(data)

    port._on_write = echoing
    with running(port, {"alive": relay(poll_s=30.0)}, local_echo=local_echo) as (bus, heard):
        heard.wait(Online, "alive")
        port.board.mute(True)  # the board is gone, the adapter still hears us
        bus.unlock("alive", order(1))
        end = heard.end(1)
        assert (end.outcome if isinstance(end, OrderDone) else None) is outcome


def test_half_a_frame_and_silence_is_told_to_the_driver(port: Recorder) -> None:
    gaps: list[float] = []

    class Watched(ModbusRelay):
        def gap(self, now: float) -> None:
            gaps.append(now)
            super().gap(now)

    def half(data: bytes) -> None:
        port.board.write(data)
        with port.board._line:
            del port.board._replies[3:]

    with running(port, {"alive": Watched(ALIVE, 8, 0, baud=BAUD, poll_s=30.0)}) as (bus, heard):
        heard.wait(Online, "alive")
        port._on_write = half
        asked = len(port.frames)
        bus.unlock("alive", order(1))
        heard.end(1)
        at = port.frames[asked][0]
    assert 0.02 <= gaps[0] - at < 0.2, "after 20 ms, long before the reply time is over"


def test_a_babbler_neither_opens_nor_hangs_the_bus(port: Recorder) -> None:
    noise = rtu.seal(b"\x01\x05\x02\x00\x00\x63") + b"\x01\x05\x02"  # a good frame, but not ours

    def babble(timeout: float) -> bytes:
        threading.Event().wait(min(timeout, 0.002))
        return noise

    with running(port) as (bus, heard):
        heard.wait(Online, "alive")
        port.read = babble  # type: ignore[method-assign]
        before = bus.ticked_mono
        bus.unlock("alive", order(1, good_for=1.0))
        assert isinstance(heard.error(1), LockTimeout | OrderExpired)
        assert bus.ticked_mono > before
        heard.wait(Offline, "alive")


def test_the_watchdog_is_fed_while_nothing_happens(port: Recorder) -> None:
    with running(port, {"alive": relay(poll_s=30.0)}) as (bus, heard):
        heard.wait(Online, "alive")
        at, pause = bus.ticked_mono, threading.Event()
        while bus.ticked_mono == at:
            assert time.monotonic() < at + 1.0, "every wait is at most 0.5 s"
            pause.wait(0.01)


# --- hang-up ---


def test_a_hang_up_closes_before_it_opens_again_and_fails_what_is_out(port: Recorder) -> None:
    with running(port) as (bus, heard):
        heard.wait(Online, "alive")
        port.board.mute(True)
        bus.unlock("alive", order(1))
        heard.wait(OrderSent, "alive")
        port.board.unplug()
        assert isinstance(heard.error(1), LockTimeout), "sent and unanswered: unknown"
        heard.wait(Offline, "alive")
        bus.unlock("alive", order(2))
        assert isinstance(heard.error(2), LinkDown)
        seen = len(port.frames)
        port.board.mute(False)
        port.board.replug()
        heard.wait(Online, "alive", count=2)
        assert port.frames[seen][1][1] == rtu.READ_COILS, "first it looks"
    opens = [i for i, what in enumerate(port.history) if what == "open"]
    assert port.history[opens[1] - 1] == "close"
    assert port.unlocks() == 1


def test_a_port_that_is_not_there_yet_is_waited_for(port: Recorder) -> None:
    port.board.unplug()
    with running(port) as (bus, heard):
        heard.wait(Offline, "alive")
        bus.unlock("alive", order(1))
        assert isinstance(heard.error(1), LinkDown)
        port.board.replug()
        heard.wait(Online, "alive")
