"""A serial port as a `BytePort`: pyserial opens and configures it, poll(2) and read(2) listen.

No protocol here, and no thread: whoever opened the port owns it. Everything the operating system
can say about a port that is not there, taken, or gone becomes `LinkDown` in one line.
Name a port by /dev/serial/by-id or by-path: after a re-plug ttyUSB0 may be another adapter.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import termios

import serial

from drivers.errors import LinkDown

WRITE_TIMEOUT_S = 0.5  # 480 bytes at 9600 baud; our longest frame has 25
READ_BYTES = 4096  # size of the tty's own buffer
# What pyserial, the driver and the pty layer raise when the cable is pulled (termios.error is not
# an OSError; ValueError is a speed that the adapter cannot do).
_FAULTS = (OSError, serial.SerialException, termios.error, ValueError)


class SerialPort:
    """`BytePort` over a tty, 8N1, exclusively ours."""

    def __init__(self, port: str, baud: int) -> None:
        self._name = port
        try:
            self._tty = serial.Serial(
                port, baud, timeout=0, write_timeout=WRITE_TIMEOUT_S, exclusive=True
            )
        except _FAULTS as fault:
            raise LinkDown(f"cannot open {port} at {baud} baud: {_reason(fault)}") from fault
        self._fd = self._tty.fileno()
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def read(self, timeout: float) -> bytes:
        try:
            if not self._poll.poll(max(0.0, timeout) * 1000.0):
                return b""
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return b""
        except _FAULTS as fault:
            raise LinkDown(f"{self._name} is gone: {_reason(fault)}") from fault
        if not data:  # readable and empty: hung up
            raise LinkDown(f"{self._name} is gone: hung up")
        return data

    def write(self, data: bytes) -> None:
        try:
            self._tty.write(data)
            self._tty.flush()  # tcdrain: returns when the last bit has left the UART
        except _FAULTS as fault:
            raise LinkDown(f"{self._name} is gone: {_reason(fault)}") from fault

    def close(self) -> None:
        with contextlib.suppress(*_FAULTS):
            self._tty.close()


def _reason(fault: BaseException) -> str:
    number = getattr(fault, "errno", None)
    if number == errno.EAGAIN:  # flock(2)
        return "another process has it"
    return os.strerror(number) if isinstance(number, int) else str(fault.args[-1])


def open_serial(port: str, baud: int) -> SerialPort:
    """Open `port` at `baud`, 8N1; LinkDown while it is not there or another process has it."""
    return SerialPort(port, baud)
