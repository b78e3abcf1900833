"""The pack as shipped: insightface takes it, its decisions stay, its papers are right."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from edge.models import verify
from hil.residents import Attack, Identity, Scene, drawn_apart, render, resident
from hil.simpack import measure
from hil.simpack.data import FRESH_FROM, TEMPLATE, pad_crop, similarity
from hil.simpack.evaluate import BEGIN, END, table
from hil.simpack.papers import PACK, REPORT, read_manifest
from hil.simpack.reader import Reader, Seen

MOST_BYTES = 4_000_000
RESIDENTS = drawn_apart(5, seed=11)
STRANGERS = [resident(FRESH_FROM + 900_000 + n) for n in range(5)]
CHANGES = pytest.mark.parametrize("change", list(measure.CHANGES))
FACE_KEYS = [
    "kind", "name", "version", "files", "embedding_size", "threshold", "threshold_reason",
    "detector_size", "licence", "licence_state", "about",
]  # fmt: skip
PAD_KEYS = [
    "kind", "name", "version", "files", "crop_scale", "colour", "scale", "live_class", "classes",
    "threshold", "threshold_reason", "licence", "licence_state", "about",
]  # fmt: skip


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader()


@pytest.fixture(scope="module")
def enrolled(reader: Reader) -> np.ndarray:
    """One unit embedding of each resident, from one typical picture."""
    return np.stack([one(reader, photograph(who, 50 + n)).embedding
                     for n, who in enumerate(RESIDENTS)])  # fmt: skip


def photograph(who: Identity | None, seed: int, attack: Attack | None = None) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return render(who, Scene.typical(rng, attack=attack), rng).image


def one(reader: Reader, image: np.ndarray) -> Seen:
    faces = reader.look(image)
    assert len(faces) == 1
    return faces[0]


def test_the_pack_is_small() -> None:
    assert sum(f.stat().st_size for f in PACK.rglob("*") if f.is_file()) <= MOST_BYTES


@pytest.mark.parametrize(("folder", "keys"), [(PACK, FACE_KEYS), (PACK / "pad", PAD_KEYS)])
def test_a_manifest_names_its_files_by_hash(folder: Path, keys: list[str]) -> None:
    manifest = read_manifest(folder)
    assert sorted(manifest) == sorted(keys)
    assert set(manifest["files"]) - {REPORT} == {f.name for f in folder.glob("*.onnx")}
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_the_gate_takes_the_pack_as_it_is() -> None:
    assert verify(PACK) == []


def test_reading_needs_no_torch(reader: Reader) -> None:
    reader.look(photograph(RESIDENTS[0], 1))
    assert "torch" not in sys.modules


def test_the_detector_has_scrfds_nine_outputs(reader: Reader) -> None:
    session = reader.faces.det_model.session
    blob = np.zeros((1, 3, 96, 160), dtype=np.float32)
    got = [out.shape for out in session.run(None, {session.get_inputs()[0].name: blob})]
    cells = [96 * 160 // stride**2 * 2 for stride in (8, 16, 32)]
    assert got == [(n, width) for width in (1, 4, 10) for n in cells]


@pytest.mark.parametrize("size", [(640, 480), (640, 640), (320, 256), (640, 384), (352, 288)])
def test_any_size_in_multiples_of_32_finds_the_face(size: tuple[int, int]) -> None:
    seen = one(Reader(size=size), render(RESIDENTS[1], Scene(), np.random.default_rng(2)).image)
    true = render(RESIDENTS[1], Scene(), np.random.default_rng(2)).box
    assert true is not None
    assert measure.overlap(seen.box, true) > 0.7


def test_the_recogniser_is_normalised_as_insightface_guesses(reader: Reader) -> None:
    model = reader.faces.models["recognition"]
    assert (model.input_mean, model.input_std, model.input_size) == (127.5, 127.5, (112, 112))
    assert one(reader, photograph(RESIDENTS[0], 1)).embedding.shape == (
        reader.manifest["embedding_size"],
    )


def test_an_embedding_does_not_depend_on_its_batch(reader: Reader) -> None:
    model = reader.faces.models["recognition"]
    crops = np.random.default_rng(1).integers(0, 255, (3, 112, 112, 3), dtype=np.uint8)
    together = model.get_feat(list(crops))
    assert np.allclose(model.get_feat([crops[1]])[0], together[1], atol=1e-3)


@CHANGES
def test_residents_are_told_apart_whatever_the_link_does(
    reader: Reader, enrolled: np.ndarray, change: str
) -> None:
    for n, who in enumerate(RESIDENTS):
        seen = one(reader, measure.CHANGES[change](photograph(who, 200 + n)))
        cosine = enrolled @ seen.embedding
        assert cosine.argmax() == n
        assert cosine[n] >= reader.threshold
        assert np.delete(cosine, n).max() < reader.threshold
        assert seen.live >= reader.pad_threshold


@CHANGES
def test_strangers_are_refused_whatever_the_link_does(
    reader: Reader, enrolled: np.ndarray, change: str
) -> None:
    for n, who in enumerate(STRANGERS):
        seen = one(reader, measure.CHANGES[change](photograph(who, 300 + n)))
        assert (enrolled @ seen.embedding).max() < reader.threshold


@CHANGES
@pytest.mark.parametrize("attack", ["print", "replay"])
def test_attacks_are_refused_whatever_the_link_does(
    reader: Reader, change: str, attack: Attack
) -> None:
    for n, who in enumerate(RESIDENTS):
        seen = one(reader, measure.CHANGES[change](photograph(who, 400 + n, attack)))
        assert seen.live < reader.pad_threshold


def test_no_face_in_an_empty_room_nor_in_a_blank_frame(reader: Reader) -> None:
    assert all(reader.look(photograph(None, seed)) == [] for seed in range(12))
    for level in (0, 128, 255):
        assert reader.look(np.full((480, 640, 3), level, dtype=np.uint8)) == []


def test_the_attack_net_gives_probabilities_of_its_classes(reader: Reader) -> None:
    shape = reader.pad.get_inputs()[0].shape
    assert shape[1] == 3 and shape[2] == shape[3] and isinstance(shape[2], int)
    blob = np.random.default_rng(1).random((1, *shape[1:]), dtype=np.float32)
    got = reader.pad.run(None, {reader.pad.get_inputs()[0].name: blob})[0]
    assert got.shape == (1, len(reader.pad_manifest["classes"]))
    assert got.min() >= 0.0 and got.sum() == pytest.approx(1.0, abs=1e-5)


def test_a_crop_beyond_the_frame_is_black_there() -> None:
    white = np.full((100, 100, 3), 255, dtype=np.uint8)
    crop = pad_crop(white, np.array([0, 0, 40, 40], dtype=np.float32), 2.0, 80)
    assert crop[:18].max() == 0 and crop[:, :18].max() == 0 and crop[22:, 22:].min() == 255


def test_alignment_is_insightfaces() -> None:
    from insightface.utils.face_align import estimate_norm

    points = TEMPLATE * 1.7 + np.random.default_rng(1).normal(0, 3, (5, 2)).astype(np.float32)
    assert np.allclose(similarity(points, TEMPLATE), estimate_norm(points), atol=1e-3)


def test_the_readme_says_what_it_is_and_carries_the_reports_figures() -> None:
    text = (PACK / "README.md").read_text("utf-8")
    report = json.loads((PACK / "report.json").read_text("utf-8"))
    assert "does not know people" in text
    assert text.split(BEGIN)[1].split(END)[0].strip() == table(report)
    assert report["recognition"]["people"] >= 100


@pytest.mark.slow
def test_many_residents_many_frames(reader: Reader) -> None:
    got = measure.demo(reader, residents=12, views=10, seed=31)
    for name in measure.CHANGES:
        assert got[name]["let_in"] >= 114 and got[name]["as_somebody_else"] == 0
        assert got[name]["strangers_let_in"] == 0 and got[name]["attacks_let_in"] <= 1
