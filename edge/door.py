"""One door: `step(state, input, now) -> (state, outputs)`. Pure and table-driven.

This issue has the unlock pulse. Held, forced, exit request, lockdown, schedules and fire release
come with the locks issue: as further states and inputs of this machine, nowhere else. Times are
monotonic seconds.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Lock(enum.StrEnum):
    LOCKED = "locked"
    UNLOCKED = "unlocked"  # a pulse runs, until `until`
    UNKNOWN = "unknown"  # the lock did not answer: never taken for locked


@dataclass(frozen=True, slots=True)
class DoorState:
    lock: Lock = Lock.UNKNOWN
    until: float = 0.0


@dataclass(frozen=True, slots=True)
class Granted:
    """A decision opened this door for `pulse_s` seconds."""

    pulse_s: float


@dataclass(frozen=True, slots=True)
class LockAnswered:
    """The lock confirmed what it does: True = unlocked."""

    unlocked: bool


@dataclass(frozen=True, slots=True)
class LockLost:
    """The lock, its bus or its cable does not answer. A pulse that runs there runs on."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time went on."""


@dataclass(frozen=True, slots=True)
class SendUnlock:
    """Output: order a pulse of the lock."""

    pulse_s: float


Input = Granted | LockAnswered | LockLost | Tick


def step(state: DoorState, event: Input, now: float) -> tuple[DoorState, tuple[SendUnlock, ...]]:
    """A grant during a running pulse extends nothing: one pulse per passage."""
    running = state.lock is Lock.UNLOCKED and now < state.until
    if isinstance(event, Granted):
        if running:
            return state, ()
        return DoorState(Lock.UNLOCKED, now + event.pulse_s), (SendUnlock(event.pulse_s),)
    if isinstance(event, LockLost):
        return DoorState(Lock.UNKNOWN, state.until), ()
    if isinstance(event, LockAnswered):
        lock = Lock.UNLOCKED if event.unlocked else Lock.LOCKED
        return DoorState(lock, max(state.until, now) if event.unlocked else 0.0), ()
    return (DoorState(Lock.LOCKED) if state.lock is Lock.UNLOCKED and not running else state), ()
