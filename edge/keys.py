"""Keys of a gate box: where the key-encryption key (KEK) comes from, one data key per record, and
the box's own identity. Private keys are made here and are on the disk only under the KEK.

Nothing here knows a roster or a database. Python cannot promise to wipe memory; keys live as long
as the process.
"""

from __future__ import annotations

import base64
import ctypes
import os
import resource
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cbor2
from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from edge.provision import Request

KEY_BYTES, NONCE_BYTES, TAG_BYTES = 32, 12, 16
WRAPPED_BYTES = NONCE_BYTES + KEY_BYTES + TAG_BYTES
OTHERS_MAY = stat.S_IRWXG | stat.S_IRWXO
IDENTITY_AAD = b"menjin/identity/1"
PR_SET_DUMPABLE = 4  # <linux/prctl.h>


class KeyFault(ValueError):
    """A key that is missing, readable by others or the wrong one; one line, what to do."""


@dataclass(frozen=True, slots=True)
class Kek:
    """The key-encryption key of this box. `protection`: "weak" (a file) or "credential"."""

    key: bytes = field(repr=False)
    protection: str

    def derive(self, purpose: str) -> bytes:
        """A further key for one purpose."""
        return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=purpose.encode()).derive(self.key)


def load_kek(file: Path | None, credential: str | None, environ: Mapping[str, str]) -> Kek:
    """From a 0600 file, or from $CREDENTIALS_DIRECTORY, where systemd puts it for us alone."""
    if file is not None:
        return Kek(_read_private(file), "weak")
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if not credential or not folder:
        raise KeyFault(
            f"credential {credential!r}: systemd gave this process none; "
            "set LoadCredentialEncrypted= in the unit, or key.file"
        )
    path = Path(folder) / Path(credential).name
    try:
        return Kek(_sized(path, path.read_bytes()), "credential")
    except OSError as error:
        raise KeyFault(f"credential {credential!r}: {error.strerror}") from None


def _read_private(path: Path) -> bytes:
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            seen = os.fstat(file.fileno())
            if not stat.S_ISREG(seen.st_mode):
                raise KeyFault(f"{path}: not a file")
            if seen.st_mode & OTHERS_MAY:
                raise KeyFault(f"{path}: readable by others; run: chmod 600 {path}")
            if seen.st_uid not in (os.geteuid(), 0):
                raise KeyFault(f"{path}: belongs to another user; run: chown {os.geteuid()} {path}")
            return _sized(path, file.read(KEY_BYTES + 1))
    except OSError as error:
        todo = "make it with `edge provision --request`"
        raise KeyFault(f"{path}: {error.strerror}; {todo}") from None


def _without_waiting(path: str, flags: int) -> int:
    """A pipe in a key's place must not hold the daemon until somebody writes to it."""
    return os.open(path, flags | os.O_NONBLOCK)


def _sized(path: Path, data: bytes) -> bytes:
    if len(data) != KEY_BYTES:
        raise KeyFault(
            f"{path}: {len(data)} bytes where a key has {KEY_BYTES}; restore the right file"
        )
    return data


def forbid_dumps() -> None:
    """No core file and no debugger of the same user: keys and templates are in our memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def write_private(path: Path, data: bytes, *, new: bool = False) -> None:
    """Whole or not at all, 0600 from the first byte, on the disk when it returns. With `new` it
    is FileExistsError when the name is taken, even by somebody who was quicker."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if new:
            path.hardlink_to(part)
        else:
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)  # after a full disk, no half key stays behind
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # the name too
    finally:
        os.close(folder)


