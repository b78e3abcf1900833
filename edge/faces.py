"""Faces in a picture: detect, align, check for a presentation attack, embed.

insightface on onnxruntime, one thread, from a checked `edge.models` pack and from nowhere else:
nothing is ever downloaded. One `Faces` belongs to one thread (vision). No decision is made here: a
score is compared with nothing, a liveness verdict opens nothing. Heavy imports live in this file
only; whoever wants `edge --help` to be quick does not import it at the top.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read once, when onnxruntime is imported

import cv2
import numpy as np
import onnxruntime
from insightface.app import FaceAnalysis
from insightface.utils.face_align import arcface_dst
from numpy.typing import NDArray

from edge.models import FacePack, ModelError, PadPack
from edge.terms import Liveness, Vector

Image = NDArray[np.uint8]  # H x W x 3, BGR
FloatArray = NDArray[np.float32]

# Below it no face is 20 px wide at a square detector, and SCRFD scales the frame to nothing when
# one side is more than the detector's side times the other.
MIN_SIDE_PX = 32
MAX_ASPECT = 8
# One crop of one live photo scattered 0.27..0.97 when its box moved by 10%, while attacks stayed
# below 0.08 in six views: outside this interval one view is enough.
DECISIVE = (0.05, 0.95)
VIEW_SCALES = (14 / 15, 1.0, 16 / 15)  # of the nominal crop: 1.4, 1.5, 1.6 boxes


@dataclass(frozen=True, slots=True, eq=False)
class Detected:
    """One face as the detector sees it, in pixels of the frame."""

    box: FloatArray  # x1, y1, x2, y2; may reach beyond the frame
    keypoints: FloatArray  # 5 x 2: eyes, nose, corners of the mouth, left to right in the picture
    score: float  # 0..1

    @property
    def area(self) -> float:
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))


@dataclass(frozen=True, slots=True)
class LivenessResult:
    verdict: Liveness
    live_probability: float | None  # None: unchecked
    kind: str | None  # the pack's name of the likeliest class that fits the verdict


UNCHECKED = LivenessResult("unchecked", None, None)


class Faces:
    """Detector, recogniser and attack check of one pack. ModelError when they do not load."""

    def __init__(
        self,
        pack: FacePack,
        pad: PadPack | None,
        detector_size: tuple[int, int] | None = None,
    ) -> None:
        """`detector_size` (width, height; multiples of 32) instead of the pack's. Non-square is
        fine: on 16:9 frames a square one spends 44% of its pixels on padding."""
        cv2.setNumThreads(1)
        size = detector_size or pack.detector_size
        if any(side <= 0 or side % 32 for side in size):
            raise ModelError(f"detector size {size}: use positive multiples of 32")
        self.pack = pack
        app = _load_app(pack, size)
        self._detector, self._recogniser = app.models["detection"], app.models["recognition"]
        fixed = self._detector.static_input_size
        if fixed and tuple(fixed) != size:  # the library would ignore the wish silently
            raise ModelError(f"{pack.path}: its detector takes {fixed} only, not {size}")
        self._side = int(self._recogniser.input_size[0])
        self._check_fit()
        self._pad = _AttackCheck(pad) if pad else None
        self._size = size

    def _check_fit(self) -> None:
        if not self._detector.use_kps:
            raise ModelError(f"{self.pack.path}: its detector gives no key points; use another")
        if self._side % 112 and self._side % 128:
            raise ModelError(f"{self.pack.path}: no alignment is known for {self._side} px faces")
        size = self._recogniser.output_shape[-1]
        if isinstance(size, int) and size != self.pack.embedding_size:
            says = f"pack.json says {self.pack.embedding_size}"
            raise ModelError(f"{self.pack.path}: the embedding size is {size}, {says}; correct it")

    def detect(self, image: Image) -> list[Detected]:
        """All faces, the largest first. ValueError for what is not an H x W x 3 uint8 frame."""
        _check(image)
        boxes, keypoints = self._detector.detect(image)
        found = [
            Detected(_frozen(row[:4]), _frozen(points), float(row[4]))
            for row, points in zip(boxes, keypoints, strict=True)
            if np.isfinite(row).all() and np.isfinite(points).all() and (row[2:4] > row[:2]).all()
        ]
        return sorted(found, key=lambda face: face.area, reverse=True)

    def embed(self, image: Image, face: Detected) -> Vector:
        """The face as a unit vector. ValueError when its key points are no face."""
        _check(image)
        aligned = align(image, face.keypoints, self._side)
        vector = np.asarray(self._recogniser.get_feat(aligned), np.float32).ravel()
        length = float(np.linalg.norm(vector))
        if vector.size != self.pack.embedding_size or not np.isfinite(length) or length == 0:
            raise ValueError(f"{self.pack.path}: the recogniser gave no usable embedding")
        return _frozen(vector / length)

    def liveness(self, image: Image, face: Detected) -> LivenessResult:
        """Is it somebody, or a picture of somebody? `unchecked` without an attack check."""
        _check(image)
        return self._pad.judge(image, face.box) if self._pad else UNCHECKED

    def warm_up(self) -> None:
        """Run everything once: the sessions of a detector size are built at its first frame."""
        width, height = self._size
        image = np.zeros((height, width, 3), np.uint8)
        self.detect(image)
        side = min(self._size) / 2
        points = (arcface_dst / 112 * side).astype(np.float32)
        face = Detected(np.array([0, 0, side, side], np.float32), points, 1.0)
        self.embed(image, face)
        self.liveness(image, face)


class _AttackCheck:
    """A presentation-attack model and its way of looking at a face."""

    def __init__(self, pack: PadPack) -> None:
        self._pack = pack
        try:
            self._session = onnxruntime.InferenceSession(
                str(pack.model_file), sess_options=_options(), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors have no common class
            raise ModelError(f"{pack.model_file}: does not load: {_line(error)}") from error
        self._input = self._session.get_inputs()[0]
        shape, classes = self._input.shape, self._session.get_outputs()[0].shape[-1]
        if len(shape) != 4 or shape[1] != 3 or not all(isinstance(n, int) for n in shape[2:]):
            raise ModelError(
                f"{pack.model_file}: its input is not N x 3 x height x width; use another"
            )
        if isinstance(classes, int) and classes != len(pack.classes):
            says = f"pack.json names {len(pack.classes)}"
            raise ModelError(f"{pack.model_file}: has {classes} classes, {says}; correct it")

    def judge(self, image: Image, box: FloatArray) -> LivenessResult:
        """One view when that is decisive, else the mean of six (three crops, each mirrored too)."""
        live, threshold = self._pack.live_class, self._pack.threshold
        mean = self._look(image, box, 1.0, mirrored=False)
        low, high = min(DECISIVE[0], threshold), max(DECISIVE[1], threshold)
        if low < mean[live] < high:
            others = [(s, m) for s in VIEW_SCALES for m in (False, True) if (s, m) != (1.0, False)]
            views = [mean, *(self._look(image, box, s, mirrored=m) for s, m in others)]
            mean = np.mean(views, axis=0)
        probability = float(mean[live])
        if probability >= threshold:
            return LivenessResult("live", probability, self._pack.classes[live])
        mean[live] = -1.0
        return LivenessResult("attack", probability, self._pack.classes[int(mean.argmax())])

    def _look(self, image: Image, box: FloatArray, zoom: float, *, mirrored: bool) -> FloatArray:
        """Probability of each class in one view; shape (classes,)."""
        height, width = self._input.shape[2:]
        view = cv2.resize(square(image, box, self._pack.crop_scale * zoom), (width, height))
        if mirrored:
            view = view[:, ::-1]
        if self._pack.colour == "rgb":
            view = view[:, :, ::-1]
        batch = np.ascontiguousarray(view.transpose(2, 0, 1)[None], np.float32) * self._pack.scale
        out = self._session.run(None, {self._input.name: batch.astype(np.float32)})[0]
        return probabilities(np.asarray(out, np.float32).reshape(-1))


def align(image: Image, keypoints: FloatArray, side: int) -> Image:
    """The face turned, scaled and shifted onto the ArcFace template, `side` x `side` pixels.

    Same crop as insightface's norm_crop (a test compares them), without its deprecated estimator:
    over complex numbers the least-squares similarity is the line w = a z + b.
    """
    ratio, shift = (side / 112, 0.0) if side % 112 == 0 else (side / 128, side / 16)
    z = keypoints[:, 0].astype(float) + 1j * keypoints[:, 1]
    w = arcface_dst[:, 0] * ratio + shift + 1j * arcface_dst[:, 1] * ratio
    spread = z - z.mean()
    square_sum = float(np.vdot(spread, spread).real)
    if not np.isfinite(square_sum) or square_sum == 0:
        raise ValueError("key points lie in one place: not a face")
    a = np.vdot(spread, w - w.mean()) / square_sum
    b = w.mean() - a * z.mean()
    matrix = np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])
    return np.asarray(cv2.warpAffine(image, matrix, (side, side), borderValue=0), np.uint8)


def square(image: Image, box: FloatArray, scale: float) -> Image:
    """The square around the middle of `box`, side = `scale` x its longer side, black outside."""
    x1, y1, x2, y2 = (float(value) for value in box)
    side = max(round(max(x2 - x1, y2 - y1) * scale), 1)
    left, top = round((x1 + x2 - side) / 2), round((y1 + y2 - side) / 2)
    out = np.zeros((side, side, 3), np.uint8)
    height, width = image.shape[:2]
    rows = slice(max(top, 0), max(min(top + side, height), 0))
    columns = slice(max(left, 0), max(min(left + side, width), 0))
    part = image[rows, columns]
    y, x = rows.start - top, columns.start - left
    out[y : y + part.shape[0], x : x + part.shape[1]] = part
    return out


def probabilities(row: FloatArray) -> FloatArray:
    """`row` itself when it is a distribution already, else its softmax."""
    if row.min() >= 0 and abs(float(row.sum()) - 1) < 1e-3:
        return row
    powers = np.exp(row - row.max())
    return np.asarray(powers / powers.sum(), np.float32)


def _load_app(pack: FacePack, size: tuple[int, int]) -> FaceAnalysis:
    if not pack.path.is_dir():  # the library would take the path for a name, and download it
        raise ModelError(f"{pack.path}: is gone; install the pack again")
    try:
        app = FaceAnalysis(
            name=str(pack.path),
            allowed_modules=["detection", "recognition"],
            providers=["CPUExecutionProvider"],
            sess_options=_options(),
        )
        app.prepare(ctx_id=-1, det_size=size)
    except Exception as error:  # whatever onnx, onnxruntime and insightface raise for a bad file
        raise ModelError(f"{pack.path}: does not load: {_line(error)}") from error
    if "recognition" not in app.models:
        raise ModelError(f"{pack.path}: has no recogniser; is this a face pack?")
    return app


def _options() -> onnxruntime.SessionOptions:
    """One thread, no spinning: two threads on a busy two-core box made it 6-23 x slower."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return options


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def _check(image: object) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3:
        raise ValueError("not a frame: want a numpy array H x W x 3 of uint8 in BGR order")
    height, width, channels = image.shape
    if channels != 3 or min(height, width) < MIN_SIDE_PX:
        raise ValueError(f"not a frame: {width} x {height} x {channels}; want 32 px or more, BGR")
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ValueError(f"not a frame: {width} x {height} is too long and thin")


def _frozen(values: NDArray[np.floating]) -> FloatArray:
    out = np.array(values, np.float32)
    out.flags.writeable = False
    return out
