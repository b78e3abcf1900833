"""Turn trained weights into the pack: `python -m hil.simpack.export --weights run/simpack`.

Batch norms are folded, weights are kept in half precision (onnxruntime widens them when it loads),
and the layout is the one insightface's loader guesses from shapes and node names.
"""

from __future__ import annotations

import argparse
import copy
import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hil.simpack.data import CROP_SIZE, PAD_SIZE
from hil.simpack.nets import Detector, PadNet, Recogniser
from hil.simpack.papers import PACK, write_training

OPSET = 18  # the newest this exporter writes without converting
HALVED_FROM = 256  # initialisers with at least this many numbers are kept in half precision


class ScrfdOutputs(nn.Module):  # type: ignore[misc]
    """The detector with SCRFD's nine outputs: scores, boxes, key points for strides 8, 16, 32.

    The reader expects two anchors a cell. The second never fires (score 0), so the suppression
    afterwards has half the work.
    """

    def __init__(self, net: Detector) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Any) -> tuple[Any, ...]:
        scores, boxes, points = [], [], []
        for raw in self.net(x):
            flat = raw.permute(0, 2, 3, 1).reshape(-1, 15)
            sure = torch.sigmoid(flat[:, :1])
            scores.append(torch.cat([sure, sure * 0.0], dim=1).reshape(-1, 1))
            boxes.append(torch.cat([flat[:, 1:5]] * 2, dim=1).reshape(-1, 4))
            points.append(torch.cat([flat[:, 5:]] * 2, dim=1).reshape(-1, 10))
        return (*scores, *boxes, *points)


class Probabilities(nn.Module):  # type: ignore[misc]
    """The attack net with its softmax inside."""

    def __init__(self, net: PadNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Any) -> Any:
        return torch.softmax(self.net(x), dim=1)


def folded(net: Any) -> Any:
    """A copy in evaluation mode with every batch norm merged into the convolution before it."""
    net = copy.deepcopy(net).eval()
    for module in net.modules():
        names = list(module._modules)
        for one, two in itertools.pairwise(names):
            first, second = module._modules[one], module._modules[two]
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                module._modules[one] = fuse_conv_bn_eval(first, second)
                module._modules[two] = nn.Identity()
    return net


def to_onnx(net: Any, example: Any, outputs: list[str], free: dict[int, Any]) -> onnx.ModelProto:
    """Export with plain node names, half-precision weights, no stale shapes; `free` input axes."""
    shapes: Any = (free,) if free else None
    stream = io.BytesIO()
    program = torch.onnx.export(
        net, (example,), dynamo=True, opset_version=OPSET, input_names=["input"],
        output_names=outputs, dynamic_shapes=shapes, verbose=False, optimize=True,
    )  # fmt: skip
    program.save(stream)
    model = onnx.load_from_string(stream.getvalue())
    halve(model)
    for number, node in enumerate(model.graph.node):
        node.name = f"n{number}"  # the reader takes `Sub` and `Mul` as a sign of something else
        node.ClearField("doc_string")
        del node.metadata_props[:]
    del model.graph.value_info[:]
    if 2 in free:
        _name_axes(model)
    onnx.checker.check_model(model)
    return model


def _name_axes(model: onnx.ModelProto) -> None:
    """Free height and width by name, and outputs of rank 2 with a free first axis."""
    axes = model.graph.input[0].type.tensor_type.shape.dim
    axes[2].dim_param, axes[3].dim_param = "height", "width"
    for number, value in enumerate(model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = f"cells_{(8, 16, 32)[number % 3]}"


def halve(model: onnx.ModelProto) -> None:
    """Keep large weights in half precision, widened by a Cast that loading folds away."""
    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.size < HALVED_FROM:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + "_half"))
        casts.append(helper.make_node("Cast", [name + "_half"], [name], to=TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(casts + nodes)


def _named(stem: str) -> list[str]:
    return [f"{stem}_{stride}" for stride in (8, 16, 32)]


def models(weights: Path) -> dict[str, onnx.ModelProto]:
    """The three graphs by file name within the pack."""
    loaded: dict[str, Any] = {}
    for name, net in (("detector", Detector()), ("recogniser", Recogniser()), ("pad", PadNet())):
        net.load_state_dict(torch.load(weights / f"{name}.pt", weights_only=True))
        loaded[name] = folded(net)
    nine = _named("score") + _named("bbox") + _named("kps")
    frame = torch.zeros(1, 3, 320, 352)
    crop, pad = torch.zeros(2, 3, CROP_SIZE, CROP_SIZE), torch.zeros(1, 3, PAD_SIZE, PAD_SIZE)
    sides = {2: torch.export.Dim("rows") * 32, 3: torch.export.Dim("columns") * 32}
    batch = {0: torch.export.Dim("batch")}
    return {
        "det.onnx": to_onnx(ScrfdOutputs(loaded["detector"]), frame, nine, sides),
        "rec.onnx": to_onnx(loaded["recogniser"], crop, ["embedding"], batch),
        "pad/pad.onnx": to_onnx(Probabilities(loaded["pad"]), pad, ["probabilities"], {}),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=Path("run/simpack"))
    parser.add_argument("--pack", type=Path, default=PACK)
    asked = parser.parse_args()
    (asked.pack / "pad").mkdir(parents=True, exist_ok=True)
    for name, model in models(asked.weights).items():
        onnx.save(model, asked.pack / name)
        print(name, (asked.pack / name).stat().st_size)
    write_training(asked.weights, asked.pack)


if __name__ == "__main__":
    main()
