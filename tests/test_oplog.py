"""From the bytes of a log entry to a rule: what opens, what waits for a key, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edge import seal, wire
from edge.envelope import WireError, dump, dump_op, parse
from edge.oplog import MissingKey, open_op, open_templates, parse_op
from edge.roster import Put, Revoke
from edge.terms import (
    DoorId,
    Grant,
    GrantId,
    ModelId,
    OfflineClass,
    PersonId,
    Record,
    SealedTemplate,
    Status,
    Window,
)
from edge.trust import KeyName
from edge.wire import Op, Rights, WireGrant, WireTemplate

KR, KF, KF_NEW = b"r" * 32, b"f" * 32, b"n" * 32
KEYS: dict[KeyName, bytes] = {
    ("lotus", "kr", 1): KR,
    ("lotus", "kf", 1): KF,
    ("lotus", "kf", 2): KF_NEW,
}
ANN, MODEL = PersonId(b"a" * 16), ModelId("0123456789abcdef")
FACE = np.eye(8, dtype=np.float32)[0]


def put(grants: list[WireGrant] | None = None, **fields: Any) -> Op:
    given = {"op": "put", "person": ANN, "pv": 3, "tv": 2, "key_epoch": 1, **fields}
    aad = seal.rights_aad("lotus", given["person"], given["pv"], given["key_epoch"])
    rights = dump(Rights(grants=grants if grants is not None else [grant()]))
    return Op.model_validate({"sealed": seal.seal(KR, rights, aad), **given})


def grant(**fields: Any) -> WireGrant:
    made = {"grant_id": "g1", "tenancy": "t1", "doors": ["main"], "not_before": 1500}
    return WireGrant.model_validate({**made, **fields})


# --- rights ---


def test_a_put_becomes_what_it_says() -> None:
    wired = grant(expires=2500, schedule=[[127, 0, 1440]], offline_class="notice")
    opened = open_op("lotus", parse_op(dump_op(put([wired]))), KEYS)
    assert opened == Put(
        ANN,
        3,
        2,
        (
            Grant(
                GrantId("g1"),
                "t1",
                frozenset({DoorId("main")}),
                1.5,
                2.5,
                (Window(127, 0, 1440),),
                OfflineClass.NOTICE,
            ),
        ),
        None,
    )


def test_what_is_left_out_is_until_revoked_at_all_hours() -> None:
    opened = open_op("lotus", put(), KEYS)
    assert isinstance(opened, Put)
    (only,) = opened.grants
    assert (only.expires_at, only.schedule, only.offline_class) == (None, (), OfflineClass.NORMAL)


@pytest.mark.parametrize("suspend", [True, False])
@pytest.mark.parametrize("named", [None, ["g1", "g2"], []])
def test_a_revocation_opens_without_any_key(suspend: bool, named: list[str] | None) -> None:
    op = Op(op="suspend" if suspend else "revoke", person=ANN, pv=4, grant_ids=named)
    ids = None if named is None else tuple(map(GrantId, named))
    assert open_op("lotus", op, {}) == Revoke(ANN, 4, ids, suspend=suspend)


def test_a_put_waits_for_its_key() -> None:
    others = {name: key for name, key in KEYS.items() if name[1] != "kr"}
    with pytest.raises(MissingKey, match="kr of lotus, epoch 1"):
        open_op("lotus", put(), others)
    with pytest.raises(MissingKey):
        open_op("maple", put(), KEYS)


@pytest.mark.parametrize(
    "moved", [{"person": b"b" * 16}, {"pv": 4}, {"sealed": b""}], ids=["person", "pv", "nothing"]
)
def test_rights_moved_elsewhere_do_not_open(moved: dict[str, Any]) -> None:
    with pytest.raises(seal.SealError):
        open_op("lotus", put().model_copy(update=moved), KEYS)


def test_rights_of_another_zone_do_not_open_with_the_same_key() -> None:
    with pytest.raises(seal.SealError):
        open_op("maple", put(), {("maple", "kr", 1): KR})


@pytest.mark.parametrize(
    "window",
    [
        [],
        [1, 0],
        [1, 0, 60, 0],
        [1, -1, 60],
        [1, 60, 60],
        [1, 61, 60],
        [1, 0, 1441],
        [-1, 0, 60],
        [128, 0, 60],
    ],
)
def test_a_window_that_is_none_is_refused(window: list[int]) -> None:
    with pytest.raises(WireError, match="window"):
        open_op("lotus", put([grant(schedule=[window])]), KEYS)


@pytest.mark.parametrize("window", [[0, 0, 1], [127, 1439, 1440]])
def test_a_window_at_both_ends_is_taken(window: list[int]) -> None:
    opened = open_op("lotus", put([grant(schedule=[window])]), KEYS)
    assert isinstance(opened, Put) and opened.grants[0].schedule == (Window(*window),)


def test_rights_that_are_none_are_refused() -> None:
    sealed = seal.seal(KR, b"\xa0", seal.rights_aad("lotus", ANN, 3, 1))
    with pytest.raises(WireError, match="fields"):
        open_op("lotus", put(sealed=sealed), KEYS)


def test_resealing_has_no_rule_yet_and_says_so() -> None:
    with pytest.raises(WireError) as caught:
        open_op("lotus", Op(op="reseal", person=ANN, pv=0, tv=1), KEYS)
    assert caught.value.why == "not_built"


# --- templates ---


def sealed_face(tv: int = 2, *, key: bytes = KF, epoch: int = 1, **other: Any) -> SealedTemplate:
    place = {"zone": "lotus", "person": ANN, "model_id": MODEL, **other}
    aad = seal.template_aad(place["zone"], place["person"], tv, epoch, place["model_id"])
    return SealedTemplate(place["model_id"], epoch, seal.seal(key, seal.pack_vector(FACE), aad))


def opened(*templates: SealedTemplate, keys: dict[KeyName, bytes] = KEYS) -> tuple[int, list[str]]:
    record = Record(ANN, 3, 2, Status.ACTIVE, (), templates)
    vectors, faults = open_templates("lotus", record, keys, MODEL)
    assert all(np.array_equal(vector, FACE) for vector in vectors)
    return len(vectors), faults


def test_templates_travel_in_a_put_and_open() -> None:
    wired = [WireTemplate(model_id=MODEL, key_epoch=1, sealed=sealed_face().sealed)]
    op = open_op("lotus", parse(wire.Op, dump_op(put(templates=wired))), KEYS)
    assert isinstance(op, Put) and op.templates is not None
    assert opened(*op.templates) == (1, [])


def test_both_key_epochs_hold_while_a_zone_is_resealed() -> None:
    assert opened(sealed_face(), sealed_face(key=KF_NEW, epoch=2)) == (2, [])


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (sealed_face(model_id=ModelId("another")), "template_other_model"),
        (sealed_face(epoch=3), "template_without_key"),
        (sealed_face(tv=1), "template_does_not_open"),
        (sealed_face(person=b"b" * 16), "template_does_not_open"),
        (sealed_face(zone="maple"), "template_does_not_open"),
        (sealed_face(key=KF_NEW), "template_does_not_open"),
        (SealedTemplate(MODEL, 1, b""), "template_does_not_open"),
    ],
)
def test_a_template_that_cannot_be_used_has_a_word_and_spoils_no_other(
    bad: SealedTemplate, fault: str
) -> None:
    assert opened(bad, sealed_face()) == (1, [fault])


def test_the_rights_key_opens_no_face() -> None:
    assert opened(sealed_face(), keys={("lotus", "kf", 1): KR}) == (0, ["template_does_not_open"])
