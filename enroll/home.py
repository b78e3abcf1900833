"""The office's folder: where everything lies, which keys there are and who may read them.

Here live paths, key files and their permissions; never a database, a message or a decision. Keys
are loaded folder by folder, only by who needs that folder: `roster serve` never opens `root/` or
`registrar/`. No folder of the office but a desk's own holds a face key (Kf).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from pydantic import ValidationError

from edge.provision import BrokerAddress, Paper
from edge.seal import KEY_BYTES

AUTHORITY_ID = "authority"  # CN of the authority's certificate; no gate or desk may be called so
PRIVATE_MODE, PUBLIC_MODE = 0o600, 0o644
FIRST_KEY_EPOCH = 1
FOLDERS = ("root", "registrar", "authority", "public", "broker", "data", "desk")


class OfficeError(ValueError):
    """A mistake of the user or a state of the folder: one line, what / where / what to do."""


class Office(Paper):
    """`public/office.json`: what everybody may know of the office."""

    broker: BrokerAddress


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of a client's TLS papers."""

    ca: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class ZoneSecrets:
    """Of one zone: the rights key Kr with its epoch, and the pseudonym secret. 32 bytes each."""

    key_epoch: int
    kr: bytes = field(repr=False)
    zs: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AuthorityKeys:
    roster: Ed25519PrivateKey = field(repr=False)
    beacon: Ed25519PrivateKey = field(repr=False)
    command: Ed25519PrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class RegistrarKeys:
    registrar: Ed25519PrivateKey = field(repr=False)
    ca_key: EllipticCurvePrivateKey = field(repr=False)
    ca_cert: x509.Certificate


PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey


class Home:
    """An office's folder. Making the object touches nothing; `require()` says if it is there."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.root_dir = self.path / "root"
        self.registrar_dir = self.path / "registrar"
        self.authority_dir = self.path / "authority"
        self.public_dir = self.path / "public"
        self.broker_dir = self.path / "broker"
        self.data_dir = self.path / "data"
        self.db_path = self.data_dir / "office.db"
        self.serve_socket = self.data_dir / "serve.sock"

    def desk_dir(self, desk: str) -> Path:
        return self.path / "desk" / desk

    def authority_tls(self) -> TlsFiles:
        key = self.authority_dir / "client.key"
        check_private(key)
        return TlsFiles(self.public_dir / "ca.crt", self.authority_dir / "client.crt", key)

    def exists(self) -> bool:
        return (self.public_dir / "office.json").is_file()

    def require(self) -> Home:
        if not self.exists():
            raise OfficeError(
                f"{self.path}: no office here; make one with `enroll roster init`, "
                "or name its folder with --home"
            )
        return self

    def create(self) -> None:
        """Make the empty folders, readable by their owner only. OfficeError if one is in use."""
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise OfficeError(f"{self.path}: not empty; give --home a new folder")
        for name in FOLDERS:
            (self.path / name).mkdir(parents=True, mode=0o700)
        self.path.chmod(0o700)

    # public: no secrets

    def office(self) -> Office:
        self.require()
        path = self.public_dir / "office.json"
        try:
            return Office.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise OfficeError(f"{path}: not an office ({error.errors()[0]['msg']})") from None

    def root_pub(self) -> bytes:
        """32 bytes."""
        try:
            return bytes.fromhex(_read(self.public_dir / "root.pub").decode())
        except ValueError:
            raise OfficeError(f"{self.public_dir / 'root.pub'}: not a root key in hex") from None

    def trust(self) -> bytes:
        """TRUST as ROOT signed it."""
        return _read(self.public_dir / "trust.bin")

    def ca_pem(self) -> str:
        return _read(self.public_dir / "ca.crt").decode()

    # keys, folder by folder

    def root_key(self) -> Ed25519PrivateKey:
        return _ed25519(self.root_dir / "root.key")

    def registrar_keys(self) -> RegistrarKeys:
        folder = self.registrar_dir
        ca_key = load_private(folder / "ca.key")
        if not isinstance(ca_key, EllipticCurvePrivateKey):
            raise OfficeError(f"{folder / 'ca.key'}: not an EC key; restore it from the backup")
        ca_cert = x509.load_pem_x509_certificate(_read(folder / "ca.crt"))
        return RegistrarKeys(_ed25519(folder / "registrar.key"), ca_key, ca_cert)

    def authority_keys(self) -> AuthorityKeys:
        names = ("roster.key", "beacon.key", "command.key")
        return AuthorityKeys(*(_ed25519(self.authority_dir / name) for name in names))

    def zone_secrets(self) -> dict[str, ZoneSecrets]:
        """Kr and zone secret of every zone, from zones.json."""
        path = self.authority_dir / "zones.json"
        check_private(path)
        try:
            stored = json.loads(_read(path))
            return {
                zone: ZoneSecrets(
                    item["key_epoch"], bytes.fromhex(item["kr"]), bytes.fromhex(item["zs"])
                )
                for zone, item in stored.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError):
            raise OfficeError(f"{path}: damaged; restore it from the backup") from None

    def make_zone_secrets(self, zone: str) -> None:
        """Give a new zone its keys; a zone that has some keeps them. One process at a time: the
        caller holds the database's write lock."""
        secrets = self.zone_secrets()
        if zone in secrets:
            return
        secrets[zone] = ZoneSecrets(FIRST_KEY_EPOCH, os.urandom(KEY_BYTES), os.urandom(KEY_BYTES))
        self.save_zone_secrets(secrets)

    def save_zone_secrets(self, secrets: dict[str, ZoneSecrets]) -> None:
        plain = {
            zone: {"key_epoch": s.key_epoch, "kr": s.kr.hex(), "zs": s.zs.hex()}
            for zone, s in secrets.items()
        }
        write_file(self.authority_dir / "zones.json", json.dumps(plain, indent=1).encode() + b"\n")

    def poke(self) -> None:
        """Tell a running `roster serve` that something changed. Nobody there: nothing happens
        (serve also looks by itself every second)."""
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
        ):
            sender.setblocking(False)
            sender.sendto(b"!", str(self.serve_socket))


def write_file(path: Path, data: bytes, mode: int = PRIVATE_MODE) -> None:
    """Whole or not at all, and never readable by others in between."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as out:
        os.fchmod(out.fileno(), mode)
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def check_private(path: Path) -> None:
    """OfficeError when the file is missing or anybody but its owner may read or write it."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise OfficeError(
            f"{path}: {error.strerror}; bring the medium or restore the backup that holds it"
        ) from None
    if stat.S_IMODE(mode) & 0o077:
        raise OfficeError(f"{path}: others may read this key; run: chmod 600 {path}")


def write_private(path: Path, key: PrivateKey) -> None:
    """PEM, PKCS#8, 0600."""
    write_file(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def load_private(path: Path) -> PrivateKey:
    check_private(path)
    try:
        key = load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError):
        raise OfficeError(f"{path}: not a private key; restore it from the backup") from None
    if not isinstance(key, Ed25519PrivateKey | EllipticCurvePrivateKey):
        raise OfficeError(f"{path}: a key of another kind; restore it from the backup")
    return key


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def is_ed25519(public: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public)
    except ValueError:
        return False
    return True


def _ed25519(path: Path) -> Ed25519PrivateKey:
    key = load_private(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise OfficeError(f"{path}: not an Ed25519 key; restore it from the backup")
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OfficeError(f"{path}: {error.strerror}; restore it from the backup") from None
