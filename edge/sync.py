"""The gate's end of the wire: bytes in, verified messages to the book and the replica, answers
and audit rows out. The `sync` thread is the only one that writes the roster.

The broker is the doorbell: nothing it holds is relied on. A message is acknowledged when its
consequences are on the disk; one that cannot be believed is acknowledged too, dropped and counted.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import cbor2

from edge import seal, wire
from edge.clock import Clock
from edge.envelope import Message, WireError, decode, encode
from edge.keys import Identity
from edge.link import Received
from edge.replica import Outgoing, Replica
from edge.store import StoreFault
from edge.terms import ZoneId
from edge.trail import TrailFault
from edge.trust import TrustBook
from edge.wire import Type

TICK_S = 0.1
PULL_RETRY_S = 3.0  # a lost message is repaired within 10 s (targets.md)
NO_BEACON_S = 45.0  # four beacons and a half: the line is dead whatever TCP says
RECEIPT_EVERY_S = 60.0
EVENTS_RETRY_S = 5.0
EVENTS_BATCH = 100

log = logging.getLogger("edge.sync")


class Line(Protocol):
    """The MQTT client (edge.link.Link)."""

    def receive(self, timeout: float) -> Received | None: ...
    def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False
    ) -> bool: ...
    def rebuild(self) -> None: ...
    @property
    def connected(self) -> bool: ...


class Outbox(Protocol):
    """The audit trail as this thread sees it (edge.journal.Journal)."""

    def outbox(self, after_no: int, limit: int) -> Sequence[OutRow]: ...
    def acked(self, upto: int, chain_hash: bytes) -> bool: ...
    @property
    def acked_no(self) -> int: ...


class OutRow(Protocol):
    @property
    def event_no(self) -> int: ...
    @property
    def salt(self) -> bytes: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def prev_hash(self) -> bytes: ...


@dataclass
class Sync:
    gate: str
    identity: Identity
    line: Line
    book: TrustBook
    replica: Replica
    journal: Outbox
    clock: Clock
    degraded: Callable[[], list[str]]
    session: bytes
    boot_id: bytes
    stop: threading.Event
    connected: threading.Event = field(default_factory=threading.Event)  # set on the paho thread
    counts: Counter[str] = field(default_factory=Counter)  # dropped messages, by why
    ticked_mono: float = 0.0
    _heard_mono: float = 0.0
    _receipted_mono: float = 0.0
    _uploaded_mono: float = float("-inf")
    _office_no: int | None = None  # the last audit row it says it has
    _last_status: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        self.ticked_mono = self._heard_mono = self._receipted_mono = self.clock.mono()

    def run(self) -> None:
        """The loop of the `sync` thread."""
        while not self.stop.is_set():
            self.ticked_mono = self.clock.mono()
            if self.connected.is_set():
                self.connected.clear()
                self._greet()
            received = self.line.receive(TICK_S)
            if received is not None:
                self._take(received)
            else:
                self.replica.store.forget_erased()
            self._timers()

    # --- in ---

    def _take(self, received: Received) -> None:
        try:
            self._send(self._handle(received.topic, received.payload, received.retained))
        except WireError as error:
            self.counts[error.why] += 1
            log.warning("message dropped", extra={"topic": received.topic, "why": str(error)})
        except StoreFault as error:  # papers and keys come again with the next HELLO
            self.counts["disk"] += 1
            log.warning("message not kept", extra={"topic": received.topic, "why": str(error)})
        except Exception:  # the last net: one bad message must not stop the next revocation
            self.counts["handler"] += 1
            log.exception("message dropped by a fault of ours", extra={"topic": received.topic})
        received.ack()

    def _handle(self, topic: str, raw: bytes, retained: bool) -> list[Outgoing]:
        try:
            branch, target, leaf = wire.split_topic(topic)
        except ValueError as error:
            raise WireError("topic", str(error)) from None
        message = self._decode(raw, target)
        if leaf == "cmd" or message.kind in wire.NOT_BUILT:
            return self._not_built(message)
        if branch == "z":
            if message.kind is Type.BEACON:
                self._heard_mono = self.clock.mono()
                return self.replica.on_beacon(message, retained=retained)
            return self.replica.on_delta(message)
        return self._down(message)

    def _decode(self, raw: bytes, target: str) -> Message:
        return decode(raw, self.book.keyring, direction="down", target=target)

    def _down(self, message: Message) -> list[Outgoing]:
        """What the office tells this gate alone."""
        body = message.body
        if isinstance(body, wire.Page):
            return self.replica.on_page(message)
        if isinstance(body, wire.EventAck):
            return self._on_event_ack(body)
        if isinstance(body, wire.Trust | wire.Member):
            self.book.on_paper(message)
        elif isinstance(body, wire.ZoneKey):
            if self.book.on_zone_key(message):
                return self.replica.on_face_key(ZoneId(body.zone))
        elif isinstance(body, wire.Gone):
            self._on_gone(body)
        elif isinstance(body, wire.Refused):
            log.warning("the office refuses", extra={"what": body.what, "why": body.reason})
        else:
            raise WireError("type", f"{message.kind.name} on a gate's topic")
        return []

    def _on_gone(self, body: wire.Gone) -> None:
        """What we lack is in no log any more. Said of what we have, it is an old message."""
        state = self.replica.zones.get(ZoneId(body.zone))
        if state is None:
            raise WireError("zone", body.zone)
        if body.epoch != (state.roster.epoch or body.epoch):
            raise WireError("epoch", body.zone)
        if body.floor_seq <= state.roster.applied_seq:
            raise WireError("gone_old", body.zone)
        self.replica.fault(ZoneId(body.zone), "gone_needs_snapshot", seq=body.floor_seq)

    def _not_built(self, message: Message) -> list[Outgoing]:
        """Commands, snapshots, challenges and epochs come with the roster issue: refused aloud."""
        self.counts["not_built"] += 1
        log.warning("not built", extra={"type": message.kind.name})
        if message.kind is not Type.COMMAND:
            return []
        return [(Type.COMMAND_RESULT, wire.CommandResult(accepted=False, reason="not_built"))]

    def _on_event_ack(self, body: wire.EventAck) -> list[Outgoing]:
        """What comes next goes up at once when the office has come on, else only in its time: an
        office that says the same again must not be asked as fast as the line can carry it. One
        that has less than it once acknowledged gets it again."""
        try:
            ours = self.journal.acked(body.upto, body.chain_hash)
        except TrailFault:  # the disk fails, and `/healthz` says so
            self.counts["audit_disk"] += 1
            return []
        if not ours:
            self.counts["audit_chain"] += 1
            log.error("the office holds another audit chain", extra={"event_no": body.upto})
        elif body.upto != self._office_no:
            self._office_no, self._uploaded_mono = body.upto, float("-inf")
        return []

    # --- out ---

    def _send(self, outgoing: Iterable[Outgoing]) -> None:
        for kind, body in outgoing:
            topic = wire.gate_topic(self.gate, "events" if kind is Type.EVENTS else "up")
            self.line.publish(topic, self._sign(kind, body))

    def _sign(self, kind: Type, body: wire.Body) -> bytes:
        return encode(kind, body, self.identity.sign, direction="up", target=self.gate)

    def _greet(self) -> None:
        """After each connection: who we are, what we lack, what we have enforced."""
        hello = wire.Hello(
            session=self.session,
            boot_id=self.boot_id,
            nonce=os.urandom(16),
            positions=[self.replica.position(zone) for zone in self.replica.zones],
            kcvs=self.book.kcvs(),
            at=int(self.clock.wall() * 1000),
        )
        self._last_status = None
        self._uploaded_mono, self._office_no = float("-inf"), None
        self._heard_mono = self.clock.mono()
        self._send([(Type.HELLO, hello), *self.replica.hello(), *self._receipts()])

    def _receipts(self) -> list[Outgoing]:
        self._receipted_mono = self.clock.mono()
        return [self.replica.receipt(zone) for zone in self.replica.zones]

    def _timers(self) -> None:
        now = self.clock.mono()
        if not self.line.connected:
            self._heard_mono = now
            return
        if now - self._heard_mono > NO_BEACON_S:
            log.warning("no beacon: connecting anew", extra={"seconds": NO_BEACON_S})
            self._heard_mono = now
            self.line.rebuild()
            return
        self._send(self.replica.overdue(PULL_RETRY_S))
        if now - self._receipted_mono > RECEIPT_EVERY_S:
            self._send(self._receipts())
        self._upload(now)
        self._tell_status()

    def _upload(self, now: float) -> None:
        """One batch of audit rows in flight; the next when it is acknowledged or overdue."""
        if now - self._uploaded_mono < EVENTS_RETRY_S:
            return
        zone = next(iter(self.replica.zones), None)
        key = self.book.newest(zone, "kr") if zone else None
        if zone is None or key is None:
            return
        try:
            acked_no = self.journal.acked_no
            after_no = acked_no if self._office_no is None else min(acked_no, self._office_no)
            rows = self.journal.outbox(after_no, EVENTS_BATCH)
        except TrailFault:  # the disk fails: `/healthz` says so, and the rows are still there
            return
        if not rows:
            return
        epoch, secret = key
        first = rows[0].event_no
        plain = cbor2.dumps([[row.salt, row.payload] for row in rows])
        events = wire.Events(
            zone=zone,
            key_epoch=epoch,
            first_no=first,
            count=len(rows),
            prev_hash=rows[0].prev_hash,
            sealed=seal.seal(secret, plain, seal.events_aad(self.gate, zone, epoch, first)),
        )
        self._uploaded_mono = now
        self._send([(Type.EVENTS, events)])

    def _tell_status(self) -> None:
        degraded = tuple(self.degraded())
        if degraded == self._last_status:
            return
        self._last_status = degraded
        raw = status_message(
            self.identity, self.gate, self.session, self.clock, self.replica, degraded
        )
        self.line.publish(wire.gate_topic(self.gate, "status"), raw, retain=True)


def status_message(
    identity: Identity,
    gate: str,
    session: bytes,
    clock: Clock,
    replica: Replica,
    degraded: Sequence[str] | None,
) -> bytes:
    """A signed STATUS; with `degraded` None the offline one, which is the last will."""
    body = wire.StatusBody(
        session=session,
        state="offline" if degraded is None else "online",
        degraded=[word.partition(":")[0] for word in degraded or ()][:64],
        positions=[replica.position(zone) for zone in replica.zones],
        at=int(clock.wall() * 1000),
    )
    return encode(Type.STATUS, body, identity.sign, direction="up", target=gate)
