"""What is not signed by the right key for this very place is dropped, with one short word."""

from __future__ import annotations

import hashlib
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from signing import (
    DELTA,
    GATE_2,
    GONE,
    GOOD,
    KEYS,
    MEMBERS,
    OP,
    PULL,
    SAMPLES,
    STRANGER,
    TRUST,
    member,
    open_,
    pub,
    signed,
    why,
)

from edge import envelope, wire
from edge.envelope import (
    HEADER,
    Direction,
    Keyring,
    WireError,
    chain,
    decode,
    dump,
    dump_op,
    encode,
    key_id,
    parse,
)
from edge.wire import Body, Op, Role, Trust, TrustKey, Type


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample[0].name)
def test_what_was_encoded_comes_out(sample: tuple[Type, Body, Role, Direction, str]) -> None:
    kind, body, role, direction, target = sample
    raw = encode(kind, body, KEYS[role], direction=direction, target=target)
    message = open_(raw, direction, target)
    assert (message.kind, message.body, message.raw) == (kind, body, raw)
    assert message.signer.role is role
    assert message.expect(type(body)) is message.body
    with pytest.raises(WireError, match="belongs"):
        message.expect(wire.Hello)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample[0].name)
def test_the_bytes_are_those_of_the_protocol(
    sample: tuple[Type, Body, Role, Direction, str],
) -> None:
    kind, body, role, direction, target = sample
    raw = encode(kind, body, KEYS[role], direction=direction, target=target)
    assert raw == signed(kind, dump(body), KEYS[role], f"{direction}:{target}")
    assert HEADER.size == 76


# --- each check, in its order: a message that fails two is dropped by the first ---

JUNK = b"\xff junk"
LONG = bytes(wire.DEFAULT_CAP_BYTES)


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (GOOD[:75], "header"),
        (b"", "header"),
        (b"mk" + GOOD[2:], "header"),
        (b"xx\x02\xff" + GOOD[4:], "header"),
        (b"mj\x02\xff" + GOOD[4:], "version"),
        (b"mj\x01\xff" + GOOD[4:] + LONG, "type"),
        (signed(Type.GONE, LONG, STRANGER), "size"),
        (signed(Type.BEACON, JUNK, STRANGER), "key"),
        (signed(Type.BEACON, JUNK, STRANGER, claims=pub(GATE_2)), "role"),
        (signed(Type.GONE, JUNK, KEYS[Role.ROSTER], "down:maple"), "signature"),
        (signed(Type.GONE, JUNK, STRANGER, claims=pub(KEYS[Role.ROSTER])), "signature"),
        (signed(Type.GONE, JUNK, KEYS[Role.ROSTER]), "cbor"),
        (signed(Type.GONE, cbor2.dumps({"zone": 1}), KEYS[Role.ROSTER]), "fields"),
    ],
)
def test_checks_come_in_their_order(raw: bytes, word: str) -> None:
    assert why(raw) == word


def test_a_member_speaks_for_itself_only_and_that_is_seen_before_its_signature() -> None:
    raw = signed(Type.PULL, JUNK, STRANGER, "up:gate-2", claims=pub(KEYS[Role.GATE]))
    assert why(raw, "up", "gate-2") == "member"
    own = signed(Type.PULL, dump(PULL), GATE_2, "up:gate-2")
    assert open_(own, "up", "gate-2").signer.member == "gate-2"


@pytest.mark.parametrize(
    ("direction", "target"),
    [("up", "lotus"), ("down", "lotu"), ("down", "maple"), ("down", ""), ("down", "lotus ")],
)
def test_moved_elsewhere_the_signature_does_not_hold(direction: Direction, target: str) -> None:
    raw = encode(Type.GONE, GONE, KEYS[Role.ROSTER], direction="down", target="lotus")
    assert open_(raw).body == GONE
    assert why(raw, direction, target) == "signature"


def test_the_length_of_the_context_is_signed() -> None:
    """Else bytes could be moved from the end of the addressee to what follows."""
    moved = signed(Type.GONE, dump(GONE), KEYS[Role.ROSTER], "down:lotusmj")
    assert why(moved) == "signature"


@pytest.mark.parametrize("kind", sorted(wire.FOR_ALL), ids=lambda kind: kind.name)
def test_what_is_for_all_is_for_every_gate(kind: Type) -> None:
    role = next(iter(wire.SIGNERS[kind]))
    bodies: dict[Type, Body] = {Type.TRUST: TRUST, Type.MEMBER: MEMBERS["gate-2"]}
    payload = dump(bodies[kind]) if kind in bodies else b""
    raw = signed(kind, payload, KEYS[role])
    assert all(open_(raw, target=target).kind is kind for target in ("lotus", "gate-1"))


