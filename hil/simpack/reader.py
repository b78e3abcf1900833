"""Reading a picture with the pack, through an untouched insightface. No torch here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # must be set before onnxruntime is imported

import numpy as np
import onnxruntime
from insightface.app import FaceAnalysis

from hil.simpack.data import Floats, Pixels, pad_crop
from hil.simpack.papers import PACK, read_manifest


@dataclass(frozen=True)
class Seen:
    """One face found: box xyxy px, 5 x 2 key points px, unit embedding, probability of life."""

    box: Floats
    keypoints: Floats
    score: float
    embedding: Floats
    live: float


class Reader:
    """Detector, recogniser and attack net of one pack; one thread."""

    def __init__(self, pack: Path = PACK, size: tuple[int, int] | None = None) -> None:
        self.manifest, self.pad_manifest = read_manifest(pack), read_manifest(pack / "pad")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.faces = FaceAnalysis(
            name=str(pack),
            allowed_modules=["detection", "recognition"],
            providers=["CPUExecutionProvider"],
            sess_options=options,
        )
        self.faces.prepare(ctx_id=0, det_size=size or tuple(self.manifest["detector_size"]))
        self.pad = onnxruntime.InferenceSession(
            str(pack / "pad" / "pad.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.threshold = float(self.manifest["threshold"])
        self.pad_threshold = float(self.pad_manifest["threshold"])

    def look(self, image: Pixels) -> list[Seen]:
        """Every face in an H x W x 3 BGR picture, the largest first."""
        found = [
            Seen(
                face.bbox.astype(np.float32),
                face.kps.astype(np.float32),
                float(face.det_score),
                np.asarray(face.normed_embedding, dtype=np.float32),
                self.live(image, face.bbox),
            )
            for face in self.faces.get(image)
        ]
        return sorted(found, key=lambda one: -float(one.box[3] - one.box[1]))

    def live(self, image: Pixels, box: Floats) -> float:
        """The attack net's probability that the face in this box (xyxy px) is a live one."""
        size = int(self.pad.get_inputs()[0].shape[2])
        crop = pad_crop(image, box, float(self.pad_manifest["crop_scale"]), size)
        rgb = crop[:, :, ::-1].astype(np.float32) * np.float32(self.pad_manifest["scale"])
        blob = np.ascontiguousarray(rgb.transpose(2, 0, 1)[None])
        chances = self.pad.run(None, {self.pad.get_inputs()[0].name: blob})[0]
        return float(np.asarray(chances)[0, int(self.pad_manifest["live_class"])])
