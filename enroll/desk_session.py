"""A desk on the line: one connection, in which it makes itself known, takes and gives zone keys,
and enrols. Templates leave here sealed under Kf, requests sealed under Kr; whatever the office
answers is verified against the pinned root before it is believed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from edge import envelope, seal, wire
from edge.clock import Clock
from edge.envelope import Message, WireError, decode, encode
from edge.link import Link
from edge.seal import KEY_BYTES
from edge.terms import ModelId, Vector
from edge.trust import TrustBook
from edge.wire import Member, Type
from enroll.desk import Desk, DeskPapers
from enroll.home import FIRST_KEY_EPOCH, OfficeError
from enroll.messages import say, say_refused

ANSWER_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 10.0
KEYS_PER_MESSAGE = 200  # of about 500 B each; a KEYS holds 256 KiB


class NotDone(Exception):
    """The office refused (`reason`: its word) or did not answer: one line, nothing was changed."""

    def __init__(self, says: str, reason: str = "") -> None:
        super().__init__(says)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Synced:
    """What a `sync` did."""

    zones: tuple[str, ...]
    made: tuple[str, ...]  # zones that got their face key now
    wrapped: int  # face keys sent to gates
    elsewhere: tuple[str, ...]  # zones whose face key another desk keeps: nobody is enrolled here


@contextlib.contextmanager
def session(desk: Desk, clock: Clock) -> Iterator[Session]:
    """Connect, alone in the desk's folder. NotDone when the broker is not reached."""
    with desk.alone():
        papers, address = desk.papers(), desk.bundle.broker
        link = Link(
            desk.id,
            address.host,
            address.port,
            tls=desk.tls(),
            protocol="3.1.1" if address.plain else "5",
            subscriptions=[wire.desk_topic(desk.id, "down")],
            name="desk",
        )
        link.start()
        try:
            if not link.wait_connected(CONNECT_TIMEOUT_S):
                raise NotDone(say("broker_away", host=address.host, port=address.port))
            yield Session(desk, papers, desk.book(papers), link, clock)
        finally:
            link.close()


