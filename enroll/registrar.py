"""The registrar: makes the office, and lets gates and desks into it by signing their MEMBER.

The only code that opens `root/` and `registrar/`. It changes no right: a member without a zone key
from the authority and a desk can do nothing but knock.
"""

from __future__ import annotations

import base64
import shutil
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.clock import Clock, SystemClock
from edge.config import is_loopback
from edge.envelope import Keyring, WireError, decode, encode
from edge.provision import BrokerAddress, Bundle, Request
from edge.wire import Member, Trust, TrustKey, Type
from enroll import ca
from enroll.broker_files import mosquitto_acl, mosquitto_conf
from enroll.first_config import first_config
from enroll.home import (
    AUTHORITY_ID,
    PUBLIC_MODE,
    Home,
    Office,
    OfficeError,
    RegistrarKeys,
    is_ed25519,
    public_bytes,
    write_file,
    write_private,
)
from enroll.roster.log import now_ms
from enroll.roster.store import Row, Store

HPKE_PUB_BYTES = 32
FIRST_TRUST_VERSION = 1


def init_office(home: Home, broker: BrokerAddress, *, clock: Clock | None = None) -> None:
    """Make an office in a new folder: all keys, the CA, the broker's papers and an empty database.

    The folder appears whole or not at all. OfficeError when it is not new, or when the broker
    would be reached in the clear over a network.
    """
    if broker.plain and not is_loopback(broker.host):
        raise OfficeError(f"a broker without TLS is for loopback only, not for {broker.host}")
    if home.path.exists() and (not home.path.is_dir() or any(home.path.iterdir())):
        raise OfficeError(f"{home.path}: not empty; give --home a new folder")
    final = home.path.resolve()
    building = Home(final.with_name(f".{final.name}.new"))
    shutil.rmtree(building.path, ignore_errors=True)  # of an init that was cut off
    try:
        building.create()
        _write_signing_keys(building)
        _write_tls(building, broker, final / "broker", (clock or SystemClock()).wall())
        Store.create(building.db_path)
        office = Office(broker=broker).model_dump_json(indent=2).encode() + b"\n"
        write_file(building.public_dir / "office.json", office, PUBLIC_MODE)
        building.path.replace(final)
    except OSError as error:
        shutil.rmtree(building.path, ignore_errors=True)
        raise OfficeError(f"{home.path}: {error.strerror}; give --home another folder") from None


def _write_signing_keys(home: Home) -> None:
    """ROOT, the four role keys, and the TRUST by which ROOT names them."""
    root = Ed25519PrivateKey.generate()
    roles = {role: Ed25519PrivateKey.generate() for role in ("roster", "beacon", "command")}
    registrar = Ed25519PrivateKey.generate()
    write_private(home.root_dir / "root.key", root)
    write_private(home.registrar_dir / "registrar.key", registrar)
    for role, key in roles.items():
        write_private(home.authority_dir / f"{role}.key", key)
    home.save_zone_secrets({})
    keys = [
        TrustKey.model_validate({"role": role, "pub": public_bytes(key)})
        for role, key in {"registrar": registrar, **roles}.items()
    ]
    trust = Trust(version=FIRST_TRUST_VERSION, keys=keys)
    signed = encode(Type.TRUST, trust, root, direction="down", target="*")
    write_file(home.public_dir / "trust.bin", signed, PUBLIC_MODE)
    root_hex = public_bytes(root).hex().encode() + b"\n"
    write_file(home.public_dir / "root.pub", root_hex, PUBLIC_MODE)


def _write_tls(home: Home, broker: BrokerAddress, broker_dir: Path, now: float) -> None:
    authority = ca.make_ca(now)
    write_private(home.registrar_dir / "ca.key", authority[0])
    for folder in (home.registrar_dir, home.public_dir, home.broker_dir):
        write_file(folder / "ca.crt", ca.pem(authority[1]), PUBLIC_MODE)
    server_key, server = ca.issue_server(authority, broker.host, now)
    write_private(home.broker_dir / "server.key", server_key)
    write_file(home.broker_dir / "server.crt", ca.pem(server), PUBLIC_MODE)
    client_key = ca.new_key()
    client = ca.issue_client(authority, AUTHORITY_ID, client_key.public_key(), now)
    write_private(home.authority_dir / "client.key", client_key)
    write_file(home.authority_dir / "client.crt", ca.pem(client), PUBLIC_MODE)
    conf = mosquitto_conf(broker, broker_dir)
    write_file(home.broker_dir / "mosquitto.conf", conf.encode(), PUBLIC_MODE)
    write_file(home.broker_dir / "acl", mosquitto_acl().encode())


