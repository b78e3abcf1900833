"""Keys of a gate box: who may read them, what is refused in one line, and nothing in the clear."""

from __future__ import annotations

import os
import ssl
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from edge.keys import (
    KEY_BYTES,
    Envelope,
    Kek,
    KeyFault,
    create_identity,
    create_kek,
    load_identity,
    load_kek,
    write_private,
)

KEK, OTHER_KEK = Kek(bytes(range(32)), "weak"), Kek(bytes(range(1, 33)), "weak")


def one_line(fault: pytest.ExceptionInfo[KeyFault]) -> str:
    text = str(fault.value)
    assert text
    assert "\n" not in text
    return text


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "kek.bin"
    create_kek(path)
    return path


# --- the KEK ---


def test_a_kek_file_is_read_by_its_owner_and_called_weak(file: Path) -> None:
    kek = load_kek(file, None, {})
    assert (kek.key, kek.protection) == (file.read_bytes(), "weak")
    assert len(kek.key) == KEY_BYTES
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_two_keys_are_never_the_same(file: Path) -> None:
    create_kek(file.with_name("second"))
    assert file.with_name("second").read_bytes() != file.read_bytes()


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o660, 0o777])
def test_a_kek_that_others_may_touch_is_refused_with_the_command_to_run(
    file: Path, mode: int
) -> None:
    file.chmod(mode)
    with pytest.raises(KeyFault) as fault:
        load_kek(file, None, {})
    assert f"run: chmod 600 {file}" in one_line(fault)
    file.chmod(0o600)
    load_kek(file, None, {})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_kek_of_another_user_is_refused_with_the_command_to_run(file: Path) -> None:
    os.chown(file, 12345, -1)
    with pytest.raises(KeyFault) as fault:
        load_kek(file, None, {})
    assert f"run: chown 0 {file}" in one_line(fault)


@pytest.mark.parametrize("size", [0, 1, KEY_BYTES - 1, KEY_BYTES + 1, 4096])
def test_a_kek_of_a_wrong_size_is_refused_in_one_line(file: Path, size: int) -> None:
    write_private(file, bytes(size))
    with pytest.raises(KeyFault, match="where a key has 32"):
        load_kek(file, None, {})


def test_a_kek_that_is_missing_or_no_file_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(KeyFault) as fault:
        load_kek(tmp_path / "none", None, {})
    assert "edge provision --request" in one_line(fault)
    with pytest.raises(KeyFault) as fault:
        load_kek(tmp_path, None, {})
    assert str(tmp_path) in one_line(fault)


