"""The `vision` thread: takes the newest frame of each camera in turn and attends to it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from edge.camera import Camera
from edge.clock import Clock
from edge.health import Metrics
from edge.passage import Passage

log = logging.getLogger("edge.vision")

IDLE_WAIT_S = 0.5  # one camera: as long as the watchdog likes; several: shared out among them


class Vision:
    def __init__(
        self,
        passage: Passage,
        cameras: Sequence[Camera],
        clock: Clock,
        stop: threading.Event,
        metrics: Metrics,
    ) -> None:
        self._passage, self._cameras, self._clock = passage, cameras, clock
        self._stop, self._metrics = stop, metrics
        self.ticked_mono = clock.mono()
        self.broken = 0  # frames that could not be attended to
        self._wait_s = IDLE_WAIT_S if len(cameras) == 1 else 0.02

    def run(self) -> None:
        while not self._stop.is_set():
            self.ticked_mono = self._clock.mono()
            if not self._cameras:
                self._stop.wait(IDLE_WAIT_S)
            for camera in self._cameras:
                frame = camera.mailbox.take(self._wait_s)
                if frame is None:
                    continue
                self._metrics.frames.labels(camera.id).inc()
                try:
                    for decision in self._passage.attend(frame):
                        self._metrics.decisions.labels(decision.door, decision.reason).inc()
                except Exception:  # the last net: one frame must not end the next passage
                    self.broken += 1
                    log.exception("frame not attended to", extra={"camera": camera.id})
