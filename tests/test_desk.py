"""The enrolment desk: its folder, what it believes, whom it gives the face key, what it enrols. The
office is a real `Serve` in a thread, the broker the embedded one."""

from __future__ import annotations

import base64
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from live import DESK, ZONE, Estate, free_port, until, vector

from edge import seal, wire
from edge.clock import SystemClock
from edge.envelope import encode
from edge.oplog import parse_op
from edge.provision import BrokerAddress, Bundle
from edge.terms import ZoneId
from edge.wire import Type
from enroll import desk_session
from enroll.desk import Desk
from enroll.desk_session import NotDone
from enroll.home import Home, OfficeError
from enroll.registrar import add_member, init_office
from enroll.roster.authority import Authority
from enroll.roster.serve import Serve


@dataclass
class Office:
    estate: Estate
    serve: Serve
    desk: Desk

    def face_key(self) -> bytes:
        return self.desk.papers().zone_keys()[ZONE, "kf", 1]


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    estate = Estate(tmp_path_factory.mktemp("desk"), "embedded")
    serve, desk = estate.serve_here(), estate.desk()
    with estate.at_desk(desk) as at:
        assert at.sync().made == (ZONE,)
    yield Office(estate, serve, desk)
    estate.close()


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enroll.messages._chosen", ["en"])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_session, "ANSWER_TIMEOUT_S", 0.3)


# the folder


def test_everything_secret_is_for_the_owner_only(office: Office) -> None:
    for name in ("sign.key", "hpke.key", "client.key", "papers"):
        assert stat.S_IMODE((office.desk.folder / name).stat().st_mode) == 0o600, name


def _new(folder: Path, name: str = "desk-9") -> Desk:
    return Desk.init(folder, name)[0]


@pytest.mark.parametrize("name", ["sign.key", "hpke.key", "client.key"])
def test_a_key_that_others_may_read_is_not_used(tmp_path: Path, name: str) -> None:
    desk = _new(tmp_path / "d")
    (desk.folder / name).chmod(0o640)
    with pytest.raises(OfficeError, match=f"chmod 600 .*{name}"):
        Desk(desk.folder).request()


def test_the_request_is_made_anew_with_the_same_keys(tmp_path: Path) -> None:
    first, second = Desk.init(tmp_path, "desk-9")[1], Desk.init(tmp_path, "desk-9")[1]
    assert first.fingerprint == second.fingerprint


def test_a_folder_is_of_one_desk(tmp_path: Path) -> None:
    _new(tmp_path)
    with pytest.raises(OfficeError, match="this is desk desk-9"):
        Desk.init(tmp_path, "desk-10")


def test_a_name_that_cannot_travel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OfficeError, match="cannot be the name of a desk"):
        Desk.init(tmp_path / "d", "front desk/1")


def test_no_desk_and_no_office_are_said(tmp_path: Path) -> None:
    with pytest.raises(OfficeError, match="no desk here"):
        _ = Desk(tmp_path).id
    with pytest.raises(OfficeError, match="has not joined"):
        _ = _new(tmp_path).bundle


# joining


@pytest.fixture
def joining(office: Office, tmp_path: Path) -> tuple[Desk, Bundle]:
    """A new desk and the bundle that answers it; its own name for each test."""
    name = f"desk-{abs(hash(str(tmp_path))) % 10**8}"
    desk, request = Desk.init(tmp_path / "joining", name)
    return desk, add_member(office.estate.home, request, [ZONE])


def _changed(bundle: Bundle, **changes: object) -> Bundle:
    return Bundle.model_validate({**bundle.model_dump(), **changes})


def test_an_altered_bundle_is_refused_and_nothing_is_written(
    joining: tuple[Desk, Bundle],
) -> None:
    desk, bundle = joining
    trust = bundle.trust[:-1] + bytes([bundle.trust[-1] ^ 1])
    with pytest.raises(OfficeError, match="does not verify"):
        desk.join(_changed(bundle, trust=base64.b64encode(trust)))
    assert not desk.joined


def test_a_bundle_without_this_desk_is_refused(joining: tuple[Desk, Bundle]) -> None:
    desk, bundle = joining
    with pytest.raises(OfficeError, match="not among its members"):
        desk.join(_changed(bundle, members=[]))


