"""One face over frames: said once, said again in time, and nothing of a face is kept."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.terms import Decision, DoorId, PersonId, Reason, ZoneId
from edge.tracks import (
    ATTACK_HOLD_S,
    GONE_AFTER_S,
    SAME_FACE_IOU,
    SAY_AGAIN_AFTER_S,
    Box,
    Track,
    Tracks,
    iou,
)

ANN = PersonId(b"a" * 16)
NEVER = float("-inf")
AT = 5000.0


def box(x: float, y: float = 0.0, side: float = 100.0) -> Box:
    return np.array([x, y, x + side, y + side], np.float32)


def outcome(reason: Reason = Reason.GRANTED, door: str = "main") -> Decision:
    return Decision(DoorId(door), reason, ANN, ZoneId("lotus"))


def told(decision: Decision, at: float = AT) -> Track:
    track = Track(1, box(0), at)
    track.tell(decision, at)
    return track


# --- what is news ---


@pytest.mark.parametrize("reason", Reason)
def test_an_outcome_is_news_once_and_again_after_ten_seconds(reason: Reason) -> None:
    decision = outcome(reason)
    assert Track(1, box(0), AT).is_news(decision, AT, failed_mono=NEVER)
    track = told(decision)
    for later, news in ((0.0, False), (9.999, False), (10.0, True), (11.0, True)):
        assert track.is_news(decision, AT + later, failed_mono=NEVER) is news
    track.tell(decision, AT + 10.0)
    assert not track.is_news(decision, AT + 19.999, failed_mono=NEVER)


@pytest.mark.parametrize(
    "other",
    [
        outcome(door="back"),
        outcome(Reason.REVOKED),
        dataclasses.replace(outcome(), person=PersonId(b"b" * 16)),
    ],
    ids=["another door", "another reason", "another person"],
)
def test_another_outcome_is_news_at_once(other: Decision) -> None:
    assert told(outcome()).is_news(other, AT, failed_mono=NEVER)


@pytest.mark.parametrize(
    ("reason", "failed_mono", "news"),
    [
        (Reason.GRANTED, AT + 0.5, True),
        (Reason.GRANTED, AT, False),
        (Reason.GRANTED, AT - 0.5, False),
        (Reason.REVOKED, AT + 0.5, False),
    ],
)
def test_only_a_grant_is_tried_again_after_its_lock_failed(
    reason: Reason, failed_mono: float, news: bool
) -> None:
    decision = outcome(reason)
    assert told(decision).is_news(decision, AT + 1.0, failed_mono=failed_mono) is news


def test_after_the_second_try_a_failure_before_it_counts_no_more() -> None:
    track = told(outcome())
    track.tell(outcome(), AT + 1.0)
    assert not track.is_news(outcome(), AT + 1.1, failed_mono=AT + 0.5)


def test_what_did_not_happen_is_news_and_the_rest_is_not() -> None:
    track = told(outcome())
    track.tell(outcome(Reason.REVOKED), AT)
    track.untell(outcome())
    track.untell(outcome(door="never told"))
    assert track.is_news(outcome(), AT, failed_mono=NEVER)
    assert not track.is_news(outcome(Reason.REVOKED), AT, failed_mono=NEVER)


# --- an attack is held against a face ---


@pytest.mark.parametrize(
    ("later", "held"), [(0.0, True), (1.999, True), (2.0, False), (60.0, False)]
)
def test_an_attack_is_held_for_two_seconds(later: float, held: bool) -> None:
    track = Track(1, box(0), AT)
    assert not track.suspected(AT)
    track.attack_mono = AT
    assert track.suspected(AT + later) is held


def test_trying_again_begins_the_two_seconds_anew() -> None:
    track = Track(1, box(0), AT)
    for tenths in range(50):
        track.attack_mono = AT + tenths / 10
        assert track.suspected(AT + tenths / 10 + 1.5)


def test_the_attack_of_one_face_is_not_held_against_the_one_beside_it() -> None:
    tracks = Tracks()
    left, right = tracks.follow([box(0), box(500)], AT)
    left.attack_mono = AT
    right_again, left_again = tracks.follow([box(505), box(5)], AT + 0.1)
    assert left_again.suspected(AT + 0.1) and not right_again.suspected(AT + 0.1)
    assert (left_again, right_again) == (left, right)


# --- following ---


def test_a_face_that_moves_a_little_is_the_same_and_one_that_jumps_is_not() -> None:
    tracks = Tracks()
    numbers = [tracks.follow([box(x)], AT + x / 400)[0].number for x in range(0, 400, 40)]
    assert set(numbers) == {1}
    assert tracks.follow([box(500)], AT + 1.0)[0].number == 2


def test_faces_keep_their_tracks_in_whatever_order_they_are_found() -> None:
    tracks = Tracks()
    first = [t.number for t in tracks.follow([box(0), box(200), box(400)], AT)]
    again = [t.number for t in tracks.follow([box(401), box(1), box(201)], AT + 0.1)]
    assert (first, again) == ([1, 2, 3], [3, 1, 2])


def test_two_faces_in_one_place_are_two_tracks() -> None:
    tracks = Tracks()
    tracks.follow([box(0)], AT)
    assert [t.number for t in tracks.follow([box(0), box(1)], AT + 0.1)] == [1, 2]


@pytest.mark.parametrize(("away_s", "number"), [(0.5, 1), (1.0, 1), (1.001, 2), (60.0, 2)])
def test_a_face_that_was_gone_begins_anew(away_s: float, number: int) -> None:
    tracks = Tracks()
    tracks.follow([box(0)], AT)[0].tell(outcome(), AT)
    tracks.follow([], AT + 0.25)
    (back,) = tracks.follow([box(0)], AT + away_s)
    assert back.number == number
    assert back.is_news(outcome(), AT + away_s, failed_mono=NEVER) is (number == 2)


def test_who_left_is_forgotten_at_the_next_frame() -> None:
    tracks = Tracks()
    for n in range(100):
        tracks.follow([box(1000.0 * n)], AT + 2.0 * n)
        assert len(tracks._tracks) == 1
    tracks.follow([], AT + 500)
    assert tracks._tracks == []


BOXES = st.builds(box, st.integers(0, 600), st.integers(0, 300), st.integers(1, 200))


@given(st.lists(st.tuples(st.lists(BOXES, max_size=5), st.floats(0.0, 1.5)), max_size=12))
def test_each_face_of_a_frame_has_a_track_of_its_own(
    frames: list[tuple[list[Box], float]],
) -> None:
    tracks, now, boxes_of = Tracks(), AT, dict[int, tuple[Box, float]]()
    for boxes, seconds in frames:
        now += seconds
        found = tracks.follow(boxes, now)
        assert [t.box.tolist() for t in found] == [b.tolist() for b in boxes]
        assert len({t.number for t in found}) == len(boxes)
        for track in found:
            if track.number in boxes_of:
                before, seen = boxes_of[track.number]
                assert now - seen <= GONE_AFTER_S and iou(before, track.box) >= SAME_FACE_IOU
            else:
                assert track.number > max(boxes_of, default=0), "a number was given again"
            boxes_of[track.number] = (track.box, now)


# --- how far two boxes are one ---


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (box(0), 1.0),
        (box(50), 1 / 3),
        (box(50, 50), 1 / 7),
        (box(0, 0, 50), 1 / 4),
        (box(100), 0.0),
        (box(0, 100), 0.0),
        (box(300), 0.0),
        (box(50, 50, 0), 0.0),
        (box(0, 0, -10), 0.0),
    ],
)
def test_overlap(other: Box, expected: float) -> None:
    assert iou(box(0), other) == pytest.approx(expected)


@given(BOXES, BOXES)
def test_overlap_is_the_same_both_ways_and_a_part(a: Box, b: Box) -> None:
    assert 0.0 <= iou(a, b) == iou(b, a) <= 1.0


# --- nothing of a face ---


def test_a_track_keeps_a_box_and_times_and_nothing_of_a_face() -> None:
    """A new field has to be written here first: does it remember a stranger?"""
    assert [f.name for f in dataclasses.fields(Track)] == [
        "number",
        "box",
        "seen_mono",
        "attack_mono",
        "said",
    ]
    assert vars(Tracks()).keys() == {"_tracks", "_next"}
    (track,) = Tracks().follow([box(0)], AT)
    assert track.box.shape == (4,)
    with pytest.raises(AttributeError):
        track.embedding = np.zeros(512)  # type: ignore[attr-defined]


def test_the_times_are_those_that_are_written() -> None:
    assert (ATTACK_HOLD_S, SAY_AGAIN_AFTER_S, GONE_AFTER_S, SAME_FACE_IOU) == (2.0, 10.0, 1.0, 0.3)
