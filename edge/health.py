"""Is it alive, and what is wrong: the watchdog, `/healthz` and `/metrics`, on loopback.

The watchdog is fed by progress: every loop shows when it last went round, and one that does not
stops the feeding, so that systemd restarts the daemon. What is merely absent (a camera, a cable, a
broker) is *degraded*: named, and served around. Nobody is named on a metric.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

log = logging.getLogger("edge.health")

LATENCY_BUCKETS_S = (0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)


class Metrics:
    """Counts and times; labels are doors, reasons and names of parts, never persons."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.decisions = Counter(
            "menjin_decisions", "Decisions told", ["door", "reason"], registry=registry
        )
        self.unlock_s = Histogram(
            "menjin_frame_to_unlock_seconds",
            "Camera frame taken to the last unlock byte handed to the port",
            ["door"],
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.frames = Counter("menjin_frames", "Frames attended", ["camera"], registry=registry)
        self.people = Gauge("menjin_people", "Persons with a template", registry=registry)
        self.dropped = Gauge("menjin_messages_dropped", "Dropped", ["why"], registry=registry)
        self.faults = Gauge("menjin_roster_faults", "Roster faults", ["why"], registry=registry)
        self.applied = Gauge("menjin_roster_seq", "Log position", ["zone"], registry=registry)
        self.degraded = Gauge("menjin_degraded", "Degraded states", registry=registry)
        self.key_weak = Gauge(
            "menjin_key_protection_weak", "1: the key is a file", registry=registry
        )

    def render(self) -> bytes:
        return generate_latest(self.registry)


class Watchdog:
    """`loops`: name -> when it last went round (monotonic seconds)."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.loops: dict[str, Callable[[], float]] = {}

    def stuck(self, now_mono: float) -> list[str]:
        """The loops that have not gone round in time."""
        return [name for name, last in self.loops.items() if now_mono - last() > self.limit_s]


def sd_notify(state: str, environ: Mapping[str, str] | None = None) -> bool:
    """Tell systemd; False when nobody listens (not started by systemd)."""
    address = (environ if environ is not None else os.environ).get("NOTIFY_SOCKET", "")
    if not address:
        return False
    path = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.settimeout(1.0)
        try:
            notify.sendto(state.encode(), path)
        except OSError:
            return False
    return True


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        try:
            super().__init__(address, handler)
        except OSError as error:
            todo = "another daemon runs, or set health.listen"
            where = f"{address[0]}:{address[1]}"
            raise OSError(error.errno, f"{error.strerror}; {todo}", where) from None

    def handle_error(self, request: object, client_address: object) -> None:
        log.warning("health request not answered", exc_info=True)


class HealthServer:
    """`/healthz`: 200 while serving (degraded or not), 503 when a loop is stuck; `/metrics`."""

    def __init__(
        self,
        address: tuple[str, int],
        report: Callable[[], dict[str, object]],
        metrics: Callable[[], bytes],
    ) -> None:
        handler = _handler(report, metrics)
        self._server = _Server(address, handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.2,), name="health", daemon=True
        )

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():  # shutdown() waits for a loop, also for one that never ran
            self._server.shutdown()
            self._thread.join(2.0)
        self._server.server_close()


def _handler(
    report: Callable[[], dict[str, object]], metrics: Callable[[], bytes]
) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 5.0

        def do_GET(self) -> None:
            if self.path == "/healthz":
                facts = report()
                code = 503 if facts["status"] == "failing" else 200
                self._answer(code, "application/json", json.dumps(facts).encode())
            elif self.path == "/metrics":
                self._answer(200, "text/plain; version=0.0.4", metrics())
            else:
                self._answer(404, "text/plain", b"/healthz or /metrics\n")

        def _answer(self, code: int, kind: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Scrapes are not worth a log line."""

    return Handler
