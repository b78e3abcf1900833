"""The simulated relay board and its wire: pace, faults, hang-up, and pymodbus's own client."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymodbus.client import ModbusSerialClient

from drivers import rtu
from drivers.errors import LinkDown
from drivers.serialport import SerialPort, open_serial
from drivers.virtual import Pulse, Relays
from hil.relayboard import RelayBoard
from hil.wire import DEVICE, PRODUCT, Faults, PacedPty

WAIT_S = 5.0
BAUD = 115200


def listen(port: SerialPort, count: int, timeout: float = WAIT_S) -> bytes:
    """`count` bytes, or what came within `timeout`."""
    heard, until = b"", time.monotonic() + timeout
    while len(heard) < count and (left := until - time.monotonic()) > 0:
        heard += port.read(left)
    return heard


@contextlib.contextmanager
def both_ends(wire: PacedPty, baud: int = BAUD) -> Iterator[tuple[SerialPort, SerialPort]]:
    product, device = open_serial(wire.path, baud), open_serial(wire.device_path(), baud)
    try:
        yield product, device
    finally:
        product.close()
        device.close()


# --- the wire ---


def test_bytes_take_the_time_of_the_baud_rate() -> None:
    with PacedPty(9600) as wire, both_ends(wire, 9600) as (product, device):
        start = time.monotonic()
        product.write(bytes(range(40)))
        assert listen(device, 40) == bytes(range(40))
        took = time.monotonic() - start
        assert took >= 40 * 10 / 9600
        assert [len(b.data) for b in wire.log] == [16, 16, 8], "in bites of the FIFO"
        assert all(b.source == PRODUCT for b in wire.log)
        assert wire.log[0].at - start >= 16 * 10 / 9600


def test_every_port_hears_every_other_but_not_itself() -> None:
    with PacedPty(BAUD, devices=2) as wire, both_ends(wire) as (product, first):
        second = open_serial(wire.device_path(2), BAUD)
        first.write(b"hello")
        assert listen(product, 5) == b"hello"
        assert listen(second, 5) == b"hello"
        assert first.read(0.0) == b""
        second.close()


def test_lost_bytes_are_lost_and_the_next_arrive() -> None:
    with PacedPty(BAUD) as wire, both_ends(wire) as (product, device):
        wire.lose(3, DEVICE)
        device.write(b"abcdef")
        assert listen(product, 3) == b"def"


def test_noise_is_the_same_for_the_same_seed() -> None:
    def heard(seed: int) -> bytes:
        faults = Faults(seed, drop=0.1, flip=0.1)
        with PacedPty(BAUD, faults=faults) as wire, both_ends(wire) as (product, device):
            product.write(bytes(200))
            listen(device, 1)  # the first bite; the rest is in the log when the wire closes
            wait_log(wire, 13)
            return b"".join(b.data for b in wire.log)

    assert heard(1) == heard(1)
    assert heard(1) != heard(2)
    assert 150 < len(heard(1)) < 200


def wait_log(wire: PacedPty, bites: int) -> None:
    pause, until = threading.Event(), time.monotonic() + WAIT_S
    while len(wire.log) < bites:
        assert time.monotonic() < until
        pause.wait(0.005)


def test_a_held_up_bite_comes_late_and_in_order() -> None:
    faults = Faults(delay=1.0, delay_s=0.05)
    with PacedPty(BAUD, faults=faults) as wire, both_ends(wire) as (product, device):
        start = time.monotonic()
        product.write(bytes(range(32)))
        assert listen(device, 32) == bytes(range(32))
        assert time.monotonic() - start >= 0.1


def test_a_hang_up_is_link_down_and_the_stable_name_comes_back(tmp_path: Path) -> None:
    link = tmp_path / "by-id"
    with PacedPty(BAUD, link) as wire, both_ends(wire) as (product, device):
        wire.unplug()
        with pytest.raises(LinkDown, match="gone"):
            product.read(WAIT_S)
        with pytest.raises(LinkDown, match="gone"):
            product.write(b"x")
        with pytest.raises(LinkDown, match="cannot open"):
            open_serial(str(link), BAUD)
        wire.replug()
        again = open_serial(str(link), BAUD)
        device.write(b"back")
        assert listen(again, 4) == b"back"
        again.close()
    assert not link.is_symlink()


def test_a_wire_leaves_no_descriptor_and_no_thread() -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (the count, not the paths)
    threads = threading.active_count()
    for _ in range(3):
        with RelayBoard(BAUD) as board:
            board.unplug()
            board.replug()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert threading.active_count() == threads


# --- the serial port ---


def test_a_port_is_ours_alone() -> None:
    with PacedPty(BAUD) as wire, both_ends(wire), pytest.raises(LinkDown, match="another"):
        open_serial(wire.path, BAUD)


@pytest.mark.parametrize("name", ["/dev/serial/by-id/nothing-here", "/dev/null"])
def test_what_is_no_port_is_link_down_in_one_line(name: str) -> None:
    with pytest.raises(LinkDown) as caught:
        open_serial(name, BAUD)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


# --- the board, spoken to by another's client ---


@pytest.fixture
def board() -> Iterator[RelayBoard]:
    with RelayBoard(BAUD, relays=8) as board:
        yield board


def test_pymodbus_client_switches_and_reads(board: RelayBoard) -> None:
    client = ModbusSerialClient(board.port, baudrate=BAUD, timeout=1)
    assert client.connect()
    client.write_coil(2, True, device_id=1)
    assert board.relay(2)
    client.write_coils(0, [True, False, False, True], device_id=1)
    assert client.read_coils(0, count=8, device_id=1).bits == [
        True, False, False, True, False, False, False, False,
    ]  # fmt: skip
    board.set_input(7, True)
    assert client.read_discrete_inputs(0, count=8, device_id=1).bits == [False] * 7 + [True]
    assert client.read_coils(0, count=64, device_id=1).isError()
    client.close()  # type: ignore[no-untyped-call]


def ask(port: SerialPort, request: rtu.Request, timeout: float = WAIT_S) -> rtu.Reply | None:
    port.write(request.encode())
    heard, until = b"", time.monotonic() + timeout
    while (left := until - time.monotonic()) > 0:
        heard += port.read(left)
        if (reply := request.match(heard)) is not None:
            return reply
    return None


def test_flash_is_one_pulse_that_the_board_ends(board: RelayBoard) -> None:
    port = open_serial(board.port, BAUD)
    before = time.monotonic()
    assert ask(port, rtu.flash(1, 3, 0.2)) == rtu.Reply()
    pulse = board.wait_pulse(0, WAIT_S)
    assert (pulse.output, pulse.seconds) == (3, 0.2)
    assert before <= pulse.start_mono <= time.monotonic()
    pause = threading.Event()
    while board.relay(3):
        assert time.monotonic() < pulse.start_mono + WAIT_S
        pause.wait(0.01)
    assert time.monotonic() - pulse.start_mono >= 0.2
    port.close()


def test_coil_on_as_a_flash_time_would_be_almost_two_hours(board: RelayBoard) -> None:
    port = open_serial(board.port, BAUD)
    ask(port, rtu.Request(1, rtu.WRITE_COIL, rtu.FLASH_ON, rtu.COIL_ON))
    assert board.pulses[0].seconds == 6528.0
    port.close()


@pytest.mark.parametrize("start", [8, rtu.FLASH_ON + 8, 0x0300])
def test_an_address_that_is_not_there_is_refused(board: RelayBoard, start: int) -> None:
    port = open_serial(board.port, BAUD)
    reply = ask(port, rtu.Request(1, rtu.WRITE_COIL, start, rtu.COIL_ON))
    assert reply == rtu.Reply(exception=2)
    assert board.pulses == []
    port.close()


def test_the_board_does_not_answer_for_its_neighbour(board: RelayBoard) -> None:
    port = open_serial(board.port, BAUD)
    assert ask(port, rtu.Request(2, rtu.READ_COILS, 0, 8), timeout=0.15) is None
    assert ask(port, rtu.Request(1, rtu.READ_COILS, 0, 8)) is not None
    port.close()


# --- the relays behind every simulated board, on a clock of their own ---


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_flash_ends_exactly_at_its_time_and_a_second_one_starts_it_anew() -> None:
    clock = Clock()
    relays = Relays(2, 0, clock)
    relays.flash(1, True, 3.0)
    clock.now = 2.0
    relays.flash(1, True, 3.0)
    clock.now = 4.999
    assert relays.coils() == [False, True]
    clock.now = 5.0
    assert relays.coils() == [False, False]
    assert relays.pulses == [Pulse(1, 0.0, 3.0), Pulse(1, 2.0, 3.0)]


def test_a_switched_pulse_gets_its_length_when_it_ends() -> None:
    clock = Clock()
    relays = Relays(2, 0, clock)
    relays.switch(0, True)
    relays.switch(0, True)
    clock.now = 2.5
    relays.switch(0, False)
    assert relays.pulses == [Pulse(0, 0.0, 2.5)]
