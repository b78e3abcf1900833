"""How a box joins an office: what it asks, what it is answered, and which answers it refuses
without a byte being written."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from office import ZONE, Box, OfficeKit, make_office

from edge.envelope import HEADER, encode, parse
from edge.keys import Identity, Kek, create_identity
from edge.provision import Bundle, PaperError, Request, read_paper, write_paper
from edge.state import State, StateFault
from edge.store import Store
from edge.trust import TrustBook
from edge.wire import Member, Type
from enroll import ca
from enroll.registrar import add_member

KEK = Kek(bytes(range(32)), "weak")


@dataclass
class Joining:
    """A box with keys of its own, before an office."""

    state: State
    identity: Identity
    store: Store

    def join(self, bundle: Bundle) -> None:
        self.state.join(bundle, self.identity, self.store)

    def refuses(self, bundle: Bundle) -> str:
        """What it says; nothing of the bundle is kept."""
        before = self.kept()
        with pytest.raises(PaperError) as caught:
            self.join(bundle)
        assert self.kept() == before
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def kept(self) -> object:
        files = {path.name: path.read_bytes() for path in self.state.identity.iterdir()}
        return files, self.store.trust(), self.store.members()


def box(folder: Path, gate: str = "gate-1") -> Joining:
    state = State(folder)
    identity = create_identity(state.identity, KEK, gate)
    return Joining(state, identity, Store(state.roster_db, KEK, gate))


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Joining]:
    made = box(tmp_path / "mine")
    yield made
    made.store.close()


@pytest.fixture
def office(tmp_path: Path) -> Iterator[OfficeKit]:
    made = make_office(tmp_path / "theirs")
    yield made
    made.authority.close()


def answer(office: OfficeKit, identity: Identity) -> Bundle:
    return add_member(office.home, identity.request(), [ZONE], clock=office.clock)


def altered(bundle: Bundle, **fields: Any) -> Bundle:
    return bundle.model_copy(update=fields)


# --- joining ---


def test_a_box_that_joined_believes_its_office_after_a_start(
    mine: Joining, office: OfficeKit
) -> None:
    with pytest.raises(StateFault, match="no office has taken this gate in"):
        mine.state.root_pub()
    mine.join(answer(office, mine.identity))
    book = TrustBook("gate-1", mine.state.root_pub(), mine.identity.hpke, mine.store)
    assert book.load() == []
    assert book.members["gate-1"].zones == [ZONE]
    mine.state.tls(mine.identity).context()  # certificate and key belong together


def test_joining_again_brings_what_is_newer(mine: Joining, office: OfficeKit) -> None:
    mine.join(answer(office, mine.identity))
    office.authority.add_zone("second")
    mine.join(add_member(office.home, mine.identity.request(), ["second"], clock=office.clock))
    book = TrustBook("gate-1", mine.state.root_pub(), mine.identity.hpke, mine.store)
    book.load()
    assert book.members["gate-1"].zones == ["second"]


# --- what is refused ---


def test_a_bundle_for_another_box_is_refused(
    tmp_path: Path, mine: Joining, office: OfficeKit
) -> None:
    other = box(tmp_path / "other", "gate-2")
    said = mine.refuses(answer(office, other.identity))
    assert said == "the bundle is for gate 'gate-2', this is 'gate-1'"
    other.store.close()


def test_a_bundle_that_answers_an_earlier_box_of_this_name_is_refused(
    tmp_path: Path, mine: Joining, office: OfficeKit
) -> None:
    earlier = box(tmp_path / "earlier")
    assert "answers another request" in mine.refuses(answer(office, earlier.identity))
    earlier.store.close()


def test_a_bundle_for_a_desk_is_refused(mine: Joining, office: OfficeKit) -> None:
    bundle = altered(answer(office, mine.identity), role="desk")
    assert "for desk 'gate-1'" in mine.refuses(bundle)


def test_another_office_does_not_take_a_box_over(
    tmp_path: Path, mine: Joining, office: OfficeKit
) -> None:
    mine.join(answer(office, mine.identity))
    thief = make_office(tmp_path / "thief")
    assert "belongs to another office" in mine.refuses(answer(thief, mine.identity))
    thief.authority.close()


def _root(bundle: Bundle, _: OfficeKit) -> Bundle:
    stranger = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    return altered(bundle, root_pub=stranger)


def _trust(bundle: Bundle, _: OfficeKit) -> Bundle:
    return altered(bundle, trust=bundle.trust[:-1] + bytes([bundle.trust[-1] ^ 1]))


def _strange_member(bundle: Bundle, _: OfficeKit) -> Bundle:
    key = Ed25519PrivateKey.generate()
    member = Member(id="gate-9", role="gate", sign_pub=bytes(32), hpke_pub=bytes(32),
                    zones=[ZONE], version=1)  # fmt: skip
    raw = encode(Type.MEMBER, member, key, direction="down", target="*")
    return altered(bundle, members=[*bundle.members, raw])


def _without_me(bundle: Bundle, office: OfficeKit) -> Bundle:
    return altered(bundle, members=[])


def _named(bundle: Bundle, office: OfficeKit, **keys: bytes) -> Bundle:
    """The registrar wrote down another box's key under our name."""
    member = Member(id="gate-1", role="gate", zones=[ZONE], version=1,
                    **{"sign_pub": _mine(bundle).sign_pub, "hpke_pub": _mine(bundle).hpke_pub,
                       **keys})  # type: ignore[arg-type]  # fmt: skip
    registrar = office.home.registrar_keys().registrar
    raw = encode(Type.MEMBER, member, registrar, direction="down", target="*")
    return altered(bundle, members=[raw])


