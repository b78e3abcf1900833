"""Modbus RTU without a wire: published frames, spoilt frames, and what the driver makes of silence.

The driver is driven by hand here: `Desk` plays the bus and the board, and owns the time.
"""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers import rtu
from drivers.base import (
    Event,
    InputChanged,
    Offline,
    Online,
    OrderDone,
    OrderFailed,
    OrderSent,
    Outcome,
    Unlock,
)
from drivers.errors import BadOrder, LinkDown, LockTimeout, OrderExpired, PeerFault
from drivers.modbus import ModbusRelay
from drivers.rtu import FLASH_OFF, FLASH_ON, READ_COILS, READ_INPUTS, WRITE_COIL, WRITE_COILS, flash

ADDRESS = 1
OUTPUTS = 8
LATE_S = 0.5  # longer than any reply may take at 9600 baud


class Desk:
    """A bus and a board in one hand: asks the driver, answers or not, moves the time."""

    def __init__(self, driver: ModbusRelay) -> None:
        self.driver = driver
        self.now = 100.0
        self.told: list[Event] = []
        self.sent: list[rtu.Request] = []

    def next(self) -> rtu.Request:
        """The request that the driver sends when it next wants to; moves the time to it."""
        if not self.driver.urgent:
            self.now = max(self.now, self.driver.next_deadline())
        frame = self.driver.tick(self.now)
        request = rtu.Request.decode(frame)
        assert request is not None, f"no request but {frame.hex()!r}"
        self.sent.append(request)
        return request

    def hear(self, data: bytes, after: float = 0.02) -> None:
        self.now += after
        self.driver.feed(data, self.now)

    def silence(self) -> None:
        """Nobody answers until the driver's patience is over."""
        self.now = self.driver.next_deadline()
        self.driver.gap(self.now)
        assert not self.driver.busy

    def online(self, unlocked: tuple[int, ...] = ()) -> None:
        """First contact: the board is read; then nothing is wanted for a while."""
        self.answer_read(unlocked)
        if self.driver.capabilities.inputs:
            request = self.next()
            self.hear(request.answer([False] * request.value))
        self.events()
        self.sent.clear()

    def answer_read(self, energised: tuple[int, ...] = ()) -> None:
        request = self.next()
        assert request.function == READ_COILS
        self.hear(request.answer([n in energised for n in range(request.value)]))

    def order(self, order_id: int = 7, output: int = 0, seconds: float = 3.0) -> Unlock:
        order = Unlock(order_id, output, seconds, valid_until=self.now + 2.0)
        self.driver.unlock(order)
        return order

    def unlock_request(self) -> rtu.Request:
        request = self.next()
        assert request.function == WRITE_COIL
        return request

    def events(self) -> list[Event]:
        self.told.extend(fresh := list(self.driver.events()))
        return fresh

    def end(self) -> Event | None:
        """How the order ended."""
        self.events()
        ends = [e for e in self.told if isinstance(e, OrderDone | OrderFailed)]
        assert len(ends) <= 1, "an order ends once"
        return ends[0] if ends else None

    def error(self) -> Exception:
        end = self.end()
        assert isinstance(end, OrderFailed)
        return end.error

    def unlocks(self) -> int:
        return sum(r.function == WRITE_COIL for r in self.sent)


@pytest.fixture
def desk() -> Desk:
    desk = Desk(ModbusRelay(ADDRESS, OUTPUTS, 0))
    desk.online()
    return desk


# --- frames ---


@pytest.mark.parametrize(
    ("request_", "published"),
    [
        # relay boards' manuals and published command tables
        (flash(1, 0, 0.7), "010502000007 8DB0"),
        (rtu.Request(1, WRITE_COIL, 0, 0xFF00), "01050000FF00 8C3A"),
        (rtu.Request(1, WRITE_COIL, 0, 0x0000), "010500000000 CDCA"),
        (rtu.Request(1, WRITE_COIL, 1, 0xFF00), "01050001FF00 DDFA"),
        (rtu.Request(255, WRITE_COIL, 0, 0xFF00), "FF050000FF00 99E4"),
        (rtu.Request(255, WRITE_COILS, 0, 8, (True,) * 8), "FF0F0000000801FF 301D"),
        (rtu.Request(255, WRITE_COILS, 0, 8, (False,) * 8), "FF0F000000080100 705D"),
        (rtu.Request(255, READ_INPUTS, 0, 8), "FF0200000008 6C12"),
    ],
)
def test_requests_are_the_published_bytes(request_: rtu.Request, published: str) -> None:
    assert request_.encode() == bytes.fromhex(published)


