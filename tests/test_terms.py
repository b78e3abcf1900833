"""The words: what can be told from them alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import terms
from edge.terms import Decision, DoorId, Reason, Status, is_unit

WORDS = [
    value
    for value in vars(terms).values()
    if dataclasses.is_dataclass(value) and isinstance(value, type)
]


@pytest.mark.parametrize("reason", Reason)
def test_only_the_reason_granted_opens(reason: Reason) -> None:
    decision = Decision(DoorId("main"), reason, None, None)
    assert decision.granted == (reason.value == "granted")


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word.__name__)
def test_what_crosses_threads_is_frozen(word: type) -> None:
    assert word.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert word.__doc__ and not word.__doc__.startswith(f"{word.__name__}(")


def test_the_numbers_of_status_are_those_that_digests_were_made_with() -> None:
    assert [(s.name, s.value) for s in Status] == [("ACTIVE", 1), ("SUSPENDED", 2), ("REVOKED", 3)]


def test_each_reason_is_its_own_name() -> None:
    assert all(reason.value == reason.name.lower() for reason in Reason)


@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=600))
def test_any_direction_made_length_one_is_unit(values: list[float]) -> None:
    vector = np.array(values, np.float32)
    norm = np.linalg.norm(vector)
    if norm > 1e-3:
        assert is_unit(vector / norm)


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([1.0, 0.0], True),
        ([1.0009, 0.0], True),
        ([1.002, 0.0], False),
        ([0.998, 0.0], False),
        ([0.0, 0.0], False),
        ([np.nan, 1.0], False),
        ([np.inf, 0.0], False),
        ([3e38, 3e38], False),
        ([], False),
    ],
)
def test_length_one_to_a_thousandth(values: list[float], unit: bool) -> None:
    assert is_unit(np.array(values, np.float32)) is unit
