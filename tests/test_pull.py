"""When a gate asks for the log: at once while that brings it on, else in its time. Both ends answer
at once, so a question that every answer repeats is a storm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from gatekit import GateBox, Office


@pytest.fixture
def office() -> Office:
    return Office()


@pytest.fixture
def gate(tmp_path: Path, office: Office) -> Iterator[GateBox]:
    made = GateBox(tmp_path, office)
    made.sent()
    yield made
    made.close()


def asked(gate: GateBox, office: Office) -> int:
    """How often the gate asks in one instant, when each question is answered at once."""
    for count in range(50):
        pulls = gate.pulls()
        if not pulls:
            return count
        gate.down(office.page(pulls[-1]))
        gate.sync._timers()
    raise AssertionError("it asks as fast as it is answered")


def test_without_the_key_the_same_page_is_not_asked_for_over_and_over(
    tmp_path: Path, office: Office
) -> None:
    gate = GateBox(tmp_path, office, keys=())
    office.put(1, 1)
    gate.sync._greet()
    assert asked(gate, office) == 1
    gate.clock.go(3)
    gate.sync._timers()
    assert gate.pulls() == [1], "but in its time"
    gate.close()


def test_another_history_is_not_asked_for_over_and_over(gate: GateBox, office: Office) -> None:
    gate.log(office.put(1, 1))
    office.put(2, 1)
    office.hashes[1] = bytes(32)
    gate.sync._greet()
    assert asked(gate, office) == 1


def test_on_a_full_disk_the_same_page_is_not_asked_for_over_and_over(
    gate: GateBox, office: Office
) -> None:
    office.put(1, 1)
    gate.store.full = True
    gate.sync._greet()
    assert asked(gate, office) == 1


def test_a_long_log_is_asked_for_without_a_pause(gate: GateBox, office: Office) -> None:
    for number in range(1, 7):
        office.put(number, 1)
    gate.sent()
    gate.down(office.page(1, 2))
    assert gate.pulls() == [3]
    gate.down(office.page(3, 2))
    assert gate.pulls() == [5]