def test_the_bundle_of_another_desk_is_refused(
    office: Office, joining: tuple[Desk, Bundle]
) -> None:
    with pytest.raises(OfficeError, match=f"for desk {DESK}"):
        joining[0].join(office.desk.bundle)


def test_a_bundle_that_answers_older_keys_is_refused(
    joining: tuple[Desk, Bundle], tmp_path: Path
) -> None:
    desk, bundle = joining
    again = _new(tmp_path / "again", desk.id)
    with pytest.raises(OfficeError, match="answers another request"):
        again.join(bundle)


def test_the_office_is_pinned(joining: tuple[Desk, Bundle], tmp_path: Path) -> None:
    """Another office, with a root key of its own, cannot take a desk over."""
    desk, bundle = joining
    desk.join(bundle)
    home = Home(tmp_path / "other")
    init_office(home, BrokerAddress(host="127.0.0.1", port=free_port(), plain=True))
    with Authority.open(home, SystemClock()) as authority:
        authority.add_zone(ZONE)
    with pytest.raises(OfficeError, match="belongs to another office"):
        desk.join(add_member(home, desk.request(), [ZONE]))
    desk.join(bundle)  # its own takes it in again


# the face key


def test_the_face_key_is_made_once(office: Office) -> None:
    before = office.face_key()
    with office.estate.at_desk(office.desk) as at:
        assert at.sync().made == ()
    assert office.face_key() == before


def test_the_office_without_the_desk_cannot_open_a_template(office: Office) -> None:
    """No file of the office holds Kf, in no usual form; the control: the desk's folder does."""
    key = office.face_key()
    office.estate.tenancy("T-closed")
    with office.estate.at_desk(office.desk) as at:
        at.sync()
        office.estate.enrol(at, "closed", "T-closed")
    forms = (key, key.hex().encode(), base64.b64encode(key)[:42], key[:16], key[16:])
    assert _found(office.desk.folder, forms), "the control"
    assert not _found(office.estate.home.path, forms)


def _found(folder: Path, forms: tuple[bytes, ...]) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if any(form in path.read_bytes() for form in forms)]


def test_a_gate_that_joined_later_gets_the_face_key_with_the_next_enrolment(
    office: Office,
) -> None:
    gate = office.estate.started("gate-later")
    office.estate.tenancy("T-later")
    with office.estate.at_desk(office.desk) as at:
        assert at.sync().wrapped == 1
        office.estate.enrol(at, "later", "T-later", seed=3)
    person = seal.pseudonym(office.desk.papers().zone_keys()[ZONE, "zs", 1], "later")
    until(
        lambda: (m := gate.live.match(ZoneId(ZONE), vector(3))) and m.person == person,
        "the face is known",
    )
    with office.estate.at_desk(office.desk) as at:
        assert at.sync().wrapped == 0, "once"
        assert at.sync(again=True).wrapped == 1, "unless asked to"


def test_a_desk_that_lost_its_face_key_gets_it_back_from_its_own_claim(office: Office) -> None:
    before, papers = office.face_key(), office.desk.papers()
    del papers._keys[ZONE, "kf", 1]
    papers.save()
    with office.estate.at_desk(office.desk) as at:
        assert at.sync().made == ()
    assert office.face_key() == before


# enrolling


def test_the_op_carries_a_template_that_only_the_face_key_opens(office: Office) -> None:
    office.estate.tenancy("T-op")
    with office.estate.at_desk(office.desk) as at:
        at.sync()
        office.estate.enrol(at, "op", "T-op", seed=4)
    with office.estate.authority() as authority:
        page = authority.page(ZONE, authority.position(ZONE).head_seq)
    assert isinstance(page, wire.Page)
    op = parse_op(page.ops[0])
    (template,) = op.templates
    aad = seal.template_aad(ZONE, op.person, op.tv, template.key_epoch, template.model_id)
    opened = seal.unpack_vector(seal.open_(office.face_key(), template.sealed, aad))
    assert float(opened @ vector(4)) > 0.999
    rights_key = office.desk.papers().zone_keys()[ZONE, "kr", 1]
    with pytest.raises(seal.SealError):
        seal.open_(rights_key, template.sealed, aad)