def _mine(bundle: Bundle) -> Member:
    return parse(Member, bundle.members[0][HEADER.size :])


def _other_sign_key(bundle: Bundle, office: OfficeKit) -> Bundle:
    key = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    return _named(bundle, office, sign_pub=key)


def _other_hpke_key(bundle: Bundle, office: OfficeKit) -> Bundle:
    return _named(bundle, office, hpke_pub=bytes(32))


def _certificate(bundle: Bundle, office: OfficeKit) -> Bundle:
    twin = add_member(office.home, Box("gate-2", "gate").request, [ZONE], clock=office.clock)
    return altered(bundle, certificate=twin.certificate)


def _ca(bundle: Bundle, office: OfficeKit) -> Bundle:
    return altered(bundle, ca=bundle.certificate)


def _no_pem(bundle: Bundle, office: OfficeKit) -> Bundle:
    return altered(bundle, certificate="-----BEGIN CERTIFICATE-----\nxx\n")


@pytest.mark.parametrize(
    "spoil",
    [
        _root,
        _trust,
        _strange_member,
        _without_me,
        _other_sign_key,
        _other_hpke_key,
        _certificate,
        _ca,
        _no_pem,
    ],
    ids=lambda spoil: str(spoil.__name__).strip("_"),
)
def test_one_wrong_part_and_nothing_is_taken(
    mine: Joining, office: OfficeKit, spoil: Callable[[Bundle, OfficeKit], Bundle]
) -> None:
    bundle = spoil(answer(office, mine.identity), office)
    assert mine.refuses(bundle).startswith("the bundle does not verify (")


def test_the_same_answer_signed_by_hand_is_taken(mine: Joining, office: OfficeKit) -> None:
    """The control of the keys above."""
    mine.join(_named(answer(office, mine.identity), office))


# --- the request ---


def test_a_request_holds_no_secret(mine: Joining) -> None:
    text = mine.identity.request().model_dump_json()
    for key in (mine.identity.sign, mine.identity.hpke):
        raw = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        assert base64.b64encode(raw).decode() not in text and raw.hex() not in text
    assert "PRIVATE" not in text


def test_the_certificate_asked_for_carries_the_name_and_the_key_of_tls(mine: Joining) -> None:
    csr = x509.load_pem_x509_csr(mine.identity.request().csr.encode())
    pem = mine.identity.tls_key_file.read_bytes()
    key = load_pem_private_key(pem, mine.identity.tls_key_password.encode())
    assert csr.subject.rfc4514_string() == "CN=gate-1"
    assert csr.is_signature_valid and csr.public_key() == key.public_key()


def test_asking_again_keeps_the_fingerprint(mine: Joining) -> None:
    assert mine.identity.request().fingerprint == mine.identity.request().fingerprint


@pytest.mark.parametrize(
    "part", [{"id": "gate-2"}, {"sign_pub": bytes(32)}, {"hpke_pub": bytes(32)}, {"csr": ""}]
)
def test_the_fingerprint_covers_name_and_every_key(mine: Joining, part: dict[str, Any]) -> None:
    mine_said = mine.identity.request()
    if "csr" in part:
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        csr = builder.sign(ca.new_key(), SHA256())
        part = {"csr": csr.public_bytes(Encoding.PEM).decode()}
    assert mine_said.model_copy(update=part).fingerprint != mine_said.fingerprint


def test_a_fingerprint_can_be_read_aloud(mine: Joining) -> None:
    groups = mine.identity.request().fingerprint.split("-")
    assert len(groups) == 5 and all(len(g) == 4 and g == g.upper() for g in groups)


# --- paper on a stick ---


def test_papers_come_back_as_they_went(tmp_path: Path, mine: Joining, office: OfficeKit) -> None:
    request, bundle = mine.identity.request(), answer(office, mine.identity)
    write_paper(tmp_path / "r", request)
    write_paper(tmp_path / "b", bundle)
    assert read_paper(tmp_path / "r", Request) == request
    assert read_paper(tmp_path / "b", Bundle) == bundle


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"menjin": "bundle"}, "menjin: "),
        ({"version": 2}, "version: "),
        ({"id": "../etc"}, "id: "),
        ({"role": "root"}, "role: "),
        ({"csr": "x" * 8193}, "csr: "),
        ({"sign_key": ""}, "sign_key: "),
    ],
)
def test_what_is_no_request_says_where(
    tmp_path: Path, mine: Joining, change: dict[str, Any], says: str
) -> None:
    plain = json.loads(mine.identity.request().model_dump_json())
    (tmp_path / "r").write_text(json.dumps(plain | change), "utf-8")
    with pytest.raises(PaperError) as caught:
        read_paper(tmp_path / "r", Request)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[]", b"[" * 100_000, b" " * 300_000])
def test_what_is_no_paper_is_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "r").write_bytes(data)
    with pytest.raises(PaperError) as caught:
        read_paper(tmp_path / "r", Request)
    assert "\n" not in str(caught.value)


def test_a_paper_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(PaperError, match="No such file"):
        read_paper(tmp_path / "none", Request)


def test_a_request_with_a_key_that_is_none_has_no_fingerprint(mine: Joining) -> None:
    request = mine.identity.request().model_copy(update={"csr": "nothing"})
    with pytest.raises(PaperError, match="make it anew"):
        _ = request.fingerprint


def test_two_boxes_of_one_kek_have_different_keys(tmp_path: Path) -> None:
    """A cloned disk image that is provisioned twice is two gates."""
    one, two = box(tmp_path / "1"), box(tmp_path / "2")
    assert one.identity.request().fingerprint != two.identity.request().fingerprint
    assert isinstance(one.identity.hpke, X25519PrivateKey)
    for made in (one, two):
        made.store.close()
