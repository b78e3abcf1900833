"""Is it alive, and what is wrong: over a real socket to systemd, and real HTTP on loopback."""

from __future__ import annotations

import json
import logging
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge.health import HealthServer, Metrics, Watchdog, sd_notify

WAIT_S = 5.0
Report = dict[str, object]


# --- the watchdog ---


@pytest.mark.parametrize(("now", "stuck"), [(110.0, []), (110.01, ["vision"]), (130.0, ["vision"])])
def test_a_loop_that_stops_going_round_is_named(now: float, stuck: list[str]) -> None:
    watchdog = Watchdog(10.0)
    watchdog.loops = {"vision": lambda: 100.0, "sync": lambda: now}
    assert watchdog.stuck(now) == stuck


def test_a_loop_that_goes_round_again_is_forgiven() -> None:
    last = {"vision": 100.0}
    watchdog = Watchdog(10.0)
    watchdog.loops = {"vision": lambda: last["vision"]}
    assert watchdog.stuck(120.0) == ["vision"]
    last["vision"] = 119.0
    assert watchdog.stuck(120.0) == []


# --- systemd ---


@pytest.mark.parametrize("abstract", [True, False])
def test_systemd_is_told_over_its_socket(tmp_path: Path, abstract: bool) -> None:
    name = f"@menjin-test-{tmp_path.name}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name[1:] if abstract else name)
        systemd.settimeout(WAIT_S)
        assert sd_notify("READY=1", {"NOTIFY_SOCKET": name})
        assert systemd.recv(100) == b"READY=1"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/at"}])
def test_where_nobody_listens_nothing_is_told_and_nothing_fails(environ: dict[str, str]) -> None:
    assert sd_notify("WATCHDOG=1", environ) is False


def test_a_systemd_that_does_not_read_holds_nobody_up(tmp_path: Path) -> None:
    """Its queue is full: the main loop goes on after a second."""
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
            filler.setblocking(False)
            with pytest.raises(BlockingIOError):
                while True:
                    filler.sendto(b"x", name)
        assert sd_notify("WATCHDOG=1", {"NOTIFY_SOCKET": name}) is False


# --- HTTP ---


@contextmanager
def serving(
    report: Callable[[], Report], metrics: Callable[[], bytes] = bytes, host: str = "127.0.0.1"
) -> Iterator[str]:
    server = HealthServer((host, 0), report, metrics)
    server.start()
    try:
        yield f"http://{f'[{host}]' if ':' in host else host}:{server.port}"
    finally:
        server.stop()


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=WAIT_S) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.mark.parametrize(("status", "code"), [("ok", 200), ("degraded", 200), ("failing", 503)])
def test_what_is_merely_absent_is_no_failure(status: str, code: int) -> None:
    with serving(lambda: {"status": status}) as url:
        assert get(f"{url}/healthz") == (code, json.dumps({"status": status}).encode())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_it_listens_on_either_loopback(host: str) -> None:
    with serving(lambda: {"status": "ok"}, host=host) as url:
        assert get(f"{url}/healthz")[0] == 200


def test_metrics_are_in_the_text_form() -> None:
    metrics = Metrics()
    metrics.decisions.labels("main", "granted").inc()
    metrics.unlock_s.labels("main").observe(0.06)
    with serving(lambda: {"status": "ok"}, metrics.render) as url:
        code, text = get(f"{url}/metrics")
    assert code == 200
    assert b'menjin_decisions_total{door="main",reason="granted"} 1.0' in text
    assert b'menjin_frame_to_unlock_seconds_bucket{door="main",le="0.075"} 1.0' in text


def test_labels_have_no_place_for_a_person() -> None:
    allowed = {"door", "reason", "camera", "why", "zone"}
    metrics = Metrics()
    names = {
        label
        for metric in vars(metrics).values()
        for label in getattr(metric, "_labelnames", ())
    }  # fmt: skip
    assert names <= allowed and names


def test_any_other_path_says_which_there_are() -> None:
    with serving(lambda: {"status": "ok"}) as url:
        assert get(f"{url}/etc/passwd") == (404, b"/healthz or /metrics\n")


def test_a_report_that_fails_is_logged_and_the_next_is_answered(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    answers: list[Report] = [{"status": "ok"}]
    with serving(lambda: answers[0]) as url, caplog.at_level(logging.WARNING):
        whole = answers.pop()
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            get(f"{url}/healthz")
        answers.append(whole)
        assert get(f"{url}/healthz")[0] == 200
    assert [r.message for r in caplog.records] == ["health request not answered"]
    assert "Traceback" not in capfd.readouterr().err


def test_one_that_says_nothing_holds_nobody_up() -> None:
    with serving(lambda: {"status": "ok"}) as url:
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), WAIT_S):
            assert get(f"{url}/healthz")[0] == 200


def test_a_port_in_use_says_where_and_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError) as caught:
            HealthServer(("127.0.0.1", port), dict, bytes)
    assert caught.value.filename == f"127.0.0.1:{port}"
    assert "in use" in str(caught.value) and "health.listen" in str(caught.value)


def test_one_that_never_started_stops_at_once() -> None:
    """A daemon whose start fails before its health server must still end."""
    server = HealthServer(("127.0.0.1", 0), dict, bytes)
    stopping = threading.Thread(target=server.stop, daemon=True)
    stopping.start()
    stopping.join(WAIT_S)
    assert not stopping.is_alive()