def test_a_kek_is_never_overwritten(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(KeyFault, match="never overwritten"):
        create_kek(file)
    assert file.read_bytes() == before


def test_a_kek_that_somebody_made_a_moment_sooner_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It appears after we began: while the new key is drawn."""
    path, urandom = tmp_path / "kek", os.urandom

    def slow(size: int) -> bytes:
        path.write_bytes(b"of somebody who was quicker")
        return urandom(size)

    monkeypatch.setattr("edge.keys.os.urandom", slow)
    with pytest.raises(KeyFault, match="never overwritten"):
        create_kek(path)
    assert path.read_bytes() == b"of somebody who was quicker"
    assert [left.name for left in tmp_path.iterdir()] == ["kek"]


def test_a_pipe_in_place_of_a_kek_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "kek", 0o600)
    with pytest.raises(KeyFault, match="not a file"):
        load_kek(tmp_path / "kek", None, {})


def test_a_kek_that_cannot_be_written_is_one_line(file: Path) -> None:
    with pytest.raises(KeyFault) as fault:
        create_kek(file / "below-a-file" / "kek")
    one_line(fault)


def test_a_private_file_is_0600_whatever_the_umask_and_leaves_no_part_behind(
    tmp_path: Path,
) -> None:
    (tmp_path / ".key.part").write_bytes(b"of a run that was cut off")
    (tmp_path / ".key.part").chmod(0o666)
    before = os.umask(0)
    try:
        write_private(tmp_path / "key", b"secret")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


# --- the credential of systemd ---


def test_a_credential_comes_from_the_folder_that_systemd_names(tmp_path: Path) -> None:
    (tmp_path / "menjin-kek").write_bytes(KEK.key)
    kek = load_kek(None, "menjin-kek", {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert (kek.key, kek.protection) == (KEK.key, "credential")


@pytest.mark.parametrize(
    ("credential", "folder", "says"),
    [
        ("kek", None, "LoadCredentialEncrypted="),
        (None, ".", "LoadCredentialEncrypted="),
        ("kek", ".", "No such file"),
        ("short", ".", "31 bytes"),
        ("../outside", ".", "No such file"),  # a name, not a path
    ],
)
def test_a_credential_that_is_not_there_is_refused_in_one_line(
    tmp_path: Path, credential: str | None, folder: str | None, says: str
) -> None:
    (tmp_path / "outside").write_bytes(KEK.key)
    inside = tmp_path / "credentials"
    inside.mkdir()
    (inside / "short").write_bytes(bytes(31))
    environ = {} if folder is None else {"CREDENTIALS_DIRECTORY": str(inside / folder)}
    with pytest.raises(KeyFault) as fault:
        load_kek(None, credential, environ)
    assert says in one_line(fault)


def test_a_key_is_not_in_what_is_printed_of_it(tmp_path: Path) -> None:
    identity = create_identity(tmp_path, KEK, "g-1")
    shown = repr(KEK) + repr(identity)
    for secret in (KEK.key, identity.sign.private_bytes_raw(), identity.hpke.private_bytes_raw()):
        assert repr(secret)[2:-1] not in shown
        assert secret.hex() not in shown
    assert identity.tls_key_password not in shown


# --- one data key per record ---


@given(st.binary(max_size=200), st.binary(max_size=40), st.integers(min_value=0), st.data())
def test_a_record_opens_only_whole_at_its_place_and_under_its_key(
    plain: bytes, aad: bytes, where: int, data: st.DataObject
) -> None:
    envelope = Envelope(KEK)
    wrapped, sealed = envelope.seal(plain, aad)
    assert envelope.open(wrapped, sealed, aad) == plain
    spoilt = data.draw(st.sampled_from(["wrapped", "sealed", "aad", "kek", "cut"]))
    flip = 1 << where % 8
    if spoilt == "kek":
        envelope = Envelope(OTHER_KEK)
    elif spoilt == "aad":
        aad += b"\0"
    elif spoilt == "cut":
        sealed = sealed[: where % len(sealed)]
    elif spoilt == "wrapped":
        wrapped = flipped(wrapped, where, flip)
    else:
        sealed = flipped(sealed, where, flip)
    with pytest.raises(KeyFault):
        envelope.open(wrapped, sealed, aad)


def flipped(data: bytes, where: int, bits: int) -> bytes:
    at = where % len(data)
    return data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]


def test_the_same_record_never_looks_the_same_twice() -> None:
    one, two = (Envelope(KEK).seal(b"plain", b"aad") for _ in range(2))
    assert not set(one) & set(two)


def test_rotation_touches_no_ciphertext_and_ends_the_old_key() -> None:
    old, new = Envelope(KEK), Envelope(OTHER_KEK)
    wrapped, sealed = old.seal(b"plain", b"aad")
    again = old.rewrap(wrapped, b"aad", new)
    assert new.open(again, sealed, b"aad") == b"plain"
    with pytest.raises(KeyFault):
        old.open(again, sealed, b"aad")
    with pytest.raises(KeyFault):
        old.rewrap(again, b"aad", new)


def test_each_purpose_has_a_key_of_its_own() -> None:
    assert len({KEK.key, KEK.derive("a"), KEK.derive("b"), OTHER_KEK.derive("a")}) == 4
    assert KEK.derive("a") == KEK.derive("a")


# --- the box's identity ---


def test_an_identity_is_the_same_over_loads(tmp_path: Path) -> None:
    made = create_identity(tmp_path, KEK, "g-1")
    read = load_identity(tmp_path, KEK)
    assert read.gate == "g-1"
    assert read.sign.private_bytes_raw() == made.sign.private_bytes_raw()
    assert read.hpke.private_bytes_raw() == made.hpke.private_bytes_raw()
    assert read.tls_key_password == made.tls_key_password
    prints = {made.request().fingerprint, made.request().fingerprint, read.request().fingerprint}
    assert len(prints) == 1


def test_two_boxes_of_one_name_and_kek_have_different_fingerprints(tmp_path: Path) -> None:
    one = create_identity(tmp_path / "one", KEK, "g-1")
    two = create_identity(tmp_path / "two", KEK, "g-1")
    assert one.request().fingerprint != two.request().fingerprint


def test_an_identity_is_never_overwritten(tmp_path: Path) -> None:
    create_identity(tmp_path, KEK, "g-1")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(KeyFault, match="never overwritten"):
        create_identity(tmp_path, KEK, "g-2")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_wrong_kek_is_one_line_that_says_so(tmp_path: Path) -> None:
    create_identity(tmp_path, KEK, "g-1")
    with pytest.raises(KeyFault) as fault:
        load_identity(tmp_path, OTHER_KEK)
    assert "wrong key for this box" in one_line(fault)


def test_a_box_without_an_identity_is_told_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(KeyFault) as fault:
        load_identity(tmp_path, KEK)
    assert "edge provision --request" in one_line(fault)


def test_an_identity_with_any_byte_altered_or_cut_is_refused(tmp_path: Path) -> None:
    create_identity(tmp_path, KEK, "g-1")
    path = tmp_path / "identity.bin"
    whole = path.read_bytes()
    spoilt = [flipped(whole, at, 1) for at in range(len(whole))]
    for data in [*spoilt, whole[:-1], whole[:40], b""]:
        path.write_bytes(data)
        with pytest.raises(KeyFault, match="altered"):
            load_identity(tmp_path, KEK)


@pytest.mark.parametrize("spoil", ["gone", "garbage", "other", "clear"])
def test_a_tls_key_that_does_not_open_is_one_line(tmp_path: Path, spoil: str) -> None:
    identity = create_identity(tmp_path / "mine", KEK, "g-1")
    other = create_identity(tmp_path / "other", OTHER_KEK, "g-1")
    if spoil == "gone":
        identity.tls_key_file.unlink()
    else:
        clear = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        data = {"garbage": b"no PEM", "other": other.tls_key_file.read_bytes(), "clear": clear}
        identity.tls_key_file.write_bytes(data[spoil])
    with pytest.raises(KeyFault) as fault:
        identity.request()
    assert "client.key" in one_line(fault)


def certificate(identity_folder: Path, password: str) -> Path:
    """A certificate over the box's own TLS key, as the office would make one."""
    pem = (identity_folder / "client.key").read_bytes()
    key = load_pem_private_key(pem, password.encode())
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "g-1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = identity_folder / "client.pem"
    path.write_bytes(made.public_bytes(Encoding.PEM))
    return path


def test_the_tls_key_loads_into_ssl_with_its_password_and_not_without(tmp_path: Path) -> None:
    create_identity(tmp_path, KEK, "g-1")
    identity = load_identity(tmp_path, KEK)
    chain = certificate(tmp_path, identity.tls_key_password)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(chain, identity.tls_key_file, identity.tls_key_password)
    with pytest.raises(ssl.SSLError):
        context.load_cert_chain(chain, identity.tls_key_file, "wrong")


def test_no_private_key_is_in_the_clear_in_any_file_of_the_folder(tmp_path: Path) -> None:
    identity = create_identity(tmp_path, KEK, "g-1")
    pem = identity.tls_key_file.read_bytes()
    tls = load_pem_private_key(pem, identity.tls_key_password.encode())
    assert isinstance(tls, ec.EllipticCurvePrivateKey)
    private = {
        "sign": identity.sign.private_bytes_raw(),
        "hpke": identity.hpke.private_bytes_raw(),
        "tls": tls.private_numbers().private_value.to_bytes(32, "big"),
        "tls der": tls.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        "tls password": bytes.fromhex(identity.tls_key_password),
        "kek": KEK.key,
    }
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert {path.name for path in files} == {"identity.bin", "client.key"}
    for path, data in files.items():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        for name, key in private.items():
            for form in (key, key.hex().encode(), key.hex().upper().encode()):
                assert form[:16] not in data, (path.name, name)
    assert b"ENCRYPTED" in pem  # the same look finds a key that is not


def test_the_process_leaves_no_core_and_cannot_be_read_by_its_own_user() -> None:
    """In a process of its own: it cannot be taken back."""
    probe = (
        "import ctypes, resource; from edge.keys import forbid_dumps; forbid_dumps();"
        "print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout.strip() == "(0, 0) 0"
