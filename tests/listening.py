"""For the tests of buses: an ear for what a bus tells, that waits instead of sleeping."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from drivers.base import Event, OrderDone, OrderFailed

WAIT_S = 5.0  # also the promise: a device or port that returns is served within 5 s

E = TypeVar("E", bound=Event)


class Heard:
    """Give it to a `Bus` as `on_event`."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Event]] = []
        self._more = threading.Condition()

    def __call__(self, device: str, event: Event) -> None:
        with self._more:
            self.events.append((device, event))
            self._more.notify_all()

    def wait(
        self,
        kind: type[E],
        device: str | None = None,
        *,
        count: int = 1,
        after: int = 0,
        test: Callable[[E], bool] = lambda _: True,
    ) -> list[E]:
        """At least `count` such events behind the first `after` ones."""

        def found() -> list[E]:
            told = [e for d, e in self.events[after:] if device in (None, d)]
            return [e for e in told if isinstance(e, kind) and test(e)]

        with self._more:
            assert self._more.wait_for(lambda: len(found()) >= count, WAIT_S), self.events
            return found()

    def end(self, order_id: int) -> OrderDone | OrderFailed:
        """How the order ended."""

        def ends() -> list[OrderDone | OrderFailed]:
            told = [e for _, e in self.events if isinstance(e, OrderDone | OrderFailed)]
            return [e for e in told if e.order_id == order_id]

        with self._more:
            assert self._more.wait_for(ends, WAIT_S), self.events
            return ends()[0]

    def error(self, order_id: int) -> Exception:
        end = self.end(order_id)
        assert isinstance(end, OrderFailed), end
        return end.error
