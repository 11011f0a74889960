"""Read an ONNX graph: its image input, the chosen output, and how it ends."""

from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from ...tiler.errors import ModelError, SettingError, TileInferError, first_line
from .base import Ending
from .metadata import METADATA_KEY, Metadata, decode
from .onnx_domains import check_operators
from .onnx_ending import bypass_ending
from .onnx_ends import Shape, standardise
from .onnx_external import load_external
from .onnx_types import check_image_type, check_map_type, in_single_precision, numpy_name
from .onnx_weights import check_weights

OLDEST_OPSET = 13
"""Older graphs are converted: before it, Softmax and ReduceSum meant something else."""

NEWEST_FORMAT = 10
"""Newest version of the file format that the oldest ONNX Runtime we allow reads; what newer ones
brought is not needed, and many files only bear the number of the library that wrote them."""


@dataclass(frozen=True, slots=True)
class GraphFacts:
    """The graph from its image input to the logits."""

    model: onnx.ModelProto
    """The whole graph, opset 13 or later, without a final activation."""
    image: str
    """Name of the image input."""
    image_type: int
    """Element type of the image input, in ONNX's numbers."""
    stated_type: str
    """Element type of the image input as the file states it, in NumPy's words."""
    shape: Shape
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
    try:
        return _read_graph(path, head)
    except TileInferError:
        raise
    except Exception as error:  # a damaged graph may hold anything in the place of anything
        raise ModelError(
            f"model {path} is damaged or breaks ONNX's rules ({type(error).__name__}: "
            f"{first_line(error)}); get a good copy, or export the network again"
        ) from error


def _read_graph(path: Path, head: str | None) -> GraphFacts:
    try:
        model = onnx.load(path, load_external_data=False)
        check_operators(model, path)
        load_external(model, path)
        onnx.checker.check_model(model)
    except ModelError:
        raise
    except FileNotFoundError as error:
        raise ModelError(f"model {path} does not exist; check the path") from error
    except Exception as error:  # protobuf, checker and external data raise types of their own
        raise ModelError(
            f"model {path} is not a readable ONNX file: {first_line(error)}"
        ) from error
    check_weights(model, path)
    if not model.graph.output:
        raise ModelError(f"model {path} has no output, so there is no map; export it again")
    model = _modern(model, path)
    model.ir_version = min(model.ir_version, NEWEST_FORMAT)
    image = _image_input(model, path)
    stated_type = image.type.tensor_type.elem_type
    if stated_type == TensorProto.DOUBLE:
        in_single_precision(model)
    output = _choose_head(model, path, head)
    head_name = output.name
    image_name, map_name, shape = standardise(model, image, output, path)
    logits, ends_in = bypass_ending(model, map_name)
    if ends_in == "none":
        check_map_type(output, path)
    return GraphFacts(
        model,
        image_name,
        image.type.tensor_type.elem_type,
        numpy_name(stated_type),
        shape,
        head_name,
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
    check_image_type(inputs[0], path)
    return inputs[0]


def _metadata(model: onnx.ModelProto, path: Path) -> Metadata:
    text = next((entry.value for entry in model.metadata_props if entry.key == METADATA_KEY), None)
    where = f"model {path}: its metadata {METADATA_KEY!r}"
    return Metadata() if text is None else decode(text, where)


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
