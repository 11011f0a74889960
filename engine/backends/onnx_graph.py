"""Read an ONNX graph: its image input, the chosen output, and how it ends."""

from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from ...tiler.errors import ModelError, SettingError, first_line
from .base import Ending
from .metadata import METADATA_KEY, Metadata, decode
from .onnx_ending import bypass_ending

OLDEST_OPSET = 13
"""Older graphs are converted: before it, Softmax and ReduceSum meant something else."""

FLOAT_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16)


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """The graph from its image input to the logits."""

    model: onnx.ModelProto
    """The whole graph, opset 13 or later, without a final activation."""
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
    metadata: Metadata
    """What the file says of itself."""


def read_graph(path: Path, head: str | None) -> GraphFacts:
    """Load an ONNX file.

    Args:
        path: The file.
        head: Name or index of the output to use; may be ``None`` where there is only one.

    Raises:
        ModelError: The file is no ONNX, or no network from one image to one map.
        SettingError: ``head`` is needed, or unknown.
    """
    if path.suffix in (".pt", ".pth", ".ckpt", ".safetensors"):
        raise ModelError(
            f"model {path} is a PyTorch file; export it with torch.onnx.export, or give the module "
            "itself from Python"
        )
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except FileNotFoundError as error:
        raise ModelError(f"model {path} does not exist; give the path of an .onnx file") from error
    except Exception as error:  # protobuf, checker and external data raise types of their own
        raise ModelError(
            f"model {path} is not a readable ONNX file: {first_line(error)}"
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
    logits, ends_in = bypass_ending(model, output.name)
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


def _modern(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    opset = next(
        (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0
    )
    if opset >= OLDEST_OPSET:
        return model
    try:
        converted = onnx.version_converter.convert_version(model, 17)
    except Exception as error:
        raise ModelError(
            f"model {path} is of opset {opset} and cannot be converted to {OLDEST_OPSET} or later "
            f"({first_line(error)}); export it again with a newer opset"
        ) from error
    if opset < 11:
        _resize_as_before(converted)
    return converted


def _resize_as_before(model: onnx.ModelProto) -> None:
    """Give every Resize the coordinates it had before opset 11, which the converter forgets."""
    for node in model.graph.node:
        if node.op_type == "Resize":
            name = "coordinate_transformation_mode"
            kept = [entry for entry in node.attribute if entry.name != name]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute(name, "asymmetric")])


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


def _metadata(model: onnx.ModelProto, path: Path) -> Metadata:
    text = next((entry.value for entry in model.metadata_props if entry.key == METADATA_KEY), None)
    where = f"model {path}: its metadata {METADATA_KEY!r}"
    return Metadata() if text is None else decode(text, where)


def _shape(value: onnx.ValueInfoProto) -> list[int | None]:
    dimensions = value.type.tensor_type.shape.dim
    # Some exporters write 0 or -1 for an axis of any length.
    return [axis.dim_value if axis.dim_value > 0 else None for axis in dimensions]


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
