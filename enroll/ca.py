"""The deployment's own certificate authority: TLS papers for the broker and its clients. Pure: keys
and bytes in, certificates out, `now` in seconds.

A certificate lets somebody talk to the broker and names them there (CN = id); it proves no right.
"""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from enroll.home import OfficeError

# A gate whose clock battery died says 1970, and must still reach the office that tells it the
# time; one that runs ten years ahead as well. So these hold from the epoch for long; a key that
# is lost is replaced, not waited out.
VALID_FROM = datetime(1970, 1, 1, tzinfo=UTC)
CA_YEARS, SERVER_YEARS = 30, 20
CLIENT_YEARS = 10  # as long as a box hangs on a wall; ends earlier by `gate lost`
CLIENT_BACKDATE = timedelta(days=1)  # for a broker whose clock is behind the registrar's
YEAR = timedelta(days=365.25)

Certified = tuple[EllipticCurvePrivateKey, x509.Certificate]


def new_key() -> EllipticCurvePrivateKey:
    return generate_private_key(SECP256R1())


def make_ca(now: float) -> Certified:
    key = new_key()
    name = _name("menjin CA")
    until = datetime.fromtimestamp(now, UTC) + CA_YEARS * YEAR
    builder = _builder(name, name, key.public_key(), VALID_FROM, until)
    builder = builder.add_extension(x509.BasicConstraints(True, 0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    return key, builder.sign(key, SHA256())


def issue_server(ca: Certified, host: str, now: float) -> Certified:
    """A new key and certificate for the broker; clients check `host` against it."""
    key = new_key()
    until = datetime.fromtimestamp(now, UTC) + SERVER_YEARS * YEAR
    builder = _leaf(ca, host, key.public_key(), VALID_FROM, until, ExtendedKeyUsageOID.SERVER_AUTH)
    builder = builder.add_extension(x509.SubjectAlternativeName([_alt_name(host)]), critical=False)
    return key, builder.sign(ca[0], SHA256())


def issue_client(
    ca: Certified, member: str, public: EllipticCurvePublicKey, now: float
) -> x509.Certificate:
    """CN = the member's id, by which the broker's access list knows it."""
    start = datetime.fromtimestamp(now, UTC) - CLIENT_BACKDATE
    until = start + CLIENT_YEARS * YEAR
    builder = _leaf(ca, member, public, start, until, ExtendedKeyUsageOID.CLIENT_AUTH)
    return builder.sign(ca[0], SHA256())


def sign_csr(ca: Certified, csr_pem: str, member: str, now: float) -> x509.Certificate:
    """Certify the key of a request as `member`, whatever name the request gives itself.

    OfficeError when it is no request, not signed by its own key, or not an EC P-256 key.
    """
    try:
        csr = x509.load_pem_x509_csr(csr_pem.encode())
        signed = csr.is_signature_valid
        public = csr.public_key()
    except (ValueError, InvalidSignature):
        raise OfficeError("the request holds no certificate request; make it again") from None
    if not signed:
        raise OfficeError("the certificate request is not signed by its key; make it again")
    if not isinstance(public, EllipticCurvePublicKey) or not isinstance(public.curve, SECP256R1):
        raise OfficeError("the certificate request needs an EC P-256 key; make it again")
    return issue_client(ca, member, public, now)


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _alt_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: EllipticCurvePublicKey,
    start: datetime,
    until: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _leaf(
    ca: Certified,
    common: str,
    public: EllipticCurvePublicKey,
    start: datetime,
    until: datetime,
    purpose: x509.ObjectIdentifier,
) -> x509.CertificateBuilder:
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca[0].public_key())
    return (
        _builder(_name(common), ca[1].subject, public, start, until)
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(issuer, critical=False)
    )
