"""Who takes part, and the zone keys on their way to them.

MEMBERs come from the registrar and are believed for their signature, not for lying in our
database. ZONEKEYs are kept as signed: Kr and the pseudonym secret wrapped here, face keys wrapped
by a desk and closed to us.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge import seal, wire
from edge.envelope import Keyring, WireError, decode, encode
from edge.wire import Member, Role, Trust, Type, Which
from enroll.home import Home, ZoneSecrets
from enroll.roster.refusal import Refusal
from enroll.roster.store import Store

log = logging.getLogger("enroll.members")


@dataclass(frozen=True, slots=True)
class StoredMember:
    """A MEMBER that verifies, its signed bytes, and the fingerprint of its request."""

    member: Member
    signed: bytes
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Members:
    store: Store
    home: Home
    roster_key: Ed25519PrivateKey
    secrets_of: Callable[[str], ZoneSecrets]
    _verified: dict[bytes, Member] = field(default_factory=dict)  # by signed bytes

    def trust(self) -> Trust:
        root_only = Keyring.build(self.home.root_pub(), None, {})
        message = decode(self.home.trust(), root_only, direction="down", target="*")
        return message.expect(Trust)

    def members(self, zone: str | None = None) -> list[StoredMember]:
        """All that verify and are not struck, or those of one zone."""
        believed = Keyring.build(self.home.root_pub(), self.trust(), {})
        found = []
        for row in self.store.rows("SELECT * FROM members ORDER BY rowid"):
            member = self._verify(row["signed"], believed)
            if member and not member.struck and (zone is None or zone in member.zones):
                found.append(StoredMember(member, row["signed"], row["fingerprint"]))
        return found

    def _verify(self, signed: bytes, believed: Keyring) -> Member | None:
        if signed not in self._verified:
            try:
                message = decode(signed, believed, direction="down", target="*")
                self._verified[signed] = message.expect(Member)
            except WireError as error:
                log.error("a stored member does not verify", extra={"why": error.why})
                return None
        return self._verified[signed]

    def keyring(self) -> Keyring:
        """Everybody whose messages we believe now."""
        members = {stored.member.id: stored.member for stored in self.members()}
        return Keyring.build(self.home.root_pub(), self.trust(), members)

    def gates(self, zone: str) -> list[str]:
        return [s.member.id for s in self.members(zone) if s.member.role == "gate"]

    def _member(self, member: str) -> Member:
        for stored in self.members():
            if stored.member.id == member:
                return stored.member
        raise Refusal("not_a_member", member=member)

    # zone keys

    def zone_keys_for(self, member: str) -> list[bytes]:
        """The signed ZONEKEYs of a member: Kr of its zones, for a desk their pseudonym secrets,
        and what desks wrapped for it. Made once and kept, so that a repeat is the same bytes."""
        me = self._member(member)
        with self.store.atomic():
            for zone in me.zones:
                self._make(me, zone, "kr")
                if me.role == "desk":
                    self._make(me, zone, "zs")
            sql = "SELECT zone, signed FROM zone_keys WHERE member = ? ORDER BY rowid"
            rows = self.store.rows(sql, (member,))
        return [row["signed"] for row in rows if row["zone"] in me.zones]

    def _make(self, member: Member, zone: str, which: Which) -> None:
        secrets = self.secrets_of(zone)
        key = secrets.kr if which == "kr" else secrets.zs
        place = (zone, which, secrets.key_epoch, member.id)
        sql = """SELECT 1 FROM zone_keys
                 WHERE zone = ? AND which = ? AND key_epoch = ? AND member = ?"""
        if self.store.row(sql, place):
            return
        sealed = seal.wrap_zone_key(
            key,
            zone=zone,
            which=which,
            key_epoch=secrets.key_epoch,
            member=member.id,
            hpke_pub=member.hpke_pub,
        )
        body = wire.ZoneKey(
            zone=zone,
            which=which,
            key_epoch=secrets.key_epoch,
            member=member.id,
            kcv=seal.kcv(key),
            sealed=sealed,
        )
        signed = encode(Type.ZONEKEY, body, self.roster_key, direction="down", target=member.id)
        self._keep(body, signed)

    def put_zone_keys(self, desk: str, items: Iterable[wire.KeyFor]) -> None:
        """Keep a desk's face keys for members of its zones; all of them or none.

        Refusal: bad_key_message, not_a_member, wrong_zone, second_kcv.
        """
        keyring = self.keyring()
        with self.store.atomic():
            for item in items:
                body = self._checked(desk, item, keyring)
                self._hold_against(body)
                self._keep(body, item.message)

    def _checked(self, desk: str, item: wire.KeyFor, keyring: Keyring) -> wire.ZoneKey:
        try:
            message = decode(item.message, keyring, direction="down", target=item.member)
            body = message.expect(wire.ZoneKey)
        except WireError as error:
            raise Refusal("bad_key_message", member=item.member, why=error.why) from None
        signer = message.signer
        if signer.role is not Role.DESK or signer.member != desk or body.member != item.member:
            raise Refusal("bad_key_message", member=item.member, why="signer")
        if body.which != "kf":
            raise Refusal("bad_key_message", member=item.member, why=body.which)
        if body.zone not in signer.zones:
            raise Refusal("wrong_zone")
        if body.zone not in self._member(body.member).zones:
            raise Refusal("not_a_member", member=body.member)
        return body

    def _hold_against(self, body: wire.ZoneKey) -> None:
        """One key per zone and key epoch, for ever: a second one is an attack or a broken desk."""
        sql = """SELECT 1 FROM zone_keys WHERE zone = ? AND which = ? AND key_epoch = ?
                 AND kcv != ? LIMIT 1"""
        if self.store.row(sql, (body.zone, body.which, body.key_epoch, body.kcv)):
            raise Refusal("second_kcv", zone=body.zone)

    def _keep(self, body: wire.ZoneKey, signed: bytes) -> None:
        row = body.model_dump(include={"zone", "which", "key_epoch", "member", "kcv"})
        self.store.insert("zone_keys", {**row, "signed": signed}, replace=True)
