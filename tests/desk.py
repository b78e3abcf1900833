"""For tests of a driver without bus, port or clock: one hand that plays all three."""

from __future__ import annotations

from drivers import rtu
from drivers.base import Event, OrderDone, OrderFailed, Unlock
from drivers.modbus import ModbusRelay
from drivers.rtu import READ_COILS, WRITE_COIL

ADDRESS = 1
OUTPUTS = 8


class Desk:
    """A bus and a board in one hand: asks the driver, answers or not, moves the time."""

    def __init__(self, driver: ModbusRelay) -> None:
        self.driver = driver
        self.now = 100.0
        self.told: list[Event] = []
        self.sent: list[rtu.Request] = []

    def next(self) -> rtu.Request:
        """The request that the driver sends when it next wants to; moves the time to it."""
        if not self.driver.urgent:
            self.now = max(self.now, self.driver.next_deadline())
        frame = self.driver.tick(self.now)
        request = rtu.Request.decode(frame)
        assert request is not None, f"no request but {frame.hex()!r}"
        self.sent.append(request)
        return request

    def hear(self, data: bytes, after: float = 0.02) -> None:
        self.now += after
        self.driver.feed(data, self.now)

    def silence(self) -> None:
        """Nobody answers until the driver's patience is over."""
        self.now = self.driver.next_deadline()
        self.driver.gap(self.now)
        assert not self.driver.busy

    def online(self, unlocked: tuple[int, ...] = ()) -> None:
        """First contact: the board is read; then nothing is wanted for a while."""
        self.answer_read(unlocked)
        if self.driver.capabilities.inputs:
            request = self.next()
            self.hear(request.answer([False] * request.value))
        self.events()
        self.sent.clear()

    def answer_read(self, energised: tuple[int, ...] = ()) -> None:
        request = self.next()
        assert request.function == READ_COILS
        self.hear(request.answer([n in energised for n in range(request.value)]))

    def order(self, order_id: int = 7, output: int = 0, seconds: float = 3.0) -> Unlock:
        order = Unlock(order_id, output, seconds, valid_until=self.now + 2.0)
        self.driver.unlock(order)
        return order

    def unlock_request(self) -> rtu.Request:
        request = self.next()
        assert request.function == WRITE_COIL
        return request

    def events(self) -> list[Event]:
        self.told.extend(fresh := list(self.driver.events()))
        return fresh

    def end(self) -> Event | None:
        """How the order ended."""
        self.events()
        ends = [e for e in self.told if isinstance(e, OrderDone | OrderFailed)]
        assert len(ends) <= 1, "an order ends once"
        return ends[0] if ends else None

    def error(self) -> Exception:
        end = self.end()
        assert isinstance(end, OrderFailed)
        return end.error

    def unlocks(self) -> int:
        return sum(r.function == WRITE_COIL for r in self.sent)
