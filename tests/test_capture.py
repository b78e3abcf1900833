"""From a photo to a template: artificial residents and the sim pack by default, real photos and a
real pack with MENJIN_TEST_ASSETS."""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import hil.simpack
from edge.models import FacePack, install, load_pack, model_id
from edge.terms import is_unit
from enroll.capture import PHOTO_BYTES_MAX, Camera, read_photo
from enroll.home import OfficeError
from hil.residents import Scene, drawn_apart, render

PACK = Path(hil.simpack.__file__).parent / "pack"
MEI, BO = drawn_apart(2, 20)
Save = Callable[..., Path]


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enroll.messages._chosen", ["en"])


@pytest.fixture(scope="module")
def camera() -> Camera:
    return Camera(PACK)


def picture(who: Any, seed: int = 1, **scene: Any) -> Any:
    return render(who, Scene(**scene), np.random.default_rng(seed)).image


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def to_file(image: Any, name: str = "photo.png") -> Path:
        path = tmp_path / name
        assert cv2.imwrite(str(path), image)
        return path

    return to_file


def refused(camera: Camera, photo: Path, **options: Any) -> str:
    """What staff read; one line that names the photo."""
    with pytest.raises(OfficeError) as refusal:
        camera.template(photo, **options)
    said = str(refusal.value)
    assert len(said.splitlines()) == 1 and str(photo) in said
    return said


# one face


def test_two_photos_of_one_person_are_nearer_than_the_threshold_and_of_two_are_not(
    camera: Camera, save: Save
) -> None:
    pack = load_pack(PACK)
    assert isinstance(pack, FacePack)
    first, again = (camera.template(save(picture(MEI, seed))) for seed in (1, 2))
    other = camera.template(save(picture(BO)))
    assert first.shape == (pack.embedding_size,) and is_unit(first)
    assert float(first @ again) > pack.threshold > float(first @ other)
    assert camera.model_id == model_id(pack)


def test_no_face_is_no_template(camera: Camera, save: Save) -> None:
    assert "no face" in refused(camera, save(picture(None)))


def test_of_two_faces_somebody_must_say_which(camera: Camera, save: Save) -> None:
    near, far = picture(MEI, face_size=260), picture(BO, face_size=150)
    photo = save(np.hstack([far, near]))
    assert "2 faces" in refused(camera, photo)
    taken = camera.template(photo, largest=True)
    alone = camera.template(save(near))
    assert float(taken @ alone) > 0.9 > float(taken @ camera.template(save(far)))


# good enough


@pytest.mark.parametrize(
    ("scene", "says"),
    [
        ({"face_size": 70}, "px"),
        ({"light": 0.1, "noise": 0.5}, "dark"),
        ({"light": 3.0}, "overexposed"),
    ],
)
def test_a_photo_that_is_not_good_enough_says_what_to_do(
    camera: Camera, save: Save, scene: dict[str, float], says: str
) -> None:
    assert says in refused(camera, save(picture(MEI, **scene)))


def test_a_blurred_photo_is_refused(camera: Camera, save: Save) -> None:
    sharp = picture(MEI)
    assert "blurred" in refused(camera, save(cv2.GaussianBlur(sharp, (0, 0), 8)))
    camera.template(save(cv2.GaussianBlur(sharp, (0, 0), 1)))


def test_the_same_face_in_soft_light_is_not_blurred(camera: Camera, save: Save) -> None:
    image = picture(MEI).astype(np.float32)
    camera.template(save((110 + (image - 110) * 0.5).astype(np.uint8)))


# files


@pytest.mark.parametrize("content", [b"", b"no photo", b"\xff\xd8\xff\xe0" + bytes(64)])
def test_what_is_no_photo_is_said_in_one_line(
    camera: Camera, tmp_path: Path, content: bytes
) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(content)
    assert "JPEG or PNG" in refused(camera, photo)


def test_a_photo_that_is_not_there_or_a_folder_is_said_in_one_line(
    camera: Camera, tmp_path: Path
) -> None:
    refused(camera, tmp_path / "missing.jpg")
    refused(camera, tmp_path)


def test_a_huge_file_is_not_even_read(camera: Camera, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    with photo.open("wb") as file:
        file.truncate(PHOTO_BYTES_MAX + 1)
    assert "too large" in refused(camera, photo)


def test_a_strip_or_a_speck_of_a_picture_is_refused(camera: Camera, save: Save) -> None:
    for shape in ((16, 16, 3), (40, 1200, 3)):
        refused(camera, save(np.zeros(shape, np.uint8)))


def test_a_photo_is_turned_as_the_camera_was_held(tmp_path: Path) -> None:
    upright = picture(MEI)
    lying = cv2.rotate(upright, cv2.ROTATE_90_COUNTERCLOCKWISE)
    jpeg = cv2.imencode(".jpg", lying, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)  # orientation: turn right
    tiff = b"MM\0*" + struct.pack(">IH", 8, 1) + entry + bytes(4)
    exif = b"Exif\0\0" + tiff
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])
    seen = read_photo(photo)
    assert seen.shape == upright.shape
    assert float(np.abs(seen.astype(int) - upright.astype(int)).mean()) < 5


def test_a_photo_leaves_nothing_behind(camera: Camera, save: Save, tmp_path: Path) -> None:
    photo = save(picture(MEI))
    before = photo.read_bytes()
    camera.template(photo)
    assert [path.name for path in tmp_path.iterdir()] == [photo.name]
    assert photo.read_bytes() == before


# packs


def test_a_pack_that_is_not_for_faces_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OfficeError, match="--models"):
        Camera(PACK / "pad")
    with pytest.raises(OfficeError, match="edge models install"):
        Camera(tmp_path)


# real photos


@pytest.mark.assets
def test_real_photos_with_a_real_pack(tmp_path: Path) -> None:
    """Every everyday photo is good enough; people are told apart; a bystander is asked about."""
    assets = Path(os.environ["MENJIN_TEST_ASSETS"])
    camera = Camera(install(assets / "models" / "mbf-sc", tmp_path))
    photos = sorted((assets / "testdata" / "faces").glob("*/*.jpg"))
    assert len(photos) == 28
    vectors = {photo: camera.template(photo, largest=True) for photo in photos}
    for one, other in itertools.combinations(photos, 2):
        same = one.parent == other.parent
        assert (float(vectors[one] @ vectors[other]) > 0.35) is same, (one, other)
    crowded = [photo for photo in photos if _has_several(camera, photo)]
    assert [photo.name for photo in crowded] == ["59.jpg", "62.jpg", "54.jpg"]


def _has_several(camera: Camera, photo: Path) -> bool:
    try:
        camera.template(photo)
    except OfficeError as refusal:
        return "faces;" in str(refusal)
    return False


@pytest.mark.assets
def test_a_real_photo_blurred_beyond_recognition_is_refused(tmp_path: Path) -> None:
    """Blurred by 1/25 of the face, its template would be nobody's (cosine 0.1-0.5)."""
    assets = Path(os.environ["MENJIN_TEST_ASSETS"])
    camera = Camera(install(assets / "models" / "mbf-sc", tmp_path))
    for photo in sorted((assets / "testdata" / "faces").glob("*/*.jpg"))[::5]:
        image = read_photo(photo)
        face = camera._faces.detect(image)[0]
        side = float(min(face.box[2:] - face.box[:2]))
        soft = tmp_path / "soft.png"
        assert cv2.imwrite(str(soft), cv2.GaussianBlur(image, (0, 0), side / 25))
        assert "blurred" in refused(camera, soft, largest=True)