@dataclass
class Session:
    desk: Desk
    papers: DeskPapers
    book: TrustBook
    link: Link
    clock: Clock
    dropped: list[str] = field(default_factory=list)  # why, per message that was not believed

    # --- sync ---

    def sync(self, *, again: bool = False) -> Synced:
        """Take what the office has for us, then give each gate of our zones its face key; with
        `again` also those that we gave it to before."""
        nonce = os.urandom(16)
        hello = wire.Hello(
            session=os.urandom(8),
            boot_id=os.urandom(16),
            nonce=nonce,
            kcvs=self.book.kcvs(),
            at=self._now_ms(),
        )
        self._send(Type.HELLO, hello)
        self._answer(nonce, "hello")
        zones = self._zones()
        made = tuple(zone for zone in zones if self._make_face_key(zone))
        self.papers.save()  # a face key is on the disk before a gate hears of it
        ours = [zone for zone in zones if self.book.newest(zone, "kf")]
        elsewhere = tuple(zone for zone in zones if zone not in ours)
        return Synced(zones, made, self._hand_out(ours, again), elsewhere)

    def _zones(self) -> tuple[str, ...]:
        me = self.book.members.get(self.desk.id)
        if me is None or me.struck:
            raise OfficeError(say("desk_struck", desk=self.desk.id))
        for zone in me.zones:
            if not (self.book.newest(zone, "kr") and self.book.newest(zone, "zs")):
                raise NotDone(say("desk_no_zone_key", zone=zone))
        return tuple(me.zones)

    def _make_face_key(self, zone: str) -> bool:
        """The first desk of a zone makes its face key. Who is first is the authority's to say: we
        claim the key by wrapping it for ourselves, and a second key is refused. An acceptance
        that is lost on the way costs nothing: our own wrap comes back with the next HELLO."""
        if self.book.newest(zone, "kf"):
            return False
        me, key = self.book.members[self.desk.id], os.urandom(KEY_BYTES)
        claim = self._wrap(zone, FIRST_KEY_EPOCH, key, me)
        try:
            self._give([wire.KeyFor(member=me.id, message=claim)])
        except NotDone as refused:
            if refused.reason != "second_kcv":
                raise
            return False
        self.papers.put_zone_key(zone, "kf", FIRST_KEY_EPOCH, key)
        self.book.keys[zone, "kf", FIRST_KEY_EPOCH] = key
        return True

    def _give(self, items: list[wire.KeyFor]) -> None:
        request = os.urandom(16)
        self._send(Type.KEYS, wire.Keys(request=request, items=items))
        self._answer(request, "keys")

    def _members_of(self, zone: str, role: str) -> list[Member]:
        return [
            member
            for member in self.book.members.values()
            if member.role == role and zone in member.zones and not member.struck
        ]

    def _hand_out(self, zones: Sequence[str], again: bool) -> int:
        places, items = [], []
        for zone in zones:
            for gate in self._members_of(zone, "gate"):
                epoch, key = self._key(zone, "kf")
                place = (zone, epoch, gate.id)
                if again or place not in self.papers.wrapped:
                    places.append(place)
                    message = self._wrap(zone, epoch, key, gate)
                    items.append(wire.KeyFor(member=gate.id, message=message))
        for first in range(0, len(items), KEYS_PER_MESSAGE):
            part = slice(first, first + KEYS_PER_MESSAGE)
            self._give(items[part])
            self.papers.wrapped |= set(places[part])
            self.papers.save()
        return len(items)

    def _wrap(self, zone: str, epoch: int, key: bytes, member: Member) -> bytes:
        """A signed ZONEKEY for one member."""
        place = {"zone": zone, "key_epoch": epoch, "member": member.id}
        sealed = seal.wrap_zone_key(
            key, zone=zone, which="kf", key_epoch=epoch, member=member.id, hpke_pub=member.hpke_pub
        )
        body = wire.ZoneKey.model_validate(
            {**place, "which": "kf", "kcv": seal.kcv(key), "sealed": sealed}
        )
        return encode(Type.ZONEKEY, body, self.desk.sign, direction="down", target=member.id)

    def _key(self, zone: str, which: wire.Which) -> tuple[int, bytes]:
        found = self.book.newest(zone, which)
        if found is None and which == "kf":
            raise NotDone(self.told_elsewhere(zone))
        if found is None:
            raise NotDone(say("desk_no_zone_key", zone=zone))
        return found

    def told_elsewhere(self, zone: str) -> str:
        others = [m.id for m in self._members_of(zone, "desk") if m.id != self.desk.id]
        return say("desk_second", zone=zone, other=", ".join(others) or "?")

    # --- enrol ---

    def enrol(
        self,
        zone: str,
        asked: wire.EnrolRequest,
        vectors: Sequence[Vector],
        model_id: ModelId,
    ) -> None:
        """Give a person the rights of a tenancy, with these templates. NotDone when refused.

        `tv` is our clock's milliseconds: newer photos have the higher one, whichever desk of the
        zone took them.
        """
        _, secret = self._key(zone, "zs")
        rights_epoch, rights_key = self._key(zone, "kr")
        person, request, tv = (
            seal.pseudonym(secret, asked.internal_id),
            os.urandom(16),
            self._now_ms(),
        )
        aad = seal.enrol_aad(self.desk.id, zone, person, request)
        body = wire.Enrol(
            request=request,
            zone=zone,
            person=person,
            tv=tv,
            key_epoch=rights_epoch,
            sealed=seal.seal(rights_key, envelope.dump(asked), aad),
            templates=[self._template(zone, person, tv, model_id, v) for v in vectors],
        )
        self._send(Type.ENROL, body)
        self._answer(request, "enrol")

    def _template(
        self, zone: str, person: bytes, tv: int, model_id: ModelId, vector: Vector
    ) -> wire.WireTemplate:
        epoch, key = self._key(zone, "kf")
        aad = seal.template_aad(zone, person, tv, epoch, model_id)
        sealed = seal.seal(key, seal.pack_vector(vector), aad)
        return wire.WireTemplate(model_id=model_id, key_epoch=epoch, sealed=sealed)

    # --- the line ---

    def _now_ms(self) -> int:
        return int(self.clock.wall() * 1000)

    def _send(self, kind: Type, body: wire.Body) -> None:
        raw = encode(kind, body, self.desk.sign, direction="up", target=self.desk.id)
        if not self.link.publish(wire.desk_topic(self.desk.id, "up"), raw):
            raise NotDone(say("broker_lost"))

    def _answer(self, request: bytes, what: str) -> None:
        """Take in messages until the one that answers `request`."""
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while (left := deadline - time.monotonic()) > 0:
            received = self.link.receive(left)
            if received is None:
                continue
            try:
                message = decode(
                    received.payload, self.book.keyring, direction="down", target=self.desk.id
                )
                if self._take(message, request):
                    return
            except WireError as error:
                self.dropped.append(error.why)
            finally:
                received.ack()
        seen = ", ".join(sorted(set(self.dropped))) or "-"
        raise NotDone(say("office_silent", what=what, seconds=int(ANSWER_TIMEOUT_S), seen=seen))

    def _take(self, message: Message, request: bytes) -> bool:
        body = message.body
        if isinstance(body, wire.Trust | wire.Member):
            self.book.on_paper(message)
        elif isinstance(body, wire.ZoneKey):
            self.book.on_zone_key(message)
        elif isinstance(body, wire.Refused) and body.request in (request, None):
            raise NotDone(say_refused(body.reason), body.reason)
        return isinstance(body, wire.Accepted) and body.request == request
