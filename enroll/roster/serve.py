"""`roster serve`: the authority on the line. Hears what gates and desks say, answers, and tells
every zone at once what changed in its log.

The law: a message is verified, its consequences are committed, then it is acknowledged; one that
cannot be believed is dropped, counted and logged, and never ends anything. One worker thread does
all of it and waits on one queue; a second one (`bell`) hears the CLI's pokes. Nobody is named in a
log line.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from edge import wire
from edge.clock import Clock
from edge.envelope import HEADER, Keyring, Message, WireError, decode, encode, parse
from edge.link import Received
from edge.wire import Body, Role, Type
from enroll.roster.authority import Authority
from enroll.roster.refusal import Refusal

BEACON_EVERY_S = 10.0  # a gate calls its lease stale after 30 s (roster-protocol.md)
LOOK_EVERY_S = 1.0  # without a poke: the CLI may run as somebody who cannot reach the socket
PUBLISH_BATCH = 100  # DELTAs of a zone between two looks at the inbox
SHOWN_CHARS_MAX = 120  # of a topic in a log line: whoever publishes there chose it

BRANCH = {Role.GATE: "g", Role.DESK: "d"}
LEAF = {Type.EVENTS: "events", Type.STATUS: "status"}  # all else comes on `up`
BY_BEACON = {Type.BEACON, Type.EVENT_ACK}

log = logging.getLogger("enroll.serve")


class Line(Protocol):
    """The MQTT client (edge.link.Link)."""

    @property
    def connected(self) -> bool: ...
    def receive(self, timeout: float) -> Received | None: ...
    def publish(
        self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False
    ) -> bool: ...


def subscriptions(shared_group: str) -> list[str]:
    """What the authority hears. STATUS is retained, and retained messages are not delivered to a
    shared subscription (MQTT 5, 4.8.2), so every worker hears it."""
    share = f"$share/{shared_group}/" if shared_group else ""
    shared = (
        wire.gate_topic("+", "up"),
        wire.gate_topic("+", "events"),
        wire.desk_topic("+", "up"),
    )
    return [share + topic for topic in shared] + [wire.gate_topic("+", "status")]


@dataclass
class Serve:
    """`greeted` and `poked` are set by other threads, which then wake the line."""

    authority: Authority
    line: Line
    clock: Clock
    stop: threading.Event
    greeted: threading.Event = field(default_factory=threading.Event)
    poked: threading.Event = field(default_factory=threading.Event)
    counts: Counter[str] = field(default_factory=Counter)  # dropped messages, by why
    _keyring: Keyring | None = None
    _told: dict[str, int] = field(default_factory=dict)  # zone -> seq published
    _beacon_mono: dict[str, float] = field(default_factory=dict)
    _looked_mono: float = float("-inf")
    _keyed_mono: float = float("-inf")

    def run(self) -> None:
        """The worker's loop."""
        for zone in self.authority.zones():  # what gates lack of it, they pull
            self._told[zone] = self.authority.position(zone).head_seq
        while not self.stop.is_set():
            received = self.line.receive(LOOK_EVERY_S)
            if self.greeted.is_set():
                self.greeted.clear()
                self._beacon_mono.clear()
                self.poked.set()
            if received is not None:
                self._take(received)
            with self._net("look"):
                self._look()

    @contextlib.contextmanager
    def _net(self, what: str) -> Iterator[None]:
        """The last net: a fault of ours or of the disk must not stop the next revocation."""
        try:
            yield
        except Exception:
            self.counts["fault"] += 1
            log.exception("a fault of ours", extra={"at_work_on": what})

    # --- out: the log and the beacons ---

    def _look(self) -> None:
        now = self.clock.mono()
        if not self.poked.is_set() and now - self._looked_mono < LOOK_EVERY_S:
            return
        if self.poked.is_set():
            self._keyring = None  # perhaps a member is new
        self.poked.clear()
        self._looked_mono = now
        if not self.line.connected:
            return
        for zone in self.authority.zones():
            revoked = self._tell(zone)
            if revoked or now - self._beacon_mono.get(zone, float("-inf")) >= BEACON_EVERY_S:
                self._beacon(zone)

    def _tell(self, zone: str) -> bool:
        """Publish what the log has gained; True when a revocation was in it."""
        revoked, topic = False, wire.zone_topic(zone, "log")
        rows = self.authority.deltas_after(zone, self._told.setdefault(zone, 0), PUBLISH_BATCH)
        for seq, delta, is_revocation in rows:
            if not self.line.publish(topic, delta):
                break
            self._told[zone] = seq
            revoked |= is_revocation
        if len(rows) == PUBLISH_BATCH:
            self.poked.set()
        return revoked

    def _beacon(self, zone: str) -> None:
        body = self.authority.next_beacon(zone)
        signed = self._sign(Type.BEACON, body, zone)
        if self.line.publish(wire.zone_topic(zone, "beacon"), signed, retain=True):
            self._beacon_mono[zone] = self.clock.mono()

    def _sign(self, kind: Type, body: Body, target: str) -> bytes:
        keys = self.authority.keys
        key = keys.beacon if kind in BY_BEACON else keys.roster
        return encode(kind, body, key, direction="down", target=target)

    # --- in ---

    def _take(self, received: Received) -> None:
        shown = received.topic[:SHOWN_CHARS_MAX]
        with self._net("message"):
            try:
                self._handle(received.topic, received.payload)
            except WireError as error:
                self.counts[error.why] += 1
                log.warning("message dropped", extra={"topic": shown, "why": str(error)})
        received.ack()

    def _handle(self, topic: str, raw: bytes) -> None:
        try:
            branch, member, leaf = wire.split_topic(topic)
        except ValueError:
            raise WireError("topic") from None
        message = self._decode(raw, member)
        signer, kind = message.signer, message.kind
        if BRANCH.get(signer.role) != branch:  # whose topic it is, `decode` has checked
            raise WireError("member", f"{kind.name} of a {signer.role}")
        if leaf != LEAF.get(kind, "up"):
            raise WireError("topic", f"{kind.name} on {leaf}")
        if kind in wire.NOT_BUILT:
            self._refuse(message, "not_built", None)
            return
        try:
            HANDLERS[kind](self, message)
        except Refusal as refusal:
            self._refuse(message, refusal.reason, getattr(message.body, "request", None))

    def _decode(self, raw: bytes, member: str) -> Message:
        """With the members as they are now: a signer we do not know may have joined just now."""
        if self._keyring is None:
            self._keyring, self._keyed_mono = self.authority.keyring(), self.clock.mono()
        try:
            return decode(raw, self._keyring, direction="up", target=member)
        except WireError as error:
            if error.why != "key" or self.clock.mono() - self._keyed_mono < LOOK_EVERY_S:
                raise
        self._keyring, self._keyed_mono = self.authority.keyring(), self.clock.mono()
        return decode(raw, self._keyring, direction="up", target=member)

    def _down(self, message: Message, raw: bytes) -> None:
        self.line.publish(_down_topic(message.signer.role, message.signer.member), raw)

    def _reply(self, message: Message, kind: Type, body: Body) -> None:
        self._down(message, self._sign(kind, body, message.signer.member))

    def _refuse(self, message: Message, reason: str, request: bytes | None) -> None:
        self.counts[reason] += 1
        what = message.kind.name
        log.warning("refused", extra={"by": message.signer.member, "what": what, "why": reason})
        self._reply(
            message, Type.REFUSED, wire.Refused(request=request, what=what.lower(), reason=reason)
        )

    # --- one message each ---

    def on_hello(self, message: Message) -> None:
        """The papers a member needs, then the zone keys it has not."""
        body, me = message.expect(wire.Hello), message.signer
        self._down(message, self.authority.trust_bytes())
        for stored in self.authority.members():
            other = stored.member
            shared = me.zones & set(other.zones)
            if other.id == me.member or (shared and Role.DESK in (me.role, other.role)):
                self._down(message, stored.signed)
        for signed in self.authority.zone_keys_for(me.member):
            if _zone_key(signed).kcv not in body.kcvs:
                self._down(message, signed)
        if me.role is Role.DESK:
            self._reply(message, Type.ACCEPTED, wire.Accepted(request=body.nonce, what="hello"))

    def on_pull(self, message: Message) -> None:
        body = message.expect(wire.Pull)
        if body.zone not in message.signer.zones:
            raise Refusal("wrong_zone")
        page = self.authority.page(body.zone, body.from_seq)
        self._reply(message, Type.PAGE if isinstance(page, wire.Page) else Type.GONE, page)

    def on_receipt(self, message: Message) -> None:
        body, gate = message.expect(wire.Receipt), message.signer.member
        if self.authority.put_receipt(gate, body) == "diverged":
            self.counts["diverged"] += 1
            log.error(
                "a gate's roster differs from ours",
                extra={"gate": gate, "zone": body.zone, "seq": body.applied_seq},
            )

    def on_events(self, message: Message) -> None:
        body, gate = message.expect(wire.Events), message.signer.member
        rows = self.authority.open_events(gate, body)
        self._reply(message, Type.EVENT_ACK, self.authority.put_events(gate, body, rows))

    def on_status(self, message: Message) -> None:
        self.authority.put_status(message.signer.member, message.expect(wire.StatusBody))

    def on_command_result(self, message: Message) -> None:
        self.counts["command_result"] += 1  # we send no command yet

    def on_keys(self, message: Message) -> None:
        """A desk's zone keys go on to their members, each after the paper of who signed it."""
        body, desk = message.expect(wire.Keys), message.signer.member
        self.authority.put_zone_keys(desk, body.items)
        members = {stored.member.id: stored for stored in self.authority.members()}
        for item in body.items:
            topic = _down_topic(Role(members[item.member].member.role), item.member)
            self.line.publish(topic, members[desk].signed)
            self.line.publish(topic, item.message)
        self._reply(message, Type.ACCEPTED, wire.Accepted(request=body.request, what="keys"))

    def on_enrol(self, message: Message) -> None:
        body, desk = message.expect(wire.Enrol), message.signer
        self.authority.enrol(desk.member, desk.zones, body)
        self.poked.set()
        self._reply(message, Type.ACCEPTED, wire.Accepted(request=body.request, what="enrol"))


HANDLERS: dict[Type, Callable[[Serve, Message], None]] = {
    Type.HELLO: Serve.on_hello,
    Type.PULL: Serve.on_pull,
    Type.RECEIPT: Serve.on_receipt,
    Type.EVENTS: Serve.on_events,
    Type.STATUS: Serve.on_status,
    Type.COMMAND_RESULT: Serve.on_command_result,
    Type.KEYS: Serve.on_keys,
    Type.ENROL: Serve.on_enrol,
}


def _down_topic(role: Role, member: str) -> str:
    return wire.desk_topic(member, "down") if role is Role.DESK else wire.gate_topic(member, "down")


def _zone_key(signed: bytes) -> wire.ZoneKey:
    """Of one that we verified when we took it in."""
    return parse(wire.ZoneKey, signed[HEADER.size :])
