"""The virtual bus: a relay board in memory, for running the whole product without hardware.

A product feature, not a test helper: it speaks real Modbus RTU bytes, its timers run on the clock
it is given, and it passes the same conformance suite as a board on a line. Nothing in here knows
the driver; it shares only the frames (`rtu`).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass

from drivers.errors import LinkDown
from drivers.rtu import (
    COIL_OFF,
    COIL_ON,
    FLASH_OFF,
    FLASH_ON,
    READ_COILS,
    READ_INPUTS,
    WRITE_COIL,
    Request,
)

ILLEGAL_ADDRESS = 2
ILLEGAL_VALUE = 3
PULSES_MAX = 10_000  # kept; a demonstration runs for weeks


@dataclass(frozen=True, slots=True)
class Pulse:
    """A relay left its resting state. `seconds` is what was ordered; infinite for a plain switch
    that nobody has switched back yet, then the time it took."""

    output: int  # 0-based
    start_mono: float
    seconds: float


class Relays:
    """The coils, timers and inputs of a board. Thread-safe; every change wakes `changed`.

    A coil rests released (`resting=True`: energised, as on a board for fail-safe locks).
    """

    def __init__(
        self, outputs: int, inputs: int, clock: Callable[[], float], *, resting: bool = False
    ) -> None:
        self.changed = threading.Condition()
        self._clock = clock
        self._resting = resting
        self._coils = [resting] * outputs
        self._until = [math.inf] * outputs  # when a flash ends; infinite: no timer runs
        self._inputs = [False] * inputs
        self._pulses: list[Pulse] = []

    @property
    def pulses(self) -> list[Pulse]:
        """A copy, oldest first."""
        with self.changed:
            return list(self._pulses)

    def coils(self) -> list[bool]:
        with self.changed:
            return [self._coil(n) for n in range(len(self._coils))]

    def inputs(self) -> list[bool]:
        with self.changed:
            return list(self._inputs)

    def set_input(self, n: int, active: bool) -> None:
        with self.changed:
            self._inputs[n] = active
            self.changed.notify_all()

    def switch(self, n: int, energised: bool) -> None:
        """A plain write: stays until the next one, and ends a running flash."""
        with self.changed:
            before = self._coil(n)
            self._coils[n], self._until[n] = energised, math.inf
            if before == self._resting != energised:
                self._record(Pulse(n, self._clock(), math.inf))
            elif before != self._resting == energised:
                self._close(n)
            self.changed.notify_all()

    def flash(self, n: int, energised: bool, seconds: float) -> None:
        """To `energised` for `seconds`, then back; a second flash starts the timer anew."""
        with self.changed:
            self._coils[n] = energised
            self._until[n] = self._clock() + seconds
            self._record(Pulse(n, self._clock(), seconds))
            self.changed.notify_all()

    def wait_pulse(self, n_before: int, timeout: float) -> Pulse:
        """The first pulse after the first `n_before`; TimeoutError when none comes."""
        with self.changed:
            if not self.changed.wait_for(lambda: len(self._pulses) > n_before, timeout):
                raise TimeoutError(f"no pulse within {timeout:g} s")
            return self._pulses[n_before]

    def _coil(self, n: int) -> bool:
        if self._clock() >= self._until[n]:
            self._coils[n], self._until[n] = not self._coils[n], math.inf
        return self._coils[n]

    def _record(self, pulse: Pulse) -> None:
        self._pulses.append(pulse)
        del self._pulses[:-PULSES_MAX]

    def _close(self, n: int) -> None:
        """Output `n` was switched back: an open-ended pulse gets its length."""
        for i in range(len(self._pulses) - 1, -1, -1):
            pulse = self._pulses[i]
            if pulse.output == n:
                if pulse.seconds == math.inf:
                    took = self._clock() - pulse.start_mono
                    self._pulses[i] = Pulse(n, pulse.start_mono, took)
                return


class VirtualRelay:
    """One board alone on a line, as a `BytePort`. `open` is the `OpenPort` to give to the bus."""

    def __init__(
        self,
        address: int,
        outputs: int,
        inputs: int,
        clock: Callable[[], float],
        *,
        resting: bool = False,
    ) -> None:
        self.relays = Relays(outputs, inputs, clock, resting=resting)
        self._address = address
        self._line = threading.Condition()
        self._replies = bytearray()
        self._open = False
        self._plugged = True
        self._mute = False

    # --- what the product calls ---

    def open(self) -> VirtualRelay:
        with self._line:
            if not self._plugged:
                raise LinkDown("cannot open the virtual bus: unplugged")
            self._open = True
            self._replies.clear()
            return self

    def read(self, timeout: float) -> bytes:
        with self._line:
            self._line.wait_for(lambda: self._replies or not self._up(), max(0.0, timeout))
            if not self._up():
                raise LinkDown("the virtual bus is gone: unplugged")
            data = bytes(self._replies)
            self._replies.clear()
            return data

    def write(self, data: bytes) -> None:
        """One call is one frame with silence around it."""
        with self._line:
            if not self._up():
                raise LinkDown("the virtual bus is gone: unplugged")
            request = Request.decode(data)
            if request is None or request.address != self._address or self._mute:
                return
            self._replies += self._carry_out(request)
            self._line.notify_all()

    def close(self) -> None:
        with self._line:
            self._open = False
            self._line.notify_all()

    # --- what a person at the board could do ---

    def unplug(self) -> None:
        with self._line:
            self._plugged = self._open = False
            self._line.notify_all()

    def replug(self) -> None:
        with self._line:
            self._plugged = True

    def mute(self, muted: bool) -> None:
        """Without power: hears nothing and says nothing."""
        with self._line:
            self._mute = muted

    def _up(self) -> bool:
        return self._open and self._plugged

    def _carry_out(self, request: Request) -> bytes:
        if request.function == WRITE_COIL:
            return self._write_coil(request)
        inputs = request.function == READ_INPUTS
        bits = self.relays.inputs() if inputs else self.relays.coils()
        end = request.start + request.value
        if not request.value or end > len(bits):
            return request.refusal(ILLEGAL_ADDRESS)
        if inputs or request.function == READ_COILS:
            return request.answer(bits[request.start : end])
        for n, energised in enumerate(request.bits, request.start):
            self.relays.switch(n, energised)
        return request.answer()

    def _write_coil(self, request: Request) -> bytes:
        kind, output = request.start & 0xFF00, request.start & 0x00FF
        if output >= len(self.relays.coils()) or kind not in (0, FLASH_ON, FLASH_OFF):
            return request.refusal(ILLEGAL_ADDRESS)
        if kind:
            self.relays.flash(output, kind == FLASH_ON, request.value / 10)
        elif request.value in (COIL_ON, COIL_OFF):
            self.relays.switch(output, request.value == COIL_ON)
        else:
            return request.refusal(ILLEGAL_VALUE)
        return request.answer()
