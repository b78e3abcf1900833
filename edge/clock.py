"""The only place that reads a clock. Everything else is handed `now`.

Wall time is for validity and the audit trail; boot time (monotonic, counting suspend) is for
pulses, ages, leases and retries.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def wall(self) -> float:
        """Seconds since the epoch, never before the floor that was last raised."""

    def mono(self) -> float:
        """Seconds of boot time."""

    def raise_floor(self, at: float) -> None:
        """A signed time was seen: the wall clock is not believed below it."""


class SystemClock:
    """The machine's clocks, with a floor under the wall clock (a dead RTC battery says 1970)."""

    def __init__(self, floor: float = 0.0) -> None:
        self._floor = floor

    def wall(self) -> float:
        return max(time.time(), self._floor)

    def mono(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def raise_floor(self, at: float) -> None:
        self._floor = max(self._floor, at)
