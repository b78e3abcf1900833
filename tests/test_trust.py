"""Whom a member believes: newer papers only, zone keys from whom may give them, nothing struck."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from signing import DELTA, GATE_2, KEYS, PULL, STRANGER, TRUST, member, pub, signed

from edge import seal
from edge.envelope import Message, WireError, decode, dump
from edge.trust import KeyName, TrustBook
from edge.wire import Member, Role, Trust, TrustKey, Type, Which, ZoneKey

ROOT, REGISTRAR, ROSTER, DESK = (
    KEYS[role] for role in (Role.ROOT, Role.REGISTRAR, Role.ROSTER, Role.DESK)
)
KEY, OTHER_KEY = b"k" * 32, b"o" * 32
HPKE, OTHERS_HPKE = X25519PrivateKey.generate(), X25519PrivateKey.generate()


@dataclass
class Drawer:
    """Papers in memory: keeps what it is given, as the store does."""

    paper: bytes | None = None
    folk: dict[str, bytes] = field(default_factory=dict)
    zone: dict[KeyName, bytes] = field(default_factory=dict)

    def trust(self) -> bytes | None:
        return self.paper

    def put_trust(self, raw: bytes) -> None:
        self.paper = raw

    def members(self) -> Mapping[str, bytes]:
        return self.folk

    def put_member(self, member: str, raw: bytes) -> None:
        self.folk[member] = raw

    def zone_keys(self) -> Mapping[KeyName, bytes]:
        return self.zone

    def put_zone_key(self, zone: str, which: Which, key_epoch: int, key: bytes) -> None:
        assert (zone, which, key_epoch) not in self.zone, "a zone key is written once"
        self.zone[zone, which, key_epoch] = key


def trust(version: int = 1, **without: Role) -> bytes:
    keys = [key for key in TRUST.keys if key.role not in without.values()]
    return signed(Type.TRUST, dump(Trust(version=version, keys=keys)), ROOT)


def paper(body: Member, key: Any = REGISTRAR) -> bytes:
    return signed(Type.MEMBER, dump(body), key)


DESK_1 = paper(member("desk-1", DESK))
GATE_1 = paper(member("gate-1", KEYS[Role.GATE]))


def book(*papers: bytes, drawer: Drawer | None = None) -> TrustBook:
    made = TrustBook("gate-1", pub(ROOT), HPKE, drawer or Drawer())
    assert made.load() == []
    for raw in papers:
        assert hand(made, raw)
    return made


def read(made: TrustBook, raw: bytes, target: str = "gate-1") -> Message:
    return decode(raw, made.keyring, direction="down", target=target)


def hand(made: TrustBook, raw: bytes) -> bool:
    return made.on_paper(read(made, raw))


def zone_key(key: bytes = KEY, signer: Any = None, **fields: Any) -> bytes:
    """A ZONEKEY as it should be; any field may say something else than what was wrapped."""
    place: dict[str, Any] = {"zone": "lotus", "which": "kf", "key_epoch": 1, "member": "gate-1"}
    said = {**place, **{k: v for k, v in fields.items() if k in place}}
    wrapped = {**said, **fields.pop("wrapped", {})}
    to = fields.pop("to", HPKE).public_key().public_bytes_raw()
    sealed = fields.pop("sealed", None) or seal.wrap_zone_key(key, hpke_pub=to, **wrapped)
    body = ZoneKey(**said, kcv=fields.get("kcv", seal.kcv(key)), sealed=sealed)
    signer = signer or (DESK if said["which"] == "kf" else ROSTER)
    return signed(Type.ZONEKEY, dump(body), signer, "down:gate-1")


def why(made: TrustBook, raw: bytes) -> str:
    held = dict(made.keys)
    with pytest.raises(WireError) as caught:
        made.on_zone_key(read(made, raw))
    assert made.keys == held == made.papers.zone_keys()
    return caught.value.why


# --- papers ---


def test_from_a_root_alone_the_office_and_then_its_members_are_believed() -> None:
    made = book()
    with pytest.raises(WireError, match="unknown signer"):
        read(made, GATE_1)
    assert hand(made, trust()) and hand(made, GATE_1) and hand(made, DESK_1)
    assert sorted(made.members) == ["desk-1", "gate-1"]


@pytest.mark.parametrize(("version", "newer"), [(1, False), (2, False), (3, True)])
def test_only_a_newer_trust_is_taken(version: int, newer: bool) -> None:
    made = book(trust(2))
    kept = made.papers.trust()
    assert hand(made, trust(version, without=Role.ROSTER)) is newer
    assert (made.papers.trust() != kept) is newer
    believed = {signer.role for signer, _ in made.keyring.keys.values()}
    assert (Role.ROSTER in believed) is not newer


@pytest.mark.parametrize(("version", "newer"), [(1, False), (2, False), (3, True)])
def test_only_a_newer_member_is_taken(version: int, newer: bool) -> None:
    made = book(trust(), paper(member("gate-2", GATE_2, version=2)))
    kept = made.papers.members()["gate-2"]
    assert hand(made, paper(member("gate-2", STRANGER, version=version))) is newer
    assert (made.papers.members()["gate-2"] != kept) is newer
    assert made.members["gate-2"].sign_pub == pub(STRANGER if newer else GATE_2)


def test_what_a_key_that_left_the_trust_signs_is_refused_from_then_on() -> None:
    made = book(trust())
    delta = signed(Type.DELTA, dump(DELTA), ROSTER, "down:gate-1")
    assert read(made, delta).body == DELTA
    hand(made, trust(2, without=Role.ROSTER))
    with pytest.raises(WireError, match="unknown signer"):
        read(made, delta)


def test_a_struck_member_is_a_stranger_and_its_old_paper_does_not_bring_it_back() -> None:
    old = paper(member("gate-2", GATE_2))
    made = book(trust(), old, paper(member("gate-2", GATE_2, version=2, struck=True)))
    pull = signed(Type.PULL, dump(PULL), GATE_2, "up:gate-2")
    for _ in range(2):
        with pytest.raises(WireError) as caught:
            decode(pull, made.keyring, direction="up", target="gate-2")
        assert caught.value.why == "key"
        assert not hand(made, old)


def test_a_struck_desk_gives_no_key() -> None:
    made = book(trust(), DESK_1, paper(member("desk-1", DESK, version=2, struck=True)))
    with pytest.raises(WireError, match="unknown signer"):
        read(made, zone_key())


@pytest.mark.parametrize("raw", [zone_key(), signed(Type.EPOCH, b"", ROOT)], ids=["key", "epoch"])
def test_what_is_no_paper_is_not_kept_as_one(raw: bytes) -> None:
    made = book(trust(), DESK_1)
    drawer = made.papers
    kept = (drawer.trust(), dict(drawer.members()))
    with pytest.raises(WireError, match="no paper"):
        made.on_paper(read(made, raw))
    assert (drawer.trust(), dict(drawer.members())) == kept


# --- at start ---


def test_what_was_kept_is_there_after_a_start() -> None:
    drawer = Drawer()
    before = book(trust(), GATE_1, DESK_1, drawer=drawer)
    before.on_zone_key(read(before, zone_key()))
    after = book(drawer=drawer)
    assert (after.trust, after.members, after.keys) == (before.trust, before.members, before.keys)
    assert after.keyring == before.keyring


def test_a_member_signed_by_a_key_that_left_since_is_as_if_it_had_never_come() -> None:
    drawer = Drawer(folk={"gate-2": paper(member("gate-2", GATE_2))})
    drawer.paper = trust(2, without=Role.REGISTRAR)
    made = TrustBook("gate-1", pub(ROOT), HPKE, drawer)
    assert made.load() == ["key"]
    assert made.members == {} and made.trust is not None


@pytest.mark.parametrize(
    ("spoilt", "fault"),
    [
        (b"", "header"),
        (GATE_1[:-1], "signature"),
        (paper(member("gate-1", GATE_2), STRANGER), "key"),
        (signed(Type.MEMBER, dump(member("gate-1", GATE_2)), ROSTER), "role"),
        (signed(Type.MEMBER, b"\xff", REGISTRAR), "cbor"),
        (signed(Type.EPOCH, b"", ROOT), "type"),
    ],
)
def test_a_paper_that_does_not_verify_at_start_is_named_and_ignored(
    spoilt: bytes, fault: str
) -> None:
    drawer = Drawer(trust(), {"gate-1": spoilt, "desk-1": DESK_1})
    made = TrustBook("gate-1", pub(ROOT), HPKE, drawer)
    assert made.load() == [fault]
    assert list(made.members) == ["desk-1"]


def test_without_a_trust_that_verifies_no_member_is_believed() -> None:
    forged = signed(Type.TRUST, dump(TRUST), STRANGER, claims=pub(ROOT))
    made = TrustBook("gate-1", pub(ROOT), HPKE, Drawer(forged, {"gate-1": GATE_1}))
    assert made.load() == ["signature", "key"]
    assert [signer.role for signer, _ in made.keyring.keys.values()] == [Role.ROOT]


def test_another_root_believes_none_of_it() -> None:
    made = TrustBook("gate-1", pub(STRANGER), HPKE, Drawer(trust(), {"gate-1": GATE_1}))
    assert made.load() == ["key", "key"]
    assert made.trust is None and not made.members


# --- zone keys ---

GIVERS = {"office": ROSTER, "desk": DESK}


@pytest.mark.parametrize(("which", "giver"), [("kf", "desk"), ("kr", "office"), ("zs", "office")])
def test_a_zone_key_of_its_giver_is_taken_once(which: Which, giver: str) -> None:
    made = book(trust(), DESK_1)
    raw = zone_key(signer=GIVERS[giver], which=which)
    assert made.on_zone_key(read(made, raw)) is True
    assert made.on_zone_key(read(made, raw)) is False
    again = zone_key(signer=GIVERS[giver], which=which)  # the same key, wrapped anew
    assert raw != again and made.on_zone_key(read(made, again)) is False
    assert made.keys == made.papers.zone_keys() == {("lotus", which, 1): KEY}


@pytest.mark.parametrize(("which", "giver"), [("kf", "office"), ("kr", "desk"), ("zs", "desk")])
def test_nobody_gives_the_keys_of_another(which: Which, giver: str) -> None:
    made = book(trust(), DESK_1)
    assert why(made, zone_key(signer=GIVERS[giver], which=which)) == "role"


def test_a_desk_gives_no_key_of_a_zone_that_is_not_its_own() -> None:
    made = book(trust(), DESK_1)
    assert why(made, zone_key(zone="maple")) == "role"


def test_a_key_for_somebody_else_is_not_ours() -> None:
    made = book(trust(), DESK_1)
    assert why(made, zone_key(member="gate-2")) == "member"


@pytest.mark.parametrize(
    "wrapped",
    [{"zone": "maple"}, {"which": "kr"}, {"key_epoch": 2}, {"member": "gate-2"}],
    ids=lambda wrapped: next(iter(wrapped)),
)
def test_a_key_wrapped_for_another_place_does_not_open(wrapped: dict[str, Any]) -> None:
    assert why(book(trust(), DESK_1), zone_key(wrapped=wrapped)) == "seal"


def test_a_key_wrapped_to_another_box_does_not_open() -> None:
    assert why(book(trust(), DESK_1), zone_key(to=OTHERS_HPKE)) == "seal"


@pytest.mark.parametrize("key", [b"k" * 31, b"k" * 33])
def test_a_key_of_a_wrong_size_is_refused(key: bytes) -> None:
    assert why(book(trust(), DESK_1), zone_key(key)) == "seal"


def test_a_kcv_that_is_not_the_keys_is_refused() -> None:
    assert why(book(trust(), DESK_1), zone_key(kcv=seal.kcv(OTHER_KEY))) == "kcv"


def test_a_second_key_for_one_epoch_is_refused_and_the_first_stays() -> None:
    made = book(trust(), DESK_1)
    made.on_zone_key(read(made, zone_key()))
    assert why(made, zone_key(OTHER_KEY)) == "second_kcv"
    assert made.on_zone_key(read(made, zone_key(OTHER_KEY, key_epoch=2)))
    assert made.newest("lotus", "kf") == (2, OTHER_KEY)
    assert made.kcvs() == [seal.kcv(KEY), seal.kcv(OTHER_KEY)]


def test_the_newest_key_is_of_its_zone_and_kind_by_number() -> None:
    made = book(trust(), DESK_1)
    for epoch in (2, 10, 9):
        made.on_zone_key(read(made, zone_key(bytes([epoch]) * 32, key_epoch=epoch)))
    made.on_zone_key(read(made, zone_key(OTHER_KEY, which="kr", key_epoch=99)))
    assert made.newest("lotus", "kf") == (10, b"\x0a" * 32)
    assert made.newest("maple", "kf") is None


def test_a_gate_gives_nothing() -> None:
    made = book(trust(), GATE_1)
    with pytest.raises(WireError, match="may not sign"):
        read(made, zone_key(signer=KEYS[Role.GATE]))


def test_two_registrars_hold_during_a_rotation() -> None:
    both = [*TRUST.keys, TrustKey(role="registrar", pub=pub(STRANGER))]
    made = book(signed(Type.TRUST, dump(Trust(version=1, keys=both)), ROOT))
    assert hand(made, GATE_1) and hand(made, paper(member("gate-2", GATE_2), STRANGER))
