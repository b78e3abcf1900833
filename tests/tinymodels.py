"""Tiny real ONNX models for tests: a detector of white squares, a recogniser, an attack check.

They keep the formats of the real ones, so insightface and onnxruntime load and run them as such.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# The ArcFace template in a 112 px face, as fractions.
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655],
     [70.7299, 92.2041]], np.float32,
) / 112  # fmt: skip
EMBEDDING_SIZE = 48


def _save(
    file: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: Any
) -> Path:
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    file.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, file)
    return file


def _value(name: str, shape: list[int | str]) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def detector(file: Path, height: int | str = "h", width: int | str = "w") -> Path:
    """SCRFD's nine outputs: a white cell of 16 or 32 px is a face whose box is the cell.

    The score of a small one is higher, so the order of the scores is not the order of the sizes.
    """
    nodes, outputs, weights = [], [], {"flat1": [-1, 1], "flat4": [-1, 4], "flat10": [-1, 10]}
    for kind, size in (("score", 1), ("bbox", 4), ("kps", 10)):
        for stride in (8, 16, 32):
            name = f"{kind}_{stride}"
            weight = np.zeros((2 * size, 3, stride, stride), np.float32)
            bias = np.zeros(2 * size, np.float32)
            if kind == "score":  # white is +1 after insightface's normalisation, black is -1
                weight[0] = 12 / (3 * stride * stride)
                bias[:] = {8: -100, 16: -8, 32: -9}[stride]
                bias[1] = -100
            elif kind == "bbox":
                bias[:] = [0, 0, 1, 1] * 2
            else:
                bias[:] = list(TEMPLATE.ravel()) * 2
            weights |= {f"{name}_w": weight, f"{name}_b": bias}
            conv = [f"{name}_c"]
            nodes.append(
                helper.make_node(
                    "Conv", ["image", f"{name}_w", f"{name}_b"], conv, strides=[stride, stride]
                )
            )
            if kind == "score":
                nodes.append(helper.make_node("Sigmoid", conv, [f"{name}_s"]))
                conv = [f"{name}_s"]
            nodes.append(helper.make_node("Transpose", conv, [f"{name}_t"], perm=[0, 2, 3, 1]))
            nodes.append(helper.make_node("Reshape", [f"{name}_t", f"flat{size}"], [name]))
            outputs.append(_value(name, [f"n_{stride}", size]))
    return _save(file, nodes, [_value("image", [1, 3, height, width])], outputs, weights)


def recogniser(file: Path, size: int = EMBEDDING_SIZE, seed: int = 0) -> Path:
    """112 x 112 -> 4 x 4 means of each colour -> `size` numbers."""
    matrix = np.random.default_rng(seed).normal(size=(48, size)).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", ["x"], ["p"], kernel_shape=[28, 28], strides=[28, 28]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "m"], ["embedding"]),
    ]
    shape: list[int | str] = ["n", 3, 112, 112]
    return _save(
        file, nodes, [_value("x", shape)], [_value("embedding", ["n", size])], {"m": matrix}
    )


def attack_check(file: Path, side: int = 128, softmax: bool = False) -> Path:
    """Classes (live, print, replay) by mean red, green, blue: 10 x each, as logits or softmax.

    The left half weighs three times the right one, so a mirrored view is another view.
    """
    weights = np.zeros((3, 3, side, side), np.float32)
    for colour in range(3):
        weights[colour, colour, :, : side // 2] = 15 / side**2
        weights[colour, colour, :, side // 2 :] = 5 / side**2
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Flatten", ["c"], ["logits"]),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
    out = _value("probabilities" if softmax else "logits", [1, 3])
    return _save(file, nodes, [_value("x", [1, 3, side, side])], [out], {"w": weights})


def bare_face(folder: Path, **sizes: Any) -> Path:
    """A folder as InsightFace packs come: .onnx files and nothing else."""
    detector(folder / "det.onnx", **sizes)
    recogniser(folder / "rec.onnx")
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.onnx")}


def write_manifest(folder: Path, **fields: Any) -> Path:
    """`pack.json` over the .onnx files that lie in `folder`."""
    manifest = {"version": "1", "files": hashes(folder), "threshold_reason": "a test"}
    manifest |= {"licence": "Apache-2.0", "licence_state": "free", "about": "tiny"} | fields
    (folder / "pack.json").write_text(json.dumps(manifest))
    return folder


def face_pack(folder: Path, **fields: Any) -> Path:
    bare_face(folder)
    return write_manifest(folder, **{
        "kind": "face", "name": "tiny", "embedding_size": EMBEDDING_SIZE, "threshold": 0.5,
        "detector_size": [128, 96],
    } | fields)  # fmt: skip


def pad_pack(folder: Path, softmax: bool = False, **fields: Any) -> Path:
    attack_check(folder / "pad.onnx", softmax=softmax)
    return write_manifest(folder, **{
        "kind": "pad", "name": "tiny-pad", "crop_scale": 1.5, "colour": "rgb", "scale": 1 / 255,
        "live_class": 0, "classes": ["live", "print", "replay"], "threshold": 0.5,
    } | fields)  # fmt: skip
