"""Model packs: what a folder of ONNX files is, whose it is, and that nobody has altered it.

A pack is a folder with `pack.json` (insightface owns the name `manifest.json`). It lists every file
that can steer a model, by SHA-256; `load_pack` checks all of them at every start. A face pack may
carry the pack of its attack check in `pad/`. Whatever is wrong is a `ModelError` of one line: what,
where, what to do. Nothing here ever runs a model, downloads one, or knows an embedding size by
heart; onnx and insightface are imported only to look into a folder that has no `pack.json`, or
into the files of one (`edge.modelfile`).
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from io import FileIO
from pathlib import Path
from typing import IO, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from edge.modelfile import ModelError as ModelError
from edge.modelfile import ModelFile, roles
from edge.terms import ModelId

MANIFEST = "pack.json"
THEIR_MANIFEST = "manifest.json"  # with it insightface picks models and preprocessing by itself
# Every other file must be listed: ONNX weights may lie in a second file.
DOCUMENTS = frozenset({"", ".md", ".txt", ".license", ".json"})
# The largest public InsightFace packs are about 330 MB (buffalo_l) and 410 MB (antelopev2), with
# five files each.
INSTALL_CAP_BYTES = 1 << 30
INSTALL_CAP_FILES = 200
FACE_THRESHOLD = 0.35
FACE_THRESHOLD_REASON = (
    "cosine default for ArcFace-family recognisers, chosen before any test photo was looked at: "
    "published evaluations of the family put a false match rate of 1e-4..1e-5 near 0.25-0.35 for "
    "small backbones, and everyday genuine scores lie above; to be replaced by `edge calibrate`"
)
PAD_THRESHOLD_REASON = "even odds between live and all attacks together; not calibrated"
# A plain relative POSIX path: no way out, no drive, nothing hidden.
_PART = r"[^\x00-\x1f\\/:.][^\x00-\x1f\\/:]*"
_INSIDE = re.compile(f"{_PART}(/{_PART})*")

LicenceState = Literal["free", "research_only", "commercial", "unknown"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=f"^{_INSIDE.pattern}$")]
Side = Annotated[int, Field(gt=0, multiple_of=32)]  # 32 px: SCRFD's coarsest feature map
Text = Annotated[str, Field(min_length=1)]


class _Manifest(BaseModel):
    """What both kinds of pack say of themselves."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    name: Name
    version: Text
    files: dict[FileName, Sha256] = Field(min_length=1)  # path inside the pack -> SHA-256
    threshold_reason: Text
    licence: Text
    licence_state: LicenceState
    about: str
    _path: Path = Path()

    @property
    def path(self) -> Path:
        """The folder the pack was read from."""
        return self._path


class PadPack(_Manifest):
    """A presentation-attack check: face crop in, one probability (or logit) per class out."""

    kind: Literal["pad"]
    crop_scale: float = Field(ge=1, le=4)  # side of the square crop / longer side of the face box
    colour: Literal["rgb", "bgr"]
    scale: float = Field(gt=0)  # what a pixel value 0..255 is multiplied by
    live_class: int = Field(ge=0)
    classes: tuple[Text, ...] = Field(min_length=2)
    threshold: float = Field(gt=0, lt=1)  # live when the live probability is at least this

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.live_class >= len(self.classes):
            raise ValueError(f"live_class is beyond the {len(self.classes)} classes")
        if sum(name.endswith(".onnx") for name in self.files) != 1:
            raise ValueError("files must list exactly one .onnx")
        return self

    @property
    def model_file(self) -> Path:
        return self.path / next(name for name in self.files if name.endswith(".onnx"))


class FacePack(_Manifest):
    """A detector with key points and a recogniser, as insightface loads them."""

    kind: Literal["face"]
    embedding_size: int = Field(gt=0)
    threshold: float = Field(gt=0, lt=1)  # cosine from which two faces are one person
    detector_size: tuple[Side, Side]  # width, height in pixels
    _pad: PadPack | None = None

    @property
    def pad(self) -> PadPack | None:
        """The attack check that came in the subfolder `pad/`."""
        return self._pad


Pack = FacePack | PadPack
_PACK: TypeAdapter[Pack] = TypeAdapter(Annotated[Pack, Field(discriminator="kind")])


def load_pack(directory: Path) -> Pack:
    """The pack in `directory`, every file checked against its SHA-256. ModelError otherwise."""
    pack = _read(directory)
    if faults := _faults(pack):
        raise ModelError(faults[0])
    return pack


def face_packs(face: Path, pad: Path | None) -> tuple[FacePack, PadPack | None]:
    """What a gate runs: the face pack, and the attack check at `pad`, else the one it carries."""
    pack, check = load_pack(face), load_pack(pad) if pad else None
    if not isinstance(pack, FacePack):
        raise ModelError(f"{face}: is not of kind face; name a face pack here")
    if isinstance(check, FacePack):
        raise ModelError(f"{pad}: is not of kind pad; name a presentation-attack pack here")
    return pack, check or pack.pad


