"""The registrar: an office from nothing, and who gets into it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from office import DOOR, ZONE, Box, OfficeKit, make_office

from edge.config import load
from edge.envelope import Keyring, decode
from edge.provision import BrokerAddress, Bundle, read_paper, write_paper
from edge.wire import Member, Role, Trust
from enroll.broker_files import mosquitto_acl, mosquitto_conf
from enroll.home import Home, OfficeError
from enroll.registrar import init_office

CONFIG = Path(__file__).parent.parent / "config"


@pytest.fixture
def office(tmp_path: Path) -> Iterator[OfficeKit]:
    made = make_office(tmp_path)
    yield made
    made.authority.close()


def test_the_bundle_is_all_a_box_needs_to_believe(office: OfficeKit, tmp_path: Path) -> None:
    office.add("desk-1", "desk", [ZONE])
    write_paper(tmp_path / "b", office.add("gate-1", "gate", [ZONE]))
    bundle = read_paper(tmp_path / "b", Bundle)
    root = Keyring.build(bundle.root_pub, None, {})
    trust = decode(bundle.trust, root, direction="down", target="*").expect(Trust)
    assert {key.role for key in trust.keys} == {"registrar", "roster", "beacon", "command"}
    believed = Keyring.build(bundle.root_pub, trust, {})
    members = [decode(m, believed, direction="down", target="*") for m in bundle.members]
    assert all(message.signer.role is Role.REGISTRAR for message in members)
    assert [message.expect(Member).id for message in members] == ["gate-1", "desk-1"]
    certificate = x509.load_pem_x509_certificate(bundle.certificate.encode())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(bundle.ca.encode()))
    assert certificate.public_key() == office.boxes["gate-1"].tls.public_key()
    assert bundle.fingerprint == office.boxes["gate-1"].request.fingerprint


def test_the_bundle_holds_no_secret(office: OfficeKit) -> None:
    text = office.add("gate-1", "gate", [ZONE]).model_dump_json()
    assert "PRIVATE" not in text
    assert office.authority.secrets_of(ZONE).kr.hex() not in text


def test_the_first_configuration_loads(office: OfficeKit, tmp_path: Path) -> None:
    path = tmp_path / "gate.toml"
    path.write_text(office.add("gate-1", "gate", [ZONE]).config, encoding="utf-8")
    config = load(path)
    assert [(door.id, door.zone, door.output) for door in config.door] == [
        (DOOR, ZONE, 0),
        ("garage", ZONE, 1),
    ]
    assert config.gate.id == "gate-1" and not config.broker.plain


def test_the_same_box_again_is_the_next_version(office: OfficeKit) -> None:
    office.authority.add_zone("other")
    office.add("gate-1", "gate", [ZONE])
    office.add("gate-1", "gate", ["other", ZONE])
    (stored,) = office.authority.members()
    assert (stored.member.version, stored.member.zones) == (2, ["other", ZONE])


@pytest.mark.parametrize("role", ["gate", "desk"])
def test_an_id_belongs_to_its_first_keys(office: OfficeKit, role: str) -> None:
    office.add("gate-1", "gate", [ZONE])
    before = office.authority.members()
    office.boxes["gate-1"] = Box("gate-1", role)
    with pytest.raises(OfficeError, match="other keys"):
        office.add("gate-1", role, [ZONE])
    assert office.authority.members() == before


def test_nobody_is_called_authority(office: OfficeKit) -> None:
    """The broker lets that name write everything."""
    with pytest.raises(OfficeError, match="authority's own name"):
        office.add("authority", "gate", [ZONE])


def test_an_unknown_zone_lets_nobody_in(office: OfficeKit) -> None:
    with pytest.raises(OfficeError, match="no zone nowhere"):
        office.add("gate-1", "gate", [ZONE, "nowhere"])
    assert office.authority.members() == []


def test_a_member_the_registrar_did_not_sign_is_told(office: OfficeKit) -> None:
    office.add("gate-1", "gate", [ZONE])
    office.authority._store.update("members", "gate-1", {"signed": b"mj" + bytes(80)})
    with pytest.raises(OfficeError, match="not signed by this registrar"):
        office.add("gate-2", "gate", [ZONE])


def test_an_office_is_made_once(office: OfficeKit) -> None:
    before = office.home.root_pub()
    with pytest.raises(OfficeError, match="not empty"):
        init_office(office.home, BrokerAddress(host="127.0.0.1", port=8883))
    assert office.home.root_pub() == before


def test_an_init_that_was_cut_off_can_be_repeated(tmp_path: Path) -> None:
    leftover = tmp_path / ".office.new" / "root"
    leftover.mkdir(parents=True)
    (leftover / "root.key").write_text("half")
    init_office(Home(tmp_path / "office"), BrokerAddress(host="127.0.0.1", port=8883))
    assert Home(tmp_path / "office").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["office"]


def test_a_plain_broker_is_for_loopback_only(tmp_path: Path) -> None:
    with pytest.raises(OfficeError, match="loopback only"):
        init_office(Home(tmp_path / "o"), BrokerAddress(host="10.0.0.5", port=1883, plain=True))
    assert list(tmp_path.iterdir()) == []


def test_the_copies_in_config_are_what_init_writes() -> None:
    shown = mosquitto_conf(BrokerAddress(host="127.0.0.1", port=8883), "/srv/menjin/office/broker")
    assert (CONFIG / "mosquitto.conf").read_text(encoding="utf-8") == shown
    assert (CONFIG / "mosquitto.acl").read_text(encoding="utf-8") == mosquitto_acl()


@pytest.mark.parametrize(
    ("host", "line"),
    [
        ("127.0.0.1", "listener 8883 127.0.0.1"),
        ("localhost", "listener 8883 127.0.0.1"),
        ("10.1.2.3", "listener 8883 10.1.2.3"),
        ("broker.estate.lan", "listener 8883"),
    ],
)
def test_the_broker_listens_where_it_is_told(host: str, line: str) -> None:
    text = mosquitto_conf(BrokerAddress(host=host, port=8883), "/b")
    assert line in text.splitlines()


def test_no_pattern_lets_a_gate_write_for_a_zone() -> None:
    writes = [line for line in mosquitto_acl().splitlines() if "write" in line and line[0] != "#"]
    assert [line for line in writes if "mj/1/z" in line] == []
    assert all("%u" in line for line in writes if line.startswith("pattern"))
