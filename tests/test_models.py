"""Model packs: described, installed, checked at every start. Each test spoils one thing."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import onnx
import pytest
import tinymodels as tiny

from edge import models
from edge.models import FacePack, ModelError, PadPack, describe, install, load_pack, verify

ROOT = Path(__file__).parents[1]
ASSETS = os.environ.get("MENJIN_TEST_ASSETS")


def refused(call: Any, *args: Any) -> str:
    with pytest.raises(ModelError) as caught:
        call(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


def zipped(folder: Path, file: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(path, prefix + path.relative_to(folder).as_posix())
    return file


def edited(folder: Path, **fields: Any) -> Path:
    manifest = json.loads((folder / "pack.json").read_text()) | fields
    (folder / "pack.json").write_text(json.dumps(manifest))
    return folder


def test_a_sound_face_pack_loads_with_its_attack_check(tmp_path: Path) -> None:
    folder = tiny.face_pack(tmp_path / "p")
    tiny.pad_pack(folder / "pad")
    (folder / "README.md").write_text("documents need not be listed")
    pack = load_pack(folder)
    assert isinstance(pack, FacePack)
    assert (pack.path, pack.detector_size, pack.embedding_size) == (folder, (128, 96), 48)
    assert pack.pad is not None
    assert pack.pad.model_file == folder / "pad/pad.onnx"
    assert verify(folder) == []


def test_a_gate_takes_the_named_attack_check_else_the_packs_own(tmp_path: Path) -> None:
    folder = tiny.face_pack(tmp_path / "p")
    assert models.face_packs(folder, None)[1] is None
    tiny.pad_pack(folder / "pad")
    other = tiny.pad_pack(tmp_path / "other", name="other")
    for named, name in ((None, "tiny-pad"), (other, "other")):
        check = models.face_packs(folder, named)[1]
        assert check is not None
        assert check.name == name
    assert "not of kind face" in refused(models.face_packs, other, None)
    assert "not of kind pad" in refused(models.face_packs, folder, folder)


def test_the_model_id_is_the_recognisers_hash_whatever_the_files_are_called(tmp_path: Path) -> None:
    tiny.recogniser(tmp_path / "p/a.onnx")
    tiny.detector(tmp_path / "p/z.onnx")
    face = {"kind": "face", "name": "p", "embedding_size": 48, "threshold": 0.4}
    tiny.write_manifest(tmp_path / "p", detector_size=[640, 640], **face)
    digest = hashlib.sha256((tmp_path / "p/a.onnx").read_bytes()).hexdigest()
    pack = load_pack(tmp_path / "p")
    assert isinstance(pack, FacePack)
    assert models.model_id(pack) == digest[:16]


@pytest.mark.parametrize("where", ["det.onnx", "pad/pad.onnx"])
def test_one_flipped_bit_is_noticed(tmp_path: Path, where: str) -> None:
    folder = tiny.face_pack(tmp_path / "p")
    tiny.pad_pack(folder / "pad")
    data = bytearray((folder / where).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / where).write_bytes(data)
    assert "altered" in refused(load_pack, folder)
    assert where in refused(load_pack, folder)
    assert len(verify(folder)) == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    folder = tiny.face_pack(tmp_path / "p")
    (folder / "rec.onnx").unlink()
    assert "rec.onnx: missing" in refused(load_pack, folder)


@pytest.mark.parametrize("name", ["extra.onnx", "weights.bin", "pad/more.onnx", "deep/er.onnx"])
def test_an_unlisted_file_that_could_hold_weights_is_refused(tmp_path: Path, name: str) -> None:
    folder = tiny.face_pack(tmp_path / "p")
    tiny.pad_pack(folder / "pad")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"x")
    assert "not listed" in refused(load_pack, folder)
    assert name in refused(load_pack, folder)


def test_insightfaces_own_manifest_is_refused(tmp_path: Path) -> None:
    folder = tiny.face_pack(tmp_path / "p")
    (folder / "manifest.json").write_text("{}")
    assert "manifest.json" in refused(load_pack, folder)
    assert "manifest.json" in refused(describe, folder)


def test_verify_tells_every_fault(tmp_path: Path) -> None:
    folder = tiny.face_pack(tmp_path / "p")
    (folder / "rec.onnx").unlink()
    (folder / "det.onnx").write_bytes(b"altered")
    (folder / "extra.onnx").write_bytes(b"x")
    faults = sorted(line.removeprefix(f"{folder}/").split(";")[0] for line in verify(folder))
    assert faults == [
        "det.onnx: altered",
        "extra.onnx: not listed in pack.json",
        "rec.onnx: missing",
    ]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"kind": "voice"}, "kind"),
        ({"surprise": 1}, "surprise"),
        ({"embedding_size": "48"}, "embedding_size"),
        ({"threshold": 1.0}, "threshold"),
        ({"detector_size": [640, 360]}, "detector_size"),
        ({"licence_state": "maybe"}, "licence_state"),
        ({"files": {"../det.onnx": "0" * 64}}, "files"),
        ({"files": {"/det.onnx": "0" * 64}}, "files"),
        ({"files": {"det.onnx": "0" * 63}}, "files"),
        ({"files": {}}, "files"),
        ({"name": "../up"}, "name"),
    ],
)
def test_a_broken_manifest_is_refused_by_field(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    folder = edited(tiny.face_pack(tmp_path / "p"), **fields)
    assert said in refused(load_pack, folder).partition("pack.json: ")[2]


@pytest.mark.parametrize(
    "fields", [{"live_class": 3}, {"crop_scale": 0.5}, {"colour": "grey"}, {"classes": ["live"]}]
)
def test_a_broken_attack_manifest_is_refused(tmp_path: Path, fields: dict[str, Any]) -> None:
    refused(load_pack, edited(tiny.pad_pack(tmp_path / "p"), **fields))


def test_no_manifest_and_no_json_are_refused(tmp_path: Path) -> None:
    assert "pack.json" in refused(load_pack, tmp_path / "nowhere")
    (tmp_path / "pack.json").write_text("{")
    assert "pack.json" in refused(load_pack, tmp_path)


def test_a_face_pack_inside_pad_is_refused(tmp_path: Path) -> None:
    folder = tiny.face_pack(tmp_path / "p")
    tiny.face_pack(folder / "pad")
    assert "not of kind pad" in refused(load_pack, folder)


def test_bare_face_files_are_described_from_what_they_say(tmp_path: Path) -> None:
    pack = describe(tiny.bare_face(tmp_path / "a pack!"))
    assert isinstance(pack, FacePack)
    assert (pack.name, pack.embedding_size, pack.detector_size) == ("a-pack", 48, (640, 640))
    assert (pack.threshold, pack.licence_state) == (0.35, "research_only")
    assert not (tmp_path / "a pack!/pack.json").exists()


def test_a_detector_of_fixed_shape_gives_the_detector_size(tmp_path: Path) -> None:
    pack = describe(tiny.bare_face(tmp_path / "p", height=384, width=640))
    assert isinstance(pack, FacePack)
    assert pack.detector_size == (640, 384)


def test_a_broken_licence_file_is_not_taken_for_permission(tmp_path: Path) -> None:
    folder = tiny.bare_face(tmp_path / "p")
    (folder / "MODEL.LICENSE").write_text("{}")
    assert describe(folder).licence_state == "unknown"


def test_a_bare_attack_model_is_described_with_the_defaults(tmp_path: Path) -> None:
    tiny.attack_check(tmp_path / "p/any.onnx")
    pack = describe(tmp_path / "p")
    assert isinstance(pack, PadPack)
    assert (pack.crop_scale, pack.colour, pack.scale) == (1.5, "rgb", 1 / 255)
    assert (pack.live_class, len(pack.classes), pack.threshold) == (0, 3, 0.5)


def test_an_attack_model_beside_a_face_pack_is_not_its_recogniser(tmp_path: Path) -> None:
    folder = tiny.bare_face(tmp_path / "p")
    tiny.attack_check(folder / "attack.onnx")  # sorts before rec.onnx
    pack = describe(folder)
    assert sorted(pack.files) == ["det.onnx", "rec.onnx"]


@pytest.mark.parametrize("missing", ["det.onnx", "rec.onnx"])
def test_half_a_face_pack_is_refused(tmp_path: Path, missing: str) -> None:
    folder = tiny.bare_face(tmp_path / "p")
    (folder / missing).unlink()
    refused(describe, folder)


def test_what_is_no_onnx_is_refused(tmp_path: Path) -> None:
    folder = tiny.bare_face(tmp_path / "p")
    (folder / "det.onnx").write_bytes(b"<html>404</html>")
    assert "det.onnx" in refused(describe, folder)


def test_weights_in_a_second_file_are_refused(tmp_path: Path) -> None:
    folder = tiny.bare_face(tmp_path / "p")
    model = onnx.load(folder / "rec.onnx")
    onnx.save(
        model, folder / "rec.onnx", save_as_external_data=True, size_threshold=0, location="w"
    )
    assert "rec.onnx" in refused(describe, folder)


def test_installing_bare_files_writes_the_manifest_and_leaves_the_rest(tmp_path: Path) -> None:
    source = tiny.bare_face(tmp_path / "buffalo")
    tiny.attack_check(source / "pad/check.onnx")
    tiny._save(  # an estimator of age and sex: 96 x 96
        source / "genderage.onnx",
        [onnx.helper.make_node("GlobalAveragePool", ["x"], ["y"])],
        [tiny._value("x", [1, 3, 96, 96])], [tiny._value("y", [1, 3, 1, 1])], {},
    )  # fmt: skip
    (source / "MODEL.md").write_text("about")
    target = install(source, tmp_path / "root")
    assert target == tmp_path / "root/buffalo"
    there = sorted(p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file())
    pads = ["pad/check.onnx", "pad/pack.json"]
    assert there == ["MODEL.md", "det.onnx", "pack.json", *pads, "rec.onnx"]
    pack = load_pack(target)
    assert isinstance(pack, FacePack)
    assert pack.pad is not None
    assert os.listdir(tmp_path / "root") == ["buffalo"]  # noqa: PTH208
    assert target.stat().st_mode & 0o055 == 0o055  # the daemon is another user


@pytest.mark.parametrize("prefix", ["", "tiny/"])
def test_a_zip_installs_with_and_without_a_top_folder(tmp_path: Path, prefix: str) -> None:
    source = tiny.face_pack(tmp_path / "p")
    target = install(zipped(source, tmp_path / "p.zip", prefix), tmp_path / "root")
    assert target.name == "tiny"
    assert load_pack(target).files == load_pack(source).files


def test_the_same_pack_installs_twice_and_another_of_its_name_does_not(tmp_path: Path) -> None:
    source = tiny.face_pack(tmp_path / "p")
    target = install(source, tmp_path / "root")
    assert install(source, tmp_path / "root") == target
    tiny.recogniser(source / "rec.onnx", seed=1)
    edited(source, files=tiny.hashes(source))
    before = (target / "rec.onnx").read_bytes()
    assert "different pack" in refused(install, source, tmp_path / "root")
    assert (target / "rec.onnx").read_bytes() == before


def test_another_attack_check_makes_it_another_pack(tmp_path: Path) -> None:
    source = tiny.face_pack(tmp_path / "p")
    install(source, tmp_path / "root")
    tiny.pad_pack(source / "pad")
    assert "different pack" in refused(install, source, tmp_path / "root")


@pytest.mark.parametrize(
    "entry", ["../out.onnx", "/tmp/out.onnx", "a/../../out", "c:\\out", "a\\b"]
)
def test_a_zip_that_leads_out_is_refused_and_writes_nothing(tmp_path: Path, entry: str) -> None:
    file = zipped(tiny.face_pack(tmp_path / "p"), tmp_path / "p.zip")
    with zipfile.ZipFile(file, "a") as archive:
        info = zipfile.ZipInfo("x")
        info.filename = entry
        archive.writestr(info, b"x")
    refused(install, file, tmp_path / "deep/root")
    assert list((tmp_path / "deep").rglob("*")) == [tmp_path / "deep/root"]


def test_a_zip_bomb_is_stopped_at_the_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tiny.face_pack(tmp_path / "p")
    size = sum(p.stat().st_size for p in source.rglob("*"))
    file = zipped(source, tmp_path / "p.zip")
    monkeypatch.setattr(models, "INSTALL_CAP_BYTES", size - 1)
    assert "too many bytes" in refused(install, file, tmp_path / "root")
    assert "too many bytes" in refused(install, source, tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []
    monkeypatch.setattr(models, "INSTALL_CAP_BYTES", size)
    install(file, tmp_path / "root")


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    source = tiny.face_pack(tmp_path / "p")
    for number in range(models.INSTALL_CAP_FILES):
        (source / f"{number}.txt").write_text("")
    assert "files" in refused(install, source, tmp_path / "root")


@pytest.mark.parametrize("data", [b"", b"not a zip", b"PK\x03\x04 broken"])
def test_a_broken_download_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "p.zip").write_bytes(data)
    assert "p.zip" in refused(install, tmp_path / "p.zip", tmp_path / "root")


def test_a_zip_with_a_damaged_entry_is_refused(tmp_path: Path) -> None:
    file = zipped(tiny.face_pack(tmp_path / "p"), tmp_path / "p.zip")
    data = bytearray(file.read_bytes())
    data[200:260] = bytes(60)
    file.write_bytes(data)
    refused(install, file, tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


def test_a_source_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    assert "nowhere" in refused(install, tmp_path / "nowhere", tmp_path / "root")


def test_an_altered_source_is_not_installed(tmp_path: Path) -> None:
    source = tiny.face_pack(tmp_path / "p")
    (source / "det.onnx").write_bytes(b"altered")
    assert "altered" in refused(install, source, tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


def test_the_list_shows_sound_and_broken_packs_and_no_leftovers(tmp_path: Path) -> None:
    assert models.list_packs(tmp_path / "nowhere") == {}
    tiny.face_pack(tmp_path / "good")
    (tiny.face_pack(tmp_path / "bad") / "rec.onnx").unlink()
    (tmp_path / ".incoming-x").mkdir()
    listed = models.list_packs(tmp_path)
    assert list(listed) == ["bad", "good"]
    assert isinstance(listed["bad"], ModelError)
    assert isinstance(listed["good"], FacePack)


def test_reading_a_pack_imports_neither_onnx_nor_onnxruntime(tmp_path: Path) -> None:
    folder = tiny.face_pack(tmp_path / "p")
    code = (
        "import sys; from pathlib import Path; from edge import models;"
        "models.load_pack(Path(sys.argv[1]));"
        "print([m for m in ('onnx', 'onnxruntime', 'insightface', 'cv2') if m in sys.modules])"
    )
    run = [sys.executable, "-c", code, str(folder)]
    assert subprocess.run(run, capture_output=True, check=True, cwd=ROOT).stdout == b"[]\n"


@pytest.mark.assets
@pytest.mark.skipif(not ASSETS, reason="MENJIN_TEST_ASSETS is not set")
def test_real_packs_install_as_they_come(tmp_path: Path) -> None:
    face = load_pack(install(Path(str(ASSETS)) / "models/mbf-sc", tmp_path))
    pad = load_pack(install(Path(str(ASSETS)) / "models/pad", tmp_path))
    assert isinstance(face, FacePack)
    assert (face.embedding_size, face.licence_state, face.threshold) == (128, "research_only", 0.35)
    assert models.model_id(face) == face.files["w_mbf.onnx"][:16]
    assert isinstance(pad, PadPack)