@pytest.mark.parametrize("kind", Type, ids=lambda kind: kind.name)
@pytest.mark.parametrize("role", Role)
def test_only_the_roles_of_the_table_may_sign(kind: Type, role: Role) -> None:
    name = MEMBERS[f"{role.value}-1"].id if role in (Role.GATE, Role.DESK) else "lotus"
    raw = signed(kind, JUNK, KEYS[role], f"down:{name}")
    if role not in wire.SIGNERS[kind]:
        assert why(raw, target=name) == "role"
    elif kind in wire.NOT_BUILT:
        assert open_(raw, target=name).body is None
    else:
        assert why(raw, target=name) == "cbor"


@pytest.mark.parametrize("kind", sorted(wire.NOT_BUILT), ids=lambda kind: kind.name)
def test_what_is_not_built_is_verified_all_the_same(kind: Type) -> None:
    role = next(iter(wire.SIGNERS[kind]))
    raw = signed(kind, b"whatever comes", KEYS[role])
    assert why(raw[:-1], "down", "lotus") == "signature"


# --- whom we believe ---


def test_a_struck_member_is_a_stranger() -> None:
    struck = {**MEMBERS, "gate-1": member("gate-1", KEYS[Role.GATE], struck=True)}
    ring = Keyring.build(pub(KEYS[Role.ROOT]), TRUST, struck)
    raw = signed(Type.PULL, dump(PULL), KEYS[Role.GATE], "up:gate-1")
    with pytest.raises(WireError) as caught:
        decode(raw, ring, direction="up", target="gate-1")
    assert caught.value.why == "key"


def test_a_key_that_left_the_trust_is_a_stranger() -> None:
    ring = Keyring.build(pub(KEYS[Role.ROOT]), Trust(version=2, keys=[]), MEMBERS)
    assert why(GOOD[:-1]) == "signature"
    with pytest.raises(WireError, match="unknown signer"):
        decode(GOOD, ring, direction="down", target="lotus")


def test_two_keys_of_a_role_hold_at_once() -> None:
    both = [*TRUST.keys, TrustKey(role="roster", pub=pub(STRANGER))]
    ring = Keyring.build(pub(KEYS[Role.ROOT]), Trust(version=2, keys=both), {})
    for key in (KEYS[Role.ROSTER], STRANGER):
        raw = signed(Type.GONE, dump(GONE), key)
        assert decode(raw, ring, direction="down", target="lotus").body == GONE


@pytest.mark.parametrize("role", [Role.ROOT, Role.ROSTER, Role.BEACON])
def test_a_member_registered_with_a_key_of_the_office_displaces_nobody(role: Role) -> None:
    thief = {**MEMBERS, "gate-9": member("gate-9", KEYS[role])}
    ring = Keyring.build(pub(KEYS[Role.ROOT]), TRUST, thief)
    assert ring.keys[key_id(pub(KEYS[role]))][0].role is role


def test_a_keyring_from_a_root_alone_believes_the_root_alone() -> None:
    ring = Keyring.build(pub(KEYS[Role.ROOT]), None, {})
    assert [signer.role for signer, _ in ring.keys.values()] == [Role.ROOT]


# --- fields ---


@pytest.mark.parametrize(
    "value",
    [
        {"zone": "lotus", "epoch": 1, "floor_seq": 3, "more": 1},
        {"zone": "lotus", "epoch": 1},
        {"zone": "lotus", "epoch": "1", "floor_seq": 3},
        {"zone": "lotus", "epoch": 1.0, "floor_seq": 3},
        {"zone": b"lotus", "epoch": 1, "floor_seq": 3},
        {"zone": "lotus", "epoch": -1, "floor_seq": 3},
        {"zone": "lotus", "epoch": True, "floor_seq": 3},
        {1: 2},
        {"\n": 1},
        {"x" * 9000: 1},
        [],
        None,
        "lotus",
        2**70,
    ],
)
def test_fields_are_strict_and_none_is_unknown(value: Any) -> None:
    raw = signed(Type.GONE, cbor2.dumps(value, canonical=True), KEYS[Role.ROSTER])
    assert why(raw) == "fields"


def test_a_bad_field_is_named_short_and_on_one_line() -> None:
    fields = dict(GONE) | {"a\nb" + "x" * 9000: 1}
    with pytest.raises(WireError) as caught:
        parse(wire.Gone, cbor2.dumps(fields, canonical=True))
    assert "a\\nb" in str(caught.value) and len(str(caught.value)) < 200