def verify(directory: Path) -> list[str]:
    """Everything that is wrong with the pack in `directory`, a line each; empty when sound."""
    try:
        return _faults(_read(directory))
    except ModelError as error:
        return [str(error)]


def list_packs(root: Path) -> dict[str, Pack | ModelError]:
    """Every pack folder below `root` by name, a broken one as its error; empty without `root`."""
    found: dict[str, Pack | ModelError] = {}
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if folder.is_dir() and not folder.name.startswith("."):
            try:
                found[folder.name] = load_pack(folder)
            except ModelError as error:
                found[folder.name] = error
    return found


def model_id(pack: FacePack) -> ModelId:
    """Which recogniser made a template: templates of two recognisers are never compared."""
    _, recogniser = roles(pack.path, pack.files)
    return ModelId(pack.files[recogniser][:16])


def describe(directory: Path, name: str | None = None) -> Pack:
    """A manifest for a folder of bare .onnx files, from what the files say; writes nothing.

    Lists only what is needed: the detector and the recogniser that insightface would take (an
    estimator of age or sex has no business at a door), or the one attack model.
    """
    _refuse_theirs(directory)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name or directory.resolve().name).strip("._-") or "pack"
    names = sorted(path.name for path in directory.glob("*.onnx"))
    attack_only = names and all(ModelFile(directory / n).role == "pad" for n in names)
    pack = (_describe_pad if attack_only else _describe_face)(directory, names, name[:64])
    pack._path = directory
    return pack


def install(source: Path, root: Path) -> Path:
    """Copy the pack in `source` (a ZIP or a folder) to `root`/<its name>; all or nothing.

    Writes `pack.json` when the source has none. Installing the same pack again changes nothing; a
    different pack of the same name is refused. ModelError for whatever is wrong with the source.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".incoming-", dir=root) as staging:
            return _settle(_stage(source, Path(staging) / "pack"), root)
    except OSError as error:
        why = error.strerror or error
        raise ModelError(f"{source}: cannot be installed into {root}: {why}") from error


def _read(directory: Path) -> Pack:
    manifest = directory / MANIFEST
    _refuse_theirs(directory)
    try:
        pack = _PACK.validate_json(manifest.read_bytes())
    except FileNotFoundError:
        todo = "is not there; install the pack with `edge models install`"
        raise ModelError(f"{manifest}: {todo}") from None
    except OSError as error:
        raise ModelError(f"{manifest}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "the whole file"
        raise ModelError(f"{manifest}: {where}: {first['msg']}; correct it") from None
    pack._path = directory
    if isinstance(pack, FacePack) and (directory / "pad").is_dir():
        pad = _read(directory / "pad")
        if not isinstance(pad, PadPack):
            raise ModelError(f"{pad.path}: is not of kind pad; take it out of the face pack")
        pack._pad = pad
    return pack


def _refuse_theirs(directory: Path) -> None:
    if (file := directory / THEIR_MANIFEST).exists():
        todo = "use a pack without it"
        raise ModelError(f"{file}: insightface's own manifest would choose the models; {todo}")


def _faults(pack: Pack) -> list[str]:
    """Missing, altered and unlisted files of a pack and of the attack check inside it."""
    pad = pack.pad if isinstance(pack, FacePack) else None
    found = {p.relative_to(pack.path).as_posix(): p for p in sorted(pack.path.rglob("*"))}
    known = {MANIFEST, *pack.files}
    strange = [n for n, p in found.items() if p.is_file() and n not in known and not _document(p)]
    try:
        bad = [n for n, digest in pack.files.items() if _sha256(pack.path / n) != digest]
    except OSError as error:
        return [f"{error.filename}: cannot be read: {error.strerror}; correct its permissions"]
    if pad:
        strange = [n for n in strange if not n.startswith("pad/")]
    again = "remove the folder and install the pack again"
    faults = [f"{pack.path / n}: {'altered' if n in found else 'missing'}; {again}" for n in bad]
    todo = f"not listed in {MANIFEST}; remove it, or list it with its SHA-256"
    faults += [f"{found[n]}: {todo}" for n in strange]
    return faults + (_faults(pad) if pad else [])


def _document(file: Path) -> bool:
    return file.suffix.lower() in DOCUMENTS


def _sha256(file: Path) -> str:
    """In hex; empty without the file."""
    if not file.is_file():
        return ""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _describe_face(directory: Path, names: list[str], pack_name: str) -> FacePack:
    detector, recogniser = roles(directory, names)
    size = ModelFile(directory / recogniser).outputs[0][-1]
    if not size:
        file = directory / recogniser
        raise ModelError(f"{file}: hides its embedding size; write a {MANIFEST} by hand")
    height, width = ModelFile(directory / detector).inputs[0][2:4]
    files = {name: _sha256(directory / name) for name in (detector, recogniser)}
    licence, state = _licence(directory, pack_name)
    return FacePack(
        kind="face", name=pack_name, version=files[recogniser][:8], files=files,
        embedding_size=size, threshold=FACE_THRESHOLD, threshold_reason=FACE_THRESHOLD_REASON,
        detector_size=(width, height) if width and height else (640, 640),
        licence=licence, licence_state=state, about="described from the files themselves",
    )  # fmt: skip


def _describe_pad(directory: Path, names: list[str], pack_name: str) -> PadPack:
    if len(names) != 1 or ModelFile(directory / names[0]).outputs[0][-1] != 3:
        what = "only one attack model of three classes (live, print, replay) goes without saying"
        raise ModelError(f"{directory}: {what}; write a {MANIFEST} by hand")
    files = {names[0]: _sha256(directory / names[0])}
    return PadPack(
        kind="pad", name=pack_name, version=files[names[0]][:8], files=files,
        crop_scale=1.5, colour="rgb", scale=1 / 255, live_class=0,
        classes=("live", "print", "replay"), threshold=0.5, threshold_reason=PAD_THRESHOLD_REASON,
        licence="the files do not say", licence_state="unknown",
        about="crop, colour, scale and order of classes are assumed: try photos of each class",
    )  # fmt: skip


def _licence(directory: Path, name: str) -> tuple[str, LicenceState]:
    """InsightFace weights are for non-commercial research unless their MODEL.LICENSE says more."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # insightface imports onnxruntime
    from insightface.model_zoo.model_license import inspect_model_package_license

    found = inspect_model_package_license(directory, expected_model_id=name)
    states: dict[str, LicenceState] = {"verified_commercial": "commercial"}
    states["verified_non_commercial"] = states["default_non_commercial"] = "research_only"
    return f"InsightFace model licence: {found.message}", states.get(found.status, "unknown")