def create_kek(path: Path) -> None:
    """A new random key; KeyFault when there is one already."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_private(path, os.urandom(KEY_BYTES), new=True)
    except FileExistsError:
        raise KeyFault(f"{path}: is there already; a key is never overwritten") from None
    except OSError as error:
        raise KeyFault(f"{path}: {error.strerror}") from None


class Envelope:
    """One fresh data key per record, wrapped by the KEK; both bound to the record's place."""

    def __init__(self, kek: Kek) -> None:
        self._kek = AESGCM(kek.derive("menjin/records/1"))

    def seal(self, plain: bytes, aad: bytes) -> tuple[bytes, bytes]:
        """(wrapped data key, nonce | ciphertext)."""
        key, nonce = os.urandom(KEY_BYTES), os.urandom(NONCE_BYTES)
        return self._wrap(key, aad), nonce + AESGCM(key).encrypt(nonce, plain, aad)

    def open(self, wrapped: bytes, sealed: bytes, aad: bytes) -> bytes:
        """KeyFault when it is not the record that was sealed at this place under this KEK."""
        try:
            key = self._kek.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], aad)
            return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], aad)
        except (InvalidTag, ValueError):
            raise KeyFault("record does not open") from None

    def rewrap(self, wrapped: bytes, aad: bytes, other: Envelope) -> bytes:
        """The same data key under another KEK: rotation touches no ciphertext."""
        try:
            key = self._kek.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], aad)
        except (InvalidTag, ValueError):
            raise KeyFault("data key does not open") from None
        return other._wrap(key, aad)

    def _wrap(self, key: bytes, aad: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._kek.encrypt(nonce, key, aad)


@dataclass(frozen=True, slots=True)
class Identity:
    """The box itself: its signing, sealing and TLS keys, made here."""

    gate: str
    sign: Ed25519PrivateKey = field(repr=False)
    hpke: X25519PrivateKey = field(repr=False)
    tls_key_file: Path
    tls_key_password: str = field(repr=False)

    def request(self) -> Request:
        """The paper for the registrar; public keys only."""
        try:
            pem = self.tls_key_file.read_bytes()
            key = load_pem_private_key(pem, self.tls_key_password.encode())
        except OSError as error:
            raise KeyFault(f"{self.tls_key_file}: {error.strerror}; provision anew") from None
        except (ValueError, TypeError):  # TypeError: a key in the clear
            raise KeyFault(f"{self.tls_key_file}: does not open with this box's key") from None
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.gate)])
        csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
        return Request(
            id=self.gate,
            role="gate",
            sign_pub=base64.b64encode(self.sign.public_key().public_bytes_raw()),
            hpke_pub=base64.b64encode(self.hpke.public_key().public_bytes_raw()),
            csr=csr.public_bytes(Encoding.PEM).decode(),
        )


def _tls_password(kek: Kek) -> str:
    return kek.derive("menjin/tls/1").hex()


def create_identity(folder: Path, kek: Kek, gate: str) -> Identity:
    """New keys for a new box; KeyFault when the folder has an identity already."""
    if (folder / "identity.bin").exists():
        raise KeyFault(f"{folder}: has keys already; they are never overwritten")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    sign, hpke = Ed25519PrivateKey.generate(), X25519PrivateKey.generate()
    password, tls = _tls_password(kek), ec.generate_private_key(ec.SECP256R1())
    encrypted = BestAvailableEncryption(password.encode())
    write_private(
        folder / "client.key", tls.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encrypted)
    )
    plain = cbor2.dumps([gate, sign.private_bytes_raw(), hpke.private_bytes_raw()])
    wrapped, sealed = Envelope(kek).seal(plain, IDENTITY_AAD)
    write_private(folder / "identity.bin", wrapped + sealed)
    return Identity(gate, sign, hpke, folder / "client.key", password)


def load_identity(folder: Path, kek: Kek) -> Identity:
    """KeyFault when there is none, or when the KEK is not the one it was made under."""
    path = folder / "identity.bin"
    try:
        data = path.read_bytes()
    except OSError as error:
        todo = "run `edge provision --request`"
        raise KeyFault(f"{path}: {error.strerror}; {todo}") from None
    try:
        plain = Envelope(kek).open(data[:WRAPPED_BYTES], data[WRAPPED_BYTES:], IDENTITY_AAD)
    except KeyFault:
        raise KeyFault(
            f"{path}: wrong key for this box, or an altered file; bring the key it was made with, "
            "or provision the box anew"
        ) from None
    gate, sign, hpke = cbor2.loads(plain)
    return Identity(
        gate,
        Ed25519PrivateKey.from_private_bytes(sign),
        X25519PrivateKey.from_private_bytes(hpke),
        folder / "client.key",
        _tls_password(kek),
    )