def test_one_body_has_one_encoding() -> None:
    whole = dump(GONE)
    assert parse(wire.Gone, whole) == GONE
    pairs = [cbor2.dumps(k) + cbor2.dumps(v) for k, v in dict(GONE).items()]
    assert b"\xa3" + b"".join(pairs) == whole
    for other in (
        whole + b"\0",
        b"\xa3" + pairs[2] + pairs[1] + pairs[0],
        b"\xa4" + b"".join([*pairs, pairs[0]]),
        b"\xbf" + b"".join(pairs) + b"\xff",
        b"\xb8\x03" + whole[1:],
    ):
        with pytest.raises(WireError, match="cbor"):
            parse(wire.Gone, other)


# --- sizes ---


@pytest.mark.parametrize("kind", Type, ids=lambda kind: kind.name)
def test_a_message_of_its_cap_is_looked_at_and_one_byte_more_is_not(kind: Type) -> None:
    room = envelope.cap_bytes(kind) - HEADER.size
    assert why(signed(kind, bytes(room), STRANGER)) == "key"
    assert why(signed(kind, bytes(room + 1), STRANGER)) == "size"


def test_the_caps_are_those_of_the_protocol() -> None:
    kib = {kind.name: size // 1024 for kind, size in wire.CAPS_BYTES.items()}
    assert kib == {"BEACON": 16, "DELTA": 64, "PAGE": 256, "MANIFEST": 64, "CHUNK": 72}
    assert wire.DEFAULT_CAP_BYTES == 256 * 1024


def test_nothing_over_its_cap_leaves() -> None:
    big = DELTA.model_copy(update={"ops": [bytes(2048)] * 40})
    with pytest.raises(WireError, match="DELTA of"):
        encode(Type.DELTA, big, KEYS[Role.ROSTER], direction="down", target="lotus")


def test_a_message_of_exactly_its_cap_leaves_and_one_byte_more_does_not() -> None:
    fields = {"zone": "lotus", "key_epoch": 1, "first_no": 1, "count": 1, "prev_hash": bytes(32)}
    place: dict[str, Any] = {"direction": "up", "target": "gate-1"}
    cap = wire.DEFAULT_CAP_BYTES
    head = len(dump(wire.Events.model_validate({**fields, "sealed": bytes(cap // 2)}))) - cap // 2
    room = cap - HEADER.size - head
    full = wire.Events.model_validate({**fields, "sealed": bytes(room)})
    assert len(encode(Type.EVENTS, full, KEYS[Role.GATE], **place)) == cap
    over = full.model_copy(update={"sealed": bytes(room + 1)})
    with pytest.raises(WireError, match="size"):
        encode(Type.EVENTS, over, KEYS[Role.GATE], **place)


# --- ops ---


def holding(sealed: int, templates: int, names: int) -> Op:
    return Op(
        op="put",
        person=b"a" * 16,
        pv=2**40,
        tv=3,
        key_epoch=1,
        grant_ids=[f"g{n}" for n in range(names)] or None,
        sealed=bytes(sealed),
        templates=[
            wire.WireTemplate(model_id="m", key_epoch=1, sealed=bytes(1052))
            for _ in range(templates)
        ],
    )


def padded(op: Op) -> bytes:
    data = dump_op(op)
    assert len(data) % wire.OP_STEP_BYTES == 0
    assert len(data) <= len(dump(op)) + 2 * wire.OP_STEP_BYTES
    back = parse(Op, data)
    assert back.model_copy(update={"pad": b""}) == op and not any(back.pad)
    assert dump_op(back) == data, "an op that went through has the same hash"
    return data


def test_an_op_of_any_length_is_padded_to_steps_and_comes_back() -> None:
    sizes = {len(padded(holding(n, 0, 0))) for n in range(1100)}
    assert sizes == {512, 1024, 1536}


@given(st.integers(0, 48 * 1024), st.integers(0, 8), st.integers(0, 64))
def test_an_op_that_holds_much_too(sealed: int, templates: int, names: int) -> None:
    padded(holding(sealed, templates, names))


def test_ops_that_say_different_things_have_one_size() -> None:
    """A revocation of one grant, of all, and a suspension do not tell themselves apart."""
    ops = [
        OP,
        OP.model_copy(update={"grant_ids": None}),
        OP.model_copy(update={"op": "suspend", "pv": 2**50, "sealed": bytes(100)}),
    ]
    assert {len(dump_op(op)) for op in ops} == {512}


def test_the_chain_is_the_hash_of_the_hash_before_and_the_op() -> None:
    first = chain(wire.GENESIS, b"op")
    assert first == hashlib.sha256(bytes(32) + b"op").digest()
    assert chain(first, b"op") != first and len(first) == 32
