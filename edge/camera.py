"""Cameras: where frames come from, and how the newest one reaches the vision thread.

A camera is a thread that owns one source and fills a one-slot mailbox: the latest frame wins, what
nobody took is overwritten and counted. A source that is absent, empty or broken is a degraded
state with its reason, tried again with back-off; it never hangs or ends the thread. `taken_mono` is
when the source took the picture, before it was decoded. Whether a frame is too old to be matched is
policy; nothing here looks at a face. cv2 is imported when the first picture is read.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]  # H x W x 3, BGR

DEFAULT_FPS = 15.0  # for a folder, and for a video that does not say
MAX_FPS = 120.0
BACKOFF_FIRST_S = 0.25
BACKOFF_MAX_S = 2.0  # a camera is to be back within 3 s of its return
TICK_S = 1.0  # the watchdog hears of a slow camera at least this often
PICTURES = frozenset({".jpg", ".jpeg", ".png"})
MAX_PICTURE_BYTES = 32 << 20  # a 50-megapixel JPEG has about 20 MB


class Clock(Protocol):
    def mono(self) -> float:
        """Seconds on the boot-time clock."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of one camera."""

    camera: str
    image: Image  # read-only
    taken_mono: float
    number: int  # 1, 2, 3 ... over the life of the camera


class Absent(Exception):
    """The source gives no picture now; the text says why."""


class Ended(Absent):
    """The last picture has been given; the source is kept, so it does not start again."""


class Unreadable(Absent):
    """There was a picture, and it could not be decoded."""


