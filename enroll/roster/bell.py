"""The bell of `roster serve`: a datagram socket by which the CLI says that something changed. What
changed is in the database; a datagram carries nothing."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path

JOIN_S = 2.0

log = logging.getLogger("enroll.serve")


class Bell:
    """The datagram socket by which the CLI says that something changed."""

    def __init__(self, path: Path, ring: Callable[[], None]) -> None:
        self._path, self._ring = path, ring
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="bell", daemon=True)

    def start(self) -> None:
        """Without a socket (its path is too long, for one) nothing is lost but a second."""
        self._path.unlink(missing_ok=True)
        try:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.bind(str(self._path))
        except OSError as error:
            log.warning("no bell: changes are seen within a second", extra={"why": str(error)})
            self.stop()
            return
        self._path.chmod(0o600)
        self._thread.start()

    def stop(self) -> None:
        bell, self._socket = self._socket, None
        if bell is None:
            return
        with contextlib.suppress(OSError):
            bell.shutdown(socket.SHUT_RDWR)  # a closed socket alone leaves recv waiting
        if self._thread.is_alive():
            self._thread.join(2)
        bell.close()
        self._path.unlink(missing_ok=True)

    def _run(self) -> None:
        bell = self._socket
        while bell is not None and self._socket is not None:
            try:
                bell.recv(16)
            except OSError:
                return
            if self._socket is not None:
                self._ring()
