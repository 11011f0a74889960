"""The numbers an ONNX graph takes and gives."""

from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from ...tiler.errors import ModelError

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
WHOLE_NUMBERS = (
    TensorProto.UINT8,
    TensorProto.INT8,
    TensorProto.UINT16,
    TensorProto.INT16,
    TensorProto.UINT32,
    TensorProto.INT32,
    TensorProto.INT64,
)


def check_image_type(image: onnx.ValueInfoProto, path: Path) -> None:
    """Refuse an image input of a type that pixels cannot be brought to.

    Raises:
        ModelError: It is text, say, or a brain float.
    """
    kind = image.type.tensor_type.elem_type
    if kind not in FLOATS + WHOLE_NUMBERS:
        raise ModelError(
            f"model {path}: input {image.name!r} is {TensorProto.DataType.Name(kind)}; export the "
            "network with a float32, float16, float64 or integer input"
        )


def check_map_type(output: onnx.ValueInfoProto, path: Path) -> None:
    """Refuse a map of labels of which it is not known what made them.

    Raises:
        ModelError: The output is none of floats.
    """
    kind = output.type.tensor_type.elem_type
    if kind not in FLOATS:
        raise ModelError(
            f"model {path}: output {output.name!r} is {TensorProto.DataType.Name(kind)}, and no "
            "ArgMax was found to make it; export the network so that it ends in logits"
        )


def in_single_precision(model: onnx.ModelProto) -> None:
    """Change a graph of doubles to one of single precision, which is what the engine computes in.

    ONNX Runtime has no convolutions of doubles.
    """
    _graph_in_single_precision(model.graph)


def _graph_in_single_precision(graph: onnx.GraphProto) -> None:
    for entry in [*graph.input, *graph.output, *graph.value_info]:
        if entry.type.tensor_type.elem_type == TensorProto.DOUBLE:
            entry.type.tensor_type.elem_type = TensorProto.FLOAT
    for tensor in graph.initializer:
        _tensor_in_single_precision(tensor)
    for node in graph.node:
        for entry in node.attribute:
            if entry.type == AttributeProto.TENSOR:
                _tensor_in_single_precision(entry.t)
            elif entry.type == AttributeProto.GRAPH:
                _graph_in_single_precision(entry.g)
            elif entry.name in ("to", "dtype") and entry.i == TensorProto.DOUBLE:
                entry.i = TensorProto.FLOAT


def _tensor_in_single_precision(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.DOUBLE:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def numpy_name(kind: int) -> str:
    """Return NumPy's name of an ONNX type."""
    return str(np.dtype(helper.tensor_dtype_to_np_dtype(kind)))
