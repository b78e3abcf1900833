"""One door as a table, and as a machine that random inputs cannot talk into a second pulse."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

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

PULSE_S = 3.0
LOCKED, UNKNOWN = DoorState(Lock.LOCKED), DoorState(Lock.UNKNOWN)
OPEN = DoorState(Lock.UNLOCKED, 13.0)  # a pulse from 10 to 13
AGAIN = DoorState(Lock.UNLOCKED, 16.0)
SEND = (SendUnlock(PULSE_S),)

TABLE: list[tuple[str, DoorState, Input, float, DoorState, tuple[SendUnlock, ...]]] = [
    ("a grant sends", LOCKED, Granted(PULSE_S), 10.0, OPEN, SEND),
    ("a grant tries a silent lock", UNKNOWN, Granted(PULSE_S), 10.0, OPEN, SEND),
    ("a grant in a pulse sends nothing", OPEN, Granted(PULSE_S), 12.999, OPEN, ()),
    ("at its end a pulse is over", OPEN, Granted(PULSE_S), 13.0, AGAIN, SEND),
    ("time in a pulse", OPEN, Tick(), 12.999, OPEN, ()),
    ("time at its end", OPEN, Tick(), 13.0, LOCKED, ()),
    ("time on a locked door", LOCKED, Tick(), 99.0, LOCKED, ()),
    ("time tells nothing of a silent lock", UNKNOWN, Tick(), 99.0, UNKNOWN, ()),
    ("it says unlocked", LOCKED, LockAnswered(True), 10.0, DoorState(Lock.UNLOCKED, 10.0), ()),
    ("it confirms the pulse", OPEN, LockAnswered(True), 11.0, OPEN, ()),
    ("it says locked", OPEN, LockAnswered(False), 11.0, LOCKED, ()),
    ("it is back, locked", UNKNOWN, LockAnswered(False), 11.0, LOCKED, ()),
    ("it is lost", LOCKED, LockLost(), 11.0, UNKNOWN, ()),
    ("it is lost in a pulse", OPEN, LockLost(), 11.0, DoorState(Lock.UNKNOWN, 13.0), ()),
    ("and back", DoorState(Lock.UNKNOWN, 13.0), LockAnswered(True), 12.0, OPEN, ()),
]


@pytest.mark.parametrize(
    ("before", "event", "now", "after", "sent"), [r[1:] for r in TABLE], ids=[r[0] for r in TABLE]
)
def test_table(
    before: DoorState, event: Input, now: float, after: DoorState, sent: tuple[SendUnlock, ...]
) -> None:
    assert step(before, event, now) == (after, sent)


def test_the_table_has_every_state_and_every_input() -> None:
    assert {(row[1].lock, type(row[2])) for row in TABLE} >= {
        (lock, event)
        for lock in (Lock.LOCKED, Lock.UNLOCKED)
        for event in (Granted, Tick, LockAnswered, LockLost)
        if (lock, event) != (Lock.LOCKED, LockAnswered)
    }
    assert {(Lock.UNKNOWN, e) for e in (Granted, Tick, LockAnswered)} <= {
        (row[1].lock, type(row[2])) for row in TABLE
    }


def test_a_door_nobody_has_heard_of_is_unknown() -> None:
    assert DoorState().lock is Lock.UNKNOWN


class DoorMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.state, self.now = DoorState(), 1000.0
        self.pulse: tuple[float, float] | None = None  # the last one sent: from, until
        self.interrupted = False  # the lock said otherwise since

    def put(self, event: Input) -> tuple[SendUnlock, ...]:
        self.state, outputs = step(self.state, event, self.now)
        return outputs

    @rule(seconds=st.one_of(st.just(0.0), st.floats(0.001, 20.0)))
    def time_goes_on(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.state.lock is Lock.UNLOCKED)
    @rule()
    def the_pulse_ends(self) -> None:
        self.now = max(self.now, self.state.until)
        assert self.put(Tick()) == () and self.state.lock is Lock.LOCKED

    @rule(pulse_s=st.floats(0.1, 60.0))
    def granted(self, pulse_s: float) -> None:
        running = self.pulse is not None and self.now < self.pulse[1] and not self.interrupted
        sent = self.put(Granted(pulse_s))
        assert sent == (() if running else (SendUnlock(pulse_s),))
        if sent:
            self.pulse, self.interrupted = (self.now, self.now + pulse_s), False
        assert self.state.lock is Lock.UNLOCKED

    @rule(unlocked=st.booleans())
    def answered(self, unlocked: bool) -> None:
        was_unknown = self.state.lock is Lock.UNKNOWN
        assert self.put(LockAnswered(unlocked)) == ()
        assert self.state.lock is (Lock.UNLOCKED if unlocked else Lock.LOCKED)
        if not unlocked:
            self.interrupted = True
        elif was_unknown and self.pulse is not None and self.now < self.pulse[1]:
            self.interrupted = self.state.until != self.pulse[1]

    @rule()
    def lost(self) -> None:
        assert self.put(LockLost()) == ()
        assert self.state.lock is Lock.UNKNOWN
        self.interrupted = True

    @rule()
    def tick(self) -> None:
        before = self.state
        assert self.put(Tick()) == ()
        if before.lock is Lock.UNKNOWN:
            assert self.state.lock is Lock.UNKNOWN, "time alone heals nothing"
        if self.state.lock is Lock.UNLOCKED:
            assert self.now < self.state.until

    @invariant()
    def nothing_is_unlocked_longer_than_an_order_said(self) -> None:
        if self.state.lock is Lock.UNLOCKED and self.state.until > self.now:
            assert self.pulse is not None and self.state.until == self.pulse[1]


TestDoorMachine = DoorMachine.TestCase