def test_published_replies_are_recognised() -> None:
    inputs = rtu.Request(255, READ_INPUTS, 0, 8).match(bytes.fromhex("FF02010151A0"))
    assert inputs == rtu.Reply(bits=(True,) + (False,) * 7)
    coils = rtu.Request(255, WRITE_COILS, 0, 8, (True,) * 8)
    assert coils.match(bytes.fromhex("FF0F0000000841D3")) == rtu.Reply()


def test_crc_of_the_check_string() -> None:
    assert rtu.crc16(b"123456789") == 0x4B37  # CRC-16/MODBUS in the catalogue of CRCs


@pytest.mark.parametrize("seconds", [0.0, -1.0, 0.09, 60.1, 6528.0, math.inf, math.nan])
def test_a_pulse_out_of_range_is_no_frame(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"0\.1 to 60 s"):
        flash(1, 0, seconds)


@given(st.floats(0.1, 60.0))
def test_no_pulse_comes_near_the_two_hours_of_coil_on(seconds: float) -> None:
    request = flash(1, 3, seconds)
    assert 1 <= request.value <= 600
    assert abs(request.value / 10 - seconds) <= 0.0500001


@st.composite
def requests(draw: st.DrawFn) -> rtu.Request:
    function = draw(st.sampled_from(rtu.FUNCTIONS))
    address, start = draw(st.integers(1, 255)), draw(st.integers(0, 0xFFFF))
    if function == WRITE_COIL:
        return rtu.Request(address, function, start, draw(st.integers(0, 0xFFFF)))
    bits = tuple(draw(st.lists(st.booleans(), min_size=1, max_size=64)))
    return rtu.Request(address, function, start, len(bits), bits if function == WRITE_COILS else ())


@given(requests())
def test_a_request_survives_the_line(request_: rtu.Request) -> None:
    assert rtu.Request.decode(request_.encode()) == request_


@given(requests(), st.randoms(use_true_random=False), st.binary(max_size=20))
def test_a_reply_is_found_behind_garbage(
    request_: rtu.Request, chance: random.Random, garbage: bytes
) -> None:
    reads = request_.function in (READ_COILS, READ_INPUTS)
    bits = tuple(chance.random() < 0.5 for _ in range(request_.value)) if reads else ()
    assert request_.match(garbage + request_.answer(bits)) == rtu.Reply(bits=bits)
    assert request_.match(garbage + request_.refusal(2)) == rtu.Reply(exception=2)


@pytest.mark.parametrize(
    "spoilt",
    [
        rtu.Request(2, WRITE_COIL, 0x0200, 7),  # another address
        rtu.Request(1, READ_COILS, 0x0200, 7),  # another function
        rtu.Request(1, WRITE_COIL, 0x0201, 7),  # another relay
        rtu.Request(1, WRITE_COIL, 0x0200, 8),  # another time
    ],
)
def test_a_reply_with_one_wrong_field_is_none(spoilt: rtu.Request) -> None:
    asked = rtu.Request(1, WRITE_COIL, 0x0200, 7)
    assert asked.match(asked.answer()) is not None
    assert asked.match(spoilt.encode()) is None


