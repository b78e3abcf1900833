"""When a gate asks for the log: at once while that brings it on, else in its time. Both ends answer
at once, so a question that every answer repeats is a storm. And when it asks in vain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gatekit import ZONE, GateBox, Office

from edge import wire
from edge.terms import Reason
from edge.wire import Role, Type


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


def test_a_lost_question_is_asked_again_in_its_time(gate: GateBox, office: Office) -> None:
    office.put(1, 1)
    gate.beacon(office.beacon())
    assert gate.pulls() == [1]
    gate.clock.go(2.9)
    gate.sync._timers()
    assert gate.pulls() == []
    gate.clock.go(0.1)
    gate.sync._timers()
    assert gate.pulls() == [1]


def test_in_one_that_waits_for_a_key_the_part_before_it_is_applied(
    tmp_path: Path, office: Office
) -> None:
    gate = GateBox(tmp_path, office, keys=())
    office.revoke(3, 1)
    office.put(1, 1)
    gate.sent()
    gate.down(office.page(1))
    assert gate.roster.applied_seq == 1
    gate.down(office.zone_key("kr"))
    assert asked(gate, office) == 1
    assert gate.says(1) is Reason.GRANTED
    gate.close()


# --- the log is gone ---


def gone(office: Office, **fields: Any) -> bytes:
    said = wire.Gone.model_validate({"zone": ZONE, "epoch": 1, "floor_seq": 9, **fields})
    return office.sign(Type.GONE, said, Role.ROSTER, "gate-1")


def test_gone_is_a_fault_that_stands(gate: GateBox, office: Office) -> None:
    gate.log(office.put(1, 1))
    gate.down(gone(office))
    assert gate.replica.standing_faults() == {ZONE: "gone_needs_snapshot"}
    assert gate.says(1) is Reason.GRANTED, "nobody is locked out by it"


@pytest.mark.parametrize(
    ("fields", "why"),
    [({"floor_seq": 1}, "gone_old"), ({"epoch": 2}, "epoch"), ({"zone": "plum"}, "zone")],
)
def test_gone_of_what_we_have_or_of_elsewhere_is_dropped(
    gate: GateBox, office: Office, fields: dict[str, Any], why: str
) -> None:
    """A broker that keeps an old one must not have a healthy gate call for help."""
    gate.log(office.put(1, 1))
    gate.down(gone(office, **fields))
    assert (gate.sync.counts[why], gate.replica.standing_faults()) == (1, {})
