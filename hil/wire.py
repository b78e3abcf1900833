"""A serial line made of pseudo-terminals: bytes arrive at the pace of a baud rate, in the bites of
a UART's FIFO, and can be lost, bent, held up or injected. What is heard is logged with its time.

Port 0 is the product's end (`path`), the others are devices; every port hears every other, as on an
RS-485 pair. No protocol here. One thread, `wire-<link>`, owns the master sides.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import os
import random
import select
import threading
import time
import tty
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

CHAR_BITS = 10  # 8N1
FIFO_BYTES = 16  # 16550 and its descendants
READ_BYTES = 4096
LOG_BITES = 100_000
PRODUCT = 0
DEVICE = 1


@dataclass(frozen=True, slots=True)
class Faults:
    """Noise by seed: chances per byte (`drop`, `flip`) or per bite (`delay`). The product's and the
    devices' bytes suffer alike."""

    seed: int = 0
    drop: float = 0.0
    flip: float = 0.0  # one bit of the byte
    delay: float = 0.0
    delay_s: float = 0.03


@dataclass(frozen=True, slots=True)
class Bite:
    """Bytes that came out of the line together."""

    at: float  # monotonic: when the last of them had been on the line
    source: int  # port that sent them; -1: injected
    data: bytes


@dataclass(slots=True)
class _Port:
    master: int
    slave: int  # kept open, so that the line outlives whoever opens it
    path: str
    free_at: float = 0.0  # when its transmitter has sent what it was given


@dataclass(order=True, slots=True)
class _Due:
    at: float
    number: int
    source: int = field(compare=False)
    data: bytes = field(compare=False)


def _open_pty() -> _Port:
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    return _Port(master, slave, os.ttyname(slave))


class PacedPty:
    """The line. With `link` the product opens that stable name, as it would /dev/serial/by-id."""

    def __init__(
        self, baud: int, link: Path | None = None, *, devices: int = 1, faults: Faults | None = None
    ) -> None:
        self._char_s = CHAR_BITS / baud
        self._link = link
        self._faults = faults or Faults()
        self._chance = random.Random(self._faults.seed)
        self._guard = threading.Lock()
        self._ports: list[_Port | None] = [_open_pty() for _ in range(devices + 1)]
        self._muted: set[int] = set()
        self._to_lose = dict.fromkeys(range(devices + 1), 0)
        self._due: list[_Due] = []
        self._number = 0
        self._log: deque[Bite] = deque(maxlen=LOG_BITES)
        self._wake_out, self._wake_in = os.pipe()
        self._closed = False
        self._point_link()
        self._thread = threading.Thread(target=self._run, name=f"wire-{link or self.path}")
        self._thread.start()

    # --- any thread ---

    @property
    def path(self) -> str:
        """What the product opens. Without a link it changes with every `replug`."""
        if self._link is not None:
            return str(self._link)
        port = self._ports[PRODUCT]
        return port.path if port is not None else ""

    def device_path(self, number: int = DEVICE) -> str:
        """What device `number` (1..devices) opens."""
        port = self._ports[number]
        assert port is not None  # only the product's end can be unplugged
        return port.path

    @property
    def log(self) -> list[Bite]:
        with self._guard:
            return list(self._log)

    def mute(self, source: int, muted: bool = True) -> None:
        """What this port sends vanishes, until it is unmuted."""
        with self._guard:
            (self._muted.add if muted else self._muted.discard)(source)

    def lose(self, count: int, source: int = DEVICE) -> None:
        """The next `count` bytes that this port sends are lost."""
        with self._guard:
            self._to_lose[source] += count

    def inject(self, data: bytes) -> None:
        """Noise: everybody hears `data` after the time that it takes on the line."""
        with self._guard:
            self._put(-1, data, time.monotonic() + len(data) * self._char_s)
        self._wake()

    def unplug(self) -> None:
        """The product's adapter leaves: its descriptor reports a hang-up, the name is gone."""
        with self._guard:
            port, self._ports[PRODUCT] = self._ports[PRODUCT], None
            if self._link is not None:
                self._link.unlink(missing_ok=True)
            if port is not None:
                _close(port)
        self._wake()

    def replug(self) -> None:
        """A new terminal, most likely with another number, behind the same link."""
        with self._guard:
            if self._ports[PRODUCT] is None:
                self._ports[PRODUCT] = _open_pty()
                self._point_link()
        self._wake()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._wake()
        self._thread.join()
        for port in self._ports:
            if port is not None:
                _close(port)
        os.close(self._wake_in)
        os.close(self._wake_out)
        if self._link is not None:
            self._link.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wake(self) -> None:
        os.write(self._wake_in, b"!")

    def _point_link(self) -> None:
        port = self._ports[PRODUCT]
        if self._link is not None and port is not None:
            fresh = self._link.with_name(self._link.name + ".new")
            fresh.symlink_to(port.path)
            fresh.replace(self._link)

    # --- the wire's thread ---

    def _run(self) -> None:
        while not self._closed:
            with self._guard:
                masters = {p.master: n for n, p in enumerate(self._ports) if p is not None}
                wait = self._due[0].at - time.monotonic() if self._due else None
            # select and not epoll: its timeout counts microseconds, and a bite at 115200 baud
            # lasts 1.4 ms.
            wanted = [self._wake_out, *masters]
            try:
                ready, _, _ = select.select(wanted, [], [], None if wait is None else max(0, wait))
            except OSError:  # unplugged between the two
                continue
            if self._wake_out in ready:
                os.read(self._wake_out, READ_BYTES)
            with self._guard:
                for number in (masters[fd] for fd in ready if fd in masters):
                    self._take_in(number)
                self._hand_out(time.monotonic())

    def _take_in(self, number: int) -> None:
        """Put what port `number` wrote on the line, in bites, at the pace of the line."""
        port = self._ports[number]
        if port is None:
            return
        try:
            data = os.read(port.master, READ_BYTES)
        except OSError as fault:
            if fault.errno not in (errno.EAGAIN, errno.EIO):
                raise
            return
        at = max(time.monotonic(), port.free_at)
        for i in range(0, len(data), FIFO_BYTES):
            bite = data[i : i + FIFO_BYTES]
            at += len(bite) * self._char_s
            if self._chance.random() < self._faults.delay:
                at += self._faults.delay_s
            self._put(number, self._spoil(number, bite), at)
        port.free_at = at

    def _put(self, source: int, bite: bytes, at: float) -> None:
        self._number += 1
        heapq.heappush(self._due, _Due(at, self._number, source, bite))

    def _spoil(self, source: int, bite: bytes) -> bytes:
        lost = min(len(bite), self._to_lose[source])
        self._to_lose[source] -= lost
        heard = bytearray()
        for byte in bite[lost:]:
            if self._chance.random() < self._faults.flip:
                byte ^= 1 << self._chance.randrange(8)
            if self._chance.random() >= self._faults.drop:
                heard.append(byte)
        return b"" if source in self._muted else bytes(heard)

    def _hand_out(self, now: float) -> None:
        while self._due and self._due[0].at <= now:
            due = heapq.heappop(self._due)
            if not due.data:
                continue
            self._log.append(Bite(now, due.source, due.data))
            for number, port in enumerate(self._ports):
                if number != due.source and port is not None:
                    with contextlib.suppress(BlockingIOError):  # a line keeps nothing for later
                        os.write(port.master, due.data)


def _close(port: _Port) -> None:
    os.close(port.master)
    os.close(port.slave)
