"""The state folder of a gate box: what lies where, and the papers that `edge provision` brings.

identity/    private keys under the key-encryption key, client.crt, ca.crt, root.pub
roster.db    the encrypted cache        journal.db   the audit trail
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from edge.envelope import Keyring, WireError, decode
from edge.keys import Identity
from edge.link import Tls
from edge.provision import Bundle, PaperError, Request
from edge.store import Store
from edge.wire import Member, Trust

RESERVE_BYTES = 4 * 1024 * 1024  # two write-ahead logs at SQLite's checkpoint size of 1,000 pages


class StateFault(RuntimeError):
    """The folder is not what a running gate needs; one line, what to do."""


@dataclass(frozen=True, slots=True)
class State:
    folder: Path

    @property
    def identity(self) -> Path:
        return self.folder / "identity"

    @property
    def roster_db(self) -> Path:
        return self.folder / "roster.db"

    @property
    def journal_db(self) -> Path:
        return self.folder / "journal.db"

    def keep_reserve(self) -> None:
        """Hold the room if there is room; tried at every start."""
        with contextlib.suppress(OSError), (self.folder / "reserve").open("ab") as file:
            os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)

    def spend_reserve(self) -> bool:
        """Give the room up. False when there was none."""
        path = self.folder / "reserve"
        there = path.exists() and path.stat().st_size > 0
        path.unlink(missing_ok=True)
        return there

    def root_pub(self) -> bytes:
        """The pinned root key. StateFault before `edge provision --bundle`."""
        try:
            data = (self.identity / "root.pub").read_bytes()
        except OSError:
            data = b""
        if len(data) != 32:
            raise StateFault(
                f"{self.folder}: no office has taken this gate in yet; "
                "run `edge provision --bundle FILE` with what `enroll gate add` wrote"
            )
        return data

    def tls(self, identity: Identity) -> Tls:
        folder = self.identity
        return Tls(
            ca=folder / "ca.crt",
            cert=folder / "client.crt",
            key=identity.tls_key_file,
            key_password=identity.tls_key_password,
        )

    def join(self, bundle: Bundle, identity: Identity, store: Store) -> None:
        """Take in a bundle: everything in it is verified before anything is written."""
        trust, members = _verified(bundle, identity)
        self._same_office(bundle)
        store.put_trust(trust)
        for name, raw in members.items():
            store.put_member(name, raw)
        _write(self.identity / "client.crt", bundle.certificate.encode())
        _write(self.identity / "ca.crt", bundle.ca.encode())
        _write(self.identity / "root.pub", bundle.root_pub)

    def _same_office(self, bundle: Bundle) -> None:
        """The office's root key is pinned for good: no later paper can put another in its place."""
        pinned = self.identity / "root.pub"
        if pinned.exists() and pinned.read_bytes() != bundle.root_pub:
            raise PaperError(
                f"this box belongs to another office; to give it to this one, remove {self.folder} "
                "and make a new --request"
            )


def _verified(bundle: Bundle, identity: Identity) -> tuple[bytes, dict[str, bytes]]:
    request = identity.request()
    if bundle.role != "gate" or bundle.id != request.id:
        raise PaperError(f"the bundle is for {bundle.role} {bundle.id!r}, this is {request.id!r}")
    if bundle.fingerprint != request.fingerprint:
        raise PaperError("the bundle answers another request; ask for a new one with --request")
    try:
        _check_certificate(bundle, request)
        return bundle.trust, _members(bundle, request)
    except (WireError, ValueError, TypeError, InvalidSignature) as error:
        why = str(error) or "certificate and ca do not belong together"
        raise PaperError(f"the bundle does not verify ({why}); ask the office again") from None


def _check_certificate(bundle: Bundle, request: Request) -> None:
    """With a wrong one the box would join and never connect."""
    certificate = x509.load_pem_x509_certificate(bundle.certificate.encode())
    ca = x509.load_pem_x509_certificate(bundle.ca.encode())
    if certificate.public_key() != x509.load_pem_x509_csr(request.csr.encode()).public_key():
        raise ValueError("the certificate is for another key")
    certificate.verify_directly_issued_by(ca)


def _members(bundle: Bundle, request: Request) -> dict[str, bytes]:
    root_only = Keyring.build(bundle.root_pub, None, {})
    trust = decode(bundle.trust, root_only, direction="down", target="*").expect(Trust)
    keyring = Keyring.build(bundle.root_pub, trust, {})
    members: dict[str, bytes] = {}
    for raw in bundle.members:
        member = decode(raw, keyring, direction="down", target="*").expect(Member)
        members[member.id] = raw
        mine = (member.sign_pub, member.hpke_pub) == (request.sign_pub, request.hpke_pub)
        if member.id == bundle.id and not mine:
            raise WireError("member", "it names another key for this gate")
    if bundle.id not in members:
        raise WireError("member", "this gate is not among its members")
    return members


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, and on the disk when it returns."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
