"""The artificial residents: same seed, same pixels; labels where the face is; nothing else told."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from hil.residents import Attack, Identity, Scene, distance, drawn_apart, render, resident
from hil.residents.identity import NAMES

CLEAN = Scene(noise=0.0)
ATTACKS: tuple[Attack, ...] = ("print", "replay")


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_resident_is_the_same_every_time() -> None:
    assert resident(7) == resident(7)
    assert resident(7) != resident(8)
    assert len(resident(7).vector) == len(NAMES)
    assert all(-1.0 <= value <= 1.0 for value in resident(7).vector)


@pytest.mark.parametrize("attack", [None, *ATTACKS])
def test_same_seeds_same_pixels(attack: Attack | None) -> None:
    scene = Scene.typical(rng(), attack=attack)
    one, two = (render(resident(3), scene, rng(5)) for _ in range(2))
    assert np.array_equal(one.image, two.image)
    assert one.box is not None and two.box is not None
    assert np.array_equal(one.box, two.box)


def test_a_frame_has_the_size_and_type_asked_for() -> None:
    image = render(resident(3), Scene(width=320, height=256), rng()).image
    assert image.shape == (256, 320, 3) and image.dtype == np.uint8


def test_another_person_looks_different() -> None:
    one, other = (render(resident(n), CLEAN, rng()).image.astype(int) for n in (1, 2))
    assert np.abs(one - other)[140:340, 240:400].mean() > 5.0


def test_an_empty_room_has_no_labels() -> None:
    seen = render(None, Scene(), rng())
    assert seen.box is None and seen.keypoints is None


def test_the_box_has_the_height_and_place_asked_for() -> None:
    for seed in range(20):
        box = render(resident(seed), replace(CLEAN, face_size=180.0), rng()).box
        assert box is not None
        assert box[3] - box[1] == pytest.approx(180.0, rel=0.12)
        assert (box[0] + box[2]) / 2 == pytest.approx(320.0, abs=4.0)
        assert (box[1] + box[3]) / 2 == pytest.approx(240.0, abs=16.0)


def test_key_points_are_in_order_and_inside_the_box() -> None:
    for seed in range(20):
        seen = render(resident(seed), Scene.typical(rng(seed)), rng())
        assert seen.box is not None and seen.keypoints is not None
        left, right, nose, mouth_left, mouth_right = seen.keypoints
        assert left[0] < right[0] and mouth_left[0] < mouth_right[0]
        assert (left[1] + right[1]) / 2 < nose[1] < (mouth_left[1] + mouth_right[1]) / 2 + 4.0
        assert (seen.keypoints >= seen.box[:2]).all() and (seen.keypoints <= seen.box[2:]).all()


def test_the_eye_label_lies_on_the_dark_of_the_eye() -> None:
    for seed in range(10):
        scene = replace(CLEAN, face_size=300.0, blur=0.0)
        seen = render(resident(seed), scene, rng())
        assert seen.keypoints is not None
        x, y = (round(float(v)) for v in seen.keypoints[0])
        pupil = seen.image[y - 1 : y + 2, x - 1 : x + 2].mean()
        assert pupil < 60.0  # the pupil is the darkest of the face


def test_roll_turns_the_key_points_clockwise() -> None:
    seen = render(resident(1), replace(CLEAN, roll=20.0), rng())
    assert seen.keypoints is not None
    across = seen.keypoints[1] - seen.keypoints[0]
    assert np.degrees(np.arctan2(across[1], across[0])) == pytest.approx(20.0, abs=0.5)


def test_yaw_moves_the_nose_to_the_right_between_the_eyes() -> None:
    def nose(yaw: float) -> float:
        points = render(resident(1), replace(CLEAN, yaw=yaw), rng()).keypoints
        assert points is not None
        return float((points[2, 0] - points[0, 0]) / (points[1, 0] - points[0, 0]))

    assert nose(-20.0) < nose(0.0) - 0.1
    assert nose(20.0) > nose(0.0) + 0.1


def test_what_is_not_the_face_tells_nothing_of_who_it_is() -> None:
    one, other = (render(resident(n), CLEAN, rng()).image for n in (1, 2))
    assert np.array_equal(one[:, :120], other[:, :120])  # the room, and the edge of the frame
    assert np.array_equal(one[440:], other[440:])  # the clothes
    assert np.array_equal(one[:, 560:], other[:, 560:])


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_seen_in_the_sheet_only(attack: Attack) -> None:
    scene = replace(CLEAN, face_size=130.0, attack=attack)
    live = render(resident(1), replace(scene, attack=None), rng()).image
    spoof = render(resident(1), scene, rng()).image
    assert np.array_equal(live[:40, :60], spoof[:40, :60])  # the room, in its corner
    assert not np.array_equal(live[180:300, 250:390], spoof[180:300, 250:390])


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_keeps_its_labels(attack: Attack) -> None:
    for seed in range(10):
        scene = replace(CLEAN, attack=attack, centre=(300.0, 220.0))
        seen = render(resident(seed), scene, rng(seed))
        assert seen.box is not None and seen.keypoints is not None
        assert (seen.keypoints >= seen.box[:2]).all() and (seen.keypoints <= seen.box[2:]).all()
        middle = (seen.box[:2] + seen.box[2:]) / 2
        assert np.abs(middle - (300.0, 220.0)).max() < 20.0


def test_residents_drawn_apart_are_further_apart_than_any() -> None:
    def nearest(people: list[Identity]) -> float:
        return min(distance(a, b) for i, a in enumerate(people) for b in people[:i])

    apart = drawn_apart(12, seed=4)
    assert apart == drawn_apart(12, seed=4) and apart != drawn_apart(12, seed=5)
    assert len(set(apart)) == 12
    assert nearest(apart) > 1.15 * nearest([resident(n) for n in range(12)])


def test_a_typical_scene_keeps_the_face_in_the_frame() -> None:
    for seed in range(50):
        seen = render(resident(seed), Scene.typical(rng(seed)), rng())
        assert seen.box is not None
        middle = (seen.box[:2] + seen.box[2:]) / 2
        assert 0 < middle[0] < 640 and 0 < middle[1] < 480


@pytest.mark.slow
def test_a_frame_renders_in_time_for_25_a_second() -> None:
    taken = []
    for seed in range(15):
        scene = Scene.typical(rng(seed), attack=(None, "print", "replay")[seed % 3])
        start = time.perf_counter()
        render(resident(seed), scene, rng())
        taken.append(time.perf_counter() - start)
    assert sorted(taken)[7] < 0.040
