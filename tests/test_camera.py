"""File cameras and the mailbox. Real files, real threads, no sleeping: a steered clock, and waits
on the mailbox or on a condition with a limit."""

from __future__ import annotations

import os
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge.camera import Absent, Camera, Folder, Frame, Mailbox, Unreadable, Video

ASSETS = Path(os.environ.get("MENJIN_TEST_ASSETS") or "/nonexistent")
LIMIT_S = 5.0
FAST = 100.0  # frames per second


class Steered:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def mono(self) -> float:
        return self.now


class Boot:
    def mono(self) -> float:
        return time.monotonic()


def until(fact: Callable[[], bool]) -> None:
    """Wait for what another thread brings about."""
    pause, end = threading.Event(), time.monotonic() + LIMIT_S
    while not fact():
        assert time.monotonic() < end, "did not happen in time"
        pause.wait(0.002)


def picture(file: Path, grey: int) -> Path:
    """One grey picture, put in its place by rename as a camera program would."""
    _, data = cv2.imencode(file.suffix, np.full((48, 64, 3), grey, np.uint8))
    file.parent.mkdir(exist_ok=True)
    fresh = file.with_suffix(".new")
    fresh.write_bytes(data.tobytes())
    fresh.rename(file)
    return file


def film(file: Path, greys: list[int], fps: float = 50.0) -> Path:
    out = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), fps, (64, 48))
    assert out.isOpened()
    for grey in greys:
        out.write(np.full((48, 64, 3), grey, np.uint8))
    out.release()
    return file


def grey(image: Any) -> int:
    return round(float(image.mean()))


@pytest.fixture
def run() -> Iterator[Callable[..., Camera]]:
    started: list[Camera] = []

    def start(source: str, fps: float | None = FAST, clock: Any = None, **more: Any) -> Camera:
        camera = Camera("gate", source, fps, clock or Boot(), **more)
        started.append(camera)
        camera.start()
        return camera

    yield start
    for camera in started:
        camera.stop()
    for camera in started:
        assert camera.join(LIMIT_S)


def ticked(camera: Camera) -> None:
    before = camera.ticked_mono
    until(lambda: camera.ticked_mono > before)


def frame(number: int) -> Frame:
    return Frame("gate", np.zeros((1, 1, 3), np.uint8), 0.0, number)


def test_the_latest_frame_wins_and_the_lost_are_counted() -> None:
    box = Mailbox()
    for number in (1, 2, 3):
        box.put(frame(number))
    taken = box.take(0)
    assert taken is not None
    assert (taken.number, box.overwritten) == (3, 2)
    assert box.take(0) is None  # each is given once
    box.put(frame(4))
    assert box.overwritten == 2


def test_a_taker_is_woken_by_the_next_frame() -> None:
    box, got = Mailbox(), []
    taker = threading.Thread(target=lambda: got.append(box.take(LIMIT_S)))
    taker.start()
    until(lambda: bool(box._changed._waiters))  # type: ignore[attr-defined]
    box.put(frame(7))
    taker.join(LIMIT_S / 2)  # sooner than it would look by itself
    assert [f.number for f in got if f] == [7]


def test_a_folder_goes_round_in_name_order(tmp_path: Path) -> None:
    for name, value in (("b.png", 20), ("a.jpg", 10), ("c.JPG", 30)):
        picture(tmp_path / name, value)
    (tmp_path / "notes.txt").write_text("not a picture")
    source = Folder(tmp_path, None)
    assert [grey(source.read(Steered())[0]) for _ in range(5)] == [10, 20, 30, 10, 20]


def test_a_folder_is_listed_anew_for_each_picture(tmp_path: Path) -> None:
    source = Folder(tmp_path, None)
    picture(tmp_path / "a.png", 10)
    picture(tmp_path / "c.png", 30)
    assert grey(source.read(Steered())[0]) == 10
    picture(tmp_path / "b.png", 20)
    (tmp_path / "c.png").unlink()
    assert grey(source.read(Steered())[0]) == 20
    assert grey(source.read(Steered())[0]) == 10


def test_one_picture_that_is_replaced_is_a_live_view(tmp_path: Path) -> None:
    source = Folder(tmp_path, None)
    for value in (10, 200, 60):
        picture(tmp_path / "now.jpg", value)
        assert grey(source.read(Steered())[0]) == value


