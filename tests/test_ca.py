"""Certificates: who they name, what they are for, how long they hold."""

from __future__ import annotations

import contextlib
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from enroll import ca
from enroll.home import OfficeError, write_private

NOW = 1_790_000_000.0


@pytest.fixture(scope="module")
def authority() -> ca.Certified:
    return ca.make_ca(NOW)


def csr(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, name: str = "") -> str:
    names = [x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else []
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


def test_the_certificate_names_the_member_not_what_the_request_says(
    authority: ca.Certified,
) -> None:
    key = ca.new_key()
    issued = ca.sign_csr(authority, csr(key, "authority"), "gate-1", NOW)
    assert [a.value for a in issued.subject] == ["gate-1"]
    assert issued.public_key() == key.public_key()
    issued.verify_directly_issued_by(authority[1])
    usage = issued.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    basic = issued.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical and not basic.value.ca


def test_a_request_signed_by_another_key_is_refused(authority: ca.Certified) -> None:
    good = x509.load_pem_x509_csr(csr(ca.new_key()).encode())
    other = x509.load_pem_x509_csr(csr(ca.new_key()).encode())
    der = good.public_bytes(Encoding.DER)
    spliced = der.replace(
        good.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),  # type: ignore[union-attr]
        other.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),  # type: ignore[union-attr]
    )
    text = x509.load_der_x509_csr(spliced).public_bytes(Encoding.PEM).decode()
    with pytest.raises(OfficeError, match="not signed by its key"):
        ca.sign_csr(authority, text, "gate-1", NOW)


@pytest.mark.parametrize("kind", ["rsa", "p384", "text"])
def test_other_keys_and_other_texts_are_refused_in_one_line(
    authority: ca.Certified, kind: str
) -> None:
    text = {
        "rsa": lambda: csr(rsa.generate_private_key(65537, 2048)),
        "p384": lambda: csr(ec.generate_private_key(ec.SECP384R1())),
        "text": lambda: "-----BEGIN NOTHING-----",
    }[kind]()
    with pytest.raises(OfficeError) as caught:
        ca.sign_csr(authority, text, "gate-1", NOW)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "broker.estate.lan"])
def test_the_servers_certificate_is_for_its_host(authority: ca.Certified, host: str) -> None:
    _, server = ca.issue_server(authority, host, NOW)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == [host]


def test_a_gate_with_a_dead_clock_battery_can_still_check_the_server(
    authority: ca.Certified,
) -> None:
    _, server = ca.issue_server(authority, "127.0.0.1", NOW)
    for at in (
        datetime(1970, 1, 2, tzinfo=UTC),
        datetime.fromtimestamp(NOW + 10 * 366 * 86400, UTC),
    ):
        for certificate in (server, authority[1]):
            assert certificate.not_valid_before_utc <= at < certificate.not_valid_after_utc


def test_both_ends_speak_tls_with_these_papers(authority: ca.Certified, tmp_path: Path) -> None:
    """A handshake in memory, both certificates checked, the client's name seen by the server."""
    _save(tmp_path, "server", ca.issue_server(authority, "127.0.0.1", NOW))
    key = ca.new_key()
    _save(tmp_path, "client", (key, ca.sign_csr(authority, csr(key), "gate-1", NOW)))
    (tmp_path / "ca.crt").write_bytes(ca.pem(authority[1]))
    sides = []
    for role, server_side in (("client", False), ("server", True)):
        protocol = ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT
        context = ssl.SSLContext(protocol)
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(tmp_path / "ca.crt")
        context.load_cert_chain(tmp_path / f"{role}.crt", tmp_path / f"{role}.key")
        into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if server_side else "127.0.0.1"
        tls = context.wrap_bio(into, out, server_side=server_side, server_hostname=name)
        sides.append((tls, into, out))
    (client, client_in, client_out), (server, server_in, server_out) = sides
    for _ in range(4):
        for tls in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            server_in.write(client_out.read())
            client_in.write(server_out.read())
    peer = server.getpeercert()
    assert peer and peer["subject"] == ((("commonName", "gate-1"),),)
    assert client.version() == "TLSv1.3"


def _save(folder: Path, role: str, papers: ca.Certified) -> None:
    write_private(folder / f"{role}.key", papers[0])
    (folder / f"{role}.crt").write_bytes(ca.pem(papers[1]))