@pytest.mark.parametrize(
    ("tenancy", "says"),
    [("T-none", "there is no such tenancy"), ("T-full", "everybody this tenancy registers")],
)
def test_a_refusal_of_the_office_is_one_sentence(office: Office, tenancy: str, says: str) -> None:
    with office.estate.at_desk(office.desk) as at:
        at.sync()
        if tenancy == "T-full":
            office.estate.tenancy(tenancy)
            office.estate.enrol(at, "first", tenancy)
        with pytest.raises(NotDone, match=says):
            office.estate.enrol(at, "second", tenancy)


def test_newer_photos_have_a_higher_version(office: Office) -> None:
    """The same person under a second tenancy: the gates take the newer templates."""
    for tenancy in ("T-one", "T-two"):
        office.estate.tenancy(tenancy)
        with office.estate.at_desk(office.desk) as at:
            at.sync()
            office.estate.enrol(at, "twice", tenancy)
    with office.estate.authority() as authority:
        page = authority.page(ZONE, authority.position(ZONE).head_seq - 1)
    assert isinstance(page, wire.Page)
    first, second = map(parse_op, page.ops)
    assert first.person == second.person and first.tv < second.tv


# what it does not believe


def test_a_silent_office_is_said(office: Office, impatient: None) -> None:
    office.serve.authority, kept = None, office.serve.authority  # type: ignore[assignment]
    try:
        with office.estate.at_desk(office.desk) as at, pytest.raises(NotDone, match="no answer"):
            at.sync()
    finally:
        office.serve.authority = kept


def test_an_answer_that_is_not_the_offices_is_not_believed(office: Office, impatient: None) -> None:
    """A desk signs "accepted" to itself: a true key, not of the role that may say so."""
    with office.estate.at_desk(office.desk) as at:
        request, topic = bytes(range(16)), wire.desk_topic(DESK, "down")
        accepted = wire.Accepted(request=request, what="enrol")
        forged = encode(Type.ACCEPTED, accepted, office.desk.sign, direction="down", target=DESK)
        at.link.publish(topic, forged)
        at.link.publish(topic, b"noise")
        with pytest.raises(NotDone, match="dropped: header, role"):
            at._answer(request, "enrol")


def test_another_answer_is_not_ours(office: Office, impatient: None) -> None:
    with office.estate.at_desk(office.desk) as at:
        accepted = wire.Accepted(request=bytes(16), what="enrol")
        raw = office.serve._sign(Type.ACCEPTED, accepted, DESK)
        at.link.publish(wire.desk_topic(DESK, "down"), raw)
        with pytest.raises(NotDone, match="no answer"):
            at._answer(b"\x01" * 16, "enrol")
        at.link.publish(wire.desk_topic(DESK, "down"), raw)
        at._answer(bytes(16), "enrol")  # the control: to this request it is


def test_a_broker_that_is_away_is_said(
    office: Office, joining: tuple[Desk, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk_session, "CONNECT_TIMEOUT_S", 0.2)
    desk, bundle = joining
    away = BrokerAddress(host="127.0.0.1", port=free_port(), plain=True)
    desk.join(_changed(bundle, broker=away))
    with pytest.raises(NotDone, match="is not reached"), office.estate.at_desk(desk):
        pass


def test_one_command_at_a_time_works_in_a_folder(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enroll.desk.LOCK_WAIT_S", 0.1)
    with (
        office.desk.alone(),
        pytest.raises(OfficeError, match="another command is using"),
        office.estate.at_desk(office.desk),
    ):
        pass


# the command


def test_without_consent_the_command_enrols_nobody(office: Office) -> None:
    office.estate.tenancy("T-consent")
    add = (
        *("person", "add", "--photo", "/nonexistent.jpg", "--tenancy", "T-consent", "--id", "x"),
        *("--desk", str(office.desk.folder), "--models", "/nonexistent"),
    )
    for options, says in (
        ((), "separate consent"),
        (("--consent", "separate_written"), "--transfer"),
        (("--consent", "guardian", "--transfer"), "--guardian"),
    ):
        done = office.estate.enroll(*add, *options)
        assert done.returncode == 2 and says in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1 and done.stdout == ""
    with office.estate.authority() as authority:
        assert "x" not in [person.internal_id for person in authority.people()]