@settings(max_examples=2000)
@given(st.integers(0, 63), st.integers(1, 255))
def test_no_changed_byte_passes_the_crc(bit: int, mask: int) -> None:
    asked = flash(1, 0, 0.7)
    frame = bytearray(asked.answer())
    frame[bit // 8] ^= mask
    assert asked.match(bytes(frame)) is None


def test_mutated_replies_never_end_an_order() -> None:
    chance = random.Random(485)
    for _ in range(3000):
        desk = Desk(ModbusRelay(ADDRESS, OUTPUTS, 0))
        desk.online()
        desk.order()
        true = desk.unlock_request().answer()
        noise = mutated(true, chance)
        desk.hear(noise)
        assert true in noise or (desk.driver.busy and desk.end() is None), noise.hex()


def mutated(frame: bytes, chance: random.Random) -> bytes:
    """One to four spoilt places: flipped, dropped, doubled or foreign bytes, or a cut."""
    data = bytearray(frame)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data)) if data else 0
        match chance.randrange(5):
            case 0 if data:
                data[at] ^= 1 << chance.randrange(8)
            case 1 if data:
                del data[at]
            case 2 if data:
                data.insert(at, data[at])
            case 3:
                data[at:at] = chance.randbytes(chance.randint(1, 8))
            case _:
                del data[at:]
    return bytes(data)


# --- the driver ---


def test_the_board_is_read_before_the_first_order() -> None:
    desk = Desk(ModbusRelay(ADDRESS, OUTPUTS, 0))
    desk.order()
    desk.answer_read()
    assert desk.events() == [Online()]
    assert desk.unlock_request() == flash(ADDRESS, 0, 3.0)


def test_an_order_is_confirmed_by_reading_back(desk: Desk) -> None:
    desk.order(output=5)
    sent_at = desk.now
    desk.hear(desk.unlock_request().answer())
    assert desk.events() == [OrderSent(7, sent_at)]
    desk.answer_read((5,))
    assert desk.end() == OrderDone(7, Outcome.CONFIRMED)
    assert desk.driver.state(5) is True
    assert desk.driver.state(4) is False


@pytest.mark.parametrize(("late_s", "sent"), [(0.0, True), (0.001, False)])
def test_an_order_is_sent_until_valid_until_and_never_after(
    desk: Desk, late_s: float, sent: bool
) -> None:
    order = desk.order()
    desk.now = order.valid_until + late_s
    frame = desk.driver.tick(desk.now)
    request = rtu.Request.decode(frame)
    assert (request is not None and request.function == WRITE_COIL) is sent
    assert sent or isinstance(desk.error(), OrderExpired)


def test_a_lost_echo_of_a_carried_out_order_is_not_repeated(desk: Desk) -> None:
    desk.order()
    desk.unlock_request()
    desk.silence()
    desk.answer_read((0,))
    assert desk.end() == OrderDone(7, Outcome.CONFIRMED)
    assert desk.unlocks() == 1


def test_an_order_that_was_not_heard_is_repeated_once(desk: Desk) -> None:
    desk.order()
    for _ in range(2):
        desk.unlock_request()
        desk.silence()
        desk.answer_read(())
    assert isinstance(desk.error(), LockTimeout)
    assert desk.unlocks() == 2
    assert sum(isinstance(e, OrderSent) for e in desk.told) == 1


def test_no_repeat_after_valid_until(desk: Desk) -> None:
    desk.driver.unlock(Unlock(7, 0, 3.0, valid_until=desk.now + 0.1))
    desk.unlock_request()
    desk.silence()
    desk.answer_read(())
    desk.driver.tick(desk.now)
    assert isinstance(desk.error(), LockTimeout)
    assert desk.unlocks() == 1


def test_no_repeat_when_the_pulse_may_be_over_already(desk: Desk) -> None:
    desk.order(seconds=0.2)  # shorter than the patience: locked again proves nothing
    desk.unlock_request()
    desk.silence()
    desk.answer_read(())
    assert isinstance(desk.error(), LockTimeout)
    assert desk.unlocks() == 1


def test_unanswered_read_backs_leave_it_accepted(desk: Desk) -> None:
    desk.order()
    desk.hear(desk.unlock_request().answer())
    for _ in range(2):
        assert desk.next().function == READ_COILS
        desk.silence()
    assert desk.end() == OrderDone(7, Outcome.ACCEPTED)


