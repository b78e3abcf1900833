"""The tables of the wire are complete, and the models take nothing that nobody named."""

from __future__ import annotations

import typing
from typing import Any

import annotated_types
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edge import wire
from edge.wire import Body, Op, Role, Type

MODELS = [v for v in vars(wire).values() if isinstance(v, type) and issubclass(v, Body)]
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)

# Numbers that boxes in the field speak: a new type gets a new one, an old one never another.
NUMBERS = {
    **dict(zip(("TRUST", "MEMBER", "ZONEKEY", "EPOCH"), range(1, 5), strict=True)),
    **dict(zip(("DELTA", "PAGE", "GONE", "MANIFEST", "CHUNK"), range(10, 15), strict=True)),
    "BEACON": 15,
    "EVENT_ACK": 16,
    "CHALLENGE_REPLY": 17,
    "COMMAND": 18,
    **dict(zip(("HELLO", "PULL", "GET_CHUNK", "RECEIPT"), range(30, 34), strict=True)),
    "COMMAND_RESULT": 34,
    "EVENTS": 35,
    "STATUS": 36,
    **dict(zip(("ENROL", "WITHDRAW", "RESEAL", "KEYS"), range(50, 54), strict=True)),
    "ACCEPTED": 54,
    "REFUSED": 55,
    "REKEY": 56,
}


def test_the_numbers_of_types_stay() -> None:
    assert {kind.name: kind.value for kind in Type} == NUMBERS


@pytest.mark.parametrize("kind", Type, ids=lambda kind: kind.name)
def test_each_type_has_signers_and_a_body_or_is_not_built(kind: Type) -> None:
    assert wire.SIGNERS[kind] and wire.SIGNERS[kind] <= set(Role)
    assert (kind in wire.BODIES) != (kind in wire.NOT_BUILT)


def test_the_tables_name_no_type_twice_and_none_that_is_not_there() -> None:
    assert set(wire.SIGNERS) == set(Type)
    assert len(set(wire.BODIES.values())) == len(wire.BODIES)


@pytest.mark.parametrize(
    ("role", "may"),
    [
        (Role.ROOT, "TRUST EPOCH"),
        (Role.REGISTRAR, "MEMBER"),
        (Role.ROSTER, "ZONEKEY DELTA PAGE GONE MANIFEST CHUNK REKEY ACCEPTED REFUSED"),
        (Role.BEACON, "BEACON EVENT_ACK CHALLENGE_REPLY"),
        (Role.COMMAND, "COMMAND"),
        (Role.GATE, "HELLO PULL GET_CHUNK RECEIPT COMMAND_RESULT EVENTS STATUS"),
        (Role.DESK, "ZONEKEY HELLO ENROL WITHDRAW RESEAL KEYS"),
    ],
)
def test_what_each_role_may_sign_and_nothing_else(role: Role, may: str) -> None:
    assert {kind.name for kind in Type if role in wire.SIGNERS[kind]} == set(may.split())


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_models_forbid_what_they_do_not_name(model: type[Body]) -> None:
    config = model.model_config
    assert (config.get("extra"), config.get("strict"), config.get("frozen")) == (
        "forbid",
        True,
        True,
    )


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_list_on_the_wire_has_a_longest_length(model: type[Body]) -> None:
    for name, hint in typing.get_type_hints(model, include_extras=True).items():
        for part in _parts(hint):
            if typing.get_origin(part) is list:
                bounds = [*model.model_fields[name].metadata, *_bounds(hint)]
                assert any(isinstance(b, annotated_types.MaxLen) for b in bounds), name


def _parts(hint: Any) -> list[Any]:
    """The members of a union and what Annotated wraps, one level down."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Annotated:
        return _parts(inner[0])
    return [hint] if typing.get_origin(hint) is list else [p for i in inner for p in _parts(i)]


def _bounds(hint: Any) -> list[Any]:
    fields = [m for m in getattr(hint, "__metadata__", ()) if hasattr(m, "metadata")]
    inner = [b for part in typing.get_args(hint) for b in _bounds(part)]
    return [b for field in fields for b in field.metadata] + inner


# topics


@given(st.sampled_from([(wire.zone_topic, "z", "log"), (wire.gate_topic, "g", "up")]), NAMES)
def test_a_topic_comes_apart_into_what_it_was_made_of(made: tuple[Any, str, str], who: str) -> None:
    topic, branch, leaf = made
    assert wire.split_topic(topic(who, leaf)) == (branch, who, leaf)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "mj/1",
        "mj/1/",
        "mj/1/g/gate-1",
        "mj/1/g//up",
        "mj/1/g/gate-1/up/",
        "mj/1/g/gate-1/up/more",
        "mj/2/g/gate-1/up",
        "xmj/1/g/gate-1/up",
        "/mj/1/g/gate-1/up",
        "x/mj/1/g/gate-1/up",
    ],
)
def test_any_other_topic_is_refused(topic: str) -> None:
    with pytest.raises(ValueError, match="not a topic of ours"):
        wire.split_topic(topic)


# names and numbers


@given(NAMES)
def test_names_are_taken(name: str) -> None:
    assert wire.Gone(zone=name, epoch=0, floor_seq=0).zone == name


@pytest.mark.parametrize(
    "name", ["", "a" * 65, "-a", ".a", "_a", "a/b", "a b", "a\n", "a#", "a+", "a\0", "门", None, 1]
)
def test_names_that_could_be_a_topic_or_a_path_are_refused(name: Any) -> None:
    with pytest.raises(ValidationError):
        wire.Gone(zone=name, epoch=0, floor_seq=0)


@pytest.mark.parametrize("count", [0, 2**63 - 1])
def test_counts_at_both_ends(count: int) -> None:
    assert wire.Gone(zone="a", epoch=count, floor_seq=0).epoch == count


@pytest.mark.parametrize("count", [-1, 2**63, 1.0, "1", True, None])
def test_counts_are_whole_numbers_within_the_ends(count: Any) -> None:
    with pytest.raises(ValidationError):
        wire.Gone(zone="a", epoch=count, floor_seq=0)


@pytest.mark.parametrize("size", [15, 17])
def test_a_pseudonym_has_sixteen_bytes(size: int) -> None:
    with pytest.raises(ValidationError):
        Op(op="revoke", person=bytes(size), pv=1)


def test_no_grant_and_all_grants_are_two_things() -> None:
    assert Op(op="revoke", person=bytes(16), pv=1).grant_ids is None
    assert Op(op="revoke", person=bytes(16), pv=1, grant_ids=[]).grant_ids == []


def test_cards_and_pins_have_no_place_yet() -> None:
    with pytest.raises(ValidationError):
        wire.Rights(grants=[], credentials=[{"card": 1}])
