"""Model packs: what a folder of ONNX files is, whose it is, and that nobody has altered it.

A pack is a folder with `pack.json` (insightface owns the name `manifest.json`). It lists every file
that can steer a model, by SHA-256; `load_pack` checks all of them at every start. A face pack may
carry the pack of its attack check in `pad/`. Whatever is wrong is a `ModelError` of one line: what,
where, what to do. Nothing here ever runs a model, downloads one, or knows an embedding size by
heart; onnx and insightface are imported only to look into a folder that has no `pack.json`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from edge.terms import ModelId

MANIFEST = "pack.json"
# Every other file must be listed: ONNX weights may lie in a second file of any name, and
# insightface's own manifest.json chooses which model runs.
DOCUMENTS = frozenset({"", ".md", ".txt", ".license"})
# The largest public InsightFace packs are about 330 MB (buffalo_l) and 410 MB (antelopev2), with
# five files each.
INSTALL_CAP_BYTES = 1 << 30
INSTALL_CAP_FILES = 200
SCRFD_STRIDE_PX = 32  # the coarsest feature map of the detector family
FACE_THRESHOLD = 0.35
FACE_THRESHOLD_REASON = (
    "cosine default for ArcFace-family recognisers, chosen before any test photo was looked at: "
    "published evaluations of the family put a false match rate of 1e-4..1e-5 near 0.25-0.35 for "
    "small backbones, and everyday genuine scores lie above; to be replaced by `edge calibrate`"
)
PAD_THRESHOLD_REASON = "even odds between live and all attacks together; not calibrated"
# An attack check tells a handful of classes apart, an embedding has at least dozens of numbers.
PAD_MAX_CLASSES = 8

LicenceState = Literal["free", "research_only", "commercial", "unknown"]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, StringConstraints(min_length=1)]


class ModelError(ValueError):
    """A model pack is missing, altered, broken or unfit: one line, what / where / what to do."""


class _Manifest(BaseModel):
    """What both kinds of pack say of themselves."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    name: Name
    version: Text
    files: dict[str, Sha256] = Field(min_length=1)  # path inside the pack -> SHA-256
    threshold_reason: Text
    licence: Text
    licence_state: LicenceState
    about: str
    _path: Path = PrivateAttr(default=Path())

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, str]) -> dict[str, str]:
        if bad := [name for name in files if not _is_inside(name)]:
            raise ValueError(f"{bad[0]!r} is not a path inside the pack")
        return files

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
            raise ValueError(
                f"live_class {self.live_class} is beyond the {len(self.classes)} classes"
            )
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
    detector_size: tuple[int, int]  # width, height in pixels
    _pad: PadPack | None = PrivateAttr(default=None)

    @field_validator("detector_size")
    @classmethod
    def _strides(cls, size: tuple[int, int]) -> tuple[int, int]:
        if any(side <= 0 or side % SCRFD_STRIDE_PX for side in size):
            raise ValueError(f"must be positive multiples of {SCRFD_STRIDE_PX}")
        return size

    @property
    def pad(self) -> PadPack | None:
        """The attack check that came in the subfolder `pad/`."""
        return self._pad


Pack = FacePack | PadPack
_PACK: TypeAdapter[Pack] = TypeAdapter(Annotated[Pack, Field(discriminator="kind")])


def load_pack(directory: Path) -> Pack:
    """The pack in `directory`, every file checked against its SHA-256. ModelError otherwise."""
    pack = _read(directory)
    for fault in _faults(pack):
        raise ModelError(fault)
    if isinstance(pack, FacePack) and (directory / "pad").is_dir():
        pad = load_pack(directory / "pad")
        if not isinstance(pad, PadPack):
            raise ModelError(
                f"{directory / 'pad'}: is not of kind pad; move it out of the face pack"
            )
        pack._pad = pad
    return pack


def verify(directory: Path) -> list[str]:
    """Everything that is wrong with the pack in `directory`, a line each; empty when sound."""
    try:
        pack = _read(directory)
    except ModelError as error:
        return [str(error)]
    faults = list(_faults(pack))
    if isinstance(pack, FacePack) and (directory / "pad").is_dir():
        faults += verify(directory / "pad")
    return faults


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
    _, recogniser = _roles(pack.path, sorted(pack.files))
    return ModelId(pack.files[recogniser][:16])


def describe(directory: Path, name: str | None = None) -> Pack:
    """A manifest for a folder of bare .onnx files, from what the files say; writes nothing.

    Lists only what is needed: the detector and the recogniser that insightface would take (an
    estimator of age or sex has no business at a door), or the one attack model.
    """
    onnx_files = sorted(path.name for path in directory.glob("*.onnx"))
    attack = [file for file in onnx_files if _Graph(directory / file).role == "pad"]
    if onnx_files and onnx_files == attack:
        return _describe_pad(directory, attack, name)
    return _describe_face(directory, onnx_files, name)


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
    return pack