def _stage(source: Path, folder: Path) -> Pack:
    """Copy `source` to `folder`, describe what has no manifest, check everything."""
    _unpack(source, folder)
    name = source.stem if source.is_file() else source.resolve().name
    for part, its_name in ((folder / "pad", f"{name}-pad"), (folder, name)):
        if part.is_dir() and not (part / MANIFEST).exists():
            pack = describe(part, its_name)
            for file in part.iterdir():
                if file.is_file() and file.name not in pack.files and not _document(file):
                    file.unlink()
            (part / MANIFEST).write_text(pack.model_dump_json(indent=2) + "\n")
    return load_pack(folder)


def _settle(pack: Pack, root: Path) -> Path:
    """Move a checked pack to its place: one rename, after everything has reached the disk."""
    target = root / pack.name
    if target.exists():
        if _content(load_pack(target)) == _content(pack):
            return target
        todo = "remove that folder first, or give the new one another name"
        raise ModelError(f"{target}: a different pack of this name is installed; {todo}")
    os.sync()
    pack.path.rename(target)
    return target


def _content(pack: Pack) -> list[dict[str, object]]:
    parts = (pack, pack.pad if isinstance(pack, FacePack) else None)
    return [part.model_dump() for part in parts if part]


def _unpack(source: Path, folder: Path) -> None:
    """Copy the files of a folder, or of a ZIP less its one top folder, within the caps."""
    with ExitStack() as stack:
        members = _members(source, stack)
        if not 0 < len(members) <= INSTALL_CAP_FILES:
            raise ModelError(f"{source}: has {len(members)} files; is this a model pack?")
        tops = {name.split("/")[0] for name in members if "/" in name}
        wrapped = source.is_file() and len(tops) == 1 and all("/" in name for name in members)
        left = INSTALL_CAP_BYTES
        for name, opener in members.items():
            target = folder / (name.split("/", 1)[1] if wrapped else name)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with opener() as stream, target.open("xb") as out:
                    while chunk := stream.read(min(left + 1, 1 << 20)):
                        left -= out.write(chunk)
                        if left < 0:  # counted here: an archive's index can lie
                            todo = f"a pack may have {INSTALL_CAP_BYTES >> 20} MiB"
                            raise ModelError(f"{source}: {name}: too many bytes; {todo}")
            except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
                raise ModelError(f"{source}: {name}: {error}; get the file again") from error


def _members(source: Path, stack: ExitStack) -> dict[str, Callable[[], IO[bytes]]]:
    """What is to be copied: path inside `source` -> opener. Hidden files are left out."""
    if source.is_dir():
        files = {p.relative_to(source).as_posix(): p for p in source.rglob("*") if p.is_file()}
        return {n: partial(FileIO, p) for n, p in files.items() if _INSIDE.fullmatch(n)}
    try:
        archive = stack.enter_context(zipfile.ZipFile(source))
    except zipfile.BadZipFile as error:
        raise ModelError(f"{source}: is neither a folder nor a ZIP; get the file again") from error
    junk = ("/", ".DS_Store")
    names = [n for n in archive.namelist() if not n.endswith(junk) and n[:9] != "__MACOSX/"]
    for name in names:
        if not _INSIDE.fullmatch(name):
            raise ModelError(
                f"{source}: entry {name!r} is no plain path inside the pack; do not use it"
            )
    return {name: partial(archive.open, name) for name in names}
