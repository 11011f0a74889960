"""Read an ONNX graph: its image input, the chosen output, and how it ends."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from ...tiler.errors import ModelError, SettingError
from .base import Ending

METADATA_KEY = "tile_infer"
"""Key of our JSON object in the file's ``metadata_props``."""

OLDEST_OPSET = 13
"""Older graphs are converted: before it, Softmax and ReduceSum meant something else."""

FLOAT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16)

_SAME = {"Identity", "Cast", "Squeeze", "Unsqueeze"}


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """The graph from its image input to the logits."""

    model: onnx.ModelProto
    """The whole graph, opset 13 or later."""
    image: str
    """Name of the image input."""
    image_type: int
    """Element type of the image input, in ONNX's numbers."""
    shape: tuple[int | None, int | None, int | None, int | None]
    """``(batch, channel, y, x)``; ``None`` where free."""
    head: str
    """Name of the chosen output."""
    logits: str
    """Name of the tensor before the final activation."""
    ends_in: Ending
    """The final activation."""
    metadata: dict[str, Any]
    """Our object in the file's metadata; empty where there is none."""


def read_graph(path: Path, head: str | None) -> GraphFacts:
    """Load an ONNX file.

    Args:
        path: The file.
        head: Name or index of the output to use; may be ``None`` where there is only one.

    Raises:
        ModelError: The file is no ONNX, or no network from one image to one map.
        SettingError: ``head`` is needed, or unknown.
    """
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except FileNotFoundError as error:
        raise ModelError(f"model {path} does not exist; give the path of an .onnx file") from error
    except Exception as error:  # protobuf, checker and external data raise types of their own
        raise ModelError(
            f"model {path} is not a readable ONNX file: {_first_line(error)}"
        ) from error
    model = _modern(model, path)
    image = _image_input(model, path)
    shape = _shape(image)
    if len(shape) != 4:
        raise ModelError(
            f"model {path}: input {image.name!r} has {len(shape)} axes; "
            "a network over images needs (batch, channel, y, x)"
        )
    output = _choose_head(model, path, head)
    logits, ends_in = _before_activation(model, output.name)
    rank = len(output.type.tensor_type.shape.dim)
    kind = output.type.tensor_type.elem_type
    if ends_in == "none" and kind not in FLOAT_TYPES:
        raise ModelError(
            f"model {path}: output {output.name!r} is {TensorProto.DataType.Name(kind)}, and no "
            "ArgMax was found to make it; export the network so that it ends in logits"
        )
    if ends_in == "none" and output.type.tensor_type.HasField("shape") and rank != 4:
        raise ModelError(
            f"model {path}: output {output.name!r} has {rank} axes, so it is not a map "
            "(batch, class, y, x); only networks whose output is a map can be tiled"
        )
    return GraphFacts(
        model,
        image.name,
        image.type.tensor_type.elem_type,
        (shape[0], shape[1], shape[2], shape[3]),
        output.name,
        logits,
        ends_in,
        _metadata(model, path),
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _modern(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    opset = next(
        (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0
    )
    if opset >= OLDEST_OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, 17)
    except Exception as error:
        raise ModelError(
            f"model {path} is of opset {opset} and cannot be converted to {OLDEST_OPSET} or later "
            f"({_first_line(error)}); export it again with a newer opset"
        ) from error


def _image_input(model: onnx.ModelProto, path: Path) -> onnx.ValueInfoProto:
    constants = {constant.name for constant in model.graph.initializer}
    inputs = [entry for entry in model.graph.input if entry.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(entry.name for entry in inputs) or "none"
        raise ModelError(
            f"model {path} has {len(inputs)} inputs ({names}); "
            "only networks with a single image input can be tiled"
        )
    if inputs[0].type.tensor_type.elem_type not in FLOAT_TYPES:
        kind = TensorProto.DataType.Name(inputs[0].type.tensor_type.elem_type)
        raise ModelError(
            f"model {path}: input {inputs[0].name!r} is {kind}; "
            "export the network with a float32 or float16 input"
        )
    return inputs[0]


def _shape(value: onnx.ValueInfoProto) -> list[int | None]:
    dimensions = value.type.tensor_type.shape.dim
    return [axis.dim_value if axis.HasField("dim_value") else None for axis in dimensions]


def _choose_head(model: onnx.ModelProto, path: Path, head: str | None) -> onnx.ValueInfoProto:
    outputs = list(model.graph.output)
    names = ", ".join(f"{index}: {output.name}" for index, output in enumerate(outputs))
    if head is None:
        if len(outputs) > 1:
            raise SettingError(
                f"model {path} has {len(outputs)} outputs ({names}); choose with head"
            )
        return outputs[0]
    for index, output in enumerate(outputs):
        if head in (output.name, str(index)):
            return output
    raise SettingError(f"model {path} has no output {head!r}; it has {names}")


def _before_activation(model: onnx.ModelProto, output: str) -> tuple[str, Ending]:
    """Return the tensor before the final activation; of an argmax over a softmax, before both."""
    producers = {name: node for node in model.graph.node for name in node.output}
    logits, tensor, found = output, output, True
    ending: Ending = "none"
    while found and tensor in producers:
        node = producers[tensor]
        tensor = node.input[0]
        activation = _activation(node)
        if activation != "none":
            logits, ending = tensor, activation
        found = activation != "none" or node.op_type in _SAME
    return logits, ending


def _activation(node: onnx.NodeProto) -> Ending:
    if node.op_type == "Sigmoid":
        return "sigmoid"
    if node.op_type in ("Softmax", "LogSoftmax") and _axis(node, -1) in (1, -3):
        return "softmax"
    if node.op_type == "ArgMax" and _axis(node, 0) in (1, -3):
        return "argmax"
    return "none"


def _axis(node: onnx.NodeProto, default: int) -> int:
    for attribute in node.attribute:
        if attribute.name == "axis":
            return int(helper.get_attribute_value(attribute))
    return default


def _metadata(model: onnx.ModelProto, path: Path) -> dict[str, Any]:
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            try:
                found = json.loads(entry.value)
            except ValueError as error:
                raise ModelError(f"model {path}: metadata {METADATA_KEY!r} is not JSON") from error
            if isinstance(found, dict):
                return found
            raise ModelError(f"model {path}: metadata {METADATA_KEY!r} is not a JSON object")
    return {}