def _faults(pack: Pack) -> Iterator[str]:
    """Missing, altered and unlisted files of one folder (`pad/` of a face pack aside)."""
    again = "remove the folder and install the pack again"
    for name, expected in pack.files.items():
        file = pack.path / name
        if not file.is_file():
            yield f"{file}: is missing; {again}"
        elif _sha256(file) != expected:
            yield f"{file}: was altered, its SHA-256 is not the one in {MANIFEST}; {again}"
    for file in sorted(pack.path.rglob("*")):
        name = file.relative_to(pack.path).as_posix()
        theirs = isinstance(pack, FacePack) and name.startswith("pad/")
        known = theirs or name == MANIFEST or name in pack.files
        if file.is_file() and not known and file.suffix.lower() not in DOCUMENTS:
            yield f"{file}: is not listed in {MANIFEST}; remove it, or list it with its SHA-256"


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror}") from error


def _is_inside(name: str) -> bool:
    """True for a plain relative POSIX path: no way out, no drive, no odd bytes, nothing hidden."""
    parts = name.split("/")
    return all(p and not p.startswith(".") and p.isprintable() for p in parts) and not (
        set(name) & set("\\:")
    )


class _Graph:
    """What one ONNX file says of its first input and its outputs; a dynamic dimension is 0."""

    def __init__(self, file: Path) -> None:
        import onnx

        try:
            graph = onnx.load(str(file), load_external_data=False).graph
        except Exception as error:  # the parser's errors have no common class
            raise ModelError(f"{file}: is not an ONNX model; get the pack again") from error
        if any(i.data_location == onnx.TensorProto.EXTERNAL for i in graph.initializer):
            raise ModelError(f"{file}: keeps weights in another file; write a {MANIFEST} by hand")
        weights = {initializer.name for initializer in graph.initializer}
        self.inputs = [self._dims(v) for v in graph.input if v.name not in weights]
        self.outputs = [self._dims(v) for v in graph.output]

    @staticmethod
    def _dims(value: object) -> list[int]:
        shape = value.type.tensor_type.shape  # type: ignore[attr-defined]  # protobuf
        return [int(dim.dim_value) for dim in shape.dim]

    @property
    def role(self) -> Literal["detector", "recogniser", "pad", "other"]:
        """As insightface routes a file: by the number of outputs and the size of the input."""
        if len(self.outputs) >= 5:
            return "detector"
        sides = self.inputs[0][2:4] if self.inputs else []
        one = len(self.inputs) == len(self.outputs) == 1 and len(sides) == 2
        if not one or sides[0] != sides[1] or sides[0] < 112 or sides[0] % 16 or sides[0] == 192:
            return "other"  # 192: landmarks
        return "pad" if 0 < self.outputs[0][-1] <= PAD_MAX_CLASSES else "recogniser"


def _roles(directory: Path, names: list[str]) -> tuple[str, str]:
    """The names of detector and recogniser: by insightface's manifest, else the first by name."""
    if (directory / "manifest.json").is_file():
        from insightface.model_zoo import package_manifest as theirs

        try:
            if theirs.has_model_package_manifest(directory):
                package = theirs.load_model_package(directory)
                return package.task("detection").file, package.task("recognition").file
        except (ValueError, TypeError, OSError) as error:
            raise ModelError(
                f"{directory / 'manifest.json'}: {error}; get the pack again"
            ) from error
    roles: dict[str, str] = {}
    for name in names:
        if name.endswith(".onnx"):
            roles.setdefault(_Graph(directory / name).role, name)
    for role in ("detector", "recogniser"):
        if role not in roles:
            raise ModelError(f"{directory}: has no {role} (.onnx); is this a model pack?")
    return roles["detector"], roles["recogniser"]


def _describe_face(directory: Path, names: list[str], name: str | None) -> FacePack:
    detector, recogniser = _roles(directory, names)
    size = _Graph(directory / recogniser).outputs[0][-1]
    if not size:
        todo = f"write a {MANIFEST} by hand"
        raise ModelError(f"{directory / recogniser}: does not say its embedding size; {todo}")
    height, width = _Graph(directory / detector).inputs[0][2:4]
    own = [n for n in ("manifest.json",) if (directory / n).is_file()]
    files = {n: _sha256(directory / n) for n in (detector, recogniser, *own)}
    name = _name(directory, name)
    licence, state = _licence(directory, name)
    pack = FacePack(
        kind="face", name=name, version=files[recogniser][:8], files=files, embedding_size=size,
        threshold=FACE_THRESHOLD, threshold_reason=FACE_THRESHOLD_REASON,
        detector_size=(width, height) if width and height else (640, 640),
        licence=licence, licence_state=state, about="described from the files themselves",
    )  # fmt: skip
    pack._path = directory
    return pack


def _describe_pad(directory: Path, names: list[str], name: str | None) -> PadPack:
    if len(names) != 1 or _Graph(directory / names[0]).outputs[0][-1] != 3:
        what = (
            "only a single attack model of three classes (live, print, replay) is known by itself"
        )
        raise ModelError(f"{directory}: {what}; write a {MANIFEST} by hand")
    files = {names[0]: _sha256(directory / names[0])}
    pack = PadPack(
        kind="pad", name=_name(directory, name), version=files[names[0]][:8], files=files,
        crop_scale=1.5, colour="rgb", scale=1 / 255, live_class=0,
        classes=("live", "print", "replay"), threshold=0.5, threshold_reason=PAD_THRESHOLD_REASON,
        licence="the files do not say", licence_state="unknown",
        about="crop, colour, scale and order of classes are assumed: try photos of each class",
    )  # fmt: skip
    pack._path = directory
    return pack