class Mailbox:
    """One slot between two threads: the latest frame wins."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frame: Frame | None = None
        self.overwritten = 0  # frames that nobody took

    def put(self, frame: Frame) -> None:
        with self._changed:
            self.overwritten += self._frame is not None
            self._frame = frame
            self._changed.notify()

    def take(self, timeout: float) -> Frame | None:
        """The newest frame, waiting at most `timeout` seconds for one. Each is given once."""
        with self._changed:
            self._changed.wait_for(lambda: self._frame is not None, timeout)
            frame, self._frame = self._frame, None
            return frame


class Source(Protocol):
    """What takes pictures. Belongs to one camera thread."""

    fps: float

    def read(self, clock: Clock) -> tuple[Image, float]:
        """The next picture and when it was taken (monotonic). Absent when there is none."""

    def close(self) -> None: ...


class Folder:
    """The pictures of a directory in name order, round and round.

    Listed anew for each picture, so pictures may be replaced (by atomic rename) while it runs: a
    folder with one picture that is being replaced is a live view.
    """

    def __init__(self, directory: Path, fps: float | None) -> None:
        self.directory, self.fps = directory, fps or DEFAULT_FPS
        self._last = ""

    def read(self, clock: Clock) -> tuple[Image, float]:
        try:
            names = sorted(p.name for p in self.directory.iterdir() if p.suffix.lower() in PICTURES)
            if not names:
                raise Absent(f"{self.directory} has no .jpg or .png")
            self._last = names[bisect_right(names, self._last) % len(names)]
            taken = clock.mono()
            return _decode(self.directory / self._last), taken
        except OSError as error:
            raise Absent(f"{error.filename or self.directory}: {error.strerror}") from error

    def close(self) -> None:
        """Nothing is held between two pictures."""


class Video:
    """The frames of a video file, at its own pace or the given one."""

    def __init__(self, file: Path, fps: float | None, loop: bool) -> None:
        import cv2

        if not file.is_file():  # and never anything that OpenCV would take for an address
            raise Absent(f"{file}: No such file")
        self.file, self._loop = file, loop
        self._capture = cv2.VideoCapture(str(file.resolve()), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise Absent(f"{file}: is not a video that can be decoded")
        own = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps or (own if 0 < own <= MAX_FPS else DEFAULT_FPS)

    def read(self, clock: Clock) -> tuple[Image, float]:
        taken = clock.mono()
        if not self._capture.grab():
            self._rewind()
            taken = clock.mono()
        there, image = self._capture.retrieve()
        if not there:
            raise Unreadable(f"{self.file}: a frame could not be decoded")
        return np.asarray(image, np.uint8), taken

    def _rewind(self) -> None:
        import cv2

        if not self._loop:
            raise Ended(f"{self.file} has ended")
        if not (self._capture.set(cv2.CAP_PROP_POS_FRAMES, 0) and self._capture.grab()):
            raise Absent(f"{self.file}: cannot be played from its start again")

    def close(self) -> None:
        self._capture.release()


class Camera:
    """One source, one thread `camera-<id>`, one mailbox.

    `source` is `folder:DIR` or `video:FILE`; `fps` None means the source's own pace; `loop` False
    lets a video end. ValueError for a source or a pace that cannot be.
    """

    def __init__(
        self, id: str, source: str, fps: float | None, clock: Clock, *, loop: bool = True
    ) -> None:
        kind, _, where = source.partition(":")
        if kind in ("rtsp", "rtsps", "v4l2"):
            raise ValueError(
                f"camera {id}: {kind}: comes with the faces issue; use folder: or video:"
            )
        if kind not in ("folder", "video") or not where:
            raise ValueError(
                f"camera {id}: unknown source {source!r}; use folder:DIR or video:FILE"
            )
        if fps is not None and not 0 < fps <= MAX_FPS:
            raise ValueError(f"camera {id}: fps {fps} is not above 0 and up to {MAX_FPS:g}")
        self.id, self.mailbox, self._clock = id, Mailbox(), clock
        self._kind, self._path, self._fps, self._loop = kind, Path(where), fps, loop
        self.state = "no_picture: starting"  # or "ok"
        self.frames = self.unreadable = 0
        self.ticked_mono = clock.mono()  # the watchdog looks at it
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"camera-{id}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def join(self, timeout: float) -> bool:
        """True when the thread has ended within `timeout` seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _open(self) -> Source:
        if self._kind == "folder":
            return Folder(self._path, self._fps)
        return Video(self._path, self._fps, self._loop)

    def _run(self) -> None:
        source: Source | None = None
        pause = BACKOFF_FIRST_S
        while not self._stop.is_set():
            began = self.ticked_mono = self._clock.mono()
            try:
                source = source or self._open()
                self._deliver(*source.read(self._clock))
                pause = BACKOFF_FIRST_S
                period = 1 / source.fps
            except Unreadable as why:  # skipped: the next picture may be a good one
                self.unreadable += 1
                self.state = f"no_picture: {why}"
                period = 1 / source.fps if source else pause
            except Absent as why:
                self.state = f"no_picture: {why}"
                period, pause = pause, min(2 * pause, BACKOFF_MAX_S)
                if not isinstance(why, Ended):
                    _drop(source)
                    source = None
            # At most one period, so that a steered clock cannot hold the thread.
            self._wait(min(began + period - self._clock.mono(), period))
        _drop(source)

    def _wait(self, seconds: float) -> None:
        while seconds > 0 and not self._stop.wait(min(seconds, TICK_S)):
            seconds -= TICK_S
            self.ticked_mono = self._clock.mono()

    def _deliver(self, image: Image, taken_mono: float) -> None:
        image.flags.writeable = False
        self.frames += 1
        self.mailbox.put(Frame(self.id, image, taken_mono, self.frames))
        self.state = "ok"


def _drop(source: Source | None) -> None:
    if source:
        source.close()


def _decode(file: Path) -> Image:
    import cv2

    if not file.is_file() or file.stat().st_size > MAX_PICTURE_BYTES:  # a pipe would hang
        raise Unreadable(f"{file.name} is not a picture of up to {MAX_PICTURE_BYTES >> 20} MiB")
    data = np.frombuffer(file.read_bytes(), np.uint8)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error:  # empty, or a header that promises more pixels than OpenCV takes
        image = None
    if image is None:
        raise Unreadable(f"{file.name} is no picture that can be decoded")
    return np.asarray(image, np.uint8)