@dataclass(frozen=True, slots=True)
class _Known:
    """A member as the database has it."""

    member: Member
    signed: bytes


def add_member(
    home: Home, request: Request, zones: list[str], *, clock: Clock | None = None
) -> Bundle:
    """Sign a gate's or desk's MEMBER for `zones` and certify its key; the answer is its bundle.

    The same request again gives a new bundle (other zones, a new certificate) under the next
    version. OfficeError for an id that another key has, a zone that is not there, a bad request.
    """
    keys = home.require().registrar_keys()
    clock = clock or SystemClock()
    wanted = list(dict.fromkeys(zones))
    _check_request(request, wanted)
    store = Store(home.db_path)
    try:
        certificate = ca.sign_csr(
            (keys.ca_key, keys.ca_cert), request.csr, request.id, clock.wall()
        )
        with store.atomic():
            _check_zones(store, wanted)
            signed = _sign_member(home, store, keys, request, wanted)
            row: Row = {
                "id": request.id,
                "role": request.role,
                "version": signed.member.version,
                "signed": signed.signed,
                "fingerprint": request.fingerprint,
                "at": now_ms(clock),
            }
            store.insert("members", row, replace=True)
            desks = _desks_of(home, store, keys, wanted, but=request.id)
            config = first_config(store, home.office().broker, request.id, wanted)
    finally:
        store.close()
    home.poke()
    return Bundle.model_validate(
        {
            "id": request.id,
            "role": request.role,
            "fingerprint": request.fingerprint,
            "root_pub": _b64(home.root_pub()),
            "trust": _b64(home.trust()),
            "members": [_b64(signed.signed), *map(_b64, desks)],
            "certificate": ca.pem(certificate).decode(),
            "ca": home.ca_pem(),
            "broker": home.office().broker,
            "config": config if request.role == "gate" else "",
        }
    )


def _check_request(request: Request, zones: list[str]) -> None:
    if request.id == AUTHORITY_ID:
        raise OfficeError(f"{request.id}: that is the authority's own name; choose another id")
    if not zones:
        raise OfficeError(f"{request.id}: give at least one zone with --zone")
    if not is_ed25519(request.sign_pub) or len(request.hpke_pub) != HPKE_PUB_BYTES:
        raise OfficeError(f"{request.id}: the request's keys are damaged; make it again")


def _check_zones(store: Store, zones: list[str]) -> None:
    for zone in zones:
        if not store.row("SELECT 1 FROM zones WHERE zone = ?", (zone,)):
            raise OfficeError(f"no zone {zone}; make it with `enroll zone add {zone}`")


def _sign_member(
    home: Home, store: Store, keys: RegistrarKeys, request: Request, zones: list[str]
) -> _Known:
    known = _known(home, store, keys).get(request.id)
    if known and _identity(known.member) != _identity(request):
        raise OfficeError(
            f"{request.id}: another {known.member.role} with other keys has this id; "
            "choose a new id for the new box"
        )
    member = Member(
        id=request.id,
        role=request.role,
        sign_pub=request.sign_pub,
        hpke_pub=request.hpke_pub,
        zones=zones,
        version=known.member.version + 1 if known else 1,
    )
    signed = encode(Type.MEMBER, member, keys.registrar, direction="down", target="*")
    return _Known(member, signed)


def _identity(paper: Member | Request) -> tuple[str, bytes, bytes]:
    return paper.role, paper.sign_pub, paper.hpke_pub


def _known(home: Home, store: Store, keys: RegistrarKeys) -> dict[str, _Known]:
    """The members on file; OfficeError when one was not signed by this registrar."""
    me = TrustKey(role="registrar", pub=public_bytes(keys.registrar))
    believed = Keyring.build(home.root_pub(), Trust(version=0, keys=[me]), {})
    found = {}
    for row in store.rows("SELECT id, signed FROM members ORDER BY rowid"):
        try:
            message = decode(row["signed"], believed, direction="down", target="*")
            found[row["id"]] = _Known(message.expect(Member), row["signed"])
        except WireError:
            raise OfficeError(
                f"{home.db_path}: member {row['id']} was not signed by this registrar; "
                "restore the backup"
            ) from None
    return found


def _desks_of(
    home: Home, store: Store, keys: RegistrarKeys, zones: list[str], *, but: str
) -> list[bytes]:
    """Whom a new gate believes when they hand it face keys."""
    return [
        known.signed
        for known in _known(home, store, keys).values()
        if known.member.role == "desk"
        and known.member.id != but
        and not known.member.struck
        and set(known.member.zones) & set(zones)
    ]


def _b64(data: bytes) -> bytes:
    return base64.b64encode(data)
