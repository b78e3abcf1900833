"""What one ONNX file says of itself: its inputs, its outputs, its part in a face pack.

Reads the graph only, never runs it. onnx is imported when the first file is looked into.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

Role = Literal["detector", "recogniser", "pad", "other"]

# An attack check tells a handful of classes apart, an embedding has at least dozens of numbers.
PAD_MAX_CLASSES = 8


class ModelError(ValueError):
    """A model pack is missing, altered, broken or unfit: one line, what / where / what to do."""


class ModelFile:
    """Shapes of the inputs and outputs of one file; a dynamic dimension is 0."""

    def __init__(self, file: Path) -> None:
        import onnx

        try:
            graph = onnx.load(str(file), load_external_data=False).graph
        except Exception as error:  # the parser's errors have no common class
            raise ModelError(f"{file}: is not an ONNX model; get the pack again") from error
        if any(i.data_location == onnx.TensorProto.EXTERNAL for i in graph.initializer):
            raise ModelError(f"{file}: keeps weights in another file; get one with them inside")
        weights = {initializer.name for initializer in graph.initializer}
        self.inputs = [_dims(value) for value in graph.input if value.name not in weights]
        self.outputs = [_dims(value) for value in graph.output]

    @property
    def role(self) -> Role:
        """As insightface routes a file: by the number of outputs and the size of the input."""
        if len(self.outputs) >= 5 and self.inputs and len(self.inputs[0]) == 4:
            return "detector"
        sides = self.inputs[0][2:4] if self.inputs else []
        single = len(self.inputs) == len(self.outputs) == 1 and len(sides) == 2
        if not single or not self.outputs[0] or sides[0] != sides[1]:
            return "other"
        if sides[0] < 112 or sides[0] % 16 or sides[0] == 192:  # 96: age and sex, 192: landmarks
            return "other"
        return "pad" if 0 < self.outputs[0][-1] <= PAD_MAX_CLASSES else "recogniser"


def roles(directory: Path, names: Iterable[str]) -> tuple[str, str]:
    """The names of detector and recogniser: like insightface, the first of each by name."""
    found: dict[Role, str] = {}
    for name in sorted(names):
        if name.endswith(".onnx") and "/" not in name:  # it does not look into subfolders
            found.setdefault(ModelFile(directory / name).role, name)
    if "detector" not in found or "recogniser" not in found:
        missing = "recogniser" if "detector" in found else "detector"
        raise ModelError(f"{directory}: has no {missing} (.onnx); is this a face pack?")
    return found["detector"], found["recogniser"]


def _dims(value: Any) -> list[int]:  # a protobuf ValueInfoProto
    return [int(dim.dim_value) for dim in value.type.tensor_type.shape.dim]