def test_silence_all_along_is_a_timeout(desk: Desk) -> None:
    desk.order()
    desk.unlock_request()
    desk.silence()
    for _ in range(2):
        assert desk.next().function == READ_COILS
        desk.silence()
    assert isinstance(desk.error(), LockTimeout)
    assert desk.unlocks() == 1
    assert desk.driver.state(0) is None, "unknown, never closed"


def test_an_echo_that_the_output_contradicts_is_the_boards_fault(desk: Desk) -> None:
    desk.order()
    desk.hear(desk.unlock_request().answer())
    desk.answer_read(())
    assert isinstance(desk.error(), PeerFault)


def test_a_refusal_is_the_boards_fault(desk: Desk) -> None:
    desk.order()
    desk.hear(desk.unlock_request().refusal(2))
    assert isinstance(desk.error(), PeerFault)


def test_silence_inside_a_frame_discards_its_half(desk: Desk) -> None:
    desk.order()
    echo = desk.unlock_request().answer()
    desk.hear(echo[:5])
    desk.driver.gap(desk.now)
    desk.hear(echo[5:])
    assert desk.driver.busy, "two halves with silence between are not a frame"
    desk.hear(echo)
    assert not desk.driver.busy


def test_a_reply_in_two_reads_counts(desk: Desk) -> None:
    desk.order()
    echo = desk.unlock_request().answer()
    desk.hear(echo[:5])
    desk.hear(echo[5:])
    assert not desk.driver.busy


def test_a_late_echo_does_not_answer_the_read_back(desk: Desk) -> None:
    desk.order()
    echo = desk.unlock_request().answer()
    desk.silence()
    read = desk.next()
    desk.hear(echo)
    assert desk.driver.busy
    desk.hear(read.answer([True] + [False] * 7))
    assert desk.end() == OrderDone(7, Outcome.CONFIRMED)


def test_a_babbler_does_not_hold_the_turn_past_the_deadline(desk: Desk) -> None:
    desk.order()
    desk.unlock_request()
    desk.hear(b"\x01\x05" * 200, after=LATE_S)
    assert not desk.driver.busy


@pytest.mark.parametrize(
    ("output", "seconds"),
    [(8, 3.0), (-1, 3.0), (0, 0.0), (0, 60.1), (0, math.nan)],
)
def test_an_order_that_makes_no_sense_fails_unsent(desk: Desk, output: int, seconds: float) -> None:
    desk.driver.unlock(Unlock(7, output, seconds, desk.now + 2.0))
    assert isinstance(desk.error(), BadOrder)
    assert not desk.driver.urgent


def test_a_lost_port_fails_the_sent_as_unknown_and_the_waiting_as_unsent(desk: Desk) -> None:
    desk.order(order_id=7)
    desk.order(order_id=8)
    desk.unlock_request()
    desk.driver.lost("EIO")
    errors = {e.order_id: e.error for e in desk.events() if isinstance(e, OrderFailed)}
    assert isinstance(errors[7], LockTimeout)
    assert isinstance(errors[8], LinkDown)
    assert desk.driver.state(0) is None


def test_offline_after_three_misses_and_inputs_become_unknown() -> None:
    desk = Desk(ModbusRelay(ADDRESS, OUTPUTS, 2))
    desk.online()
    for _ in range(2):
        desk.next()
        desk.silence()
    assert desk.events() == []
    desk.next()
    desk.silence()
    told = desk.events()
    assert told[:2] == [InputChanged(0, None), InputChanged(1, None)]
    assert [type(e) for e in told[2:]] == [Offline]
    assert desk.driver.state(0) is None


def test_a_dead_device_is_asked_again_within_five_seconds(desk: Desk) -> None:
    asked = [desk.now]
    for _ in range(20):
        desk.next()
        asked.append(desk.now)
        desk.silence()
    pauses = [b - a for a, b in pairwise(asked)]
    assert max(pauses) <= 5.0
    assert pauses[-1] > 2.0, "and not much more often"
    desk.answer_read()
    assert desk.events()[-1] == Online()


