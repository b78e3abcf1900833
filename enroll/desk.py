"""An enrolment desk's own folder: its keys, the papers it believes, the zone keys it keeps.

A desk may stand on another machine than the office, so everything it needs is in here, 0600. It is
the custodian of the face keys (Kf) of its zones: no other folder of the office holds one. Here is
no line and no photo: `desk_session` talks, `capture` looks.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from edge.envelope import Keyring, WireError, decode
from edge.link import Tls
from edge.provision import Bundle, Request, read_paper, write_paper
from edge.trust import KeyName, TrustBook
from edge.wire import Member, Trust, Which
from enroll import ca
from enroll.home import OfficeError, check_private, load_private, write_file, write_private
from enroll.messages import say

LOCK_WAIT_S, POLL_S = 10.0, 0.05


@dataclass
class DeskPapers:
    """What the desk was given (edge.trust.Papers), and for whom it has wrapped which face key.
    In memory until `save`: one file, whole or not at all."""

    path: Path
    _trust: bytes | None = None
    _members: dict[str, bytes] = field(default_factory=dict)
    _keys: dict[KeyName, bytes] = field(default_factory=dict, repr=False)
    wrapped: set[tuple[str, int, str]] = field(default_factory=set)  # zone, key epoch, member

    @classmethod
    def load(cls, path: Path) -> DeskPapers:
        check_private(path)
        try:
            kept = cbor2.loads(path.read_bytes())
            keys = {(zone, which, epoch): key for zone, which, epoch, key in kept["keys"]}
            wrapped = {(zone, epoch, member) for zone, epoch, member in kept["wrapped"]}
            return cls(path, kept["trust"], dict(kept["members"]), keys, wrapped)
        except (cbor2.CBORDecodeError, ValueError, KeyError, TypeError, OSError):
            raise OfficeError(say("desk_papers_damaged", path=path)) from None

    def save(self) -> None:
        kept = {
            "trust": self._trust,
            "members": self._members,
            "keys": [[*name, key] for name, key in self._keys.items()],
            "wrapped": [list(place) for place in sorted(self.wrapped)],
        }
        write_file(self.path, cbor2.dumps(kept))

    def trust(self) -> bytes | None:
        return self._trust

    def put_trust(self, raw: bytes) -> None:
        self._trust = raw

    def members(self) -> Mapping[str, bytes]:
        return self._members

    def put_member(self, member: str, raw: bytes) -> None:
        self._members[member] = raw

    def zone_keys(self) -> Mapping[KeyName, bytes]:
        return self._keys

    def put_zone_key(self, zone: str, which: Which, key_epoch: int, key: bytes) -> None:
        self._keys[zone, which, key_epoch] = key


class Desk:
    """OfficeError (one line) for a folder that is not in order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # --- making ---

    @classmethod
    def init(cls, folder: Path, desk: str) -> tuple[Desk, Request]:
        """A new desk's keys and its request; for a desk that is there, the request anew."""
        me = cls(folder)
        if not (folder / "sign.key").exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_file(folder / "hpke.key", X25519PrivateKey.generate().private_bytes_raw())
            write_private(folder / "client.key", ca.new_key())
            write_file(folder / "id", desk.encode())
            write_private(folder / "sign.key", Ed25519PrivateKey.generate())  # last: all are there
        if me.id != desk:
            raise OfficeError(say("desk_is_another", folder=folder, desk=me.id))
        return me, me.request()

    def request(self) -> Request:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.id)])
        csr = x509.CertificateSigningRequestBuilder().subject_name(name)
        try:
            return Request.model_validate(
                {
                    "id": self.id,
                    "role": "desk",
                    "sign_pub": base64.b64encode(self.sign.public_key().public_bytes_raw()),
                    "hpke_pub": base64.b64encode(self.hpke.public_key().public_bytes_raw()),
                    "csr": csr.sign(self.tls_key, SHA256()).public_bytes(Encoding.PEM).decode(),
                }
            )
        except ValidationError:
            raise OfficeError(say("refused_name", what="desk", name=repr(self.id))) from None

    def join(self, bundle: Bundle) -> None:
        """Take in the office's answer; everything in it is verified before anything is written."""
        request = self.request()
        if bundle.role != "desk" or bundle.id != self.id:
            raise OfficeError(say("desk_bundle_of_another", role=bundle.role, member=bundle.id))
        if bundle.fingerprint != request.fingerprint:
            raise OfficeError(say("desk_bundle_old"))
        if self.joined and self.bundle.root_pub != bundle.root_pub:
            raise OfficeError(say("desk_other_office", folder=self.folder))
        members = _verified(bundle, request)
        fresh = not self.joined
        papers = DeskPapers(self.folder / "papers") if fresh else self.papers()
        papers.put_trust(bundle.trust)
        for name, raw in members.items():
            papers.put_member(name, raw)
        papers.save()
        write_file(self.folder / "client.crt", bundle.certificate.encode())
        write_file(self.folder / "ca.crt", bundle.ca.encode())
        write_paper(self.folder / "bundle.json", bundle)
        self.__dict__.pop("bundle", None)

    # --- reading ---

    @property
    def id(self) -> str:
        try:
            return (self.folder / "id").read_text(encoding="utf-8")
        except OSError:
            raise OfficeError(say("no_desk", folder=self.folder)) from None

    @property
    def joined(self) -> bool:
        return (self.folder / "bundle.json").exists()

    @cached_property
    def bundle(self) -> Bundle:
        if not self.joined:
            raise OfficeError(say("desk_not_joined", desk=self.id))
        return read_paper(self.folder / "bundle.json", Bundle)

    @cached_property
    def sign(self) -> Ed25519PrivateKey:
        key = load_private(self.folder / "sign.key")
        if not isinstance(key, Ed25519PrivateKey):
            raise OfficeError(say("desk_papers_damaged", path=self.folder / "sign.key"))
        return key

    @cached_property
    def hpke(self) -> X25519PrivateKey:
        path = self.folder / "hpke.key"
        check_private(path)
        try:
            return X25519PrivateKey.from_private_bytes(path.read_bytes())
        except ValueError:
            raise OfficeError(say("desk_papers_damaged", path=path)) from None

    @cached_property
    def tls_key(self) -> EllipticCurvePrivateKey:
        key = load_private(self.folder / "client.key")
        if not isinstance(key, EllipticCurvePrivateKey):
            raise OfficeError(say("desk_papers_damaged", path=self.folder / "client.key"))
        return key

    def tls(self) -> Tls | None:
        """None only for the plain broker of a demo, which the bundle names."""
        if self.bundle.broker.plain:
            return None
        key = self.folder / "client.key"
        check_private(key)
        return Tls(self.folder / "ca.crt", self.folder / "client.crt", key)

    def papers(self) -> DeskPapers:
        return DeskPapers.load(self.folder / "papers")

    def book(self, papers: DeskPapers) -> TrustBook:
        book = TrustBook(self.id, self.bundle.root_pub, self.hpke, papers)
        book.load()  # what does not verify is as if it had never come
        return book

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """One command at a time works here: the broker lets a name in once."""
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            deadline = time.monotonic() + LOCK_WAIT_S
            while not _locked(descriptor):
                if time.monotonic() > deadline:
                    raise OfficeError(say("desk_busy", folder=self.folder))
                time.sleep(POLL_S)
            yield
        finally:
            os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _verified(bundle: Bundle, request: Request) -> dict[str, bytes]:
    """The bundle's members, each verified from its root key down; we are among them."""
    members: dict[str, bytes] = {}
    try:
        root_only = Keyring.build(bundle.root_pub, None, {})
        trust = decode(bundle.trust, root_only, direction="down", target="*").expect(Trust)
        keyring = Keyring.build(bundle.root_pub, trust, {})
        for raw in bundle.members:
            member = decode(raw, keyring, direction="down", target="*").expect(Member)
            members[member.id] = raw
            mine = member.id == bundle.id
            if mine and (member.sign_pub, member.hpke_pub) != (request.sign_pub, request.hpke_pub):
                raise WireError("member", "other keys")
        if bundle.id not in members:
            raise WireError("member", "not among its members")
    except WireError as error:
        raise OfficeError(say("desk_bundle_false", why=error)) from None
    return members
