"""What every lock driver keeps on every line. Each test runs on the virtual bus and on a paced
pseudo-terminal with pymodbus's server at its end; a new driver adds a `Line` to LINES.

The board is watched at its relays, never through the driver.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from listening import WAIT_S, Heard

from drivers.base import (
    Driver,
    InputChanged,
    Offline,
    Online,
    OpenPort,
    OrderDone,
    OrderFailed,
    OrderSent,
    Outcome,
    Unlock,
)
from drivers.errors import BadOrder, LinkDown, OrderExpired
from drivers.modbus import ModbusRelay
from drivers.rs485 import Bus
from drivers.serialport import open_serial
from drivers.virtual import Relays, VirtualRelay
from hil.relayboard import RelayBoard
from hil.wire import DEVICE, PRODUCT, Faults

BAUD = 115200
PULSE_S = 0.6


class Board(Protocol):
    """The far end: relays to look at, and what can happen to it."""

    relays: Relays

    def mute(self, muted: bool) -> None: ...
    def unplug(self) -> None: ...
    def replug(self) -> None: ...


@dataclass
class Setup:
    bus: Bus
    board: Board
    heard: Heard
    driver: Driver

    def unlock(self, order_id: int = 1, output: int = 0, *, seconds: float = PULSE_S) -> None:
        order = Unlock(order_id, output, seconds, time.monotonic() + 2.0)
        assert self.bus.unlock("lock", order)

    def wait_coil(self, output: int, energised: bool) -> None:
        """A flash that ends wakes nobody: look at the relay until it is so."""
        pause = threading.Event()
        until = time.monotonic() + WAIT_S
        while self.board.relays.coils()[output] is not energised:
            assert time.monotonic() < until, f"relay {output} never became {energised}"
            pause.wait(0.005)


@dataclass(frozen=True)
class Line:
    name: str
    timed: bool
    real: bool  # a paced pseudo-terminal with pymodbus behind it; else the virtual bus

    def driver(self) -> Driver:
        return ModbusRelay(1, 16, 8, timed=self.timed, baud=BAUD, poll_s=0.1)


LINES = [
    Line("virtual-timed", timed=True, real=False),
    Line("virtual-untimed", timed=False, real=False),
    Line("pty-timed", timed=True, real=True),
    Line("pty-untimed", timed=False, real=True),
]


@pytest.fixture(params=LINES, ids=lambda line: line.name)
def line(request: pytest.FixtureRequest) -> Line:
    assert isinstance(request.param, Line)
    return request.param


@pytest.fixture
def far_end(line: Line, tmp_path: Path) -> Iterator[tuple[Board, OpenPort]]:
    if not line.real:
        virtual = VirtualRelay(1, 16, 8, time.monotonic)
        yield virtual, virtual.open
        return
    with RelayBoard(BAUD, link=tmp_path / "rs485") as board:
        yield board, functools.partial(open_serial, board.port, BAUD)


@pytest.fixture
def setup(line: Line, far_end: tuple[Board, OpenPort]) -> Iterator[Setup]:
    board, open_port = far_end
    heard, driver = Heard(), line.driver()
    bus = Bus("test", open_port, {"lock": driver}, heard, time.monotonic, BAUD)
    bus.start()
    heard.wait(Online)
    yield Setup(bus, board, heard, driver)
    bus.stop()
    assert "bus-test" not in {t.name for t in threading.enumerate()}


def test_an_unlock_is_one_pulse_of_the_right_length_on_the_right_output(setup: Setup) -> None:
    setup.unlock(output=5)
    assert setup.heard.end(1) == OrderDone(1, Outcome.CONFIRMED)
    assert setup.board.relays.coils()[5]
    setup.wait_coil(5, False)
    (pulse,) = setup.board.relays.pulses
    assert pulse.output == 5
    assert PULSE_S - 0.05 <= pulse.seconds <= PULSE_S + 1.0  # we are the timer of the untimed


def test_sent_is_told_before_done_and_before_the_relay_moved_back(setup: Setup) -> None:
    before = time.monotonic()
    setup.unlock()
    setup.heard.end(1)
    (sent,) = setup.heard.wait(OrderSent)
    assert before <= sent.at <= setup.board.relays.pulses[0].start_mono + 0.5
    kinds = [type(e) for _, e in setup.heard.events]
    assert kinds.index(OrderSent) < kinds.index(OrderDone)
    assert kinds.count(OrderSent) == 1


def test_an_expired_order_moves_nothing(setup: Setup) -> None:
    assert setup.bus.unlock("lock", Unlock(1, 0, PULSE_S, time.monotonic() - 0.001))
    end = setup.heard.end(1)
    assert isinstance(end, OrderFailed)
    assert isinstance(end.error, OrderExpired)
    setup.unlock(order_id=2, output=1)  # the line works, and nothing was left behind
    assert setup.heard.end(2) == OrderDone(2, Outcome.CONFIRMED)
    assert [p.output for p in setup.board.relays.pulses] == [1]


def test_an_impossible_order_moves_nothing(setup: Setup) -> None:
    setup.unlock(output=16)
    end = setup.heard.end(1)
    assert isinstance(end, OrderFailed)
    assert isinstance(end.error, BadOrder)
    assert setup.board.relays.pulses == []


def test_orders_are_carried_out_in_turn(setup: Setup) -> None:
    for n in range(8):
        setup.unlock(order_id=n, output=n, seconds=2.0)
    assert [setup.heard.end(n) for n in range(8)] == [
        OrderDone(n, Outcome.CONFIRMED) for n in range(8)
    ]
    assert [p.output for p in setup.board.relays.pulses] == list(range(8))


def test_relock_ends_a_pulse_early(setup: Setup) -> None:
    setup.unlock(output=3, seconds=30.0)
    setup.heard.end(1)
    setup.bus.relock("lock", 3)
    setup.wait_coil(3, False)


def test_an_input_is_told_when_it_changes(setup: Setup) -> None:
    setup.heard.wait(InputChanged, test=lambda e: e == InputChanged(6, False))
    setup.board.relays.set_input(6, True)
    setup.heard.wait(InputChanged, test=lambda e: e == InputChanged(6, True))


def test_a_silent_board_is_offline_unknown_and_served_again(setup: Setup) -> None:
    setup.board.mute(True)
    setup.heard.wait(Offline)
    assert setup.driver.state(0) is None
    setup.board.mute(False)
    seen = len(setup.heard.events)
    setup.heard.wait(Online, after=seen)
    setup.unlock()
    assert setup.heard.end(1) == OrderDone(1, Outcome.CONFIRMED)
    assert len(setup.board.relays.pulses) == 1


def test_an_unplugged_port_fails_orders_at_once_and_comes_back(setup: Setup) -> None:
    setup.board.unplug()
    setup.heard.wait(Offline)
    setup.unlock(order_id=1)
    end = setup.heard.end(1)
    assert isinstance(end, OrderFailed)
    assert isinstance(end.error, LinkDown)
    seen = len(setup.heard.events)
    setup.board.replug()
    setup.heard.wait(Online, after=seen)
    setup.unlock(order_id=2)
    assert setup.heard.end(2) == OrderDone(2, Outcome.CONFIRMED)
    assert len(setup.board.relays.pulses) == 1, "the failed order was not kept"


def test_a_stopped_bus_leaves_no_board_open_that_cannot_lock_itself(
    setup: Setup, line: Line
) -> None:
    setup.unlock(output=4, seconds=30.0)
    setup.heard.end(1)
    setup.bus.stop()
    setup.bus.stop()
    assert setup.board.relays.coils()[4] is line.timed
    assert not setup.bus.unlock("lock", Unlock(2, 0, PULSE_S, time.monotonic() + 2.0))


# --- a bad line: pymodbus behind a paced pseudo-terminal ---


def order(order_id: int, output: int = 0, *, seconds: float = 3.0) -> Unlock:
    return Unlock(order_id, output, seconds, time.monotonic() + 2.0)


@contextmanager
def on_the_line(
    faults: Faults | None = None, outputs: int = 8
) -> Iterator[tuple[RelayBoard, Bus, Heard]]:
    heard = Heard()
    with RelayBoard(BAUD, relays=outputs, faults=faults) as board:
        bus = Bus(
            "t",
            lambda: open_serial(board.port, BAUD),
            {"lock": ModbusRelay(1, outputs, 0, baud=BAUD, poll_s=30.0)},
            heard,
            time.monotonic,
            BAUD,
        )
        bus.start()
        try:
            heard.wait(Online)
            yield board, bus, heard
        finally:
            bus.stop()


def test_a_lost_echo_is_one_execution() -> None:
    with on_the_line() as (board, bus, heard):
        board.wire.lose(8, DEVICE)  # the echo, and nothing else
        bus.unlock("lock", order(1, seconds=3.0))
        assert heard.end(1) == OrderDone(1, Outcome.CONFIRMED)
        assert len(board.pulses) == 1


def test_a_lost_order_is_repeated_and_executed_once() -> None:
    with on_the_line() as (board, bus, heard):
        board.wire.lose(8, PRODUCT)  # the board never hears it
        bus.unlock("lock", order(1, seconds=3.0))
        assert heard.end(1) == OrderDone(1, Outcome.CONFIRMED)
        assert len(board.pulses) == 1


def test_garbage_before_the_echo_is_passed_over() -> None:
    with on_the_line() as (board, bus, heard):
        board.wire.inject(b"\x01\x05\x02\xff\x00\x01")
        bus.unlock("lock", order(1, seconds=3.0))
        assert isinstance(heard.end(1), OrderDone | OrderFailed)
        bus.unlock("lock", order(2, output=1, seconds=3.0))
        assert heard.end(2) == OrderDone(2, Outcome.CONFIRMED)
        assert [p.output for p in board.pulses].count(1) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_on_a_noisy_line_confirmed_means_executed_and_nothing_runs_twice(seed: int) -> None:
    """One byte in a hundred is lost or bent. Every order has an output of its own, whose pulse
    outlives the test."""
    with on_the_line(Faults(seed, drop=0.005, flip=0.005, delay=0.02), 40) as (board, bus, heard):
        confirmed = 0
        for n in range(40):
            bus.unlock("lock", order(n, output=n, seconds=60.0))
            end = heard.end(n)
            ran = [p.output for p in board.pulses].count(n)
            assert ran <= 1
            if isinstance(end, OrderDone) and end.outcome is Outcome.CONFIRMED:
                assert ran == 1
                confirmed += 1
        assert confirmed >= 30
