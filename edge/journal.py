"""The audit trail and the outbox towards the office: append-only, hash-chained.

The `journal` thread is the only writer. `record` returns when the row is on the disk (callers that
wait at the same time share one transaction), and only then may a lock be ordered. On a full or
failing disk rows go to a bounded ring and are written when it heals: nobody is locked out by a
disk. The chain covers SHA-256(salt | payload): a payload can be erased and the chain still holds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from edge.clock import Clock
from edge.terms import AccessEvent, EventKind
from edge.trail import Row, TrailFault, encode_event, open_trail

QUEUE_EVENTS = 2000
RING_ROWS = 1000
TICK_S = 0.2
RETRY_S = 1.0  # between attempts while the disk refuses
SALT_BYTES = 16
TRIM_EVERY_ROWS = 1000  # a trim is a second commit (0.9 ms), so not after every row

log = logging.getLogger("edge.journal")


@dataclass(frozen=True, slots=True)
class Recorded:
    """`kept` False: the row is nowhere, so nothing may be unlocked on it. `durable` False: it
    waits in memory, because the disk does not take it. `event_no`: its number once durable."""

    kept: bool
    durable: bool
    event_no: int | None = None


@dataclass(slots=True)
class _Waiting:
    row: tuple[bytes, bytes]  # salt, payload
    done: threading.Event | None = None
    event_no: int | None = None


class Journal:
    def __init__(self, path: Path, clock: Clock, *, max_rows: int = 1_000_000) -> None:
        """Opens the trail; a ruined one is set aside. TrailFault when the disk does not let us."""
        self._clock, self._max_rows = clock, max_rows
        self._trail, self._aside = open_trail(path)
        self._resumed = False  # behind what the office holds, after one was set aside
        self._queue: queue.Queue[_Waiting] = queue.Queue(QUEUE_EVENTS)
        self._ring: deque[tuple[bytes, bytes]] = deque()
        self._lost = 0  # rows that neither disk nor ring could take
        self._lost_lock = threading.Lock()  # every caller may find the queue full
        self._last_words: list[_Waiting] = []  # what `stop` has written last
        self._untrimmed = 0
        self._retry_mono = float("-inf")
        self._why: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self.ticked_mono = clock.mono()
        self.clean_start = self._trail.ended_cleanly

    # --- any thread ---

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, and as the very last the row of a clean end."""
        if self._thread.is_alive():
            stopped = AccessEvent(EventKind.STOP, self._clock.wall())
            self._last_words = [_Waiting(_sealed_row(stopped))]
            self._stop.set()
            self._thread.join(5.0)
        self._trail.close()

    def record(self, event: AccessEvent, timeout_s: float = 1.0) -> Recorded:
        """Returns when the row is on the disk, or in the ring while the disk does not take it.

        An event that cannot be encoded is the caller's ValueError, not the journal thread's end.
        """
        waiting = _Waiting(_sealed_row(event), threading.Event())
        assert waiting.done is not None
        try:
            self._queue.put(waiting, timeout=timeout_s)
        except queue.Full:
            self._lose(1)
            return Recorded(kept=False, durable=False)
        done = waiting.done.wait(timeout_s)
        number = waiting.event_no
        # Nobody writes after `stop`: a row that found no writer is not kept.
        return Recorded(done or self._thread.is_alive(), number is not None, number)

    def post(self, event: AccessEvent) -> None:
        """Does not wait. What finds the queue full is counted, and the trail says how many."""
        try:
            self._queue.put_nowait(_Waiting(_sealed_row(event)))
        except queue.Full:
            self._lose(1)

    def _lose(self, rows: int) -> None:
        with self._lost_lock:
            self._lost += rows

    def degraded(self) -> str | None:
        why = self._why or self._aside
        return f"audit_degraded: {why}" if why else None

    def outbox(self, after_no: int, limit: int = 100) -> list[Row]:
        """Rows behind `after_no`, oldest first, without a gap between them."""
        return self._trail.rows(after_no, limit)

    def acked(self, upto: int, chain_hash: bytes) -> bool:
        """The office holds all up to `upto`. False when its chain is not ours: an alarm. Once
        after a ruined trail was set aside, ours goes on behind the office's instead."""
        if self._trail.anchor(upto, chain_hash):
            return True
        if not self._aside or self._resumed:
            return False
        self._resumed = True
        self._trail.continue_after(upto, chain_hash)
        return True

    @property
    def acked_no(self) -> int:
        return self._trail.anchored_no

    def head(self) -> tuple[int, bytes]:
        """(last event_no, its hash)."""
        return self._trail.head

    # --- the journal thread ---

    def _run(self) -> None:
        while not (self._stop.is_set() and self._queue.empty()):
            self.ticked_mono = self._clock.mono()
            batch = self._take()
            if batch or (self._ring and self._clock.mono() >= self._retry_mono):
                self._write(batch)
        self._retry_mono = float("-inf")  # a last attempt for what is still in the ring
        self._write(self._last_words)

    def _take(self) -> list[_Waiting]:
        """Everything that waits now, at most a tick after the first."""
        try:
            batch = [self._queue.get(timeout=TICK_S)]
        except queue.Empty:
            return []
        while not self._queue.empty():
            batch.append(self._queue.get_nowait())
        return batch

    def _write(self, batch: list[_Waiting]) -> None:
        lost = self._lost
        rows = [*self._ring, *self._gap(lost), *(waiting.row for waiting in batch)]
        try:
            if self._why and self._clock.mono() < self._retry_mono:
                raise TrailFault(self._why)
            first = self._trail.append(rows)
        except TrailFault as error:
            self._keep(batch, str(error))
        else:
            self._ring.clear()
            self._why = None
            self._lose(-lost)
            for number, waiting in enumerate(batch, first + len(rows) - len(batch)):
                waiting.event_no = number
        for waiting in batch:
            if waiting.done:
                waiting.done.set()
        self._trim(len(rows))

    def _gap(self, lost: int) -> list[tuple[bytes, bytes]]:
        """Says how many rows neither the disk nor the ring could take."""
        if not lost:
            return []
        gap = AccessEvent(EventKind.GAP, self._clock.wall(), facts={"rows": lost})
        return [_sealed_row(gap)]

    def _trim(self, rows: int) -> None:
        """After the callers were answered; a disk that does not take it is asked again later."""
        self._untrimmed += rows
        if self._untrimmed >= TRIM_EVERY_ROWS:
            with contextlib.suppress(TrailFault):
                self._trail.trim(self._max_rows)
                self._untrimmed = 0

    def _keep(self, batch: list[_Waiting], why: str) -> None:
        if self._why is None:
            log.error("audit trail not written", extra={"why": why})
        if self._clock.mono() >= self._retry_mono:
            self._retry_mono = self._clock.mono() + RETRY_S
        self._why = why
        for waiting in batch:
            self._ring.append(waiting.row)
        while len(self._ring) > RING_ROWS:
            self._lose(1)
            self._ring.popleft()


def _sealed_row(event: AccessEvent) -> tuple[bytes, bytes]:
    return os.urandom(SALT_BYTES), encode_event(event)
