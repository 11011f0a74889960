"""Refuse an ONNX graph whose tensors do not fit the memory, before it is run."""

from math import prod

import onnx
from onnx import helper

from ...tiler.errors import OutOfMemoryError
from ..memory import available_bytes, human
from .onnx_shapes import inferred_values

_APART = frozenset(["Conv", "ConvTranspose", "MatMul", "Gemm"])
"""Operators whose result cannot lie where their input lies."""


def check_footprint(
    model: onnx.ModelProto, image: str, shape: tuple[int, int, int, int], name: str
) -> None:
    """Refuse a graph of which one node alone needs more than there is memory.

    What cannot be told without running it counts as nothing, and a result that may lie where its
    input lies counts once: what is refused could not run.

    Args:
        model: The graph.
        image: Name of its image input.
        shape: Of the tiles, ``(batch, channel, y, x)``.
        name: The network's, for the error.

    Raises:
        OutOfMemoryError: There is such a node.
    """
    sizes = {value.name: _bytes(value) for value in inferred_values(model, image, shape)}
    free_bytes = available_bytes()
    for node in model.graph.node:
        tensors = {*node.input, *node.output}  # it may be given the same twice
        count = sum if node.op_type in _APART else max
        needed_bytes = count(sizes.get(tensor, 0) for tensor in tensors)
        if needed_bytes > free_bytes:
            raise OutOfMemoryError(
                f"{name} needs {human(needed_bytes)} for {node.op_type} "
                f"{(node.name or node.output[0])[:80]!r} alone in a tile of {shape[2]} x "
                f"{shape[3]} px, and {human(free_bytes)} are free; check the sizes that the file "
                "states, or use a machine with more memory"
            )


def _bytes(value: onnx.ValueInfoProto) -> int:
    tensor = value.type.tensor_type
    lengths = [axis.dim_value if axis.HasField("dim_value") else 1 for axis in tensor.shape.dim]
    try:
        item_bytes = int(helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize)
    except KeyError:
        item_bytes = 1
    return max(0, prod(lengths)) * item_bytes if min(lengths, default=1) >= 0 else 0
