"""One half-duplex bus: the thread that owns a port, takes turns between the devices on it and
hands orders to them.

The only file of `drivers` with a thread. It knows no protocol: what is sent and what a reply means
is the driver's. An unlock goes before everything else, except that a device which left its last
request unanswered has to queue like a poll: a dead device costs its neighbours one slot at a time.
The same `clock` that the caller uses for `valid_until` is passed in; it must advance by itself.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace

from drivers.base import (
    BytePort,
    DeviceEvent,
    Driver,
    Event,
    OpenPort,
    OrderDone,
    OrderFailed,
    OrderSent,
    Unlock,
)
from drivers.errors import LinkDown
from drivers.rtu import CHAR_BITS

# Silence that ends a frame: 3.5 characters (MODBUS over Serial Line V1.02, 2.5.1.1), but an FTDI
# chip holds bytes back for up to 16 ms (its latency timer) and hands them over in bites.
GAP_CHARS = 3.5
GAP_MIN_S = 0.020
# Silence that we keep before we speak: the same 3.5 characters, but 1.75 ms above 19200 baud (same
# place).
SILENCE_MIN_S = 0.00175
WAIT_MAX_S = 0.5  # every wait looks at `stop` and feeds the watchdog this often
REOPEN_MIN_S = 0.2
REOPEN_MAX_S = 2.0
WIND_DOWN_S = 1.0  # eight outputs take 0.3 s at 9600 baud
JOIN_S = 5.0


class Bus:
    """`bus-<name>`: give it the devices by name, `start` it, `unlock` from any thread.

    `on_event(device, event)` is called on the bus thread: it must not block, raise or `stop`.
    `ticked_mono` is the time of the last loop, for the watchdog. `local_echo`: the adapter hears
    what it sends (2-wire without echo suppression); as many bytes as were sent are dropped.
    """

    def __init__(
        self,
        name: str,
        open_port: OpenPort,
        devices: Mapping[str, Driver],
        on_event: DeviceEvent,
        clock: Callable[[], float],
        baud: int,
        max_orders: int = 32,
        *,
        local_echo: bool = False,
    ) -> None:
        self.name = name
        self.ticked_mono = clock()
        self._open_port = open_port
        self._devices = dict(devices)
        self._on_event = on_event
        self._clock = clock
        self._gap_s = max(GAP_MIN_S, GAP_CHARS * CHAR_BITS / baud)
        self._silence_s = max(SILENCE_MIN_S, GAP_CHARS * CHAR_BITS / baud)
        self._local_echo = local_echo
        self._max_orders = max_orders
        self._wake = threading.Condition()  # guards the four below
        self._orders: deque[tuple[str, Unlock]] = deque()
        self._relocks: set[tuple[str, int]] = set()
        self._unfinished = 0  # accepted orders of which neither end was told yet
        self._closed = False
        self._winding_down = False  # nobody cares any more what the devices say
        self._served = dict.fromkeys(self._devices, -math.inf)  # when it last had a turn
        self._silent = dict.fromkeys(self._devices, False)  # left its last request unanswered
        self._heard_at = -math.inf
        self._thread = threading.Thread(target=self._run, name=f"bus-{name}", daemon=True)

    # --- any thread ---

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Fail what is left, lock what only we can lock, close the port, end the thread."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        if self._thread.is_alive():
            self._thread.join(JOIN_S)

    def unlock(self, device: str, order: Unlock) -> bool:
        """Queue an order, without waiting; True: an OrderDone or OrderFailed will follow. False:
        the queue is full or the bus is stopped, and nothing will happen. KeyError: no such
        device. At most `max_orders` are unfinished at any time."""
        if device not in self._devices:
            raise KeyError(device)
        with self._wake:
            if self._closed or self._unfinished >= self._max_orders:
                return False
            self._unfinished += 1
            self._orders.append((device, order))
            self._wake.notify_all()
            return True

    def relock(self, device: str, output: int) -> None:
        """End a pulse early. Dropped while the port is down: drivers lock what needs it anyway."""
        if device not in self._devices:
            raise KeyError(device)
        with self._wake:
            self._relocks.add((device, output))  # a set: bounded by the number of outputs
            self._wake.notify_all()

    # --- the bus thread ---

    def _run(self) -> None:
        pause = REOPEN_MIN_S
        while not self._closed:
            port: BytePort | None = None
            try:
                port = self._open_port()
                self._serve(port)
                pause = REOPEN_MIN_S
            except LinkDown as fault:
                if port is not None:
                    port.close()  # first: a re-plugged adapter gets its old name only when free
                    pause = REOPEN_MIN_S
                self._lost(str(fault))
                self._wait_down(pause, str(fault))
                pause = min(2 * pause, REOPEN_MAX_S)
        self._winding_down = False
        self._fail_waiting("the bus was stopped")

    def _serve(self, port: BytePort) -> None:
        """Turns until the bus is stopped; LinkDown when the port goes."""
        while not self._closed:
            self._hand_out()
            now = self.ticked_mono = self._clock()
            name = self._whose_turn(now)
            if name is not None:
                self._turn(name, port)
            else:
                self._idle(port, now)
        self._wind_down(port)
        port.close()

    def _hand_out(self) -> None:
        with self._wake:
            orders, self._orders = self._orders, deque()
            relocks, self._relocks = self._relocks, set()
        for name, output in relocks:
            self._devices[name].relock(output)
        for name, order in orders:
            self._devices[name].unlock(order)
            self._report(name)  # an order that makes no sense fails here

    def _whose_turn(self, now: float) -> str | None:
        """Urgent and answering first, then whoever is due, the longest unserved first."""
        ready: list[tuple[bool, float, str]] = []
        for name, driver in self._devices.items():
            urgent = driver.urgent
            if urgent or self._due(name) <= now:
                ready.append((not urgent or self._silent[name], self._served[name], name))
        return min(ready)[2] if ready else None

    def _due(self, name: str) -> float:
        due = self._devices[name].next_deadline()
        return self._served[name] + WAIT_MAX_S if due is None else due

    def _turn(self, name: str, port: BytePort) -> None:
        driver = self._devices[name]
        self._keep_silence(port)
        now = self._served[name] = self._clock()
        frame = driver.tick(now)
        sent_at = None
        try:
            if frame:
                port.write(frame)
                sent_at = self._clock()
        finally:
            self._report(name, sent_at)
        if driver.busy:
            self._listen(name, port, len(frame) if self._local_echo else 0)
            self._report(name)

    def _keep_silence(self, port: BytePort) -> None:
        """3.5 characters without us; whatever comes now answers nobody."""
        port.read(max(0.0, self._heard_at + self._silence_s - self._clock()))

    def _listen(self, name: str, port: BytePort, echo_bytes: int) -> None:
        """Feed the driver until it has its reply or its patience is over."""
        driver = self._devices[name]
        deadline = driver.next_deadline()
        assert deadline is not None  # the driver's promise while it is busy
        in_frame = False
        while driver.busy:
            self.ticked_mono = self._clock()
            left = max(0.0, deadline - self.ticked_mono)
            data = port.read(min(left, self._gap_s if in_frame else WAIT_MAX_S))
            now = self._clock()
            if data:
                self._heard_at = now
                data, echo_bytes = data[echo_bytes:], max(0, echo_bytes - len(data))
                in_frame = True
                driver.feed(data, now)
            elif in_frame or now >= deadline:
                in_frame = False
                driver.gap(now)
        self._silent[name] = self._clock() >= deadline

    def _idle(self, port: BytePort, now: float) -> None:
        """Nobody is ready: wait for an order or the next deadline; notice a hang-up."""
        due = min((self._due(name) for name in self._devices), default=math.inf)
        with self._wake:
            if not (self._orders or self._relocks or self._closed):
                self._wake.wait(min(max(0.0, due - now), WAIT_MAX_S))
        port.read(0.0)

    def _report(self, name: str, sent_at: float | None = None) -> None:
        """Pass events on. Without `sent_at` no frame left, so none was sent."""
        for event in self._devices[name].events():
            if not isinstance(event, OrderSent):
                self._tell(name, event)
            elif sent_at is not None:
                self._tell(name, replace(event, at=sent_at))

    def _tell(self, name: str, event: Event) -> None:
        if isinstance(event, OrderDone | OrderFailed):
            with self._wake:
                self._unfinished -= 1
        if not self._winding_down:
            self._on_event(name, event)

    # --- the port is gone ---

    def _lost(self, why: str) -> None:
        for name, driver in self._devices.items():
            driver.lost(why)
            self._report(name)
            self._silent[name] = False

    def _wait_down(self, pause: float, why: str) -> None:
        """Wait before the next try; an order that comes meanwhile fails at once."""
        until = self._clock() + pause
        while not self._closed and (left := until - self._clock()) > 0:
            self.ticked_mono = self._clock()
            self._fail_waiting(why)
            with self._wake:
                if not (self._orders or self._closed):
                    self._wake.wait(min(left, WAIT_MAX_S))
        self._fail_waiting(why)

    def _fail_waiting(self, why: str) -> None:
        with self._wake:
            orders, self._orders = self._orders, deque()
            self._relocks.clear()
        for name, order in orders:
            self._tell(name, OrderFailed(order.order_id, LinkDown(f"bus {self.name}: {why}")))

    # --- the end ---

    def _wind_down(self, port: BytePort) -> None:
        """A board without a timer must not stay open behind us."""
        untimed = {n: d for n, d in self._devices.items() if not d.capabilities.timed_unlock}
        for driver in untimed.values():
            for output in range(driver.capabilities.outputs):
                if driver.state(output) is not False:
                    driver.relock(output)
        self._lost("the bus was stopped")
        end = self._clock() + WIND_DOWN_S
        self._winding_down = True
        for name in untimed:
            while (now := self._clock()) < end and self._due(name) <= now:
                self._turn(name, port)
