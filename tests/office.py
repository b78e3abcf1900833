"""An office for tests: real keys, a real database, a clock that stands still until moved, and the
papers of gates and desks as they would make them."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from edge import envelope, seal, wire
from edge.provision import BrokerAddress, Bundle, Request
from enroll import ca
from enroll.home import Home
from enroll.registrar import add_member, init_office
from enroll.roster.authority import Authority

START_AT = 1_790_000_000.0
ZONE, DOOR, UNIT = "lotus", "main", "3-1201"


@dataclass
class Clock:
    now: float = START_AT

    def wall(self) -> float:
        return self.now

    def mono(self) -> float:
        return self.now - START_AT

    def raise_floor(self, at: float) -> None:
        self.now = max(self.now, at)


@dataclass
class Box:
    """The keys of a gate or desk, made on it."""

    id: str
    role: str
    sign: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    hpke: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)
    tls: ca.EllipticCurvePrivateKey = field(default_factory=ca.new_key)

    @cached_property  # a request signed again has another fingerprint
    def request(self) -> Request:
        csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        return Request.model_validate(
            {
                "id": self.id,
                "role": self.role,
                "sign_pub": base64.b64encode(self.sign.public_key().public_bytes_raw()),
                "hpke_pub": base64.b64encode(self.hpke.public_key().public_bytes_raw()),
                "csr": csr.sign(self.tls, SHA256()).public_bytes(Encoding.PEM).decode(),
            }
        )


@dataclass
class OfficeKit:
    home: Home
    authority: Authority
    clock: Clock
    boxes: dict[str, Box] = field(default_factory=dict)

    def add(self, member: str, role: str, zones: list[str]) -> Bundle:
        box = self.boxes.setdefault(member, Box(member, role))
        return add_member(self.home, box.request, zones, clock=self.clock)

    def reopen(self) -> None:
        self.authority.close()
        self.authority = Authority.open(self.home, self.clock)

    def zone_keys(self, zone: str) -> dict[tuple[str, str, int], bytes]:
        secrets = self.authority.secrets_of(zone)
        return {(zone, "kr", secrets.key_epoch): secrets.kr}

    def enrol_body(
        self,
        internal_id: str,
        tenancy: str,
        *,
        zone: str = ZONE,
        desk: str = "desk-1",
        tv: int = 1,
        request: bytes | None = None,
        templates: int = 1,
        consent: wire.Consent | None = None,
    ) -> wire.Enrol:
        """What a desk sends; the templates are noise of the right size."""
        secrets = self.authority.secrets_of(zone)
        person = bytes(seal.pseudonym(secrets.zs, internal_id))
        request = request or Ed25519PrivateKey.generate().private_bytes_raw()[:16]
        asked = wire.EnrolRequest(
            internal_id=internal_id, tenancy=tenancy, consent=consent or self.consent()
        )
        aad = seal.enrol_aad(desk, zone, person, request)
        noise = wire.WireTemplate(model_id="0" * 16, key_epoch=1, sealed=bytes(1052))
        return wire.Enrol(
            request=request,
            zone=zone,
            person=person,
            tv=tv,
            key_epoch=secrets.key_epoch,
            sealed=seal.seal(secrets.kr, envelope.dump(asked), aad),
            templates=[noise] * templates,
        )

    def consent(self, basis: str = "separate_written", **changes: object) -> wire.Consent:
        plain = {"basis": basis, "text_version": "1", "at": int(self.clock.now * 1000)}
        return wire.Consent.model_validate({**plain, "by": "front", "transfer": True, **changes})


def make_office(folder: Path) -> OfficeKit:
    """One zone, two doors, one unit."""
    clock = Clock()
    home = Home(folder / "office")
    init_office(home, BrokerAddress(host="127.0.0.1", port=8883), clock=clock)
    authority = Authority.open(home, clock)
    authority.add_zone(ZONE)
    for door in (DOOR, "garage"):
        authority.add_door(ZONE, door)
    authority.add_unit(ZONE, UNIT, [DOOR, "garage"])
    return OfficeKit(home, authority, clock)


def receipt(
    office: OfficeKit, seq: int, *, early: list[int] | None = None, **changes: object
) -> wire.Receipt:
    """A gate's receipt for everything up to `seq` of the log of ZONE."""
    row = office.authority._store.row(
        "SELECT hash, digest FROM log WHERE zone = ? AND seq = ?", (ZONE, seq)
    ) or {"hash": wire.GENESIS, "digest": bytes(32)}
    fields = {
        "zone": ZONE,
        "epoch": 1,
        "applied_seq": seq,
        "chain_hash": row["hash"],
        "digest": row["digest"],
        "active": 0,
        "early": early or [],
        "session": bytes(8),
        "boot_id": bytes(16),
        "monotonic_ms": 1,
        "at": int(office.clock.now * 1000),
    }
    return wire.Receipt.model_validate({**fields, **changes})


def events_body(
    gate: str,
    first_no: int,
    prev_hash: bytes,
    rows: list[tuple[bytes, bytes]],
    kr: bytes,
) -> wire.Events:
    aad = seal.events_aad(gate, ZONE, 1, first_no)
    return wire.Events(
        zone=ZONE,
        key_epoch=1,
        first_no=first_no,
        count=len(rows),
        prev_hash=prev_hash,
        sealed=seal.seal(kr, cbor2.dumps([list(row) for row in rows]), aad),
    )
