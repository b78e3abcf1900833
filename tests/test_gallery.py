"""The gallery against brute force: who is nearest, how far the next person is, what is left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edge.gallery import ALONE_MARGIN, FIRST_ROWS, Gallery
from edge.terms import PersonId, Vector, ZoneId

SIZE = 8
ZONE, OTHER_ZONE = ZoneId("lotus"), ZoneId("maple")
Who = tuple[ZoneId, PersonId]


def person(number: int) -> PersonId:
    return PersonId(number.to_bytes(16, "big"))


def unit(seed: int) -> Vector:
    values = np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)
    scaled: Vector = values / np.linalg.norm(values)
    return scaled


def axis(n: int) -> Vector:
    return np.array([float(i == n) for i in range(SIZE)], np.float32)


def leaning(cosine: float) -> Vector:
    """A unit vector at this cosine from axis 0."""
    return np.array([cosine, np.sqrt(1 - cosine * cosine)] + [0] * (SIZE - 2), np.float32)


def holds(gallery: Gallery, people: dict[Who, list[Vector]], query: Vector) -> None:
    """What `best` says, against every template looked at one by one in double precision."""
    match = gallery.best(query)
    scores = {
        who: max(float(np.dot(v.astype(np.float64), query.astype(np.float64))) for v in vectors)
        for who, vectors in people.items()
    }
    if not scores:
        assert match is None
        return
    assert match is not None
    first, *rest = sorted(scores.values(), reverse=True)
    assert scores[match.zone, match.person] == pytest.approx(first, abs=1e-6)
    assert match.score == pytest.approx(first, abs=1e-6)
    expected = first - rest[0] if rest else ALONE_MARGIN
    assert match.margin == pytest.approx(expected, abs=2e-6)
    assert match.margin >= 0


WHO = st.tuples(st.sampled_from([ZONE, OTHER_ZONE]), st.integers(0, 40).map(person))


class GalleryMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.gallery, self.people = Gallery(SIZE), dict[Who, list[Vector]]()

    @rule(who=WHO, seeds=st.lists(st.integers(0, 500), max_size=8))
    def put(self, who: Who, seeds: list[int]) -> None:
        vectors = [unit(seed) for seed in seeds]
        assert self.gallery.put(*who, vectors) == len(vectors)
        self.people.pop(who, None)
        if vectors:
            self.people[who] = vectors

    @rule(first=st.integers(0, 40), seed=st.integers(0, 500))
    def put_many(self, first: int, seed: int) -> None:
        for n in range(20):
            self.put((ZONE, person(first + n)), [seed + n, seed + 2 * n])

    @rule(who=WHO)
    def remove(self, who: Who) -> None:
        assert self.gallery.remove(*who) == (self.people.pop(who, None) is not None)

    @rule(seed=st.integers(0, 500))
    def look(self, seed: int) -> None:
        holds(self.gallery, self.people, unit(seed))

    @invariant()
    def it_counts_people_and_templates(self) -> None:
        assert len(self.gallery) == len(self.people)
        assert self.gallery.count == sum(map(len, self.people.values()))

    @invariant()
    def nothing_of_the_removed_is_left(self) -> None:
        assert not self.gallery._rows.matrix[self.gallery.count :].any()


TestGalleryMachine = GalleryMachine.TestCase


@given(st.integers(1, 200), st.integers(0, 99))
def test_growth_loses_nobody(count: int, seed: int) -> None:
    gallery, people = Gallery(SIZE), dict[Who, list[Vector]]()
    for n in range(count):
        people[ZONE, person(n)] = [unit(1000 * seed + n)]
        gallery.put(ZONE, person(n), people[ZONE, person(n)])
    for n in (0, count // 2, count - 1):
        holds(gallery, people, unit(1000 * seed + n))


def test_growth_leaves_no_copy_of_a_face_behind() -> None:
    gallery = Gallery(SIZE)
    first = gallery._rows.matrix
    for n in range(FIRST_ROWS + 1):
        gallery.put(ZONE, person(n), [unit(n)])
    assert gallery._rows.matrix is not first and not first.any()


def test_nobody_is_nearest_in_an_empty_gallery() -> None:
    gallery = Gallery(SIZE)
    assert gallery.best(axis(0)) is None
    gallery.put(ZONE, person(1), [axis(0)])
    gallery.remove(ZONE, person(1))
    assert gallery.best(axis(0)) is None


def test_somebody_alone_has_the_widest_margin() -> None:
    gallery = Gallery(SIZE)
    gallery.put(ZONE, person(1), [axis(0), axis(1)])
    match = gallery.best(-axis(0))
    assert match is not None
    assert (match.person, match.score, match.margin) == (person(1), 0.0, ALONE_MARGIN)


def test_the_margin_is_to_the_next_person_not_to_the_next_template() -> None:
    gallery = Gallery(SIZE)
    gallery.put(ZONE, person(1), [axis(0), leaning(0.96)])
    gallery.put(ZONE, person(2), [leaning(0.6), axis(3)])
    match = gallery.best(axis(0))
    assert match is not None
    assert (match.person, match.score) == (person(1), 1.0)
    assert match.margin == pytest.approx(0.4, abs=1e-6)


def test_twins_have_no_margin_at_all() -> None:
    gallery = Gallery(SIZE)
    for n in (1, 2):
        gallery.put(ZONE, person(n), [axis(0)])
    match = gallery.best(axis(0))
    assert match is not None and (match.score, match.margin) == (1.0, 0.0)


def test_one_pseudonym_in_two_zones_is_two_people() -> None:
    gallery = Gallery(SIZE)
    gallery.put(ZONE, person(1), [axis(0)])
    gallery.put(OTHER_ZONE, person(1), [axis(1)])
    first, second = gallery.best(axis(0)), gallery.best(axis(1))
    assert first is not None and second is not None
    assert (first.zone, second.zone) == (ZONE, OTHER_ZONE)
    gallery.remove(ZONE, person(1))
    left = gallery.best(axis(0))
    assert left is not None and (left.zone, left.score) == (OTHER_ZONE, 0.0)


def test_opposite_is_minus_one() -> None:
    gallery = Gallery(SIZE)
    gallery.put(ZONE, person(1), [axis(0)])
    match = gallery.best(-axis(0))
    assert match is not None and match.score == -1.0


def test_new_templates_replace_the_old_ones() -> None:
    gallery = Gallery(SIZE)
    gallery.put(ZONE, person(1), [axis(0)])
    gallery.put(ZONE, person(1), [axis(1)])
    match = gallery.best(axis(0))
    assert match is not None and match.score == 0.0 and gallery.count == 1


BAD: dict[str, Any] = {
    "shorter": np.eye(SIZE - 1, dtype=np.float32)[0],
    "longer": np.eye(SIZE + 1, dtype=np.float32)[0],
    "a matrix": np.eye(SIZE, dtype=np.float32),
    "not finite": np.full(SIZE, np.nan, np.float32),
    "of length nought": np.zeros(SIZE, np.float32),
    "too long": axis(0) * 2,
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_bad_template_is_left_out_and_the_others_are_taken(bad: Vector) -> None:
    gallery = Gallery(SIZE)
    gallery.put(ZONE, person(2), [axis(1)])
    assert gallery.put(ZONE, person(1), [bad, axis(0)]) == 1
    match = gallery.best(axis(0))
    assert match is not None and (match.person, match.score) == (person(1), 1.0)


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_somebody_with_bad_templates_only_is_not_there(bad: Vector) -> None:
    gallery = Gallery(SIZE)
    gallery.put(ZONE, person(1), [axis(0)])
    assert gallery.put(ZONE, person(1), [bad]) == 0
    assert (len(gallery), gallery.count, gallery.best(axis(0))) == (0, 0, None)


@pytest.mark.parametrize("people", [1, 2])
def test_a_face_that_is_no_number_reaches_no_threshold(people: int) -> None:
    gallery = Gallery(SIZE)
    for n in range(people):
        gallery.put(ZONE, person(n), [axis(n)])
    match = gallery.best(np.full(SIZE, np.nan, np.float32))
    assert match is not None and not match.score >= -1.0
    assert people == 1 or not match.margin >= 0.0
