"""Check that the constants of an ONNX file hold as many numbers as they say."""

from collections.abc import Iterator
from math import prod
from pathlib import Path

import onnx
from onnx import AttributeProto, helper, numpy_helper

from ...tiler.errors import ModelError, first_line

_NAMES = {number: name for name, number in onnx.TensorProto.DataType.items() if name != "UNDEFINED"}
_SHARE_BYTES = frozenset(
    ["INT2", "INT4", "UINT2", "UINT4", "FLOAT4E2M1", "FLOAT6E2M3", "FLOAT6E3M2"]
)
"""Types of less than a byte, several of which lie in one."""


def check_weights(model: onnx.ModelProto, path: Path) -> None:
    """Refuse a file with a constant whose data is not of its type and shape.

    Libraries that run a network check this late, or believe the shape.

    Raises:
        ModelError: There is one; the text names it.
    """
    for tensor in _tensors(model.graph):
        why = _wrong(tensor)
        if why:
            raise ModelError(
                f"model {path}: constant {tensor.name[:80]!r} of shape "
                f"{' x '.join(map(str, tensor.dims)) or 'one number'} {why}; get a good copy, or "
                "export the network again"
            )


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for entry in node.attribute:
            if entry.type == AttributeProto.TENSOR:
                yield entry.t
            elif entry.type == AttributeProto.GRAPH:
                yield from _tensors(entry.g)


def _wrong(tensor: onnx.TensorProto) -> str:
    if any(size < 0 for size in tensor.dims):
        return "has a negative length"
    name = _NAMES.get(tensor.data_type)
    if name is None:
        return f"is of type {tensor.data_type}, which is none of ONNX's"
    if name in _SHARE_BYTES:
        return _unreadable(tensor)
    if tensor.HasField("raw_data"):
        item_bytes = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        there, needed, unit = len(tensor.raw_data), prod(tensor.dims) * item_bytes, "bytes"
    else:
        there = len(getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type)))
        parts = 2 if name.startswith("COMPLEX") else 1
        needed, unit = prod(tensor.dims) * parts, "numbers"
    return "" if there == needed else f"needs {needed} {unit} and has {there}"


def _unreadable(tensor: onnx.TensorProto) -> str:
    try:
        numpy_helper.to_array(tensor)
    except Exception as error:  # whatever NumPy and protobuf say
        return f"cannot be read ({first_line(error)})"
    return ""
