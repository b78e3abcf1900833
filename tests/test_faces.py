"""Faces on tiny real models by default, on real ones and photos with MENJIN_TEST_ASSETS."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tinymodels as tiny

from edge import faces
from edge.models import FacePack, ModelError, PadPack, install, load_pack
from edge.terms import is_unit

ASSETS = Path(os.environ.get("MENJIN_TEST_ASSETS") or "/nonexistent")
needs_assets = pytest.mark.skipif(
    "MENJIN_TEST_ASSETS" not in os.environ, reason="MENJIN_TEST_ASSETS is not set"
)

BLACK = np.zeros((96, 128, 3), np.uint8)


def face_pack(folder: Path, **fields: Any) -> FacePack:
    pack = load_pack(tiny.face_pack(folder, **fields))
    assert isinstance(pack, FacePack)
    return pack


def pad_pack(folder: Path, **fields: Any) -> PadPack:
    pack = load_pack(tiny.pad_pack(folder, **fields))
    assert isinstance(pack, PadPack)
    return pack


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("packs")
    return faces.Faces(face_pack(folder / "face"), pad_pack(folder / "pad"))


def white(image: Any, x: int, y: int, side: int) -> Any:
    image = image.copy()
    image[y : y + side, x : x + side] = 255
    return image


def detected(x1: float, y1: float, x2: float, y2: float) -> Any:
    box = np.array([x1, y1, x2, y2], np.float32)
    return faces.Detected(box, box[:2] + tiny.TEMPLATE * (box[2:] - box[:2]), 1.0)


def test_a_face_is_found_where_it_is(engine: Any) -> None:
    face = engine.detect(white(BLACK, 64, 32, 16))[0]
    assert face.box.tolist() == [64, 32, 80, 48]
    assert face.box.dtype == face.keypoints.dtype == np.float32
    assert np.allclose(face.keypoints, [64, 32] + tiny.TEMPLATE * 16, atol=1e-3)
    assert 0.5 < face.score < 1


def test_boxes_are_in_pixels_of_the_frame_not_of_the_detector(engine: Any) -> None:
    frame = white(np.zeros((192, 256, 3), np.uint8), 128, 64, 32)
    assert engine.detect(frame)[0].box.tolist() == [128, 64, 160, 96]


def test_the_largest_face_comes_first_though_smaller_ones_score_higher(engine: Any) -> None:
    found = engine.detect(white(white(BLACK, 0, 0, 16), 64, 32, 32))
    assert found[0].box.tolist() == [64, 32, 96, 64]
    assert len(found) > 1
    assert found[0].score < found[1].score


def test_an_empty_frame_has_no_face(engine: Any) -> None:
    assert engine.detect(BLACK) == []


def test_what_crosses_threads_is_read_only(engine: Any) -> None:
    frame = white(BLACK, 64, 32, 16)
    frame.flags.writeable = False
    face = engine.detect(frame)[0]
    for array in (face.box, face.keypoints, engine.embed(frame, face)):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.mark.parametrize(
    "image",
    [
        None,
        "frame.jpg",
        BLACK.astype(np.float32),
        BLACK[:, :, 0],
        BLACK[:, :, :2],
        BLACK[:0],
        BLACK[:31],
        np.zeros((32, 257, 3), np.uint8),
    ],
)
def test_what_is_not_a_frame_is_a_value_error(engine: Any, image: Any) -> None:
    for call in (engine.detect, lambda i: engine.embed(i, detected(0, 0, 32, 32))):
        with pytest.raises(ValueError, match="not a frame"):
            call(image)


def test_an_embedding_is_a_unit_vector_of_the_packs_size(engine: Any) -> None:
    rng = np.random.default_rng(1)
    frame = rng.integers(0, 255, BLACK.shape, np.uint8)
    vector = engine.embed(frame, detected(10, 10, 70, 70))
    assert vector.shape == (tiny.EMBEDDING_SIZE,)
    assert vector.dtype == np.float32
    assert is_unit(vector)


def test_an_embedding_follows_the_face_through_the_frame(engine: Any) -> None:
    """Moved, turned and larger, the same face gives the same vector: alignment works."""
    import cv2

    rng = np.random.default_rng(2)
    patch = cv2.resize(rng.integers(0, 255, (6, 6, 3), np.uint8), (56, 56))
    small = np.zeros((128, 128, 3), np.uint8)
    small[20:76, 30:86] = patch
    face = detected(30, 20, 86, 76)
    matrix = cv2.getRotationMatrix2D((60, 50), 30, 1.7)
    matrix[:, 2] += (90, 80)
    turned = cv2.warpAffine(small, matrix, (300, 300))
    points = (face.keypoints @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    there = faces.Detected(face.box, points, 1.0)
    assert engine.embed(small, face) @ engine.embed(turned, there) > 0.99
    assert engine.embed(small, face) @ engine.embed(turned, face) < 0.9


@pytest.mark.parametrize("side", [112, 128, 224])
def test_alignment_is_insightfaces_own(side: int) -> None:
    from insightface.utils.face_align import norm_crop

    rng = np.random.default_rng(side)
    frame = rng.integers(0, 255, (300, 300, 3), np.uint8)
    points = (100 + tiny.TEMPLATE * 90 + rng.normal(size=(5, 2)) * 5).astype(np.float32)
    difference = faces.align(frame, points, side).astype(int) - norm_crop(frame, points, side)
    assert np.abs(difference).max() <= 2  # rounding of the interpolation, no shift


def test_key_points_in_one_place_are_a_value_error(engine: Any) -> None:
    with pytest.raises(ValueError, match="key points"):
        engine.embed(BLACK, detected(10, 10, 10, 10))


def test_a_picture_without_any_signal_gives_no_embedding(tmp_path: Path) -> None:
    pack = face_pack(tmp_path / "p")
    engine = faces.Faces(pack, None)
    engine._recogniser.input_mean = 0.0  # black becomes the zero vector
    with pytest.raises(ValueError, match="no usable embedding"):
        engine.embed(BLACK, detected(10, 10, 60, 60))


def painted(blue: int, green: int, red: int) -> Any:
    return np.full((96, 128, 3), (blue, green, red), np.uint8)


@pytest.mark.parametrize(
    ("colour", "verdict", "kind"),
    [
        ((0, 0, 255), "live", "live"),
        ((0, 255, 0), "attack", "print"),
        ((255, 0, 0), "attack", "replay"),
    ],
)
@pytest.mark.parametrize("softmax", [False, True])
def test_the_attack_check_tells_the_classes(
    tmp_path: Path, softmax: bool, colour: Any, verdict: str, kind: str
) -> None:
    engine = faces.Faces(face_pack(tmp_path / "f"), pad_pack(tmp_path / "p", softmax=softmax))
    found = engine.liveness(painted(*colour), detected(50, 40, 70, 60))
    assert (found.verdict, found.kind) == (verdict, kind)
    assert (found.live_probability > 0.99) == (verdict == "live")


def test_the_order_of_colours_is_the_manifests(tmp_path: Path) -> None:
    engine = faces.Faces(face_pack(tmp_path / "f"), pad_pack(tmp_path / "p", colour="bgr"))
    face = detected(50, 40, 70, 60)
    assert engine.liveness(painted(255, 0, 0), face).verdict == "live"
    assert engine.liveness(painted(0, 0, 255), face).kind == "replay"


def test_without_an_attack_check_nothing_is_called_live(tmp_path: Path) -> None:
    engine = faces.Faces(face_pack(tmp_path / "f"), None)
    found = engine.liveness(painted(0, 0, 255), detected(50, 40, 70, 60))
    assert (found.verdict, found.live_probability, found.kind) == ("unchecked", None, None)


def views(engine: Any, image: Any, face: Any) -> tuple[Any, int]:
    """The verdict and how many crops were looked at."""
    check, count = engine._pad, 0
    look = check._look

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        return look(*args, **kwargs)

    check._look = counted
    try:
        return engine.liveness(image, face), count
    finally:
        del check._look


def test_a_clear_case_takes_one_view_and_a_doubtful_one_six(engine: Any) -> None:
    face = detected(50, 40, 70, 60)
    assert views(engine, painted(0, 0, 255), face)[1] == 1
    assert views(engine, painted(255, 0, 0), face)[1] == 1
    found, count = views(engine, painted(0, 128, 140), face)
    assert count == 6
    assert 0.5 < found.live_probability < 0.95
    assert found.verdict == "live"


def test_a_doubtful_case_below_the_threshold_is_an_attack_of_the_likeliest_kind(
    tmp_path: Path,
) -> None:
    check = pad_pack(tmp_path / "p", threshold=0.8)
    engine = faces.Faces(face_pack(tmp_path / "f"), check)
    found = engine.liveness(painted(0, 128, 140), detected(50, 40, 70, 60))
    assert 0.5 < found.live_probability < 0.8
    assert (found.verdict, found.kind) == ("attack", "print")


def test_a_threshold_above_the_decisive_mark_still_rules(tmp_path: Path) -> None:
    engine = faces.Faces(face_pack(tmp_path / "f"), pad_pack(tmp_path / "p", threshold=0.99))
    found, count = views(engine, painted(0, 0, 110), detected(50, 40, 70, 60))
    assert 0.95 < found.live_probability < 0.99
    assert (found.verdict, count) == ("attack", 6)


def test_the_mean_of_six_different_views_decides_not_the_first(engine: Any) -> None:
    image = painted(0, 60, 0)
    image[:, 60:] = (0, 60, 100)
    image[:, 80:] = (0, 90, 30)
    face = detected(44, 38, 84, 58)
    rows = [
        engine._pad._look(image, face.box, zoom, mirrored=mirrored)
        for zoom in faces.VIEW_SCALES
        for mirrored in (False, True)
    ]
    assert len({round(float(row[0]), 5) for row in rows}) == 6
    found, count = views(engine, image, face)
    assert count == 6
    assert found.live_probability == pytest.approx(np.mean(rows, axis=0)[0], abs=1e-6)
    assert found.live_probability != pytest.approx(float(rows[2][0]), abs=1e-3)


def test_the_crop_is_square_centred_and_black_beyond_the_frame() -> None:
    frame = np.full((100, 100, 3), 200, np.uint8)
    crop = faces.square(frame, np.array([-10, 40, 10, 50], np.float32), 1.5)
    assert crop.shape == (30, 30, 3)  # the longer side, 20, times 1.5
    assert crop[:, :15].max() == 0
    assert crop[:, 15:].min() == 200
    assert faces.square(frame, np.array([500, 500, 520, 520], np.float32), 1.5).max() == 0


def test_a_distribution_stays_and_logits_become_one() -> None:
    row = np.array([0.7, 0.2, 0.1], np.float32)
    assert faces.probabilities(row) is row
    for logits in ([2.0, 0.2, 0.1], [0.7, 0.7, 0.1], [1.5, -0.3, -0.2]):
        out = faces.probabilities(np.array(logits, np.float32))
        assert out.sum() == pytest.approx(1)
        assert out == pytest.approx(np.exp(logits) / np.exp(logits).sum(), abs=1e-6)
    assert np.isfinite(faces.probabilities(np.array([500.0, 0, 0], np.float32))).all()


def test_one_thread_and_no_spinning_also_in_derived_sessions(engine: Any) -> None:
    engine.warm_up()
    sessions = [engine._recogniser.session, engine._pad._session]
    derived = engine._detector.resolution_sessions
    assert list(derived) == [(128, 96)]
    for session in (*sessions, *derived.values()):
        options = session.get_session_options()
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
        assert session.get_providers() == ["CPUExecutionProvider"]


def test_warming_up_builds_the_session_of_the_first_frame(tmp_path: Path) -> None:
    engine = faces.Faces(face_pack(tmp_path / "p"), None, (96, 64))
    assert engine._detector.resolution_sessions == {}
    engine.warm_up()
    before = engine._detector.resolution_sessions
    assert list(before) == [(96, 64)]
    engine.detect(BLACK)
    assert engine._detector.resolution_sessions == before


def test_a_detector_of_fixed_shape_refuses_another_size(tmp_path: Path) -> None:
    tiny.bare_face(tmp_path / "p", height=96, width=128)
    fields = {"kind": "face", "name": "p", "embedding_size": 48, "threshold": 0.5}
    tiny.write_manifest(tmp_path / "p", detector_size=[128, 96], **fields)
    pack = load_pack(tmp_path / "p")
    assert len(faces.Faces(pack, None).detect(white(BLACK, 64, 32, 32))) > 0
    with pytest.raises(ModelError, match="takes"):
        faces.Faces(pack, None, (640, 640))


@pytest.mark.parametrize("size", [(640, 360), (0, 0), (-32, 32)])
def test_an_impossible_detector_size_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    with pytest.raises(ModelError, match="multiples of 32"):
        faces.Faces(face_pack(tmp_path / "p"), None, size)


def test_a_manifest_that_lies_about_the_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="embedding size is 48"):
        faces.Faces(face_pack(tmp_path / "p", embedding_size=512), None)
    check = pad_pack(tmp_path / "q", classes=["live", "attack"])
    with pytest.raises(ModelError, match="3 classes"):
        faces.Faces(face_pack(tmp_path / "p"), check)


@pytest.mark.parametrize("name", ["det.onnx", "rec.onnx"])
def test_a_file_that_does_not_load_is_one_line(tmp_path: Path, name: str) -> None:
    pack = face_pack(tmp_path / "p")
    (tmp_path / "p" / name).write_bytes(b"broken after the check")
    with pytest.raises(ModelError) as caught:
        faces.Faces(pack, None)
    assert "\n" not in str(caught.value)
    assert "does not load" in str(caught.value)


def test_a_pack_that_is_gone_is_not_downloaded(tmp_path: Path) -> None:
    pack = face_pack(tmp_path / "p")
    shutil.rmtree(tmp_path / "p")
    with pytest.raises(ModelError, match="is gone"):
        faces.Faces(pack, None)


# From here on: real models, real photos.


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("real")
    face = load_pack(install(ASSETS / "models/mbf-sc", root))
    engine = faces.Faces(face, load_pack(install(ASSETS / "models/pad", root)))
    engine.warm_up()
    return engine


def photos(pattern: str, count: int) -> list[tuple[Path, Any]]:
    import cv2

    files = sorted((ASSETS / "testdata").glob(pattern))
    assert len(files) == count
    return [(file, cv2.imread(str(file))) for file in files]


@needs_assets
@pytest.mark.assets
def test_seven_people_are_told_apart_at_the_packs_threshold(real: Any) -> None:
    people: dict[str, list[Any]] = {}
    for file, image in photos("faces/*/*.jpg", 28):
        found = real.detect(image)
        assert found, file
        people.setdefault(file.parent.name, []).append(real.embed(image, found[0]))
    assert len(people) == 7
    enrolled = {name: vectors[0] for name, vectors in people.items()}
    others = [(name, v) for name, vectors in people.items() for v in vectors[1:]]
    assert len(others) == 21
    threshold = real.pack.threshold
    assert threshold == 0.35
    for name, vector in others:
        scores = {who: float(vector @ template) for who, template in enrolled.items()}
        assert max(scores, key=lambda who: scores[who]) == name
        assert scores[name] >= threshold
    everybody = [(name, v) for name, vectors in people.items() for v in vectors]
    impostors = [float(a @ b) for n, a in everybody for m, b in everybody if n < m]
    assert max(impostors) < threshold


@needs_assets
@pytest.mark.assets
def test_every_live_photo_is_live(real: Any) -> None:
    for file, image in photos("faces/*/*.jpg", 28) + photos("pad/live/*.jpg", 2):
        found = real.liveness(image, real.detect(image)[0])
        assert found.verdict == "live", (file, found)


@needs_assets
@pytest.mark.assets
@pytest.mark.parametrize("kind", ["print", "replay"])
def test_every_attack_photo_is_an_attack_of_its_kind(real: Any, kind: str) -> None:
    for file, image in photos(f"pad/{kind}/*.jpg", 1):
        found = real.liveness(image, real.detect(image)[0])
        assert (found.verdict, found.kind) == ("attack", kind), (file, found)