def test_inputs_are_told_once_per_change() -> None:
    desk = Desk(ModbusRelay(ADDRESS, OUTPUTS, 3))
    desk.online()
    desk.answer_read()
    desk.hear(desk.next().answer([False, True, False]))
    assert desk.events() == [InputChanged(1, True)]
    desk.answer_read()
    desk.hear(desk.next().answer([False, True, False]))
    assert desk.events() == []


# --- boards without a timer, fail-safe locks ---


@pytest.fixture
def untimed() -> Desk:
    desk = Desk(ModbusRelay(ADDRESS, OUTPUTS, 0, timed=False))
    desk.online()
    return desk


def test_a_board_without_timer_is_relocked_by_us(untimed: Desk) -> None:
    desk = untimed
    desk.order(output=2, seconds=3.0)
    sent_at = desk.now
    desk.hear(desk.unlock_request().answer())
    desk.answer_read((2,))
    while (request := desk.next()).function == READ_COILS:
        desk.hear(request.answer([n == 2 for n in range(8)]))
    assert request == rtu.Request(ADDRESS, WRITE_COIL, 2, 0x0000)
    assert desk.now == pytest.approx(sent_at + 3.0)


def test_a_lost_relock_is_sent_until_it_is_answered(untimed: Desk) -> None:
    desk = untimed
    desk.driver.relock(2)
    for _ in range(2):
        assert desk.next() == rtu.Request(ADDRESS, WRITE_COIL, 2, 0x0000)
        desk.silence()
    desk.hear(desk.next().answer())
    assert desk.next().function == READ_COILS, "and then looked at"


def test_outputs_left_open_by_a_former_life_are_locked_in_one_frame() -> None:
    desk = Desk(ModbusRelay(ADDRESS, OUTPUTS, 0, timed=False))
    desk.answer_read((1, 6))
    request = desk.next()
    assert request == rtu.Request(ADDRESS, WRITE_COILS, 0, 8, (False,) * 8)
    desk.hear(request.refusal(1))  # no such function on this board
    assert desk.next() == rtu.Request(ADDRESS, WRITE_COIL, 1, 0x0000)


def test_a_timed_board_is_left_alone_by_first_contact() -> None:
    desk = Desk(ModbusRelay(ADDRESS, OUTPUTS, 0))
    desk.answer_read((1,))  # a pulse of our former life: the board ends it
    assert desk.next().function == READ_COILS
    assert desk.driver.state(1) is True


def test_settling_keeps_a_running_pulse_and_nothing_that_reads_locked(untimed: Desk) -> None:
    desk = untimed
    desk.order(output=2, seconds=30.0)
    desk.hear(desk.unlock_request().answer())
    desk.answer_read((2,))
    desk.answer_read((2, 4))  # somebody pressed the button of relay 4
    assert desk.next().bits == tuple(n == 2 for n in range(8))


def test_settling_never_unlocks_what_a_failed_order_left_locked(untimed: Desk) -> None:
    desk = untimed
    desk.order(output=2, seconds=30.0)
    for _ in range(2):
        desk.unlock_request()
        desk.silence()
        desk.answer_read(())
    assert isinstance(desk.error(), LockTimeout)
    desk.answer_read((4,))
    assert desk.next().bits == (False,) * 8


def test_a_fail_safe_lock_is_released_for_the_pulse() -> None:
    desk = Desk(ModbusRelay(ADDRESS, OUTPUTS, 0, fail_safe=True))
    desk.online(tuple(range(8)))  # energised: locked
    assert desk.driver.state(0) is False
    desk.order(seconds=0.8)
    request = desk.unlock_request()
    assert (request.start, request.value) == (FLASH_OFF, 8)
    desk.hear(request.answer())
    desk.answer_read(tuple(range(1, 8)))
    assert desk.end() == OrderDone(7, Outcome.CONFIRMED)


def test_a_timed_unlock_never_writes_a_coil_word(desk: Desk) -> None:
    desk.order(output=7, seconds=60.0)
    request = desk.unlock_request()
    assert (request.start, request.value) == (FLASH_ON + 7, 600)
