"""Rights: a desk enrols a person under a tenancy, the office ends the tenancy. Each change is one
transaction: grants, person, log and signed DELTA together, or nothing.

The state of a person follows the rules that the gates apply (edge.roster), so that the digest here
is the digest there. Templates pass through sealed: this side cannot open them.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge import envelope, seal, wire
from edge.clock import Clock
from edge.roster import DIGEST_MOD
from edge.terms import Status
from enroll.home import ZoneSecrets
from enroll.roster.log import Log, now_ms
from enroll.roster.refusal import Refusal
from enroll.roster.store import Row, Store

GRANT_ID_BYTES = 8  # 16 hex digits
GRANTS_MAX = 64  # wire.Rights
AUTHORITY_REF_CHARS_MAX, BY_CHARS_MAX = 200, 64  # wire.Basis
CONSENT_BASES = frozenset({"separate_written", "separate_electronic", "guardian"})


@dataclass(frozen=True, slots=True)
class Change:
    """What was appended. No op at all (nobody was enrolled): last_seq == first_seq - 1."""

    zone: str
    first_seq: int
    last_seq: int
    people: int


@dataclass(frozen=True, slots=True)
class Person:
    """A person of a zone. `tenancies`: those with a grant nobody revoked."""

    zone: str
    person: bytes
    internal_id: str
    status: Status
    pv: int
    tv: int
    tenancies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rights:
    store: Store
    clock: Clock
    log: Log
    roster_key: Ed25519PrivateKey
    secrets_of: Callable[[str], ZoneSecrets]

    # enrolment

    def enrol(self, desk: str, desk_zones: frozenset[str], body: wire.Enrol) -> Change:
        """Give a person the grants of a tenancy. Repeating a request changes nothing and returns
        its Change. Refusal when the desk may not, or the tenancy or the consent does not carry it.
        """
        if body.zone not in desk_zones:
            raise Refusal("wrong_zone")
        zone = self.secrets_of(body.zone)
        asked = self._opened(desk, zone, body)
        _check_consent(asked.consent)
        with self.store.atomic():
            done = self._done_before(desk, body)
            if done:
                return done
            tenancy = self._open_tenancy(body.zone, asked.tenancy)
            person = self._person(body.zone, body.person)
            self._check_room(tenancy, body.person)
            if person and body.tv < person["tv"]:
                raise Refusal("template_old")
            self._grant(tenancy, body, asked.consent)
            seq = self._put(zone, body, asked, person)
            kept = {"request": body.request, "desk": desk, "zone": body.zone, "seq": seq}
            self.store.insert("enrolments", {**kept, "at": now_ms(self.clock)})
        return Change(body.zone, seq, seq, 1)

    def _opened(self, desk: str, zone: ZoneSecrets, body: wire.Enrol) -> wire.EnrolRequest:
        if body.key_epoch != zone.key_epoch:
            raise Refusal("wrong_key")
        aad = seal.enrol_aad(desk, body.zone, body.person, body.request)
        try:
            asked = envelope.parse(wire.EnrolRequest, seal.open_(zone.kr, body.sealed, aad))
        except (seal.SealError, envelope.WireError):
            raise Refusal("unreadable") from None
        if seal.pseudonym(zone.zs, asked.internal_id) != body.person:
            raise Refusal("pseudonym")
        return asked

    def _done_before(self, desk: str, body: wire.Enrol) -> Change | None:
        row = self.store.row("SELECT * FROM enrolments WHERE request = ?", (body.request,))
        if row is None:
            return None
        if (row["desk"], row["zone"]) != (desk, body.zone):
            raise Refusal("request_reused")
        return Change(body.zone, row["seq"], row["seq"], 1)

    def _open_tenancy(self, zone: str, tenancy: str) -> Row:
        sql = """SELECT t.*, u.doors FROM tenancies t
                 JOIN units u ON u.zone = t.zone AND u.unit = t.unit
                 WHERE t.tenancy = ? AND t.zone = ?"""
        row = self.store.row(sql, (tenancy, zone))
        if row is None:
            raise Refusal("tenancy_unknown")
        over = row["ends"] is not None and row["ends"] <= now_ms(self.clock)
        if row["ended_at"] is not None or over:
            raise Refusal("tenancy_ended")
        return row

    def _check_room(self, tenancy: Row, person: bytes) -> None:
        sql = "SELECT DISTINCT person FROM grants WHERE tenancy = ? AND revoked_at IS NULL"
        enrolled = {row["person"] for row in self.store.rows(sql, (tenancy["tenancy"],))}
        if person in enrolled:
            raise Refusal("already_enrolled")
        if len(enrolled) >= tenancy["household"]:
            raise Refusal("household_full")

    def _grant(self, tenancy: Row, body: wire.Enrol, consent: wire.Consent) -> None:
        self.store.insert(
            "grants",
            {
                "grant_id": secrets.token_hex(GRANT_ID_BYTES),
                "zone": body.zone,
                "person": body.person,
                "tenancy": tenancy["tenancy"],
                "doors": tenancy["doors"],
                "not_before": tenancy["starts"],
                "expires": tenancy["ends"],
                "revoked_at": None,
                "consent": envelope.dump(consent),
            },
        )

    def _put(
        self, zone: ZoneSecrets, body: wire.Enrol, asked: wire.EnrolRequest, old: Row | None
    ) -> int:
        """A put that lists every living grant: what it does not name, the gates forget."""
        living = self._living(body.zone, body.person)
        if len(living) > GRANTS_MAX:
            raise Refusal("too_large")
        pv = old["pv"] + 1 if old else 1
        rights = wire.Rights(grants=list(map(_wire_grant, living)), consent=asked.consent)
        aad = seal.rights_aad(body.zone, body.person, pv, zone.key_epoch)
        op = wire.Op(
            op="put",
            person=body.person,
            pv=pv,
            tv=body.tv,
            key_epoch=zone.key_epoch,
            sealed=seal.seal(zone.kr, envelope.dump(rights), aad),
            templates=body.templates,
        )
        after = {"pv": pv, "tv": body.tv, "status": int(Status.ACTIVE)}
        place = {"zone": body.zone, "person": body.person, "internal_id": asked.internal_id}
        self.store.insert("people", {**place, **after}, replace=True)
        return self._append(body.zone, op, old, Status.ACTIVE)

    # the end of a tenancy

    def end_tenancy(self, tenancy: str, authority_ref: str, by: str) -> Change:
        """End it now, on somebody's word: one revoke op per person, each its own DELTA. A second
        time changes nothing and returns the same Change, so that waiting can be resumed."""
        if not 1 <= len(authority_ref.strip()) <= AUTHORITY_REF_CHARS_MAX:
            raise Refusal("authority_ref")
        if len(by) > BY_CHARS_MAX:
            raise Refusal("by", limit=BY_CHARS_MAX)
        basis = wire.Basis(authority_ref=authority_ref, by=by)
        with self.store.atomic():
            row = self.store.row("SELECT * FROM tenancies WHERE tenancy = ?", (tenancy,))
            if row is None:
                raise Refusal("tenancy_unknown")
            if row["ended_at"] is not None:
                return Change(row["zone"], row["first_seq"], row["last_seq"], row["people"])
            zone, first = row["zone"], self.log.position(row["zone"]).head_seq + 1
            people = self._people_of(tenancy)
            for person in people:
                self._revoke(zone, person, tenancy, basis)
            change = Change(zone, first, first + len(people) - 1, len(people))
            ended = {"ended_at": now_ms(self.clock), "authority_ref": authority_ref, "ended_by": by}
            place = {"first_seq": first, "last_seq": change.last_seq, "people": len(people)}
            self.store.update("tenancies", tenancy, {**ended, **place})
        return change

    def _people_of(self, tenancy: str) -> list[Row]:
        sql = """SELECT * FROM people p WHERE EXISTS (SELECT 1 FROM grants g WHERE g.zone = p.zone
                 AND g.person = p.person AND g.tenancy = ? AND g.revoked_at IS NULL)
                 ORDER BY p.rowid"""
        return self.store.rows(sql, (tenancy,))

    def _revoke(self, zone: str, old: Row, tenancy: str, basis: wire.Basis) -> None:
        """Name the grants when others stay in force; when none does, all go, with the templates."""
        keys, person, pv = self.secrets_of(zone), old["person"], old["pv"] + 1
        sql = """UPDATE grants SET revoked_at = ? WHERE zone = ? AND person = ?
                 AND tenancy = ? AND revoked_at IS NULL RETURNING grant_id"""
        gone = self.store.rows(sql, (now_ms(self.clock), zone, person, tenancy))
        left = self._living(zone, person)
        aad = seal.rights_aad(zone, person, pv, keys.key_epoch)
        op = wire.Op(
            op="revoke",
            person=person,
            pv=pv,
            grant_ids=[row["grant_id"] for row in gone] if left else None,
            key_epoch=keys.key_epoch,
            sealed=seal.seal(keys.kr, envelope.dump(basis), aad),
        )
        status = Status.ACTIVE if left else Status.REVOKED
        self.store.update("people", (zone, person), {"pv": pv, "status": int(status)})
        self._append(zone, op, old, status)

    # shared

    def _append(self, zone: str, op: wire.Op, old: Row | None, status: Status) -> int:
        digest = self.log.position(zone).digest + seal.digest_term(op.person, op.pv, status)
        if old:
            digest -= seal.digest_term(op.person, old["pv"], old["status"])
        return self.log.append(zone, op, digest % DIGEST_MOD, self.roster_key)

    def _person(self, zone: str, person: bytes) -> Row | None:
        return self.store.row("SELECT * FROM people WHERE zone = ? AND person = ?", (zone, person))

    def _living(self, zone: str, person: bytes) -> list[Row]:
        """Grants that are neither revoked nor over."""
        sql = """SELECT * FROM grants WHERE zone = ? AND person = ? AND revoked_at IS NULL
                 AND (expires IS NULL OR expires > ?) ORDER BY rowid"""
        return self.store.rows(sql, (zone, person, now_ms(self.clock)))

    def people(self, zone: str | None = None) -> list[Person]:
        """Everybody ever enrolled, or those of one zone, oldest first."""
        sql = """SELECT p.*, (SELECT json_group_array(DISTINCT g.tenancy) FROM grants g WHERE
                 g.zone = p.zone AND g.person = p.person AND g.revoked_at IS NULL) AS tenancies
                 FROM people p WHERE p.zone = coalesce(?, p.zone) ORDER BY p.rowid"""
        return [
            Person(
                row["zone"],
                row["person"],
                row["internal_id"],
                Status(row["status"]),
                row["pv"],
                row["tv"],
                tuple(json.loads(row["tenancies"])),
            )
            for row in self.store.rows(sql, (zone,))
        ]


def _check_consent(consent: wire.Consent) -> None:
    if consent.basis not in CONSENT_BASES:
        raise Refusal("consent_basis")
    if consent.basis == "guardian" and not consent.guardian.strip():
        raise Refusal("consent_guardian")
    if not consent.transfer:
        raise Refusal("consent_transfer")


def _wire_grant(row: Row) -> wire.WireGrant:
    return wire.WireGrant(
        grant_id=row["grant_id"],
        tenancy=row["tenancy"],
        doors=json.loads(row["doors"]),
        not_before=row["not_before"],
        expires=row["expires"],
    )
