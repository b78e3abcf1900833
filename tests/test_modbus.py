"""The relay board driver without a wire: spoilt frames, silence, lost echoes, expiry, relocking.

`Desk` plays the bus and the board, and owns the time.
"""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from desk import ADDRESS, OUTPUTS, Desk

from drivers import rtu
from drivers.base import (
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
from drivers.rtu import FLASH_OFF, FLASH_ON, READ_COILS, WRITE_COIL, WRITE_COILS, flash

LATE_S = 0.5  # longer than any reply may take at 9600 baud


@pytest.fixture
def desk() -> Desk:
    desk = Desk(ModbusRelay(ADDRESS, OUTPUTS, 0))
    desk.online()
    return desk


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