def _name(directory: Path, name: str | None) -> str:
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", name or directory.resolve().name).lstrip(".-_")
    return cleaned[:64] or "pack"


def _licence(directory: Path, name: str) -> tuple[str, LicenceState]:
    """InsightFace weights are for non-commercial research unless their MODEL.LICENSE says more."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # insightface imports onnxruntime
    from insightface.model_zoo.model_license import inspect_model_package_license

    found = inspect_model_package_license(directory, expected_model_id=name)
    states: dict[str, LicenceState] = {
        "verified_commercial": "commercial",
        "verified_non_commercial": "research_only",
        "default_non_commercial": "research_only",
    }
    return f"InsightFace model licence: {found.message}", states.get(found.status, "unknown")


def _stage(source: Path, folder: Path) -> Pack:
    """Copy `source` to `folder`, describe what has no manifest, check everything."""
    _unpack(source, folder)
    name = source.stem if source.is_file() else source.resolve().name
    for part, its_name in ((folder / "pad", f"{name}-pad"), (folder, name)):
        if part.is_dir() and not (part / MANIFEST).exists():
            pack = describe(part, its_name)
            for file in part.glob("*"):
                if file.is_file() and file.name not in pack.files:
                    _drop_unless_document(file)
            (part / MANIFEST).write_text(pack.model_dump_json(indent=2) + "\n")
    return load_pack(folder)


def _drop_unless_document(file: Path) -> None:
    if file.suffix.lower() not in DOCUMENTS:
        file.unlink()


def _settle(pack: Pack, root: Path) -> Path:
    """Move a checked pack to its place: one rename, after everything has reached the disk."""
    target = root / pack.name
    if target.exists():
        there = load_pack(target)
        if there == pack and getattr(there, "pad", None) == getattr(pack, "pad", None):
            return target
        todo = "remove that folder first, or give the new one another name"
        raise ModelError(f"{target}: a different pack of this name is installed; {todo}")
    for folder in (pack.path, *(p for p in pack.path.rglob("*") if p.is_dir())):
        folder.chmod(0o755)
        _sync(folder)
    pack.path.rename(target)
    _sync(root)
    return target


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unpack(source: Path, folder: Path) -> None:
    """Copy the files of a ZIP (less its one top folder, if any) or of a folder."""
    with ExitStack() as stack:
        members = _members(source, stack)
        tops = {name.split("/")[0] for name in members}
        if source.is_file() and len(tops) == 1 and all("/" in name for name in members):
            members = {name.split("/", 1)[1]: opener for name, opener in members.items()}
        if not 0 < len(members) <= INSTALL_CAP_FILES:
            raise ModelError(f"{source}: has {len(members)} files; is this a model pack?")
        left = INSTALL_CAP_BYTES
        for name, opener in members.items():
            target = folder / PurePosixPath(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with opener() as stream:
                    left -= _copy(stream, target, left)
            except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
                raise ModelError(f"{source}: {name}: {error}; get the file again") from error


def _members(source: Path, stack: ExitStack) -> dict[str, Callable[[], IO[bytes]]]:
    """What is to be copied: path inside the pack -> opener. Hidden files are left out."""
    if source.is_dir():
        files = {p.relative_to(source).as_posix(): p for p in sorted(source.rglob("*"))}
        return {
            name: lambda file=file: file.open("rb")  # type: ignore[misc]
            for name, file in files.items()
            if file.is_file() and _is_inside(name)
        }
    try:
        archive = stack.enter_context(zipfile.ZipFile(source))
    except zipfile.BadZipFile as error:
        raise ModelError(f"{source}: is neither a folder nor a ZIP; get the file again") from error
    names = [e for e in archive.namelist() if not e.endswith("/") and not _is_junk(e)]
    for name in names:
        if not _is_inside(name):
            raise ModelError(
                f"{source}: entry {name!r} leads out of the pack; do not use this file"
            )
    return {name: lambda name=name: archive.open(name) for name in names}  # type: ignore[misc]


def _is_junk(entry: str) -> bool:
    """What desktop systems add to archives."""
    return entry.startswith("__MACOSX/") or entry.rsplit("/", 1)[-1] in {".DS_Store", "Thumbs.db"}


def _copy(stream: IO[bytes], target: Path, left: int) -> int:
    """Bytes copied and on disk; ModelError beyond `left` (whatever the archive's index claims)."""
    copied = 0
    with target.open("xb") as out:
        while chunk := stream.read(1 << 20):
            copied += len(chunk)
            if copied > left:
                todo = f"a pack may have {INSTALL_CAP_BYTES >> 20} MiB"
                raise ModelError(f"{target.name}: unpacks to too many bytes; {todo}")
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    target.chmod(0o644)
    return copied
