"""For tests of `roster serve` message by message: a real authority, a line that keeps what is
published, and hands that speak for gates and desks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from office import ZONE, OfficeKit, make_office

from edge import wire
from edge.envelope import Message, decode, encode
from edge.link import Received
from edge.wire import Body, Type
from enroll.roster.serve import Serve

GATE, DESK, TENANCY = "gate-1", "desk-1", "T-1"
UP, D_UP = wire.gate_topic(GATE, "up"), wire.desk_topic(DESK, "up")
EVENTS, STATUS = wire.gate_topic(GATE, "events"), wire.gate_topic(GATE, "status")


@dataclass
class KeepingLine:
    """Takes what is published, as long as it is up and has room."""

    connected: bool = True
    room: int = 1000
    sent: list[tuple[str, bytes, bool]] = field(default_factory=list)

    def receive(self, timeout: float) -> Received | None:
        return None

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> bool:
        taken = self.connected and len(self.sent) < self.room
        if taken:
            self.sent.append((topic, payload, retain))
        return taken


@dataclass
class Served:
    office: OfficeKit
    line: KeepingLine
    serve: Serve
    acks: int = 0

    def say(self, topic: str, raw: bytes) -> None:
        def ack() -> None:
            self.acks += 1

        self.serve._take(Received(topic, raw, False, ack))

    def signed(
        self, kind: Type, body: Body, who: str, *, direction: str = "up", target: str = ""
    ) -> bytes:
        key = self.office.boxes[who].sign
        return encode(kind, body, key, direction=direction, target=target or who)  # type: ignore[arg-type]

    def look(self, after_s: float = 0.0) -> None:
        self.office.clock.now += after_s
        self.serve._look()

    def take(self, topic: str) -> list[Message]:
        """What was sent there, verified as its receiver does."""
        target = topic.split("/")[3]
        raws = [raw for where, raw, _ in self.line.sent if where == topic]
        self.line.sent = [item for item in self.line.sent if item[0] != topic]
        return [self.verified(raw, target) for raw in raws]

    def verified(self, raw: bytes, target: str) -> Message:
        return decode(raw, self.office.authority.keyring(), direction="down", target=target)

    def kinds(self, topic: str) -> list[str]:
        return [message.kind.name for message in self.take(topic)]

    def enrolled(self, internal_id: str = "wang", tenancy: str = TENANCY) -> None:
        authority = self.office.authority
        if tenancy not in [t.tenancy for t in authority.tenancies()]:
            authority.add_tenancy(tenancy, ZONE, "3-1201", None, None, 4)
        authority.enrol(DESK, [ZONE], self.office.enrol_body(internal_id, tenancy))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    office = make_office(tmp_path)
    office.authority.add_zone("other")
    office.add(GATE, "gate", [ZONE])
    office.add("gate-2", "gate", [ZONE])
    office.add(DESK, "desk", [ZONE])
    office.add("desk-far", "desk", ["other"])
    line = KeepingLine()
    serve = Serve(office.authority, line, office.clock, threading.Event())
    serve._told = dict.fromkeys(office.authority.zones(), 0)
    yield Served(office, line, serve)
    office.authority.close()


def hello(kcvs: list[bytes] | None = None, nonce: bytes = bytes(16)) -> wire.Hello:
    return wire.Hello(session=bytes(8), boot_id=bytes(16), nonce=nonce, kcvs=kcvs or [], at=1)


def status() -> wire.StatusBody:
    return wire.StatusBody(session=bytes(8), state="online", at=1)
