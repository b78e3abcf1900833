"""A simulated RS-485 relay board: pymodbus's serial server (which we did not write) at the far end
of a paced line. Ours are only the coils, timers and inputs behind it, and the boards' vendor
command ("flash": a write to 0x0200 + n or 0x0400 + n), which the standard does not know.

The server runs in a thread of its own, `relayboard-<address>`, with its own event loop.
"""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from pathlib import Path
from typing import Any, Self, cast

from pymodbus.constants import ExcCodes
from pymodbus.pdu import ExceptionResponse, ModbusPDU
from pymodbus.pdu.bit_message import WriteSingleCoilRequest
from pymodbus.server import ModbusSerialServer
from pymodbus.simulator import DataType, SimData, SimDevice

from drivers.rtu import FLASH_OFF, FLASH_ON, READ_INPUTS, WRITE_COIL, WRITE_COILS
from drivers.virtual import Pulse, Relays
from hil.wire import DEVICE, PRODUCT, Faults, PacedPty

__all__ = ["Pulse", "RelayBoard"]

INPUTS = 8
START_S = 10.0


def _flash_pdu(relays: Relays, count: int) -> type[ModbusPDU]:
    """pymodbus's request class for function 5, which forgets the value, with the value kept."""

    class WriteOrFlash(WriteSingleCoilRequest):
        value = 0

        def decode(self, data: bytes) -> None:
            super().decode(data)
            self.value = struct.unpack(">H", data[2:4])[0]

        def encode(self) -> bytes:
            return struct.pack(">HH", self.address, self.value)

        async def datastore_update(self, context: Any, device_id: int) -> ModbusPDU:
            kind, output = self.address & 0xFF00, self.address & 0x00FF
            if kind not in (FLASH_ON, FLASH_OFF):
                return await super().datastore_update(context, device_id)
            if output >= count:
                return ExceptionResponse(WRITE_COIL, ExcCodes.ILLEGAL_ADDRESS)
            relays.flash(output, kind == FLASH_ON, self.value / 10)
            return self  # the boards echo the request

    return WriteOrFlash


def _words(bits: list[bool]) -> list[int]:
    return [
        sum(1 << i for i, bit in enumerate(bits[at : at + 16]) if bit)
        for at in range(0, len(bits), 16)
    ]


class RelayBoard:
    """One board alone on a line, powered and listening from construction to `close`."""

    def __init__(
        self,
        baud: int = 9600,
        address: int = 1,
        relays: int = 16,
        link: Path | None = None,
        *,
        resting: bool = False,
        faults: Faults | None = None,
    ) -> None:
        self.relays = Relays(relays, INPUTS, time.monotonic, resting=resting)
        self.wire = PacedPty(baud, link, faults=faults)
        self._baud, self._address, self._count = baud, address, relays
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._off: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name=f"relayboard-{address}")
        self._thread.start()
        if not self._ready.wait(START_S) or self._failed is not None:
            self.close()
            raise RuntimeError("the simulated relay board did not start") from self._failed

    @property
    def port(self) -> str:
        """What the product opens."""
        return self.wire.path

    @property
    def pulses(self) -> list[Pulse]:
        return self.relays.pulses

    def relay(self, n: int) -> bool:
        """True while the coil is energised."""
        return self.relays.coils()[n]

    def set_input(self, n: int, active: bool) -> None:
        self.relays.set_input(n, active)

    def wait_pulse(self, n_before: int, timeout: float) -> Pulse:
        """The first pulse after the first `n_before`; TimeoutError when none comes."""
        return self.relays.wait_pulse(n_before, timeout)

    def mute(self, muted: bool) -> None:
        """Without power: hears nothing and says nothing."""
        self.wire.mute(PRODUCT, muted)
        self.wire.mute(DEVICE, muted)

    def unplug(self) -> None:
        """The product's adapter leaves; the board keeps its power."""
        self.wire.unplug()

    def replug(self) -> None:
        self.wire.replug()

    def close(self) -> None:
        if self._loop is not None and self._off is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._off.set)
        self._thread.join()
        self.wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the board's thread ---

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as fault:
            self._failed = fault
            raise
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._off = asyncio.get_running_loop(), asyncio.Event()
        server = ModbusSerialServer(
            self._device(),
            port=self.wire.device_path(),
            baudrate=self._baud,
            trace_pdu=self._only_mine,
            custom_pdu=[_flash_pdu(self.relays, self._count)],
        )
        await server.serve_forever(background=True)
        self._ready.set()
        await self._off.wait()
        await server.shutdown()  # type: ignore[no-untyped-call]

    def _device(self) -> SimDevice:
        coils = [SimData(0, values=[False] * self._count, datatype=DataType.BITS)]
        inputs = [SimData(0, values=[False] * INPUTS, datatype=DataType.BITS)]
        words = [SimData(0, datatype=DataType.REGISTERS)]
        return SimDevice(self._address, (coils, inputs, words, words), action=self._action)

    async def _action(
        self,
        function: int,
        _start: int,
        address: int,
        _count: int,
        registers: list[int],
        values: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        """pymodbus asks before every access: keep its registers the image of our coils."""
        if function in (WRITE_COIL, WRITE_COILS) and values:
            if address + len(values) > self._count:
                return ExcCodes.ILLEGAL_ADDRESS
            for n, energised in enumerate(values, address):
                self.relays.switch(n, bool(energised))
        bits = self.relays.inputs() if function == READ_INPUTS else self.relays.coils()
        words = _words(bits)
        registers[: len(words)] = words
        return None

    def _only_mine(self, sending: bool, pdu: ModbusPDU) -> ModbusPDU:
        """A board does not answer for its neighbours (pymodbus would, with an exception)."""
        foreign = not sending and pdu.dev_id != self._address
        return cast(ModbusPDU, None) if foreign else pdu
