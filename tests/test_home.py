"""The office's folder: what lies where, and who may read it."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest
from office import ZONE, OfficeKit, make_office

from enroll.home import Home, OfficeError, write_file


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> OfficeKit:
    made = make_office(tmp_path_factory.mktemp("home"))
    made.authority.close()
    return made


def test_every_key_is_for_its_owner_only(office: OfficeKit) -> None:
    secret = [p for p in office.home.path.rglob("*") if p.suffix == ".key"]
    secret += [office.home.authority_dir / "zones.json", office.home.db_path]
    assert len(secret) == 9 + 1
    for path in secret:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    for path in (office.home.path, *office.home.path.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_no_folder_holds_another_folders_key(office: OfficeKit) -> None:
    """The bytes of each private key occur in its own file and nowhere else."""
    files = {p: p.read_bytes() for p in office.home.path.rglob("*") if p.is_file()}
    for path, data in files.items():
        if path.suffix == ".key":
            inner = b"".join(data.splitlines()[1:-1])
            holders = [p for p, d in files.items() if inner in d.replace(b"\n", b"")]
            assert holders == [path]


@pytest.mark.parametrize(
    ("path", "load"),
    [
        ("authority/roster.key", Home.authority_keys),
        ("authority/zones.json", Home.zone_secrets),
        ("authority/client.key", Home.authority_tls),
        ("registrar/ca.key", Home.registrar_keys),
        ("root/root.key", Home.root_key),
    ],
)
def test_a_key_that_others_can_read_is_refused(office: OfficeKit, path: str, load: object) -> None:
    assert callable(load)
    load(office.home)
    file = office.home.path / path
    file.chmod(0o640)
    try:
        with pytest.raises(OfficeError, match=f"chmod 600 {file}"):
            load(office.home)
    finally:
        file.chmod(0o600)


def test_a_key_that_is_not_there_is_one_line(office: OfficeKit, tmp_path: Path) -> None:
    with pytest.raises(OfficeError, match="no office here"):
        Home(tmp_path / "nowhere").require()
    file = office.home.root_dir / "root.key"
    away = tmp_path / "root.key"
    file.rename(away)
    try:
        with pytest.raises(OfficeError, match="bring the medium"):
            office.home.root_key()
    finally:
        away.rename(file)


def test_a_damaged_key_is_one_line(office: OfficeKit) -> None:
    file = office.home.authority_dir / "beacon.key"
    kept = file.read_bytes()
    write_file(file, b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    try:
        with pytest.raises(OfficeError, match="not a private key"):
            office.home.authority_keys()
    finally:
        write_file(file, kept)


def test_secrets_are_not_printed(office: OfficeKit) -> None:
    secrets = office.home.zone_secrets()[ZONE]
    shown = repr(secrets) + repr(office.home.authority_keys()) + repr(office.home.registrar_keys())
    assert secrets.kr.hex() not in shown and repr(secrets.kr) not in shown
    assert "PrivateKey" not in shown


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "a"
    write_file(file, b"old")
    with pytest.raises(TypeError):
        write_file(file, "not bytes")  # type: ignore[arg-type]
    assert file.read_bytes() == b"old"


def test_a_poke_reaches_serve_and_hurts_nobody_without_it(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.data_dir.mkdir()
    home.poke()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as serve:
        serve.bind(str(home.serve_socket))
        serve.settimeout(5)
        home.poke()
        assert serve.recv(8)
