"""The two papers by which a gate or desk joins: the request it makes, the bundle it gets back.

Private keys are made where they are used and are in neither paper. What both sides read aloud to
each other is the fingerprint of the request's public keys.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, ValidationError

from edge.wire import Name

PAPER_BYTES_MAX = 256 * 1024


class PaperError(ValueError):
    """A request or bundle that cannot be used: one line, what to do."""


class Paper(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Request(Paper):
    """What `edge provision --request` (or `enroll desk init`) writes for the registrar."""

    menjin: Literal["request"] = "request"
    version: Literal[1] = 1
    id: Name
    role: Literal["gate", "desk"]
    sign_pub: Base64Bytes
    hpke_pub: Base64Bytes
    csr: Annotated[str, Field(max_length=8192)]  # PEM; the key of TLS

    @property
    def fingerprint(self) -> str:
        """The first 80 bits of SHA-256 over all public keys, in groups to read aloud."""
        tls_pub = _public_key(self.csr)  # not the CSR: its signature differs every time
        seen = b"\0".join((self.id.encode(), self.sign_pub, self.hpke_pub, tls_pub))
        text = hashlib.sha256(seen).hexdigest()[:20].upper()
        return "-".join(text[i : i + 4] for i in range(0, 20, 4))


def _public_key(csr: str) -> bytes:
    """DER of the key a CSR is for. PaperError when it is not a CSR."""
    try:
        key = x509.load_pem_x509_csr(csr.encode()).public_key()
    except ValueError:
        raise PaperError("the request has no valid certificate request; make it anew") from None
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


class BrokerAddress(Paper):
    host: str
    port: Annotated[int, Field(gt=0, lt=65536)]
    plain: bool = False  # True only for the embedded broker on loopback


class Bundle(Paper):
    """What `enroll gate add` answers: everything to join, and no secret."""

    menjin: Literal["bundle"] = "bundle"
    version: Literal[1] = 1
    id: Name
    role: Literal["gate", "desk"]
    fingerprint: str  # of the request it answers
    root_pub: Base64Bytes  # pinned by the box for good
    trust: Base64Bytes  # TRUST, signed by ROOT
    members: list[Base64Bytes]  # MEMBERs signed by the registrar: itself, and its zones' desks
    certificate: str  # PEM
    ca: str  # PEM
    broker: BrokerAddress
    config: str = ""  # a first gate.toml, with the doors of its zones


PaperT = TypeVar("PaperT", Request, Bundle)


def read_paper(path: Path, model: type[PaperT]) -> PaperT:
    """Raises PaperError with one line that says what to do."""
    try:
        if path.stat().st_size > PAPER_BYTES_MAX:
            raise PaperError(f"{path}: too large to be a {model.__name__.lower()}")
        return model.model_validate_json(path.read_bytes())
    except OSError as error:
        raise PaperError(f"{path}: {error.strerror}; give the path of the file") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise PaperError(
            f"{path}: not a menjin {model.__name__.lower()} ({where}: {first['msg']})"
        ) from None


def write_paper(path: Path, paper: Paper) -> None:
    path.write_text(paper.model_dump_json(indent=2) + "\n", encoding="utf-8")