def test_a_frame_carries_the_time_before_it_was_decoded(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 10)
    clock = Steered()
    stamps = iter([5.0, 9.0])
    clock.mono = lambda: next(stamps)  # type: ignore[method-assign]
    assert Folder(tmp_path, None).read(clock)[1] == 5.0
    video = Video(film(tmp_path / "v.avi", [10]), None, True)
    assert video.read(clock)[1] == 9.0
    video.close()


def huge_png() -> bytes:
    """A header of 2^20 x 2^20 pixels and nothing behind it."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 1 << 20, 1 << 20, 8, 2, 0, 0, 0)
    body = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + body + bytes(64)


@pytest.mark.parametrize("data", [b"", b"no picture", b"\xff\xd8\xff\xe0 cut", huge_png()])
def test_an_unreadable_picture_says_its_name(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(Unreadable, match=r"a\.jpg"):
        Folder(tmp_path, None).read(Steered())


def test_a_pipe_named_like_a_picture_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(Unreadable):
        Folder(tmp_path, None).read(Steered())


def test_a_video_plays_at_its_own_pace_or_the_given_one(tmp_path: Path) -> None:
    file = film(tmp_path / "v.avi", [10], fps=50)
    for asked, got in ((None, 50.0), (5.0, 5.0)):
        video = Video(file, asked, True)
        assert video.fps == pytest.approx(got)
        video.close()


def test_a_video_loops_or_ends(tmp_path: Path) -> None:
    file = film(tmp_path / "v.avi", [10, 100, 200])
    video = Video(file, None, True)
    greys = [grey(video.read(Steered())[0]) for _ in range(7)]
    assert np.allclose(greys, [10, 100, 200, 10, 100, 200, 10], atol=4)
    video.close()
    video = Video(file, None, False)
    for _ in range(3):
        video.read(Steered())
    with pytest.raises(Absent, match="has ended"):
        video.read(Steered())
    video.close()


def test_a_video_that_is_an_address_is_never_opened() -> None:
    with pytest.raises(Absent, match="No such file"):
        Video(Path("http://127.0.0.1/v.mp4"), None, True)


def test_a_camera_numbers_its_frames_and_hands_them_over_read_only(
    tmp_path: Path, run: Callable[..., Camera]
) -> None:
    picture(tmp_path / "a.png", 10)
    clock = Steered()
    camera = run(f"folder:{tmp_path}", clock=clock)
    first, second = camera.mailbox.take(LIMIT_S), camera.mailbox.take(LIMIT_S)
    assert first is not None
    assert second is not None
    assert (first.camera, first.taken_mono) == ("gate", 1000.0)
    assert first.number < second.number <= camera.frames
    assert camera.state == "ok"
    with pytest.raises(ValueError, match="read-only"):
        first.image[0] = 0


def test_a_stopped_clock_does_not_stop_the_frames(
    tmp_path: Path, run: Callable[..., Camera]
) -> None:
    picture(tmp_path / "a.png", 10)
    camera = run(f"folder:{tmp_path}", clock=Steered())
    until(lambda: camera.frames > 2)


class Falling(Steered):
    """Jumps back by a thousand seconds whenever it is read."""

    def mono(self) -> float:
        self.now -= 1000
        return self.now


def test_a_clock_that_jumps_back_holds_a_camera_for_one_period_at_most(
    tmp_path: Path, run: Callable[..., Camera]
) -> None:
    picture(tmp_path / "a.png", 10)
    camera = run(f"folder:{tmp_path}", clock=Falling())
    until(lambda: camera.frames > 2)


def test_the_pace_is_kept(tmp_path: Path, run: Callable[..., Camera]) -> None:
    """At one frame in 200 s the second one does not come."""
    picture(tmp_path / "a.png", 10)
    camera = run(f"folder:{tmp_path}", fps=0.005)
    assert camera.mailbox.take(LIMIT_S) is not None
    assert camera.mailbox.take(0.2) is None


def test_an_absent_folder_is_a_state_with_a_reason_and_comes_back(
    tmp_path: Path, run: Callable[..., Camera]
) -> None:
    camera = run(f"folder:{tmp_path / 'later'}")
    until(lambda: camera.state.startswith("no_picture: ") and "later" in camera.state)
    picture(tmp_path / "later/a.png", 10)
    assert camera.mailbox.take(LIMIT_S) is not None
    until(lambda: camera.state == "ok")


def test_an_empty_folder_is_degraded_and_gives_no_frame(
    tmp_path: Path, run: Callable[..., Camera]
) -> None:
    picture(tmp_path / "a.png", 10)
    camera = run(f"folder:{tmp_path}")
    assert camera.mailbox.take(LIMIT_S) is not None
    (tmp_path / "a.png").unlink()
    until(lambda: "has no .jpg or .png" in camera.state)
    seen = camera.frames
    camera.mailbox.take(0)
    assert camera.mailbox.take(0.05) is None
    assert camera.frames == seen


def test_an_unreadable_picture_is_skipped_and_counted(
    tmp_path: Path, run: Callable[..., Camera]
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"cut off")
    picture(tmp_path / "b.png", 20)
    camera = run(f"folder:{tmp_path}")
    taken = camera.mailbox.take(LIMIT_S)
    assert taken is not None
    assert grey(taken.image) == 20
    assert camera.unreadable >= 1


def test_only_unreadable_pictures_are_no_picture(
    tmp_path: Path, run: Callable[..., Camera]
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"cut off")
    camera = run(f"folder:{tmp_path}")
    until(lambda: camera.unreadable > 2)
    assert camera.state == "no_picture: a.jpg is no picture that can be decoded"
    assert camera.frames == 0


def test_an_ended_video_is_a_state_not_an_end_of_the_thread(
    tmp_path: Path, run: Callable[..., Camera]
) -> None:
    camera = run(f"video:{film(tmp_path / 'v.avi', [10, 100])}", fps=None, loop=False)
    until(lambda: "has ended" in camera.state)
    for _ in range(2):  # long enough to have been opened again
        ticked(camera)
    assert camera.frames == 2
    assert "has ended" in camera.state


def test_a_broken_video_is_a_state_with_a_reason(
    tmp_path: Path, run: Callable[..., Camera]
) -> None:
    (tmp_path / "v.mp4").write_bytes(b"no video")
    camera = run(f"video:{tmp_path / 'v.mp4'}")
    until(lambda: "not a video" in camera.state)


def test_the_watchdog_sees_every_turn_also_without_a_picture(
    tmp_path: Path, run: Callable[..., Camera]
) -> None:
    clock = Steered()
    camera = run(f"folder:{tmp_path / 'absent'}", clock=clock)
    clock.now += 60
    until(lambda: camera.ticked_mono == clock.now)


def test_the_watchdog_sees_a_slow_camera_wait(
    tmp_path: Path, run: Callable[..., Camera], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.camera.TICK_S", 0.01)
    picture(tmp_path / "a.png", 10)
    camera = run(f"folder:{tmp_path}", fps=0.005)
    assert camera.mailbox.take(LIMIT_S) is not None
    for _ in range(3):
        ticked(camera)
    assert camera.frames == 1


def test_a_camera_stops_at_once_also_in_a_long_pause(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 10)
    camera = Camera("gate", f"folder:{tmp_path}", 0.001, Boot())
    camera.start()
    assert camera.mailbox.take(LIMIT_S) is not None
    assert "camera-gate" in {thread.name for thread in threading.enumerate()}
    camera.stop()
    assert camera.join(LIMIT_S)
    assert "camera-gate" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize(
    ("source", "fps", "said"),
    [
        ("rtsp://cam/1", 10.0, "rtsp: comes with the faces issue"),
        ("v4l2:/dev/video0", 10.0, "v4l2: comes with the faces issue"),
        ("webcam", 10.0, "unknown source"),
        ("folder:", 10.0, "unknown source"),
        ("folder:x", 0.0, "fps 0.0"),
        ("folder:x", float("nan"), "fps nan"),
        ("video:x", 1e6, "fps"),
    ],
)
def test_a_source_that_cannot_be_is_a_value_error_with_the_cameras_name(
    source: str, fps: float, said: str
) -> None:
    with pytest.raises(ValueError, match="camera gate: ") as caught:
        Camera("gate", source, fps, Steered())
    assert said in str(caught.value)


@pytest.mark.assets
@pytest.mark.skipif("MENJIN_TEST_ASSETS" not in os.environ, reason="MENJIN_TEST_ASSETS is not set")
def test_the_walk_plays_to_its_end() -> None:
    video = Video(ASSETS / "testdata/video/walk.mp4", None, False)
    count = 0
    with pytest.raises(Absent, match="has ended"):
        while True:
            assert video.read(Steered())[0].shape == (1080, 1920, 3)
            count += 1
    assert count == 105
    video.close()
