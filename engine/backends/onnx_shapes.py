"""Tell the shapes of an ONNX graph's tensors without running it."""

from contextlib import suppress

import numpy as np
import onnx
from onnx import helper

_LARGE = 4096
"""Elements of a constant above which its values play no part in shapes."""


def _is_harmless(node: onnx.NodeProto) -> bool:
    """Say whether a node can be given lengths below 0, which tiles that are too small lead to.

    A Slice of them ends the process. What follows it remains unknown.
    """
    nested = any(entry.HasField("g") or entry.graphs for entry in node.attribute)
    return node.op_type != "Slice" and not nested


def inferred_values(
    model: onnx.ModelProto, image: str | None = None, shape: tuple[int, ...] = ()
) -> list[onnx.ValueInfoProto]:
    """Return what can be told of the tensors of a graph: those whose shape has known axes.

    Args:
        model: The graph.
        image: Name of the input that is given a shape; none where ``None``.
        shape: That shape.
    """
    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    graph = light.graph
    graph.name = "shapes"
    graph.node.extend(node for node in model.graph.node if image is None or _is_harmless(node))
    graph.input.extend(model.graph.input)
    if image is None:
        graph.output.extend(model.graph.output)
        graph.value_info.extend(model.graph.value_info)
    else:  # what the file says of other sizes would contradict this one
        for value in graph.input:
            if value.name == image:
                kind = value.type.tensor_type.elem_type
                value.CopyFrom(helper.make_tensor_value_info(image, kind, shape))
    there = {entry.name for entry in graph.input}
    for entry in model.graph.initializer:  # weights may be larger than what can be handed over
        if np.prod(entry.dims, dtype=np.int64) <= _LARGE:
            graph.initializer.append(entry)
        elif entry.name not in there:
            kind = entry.data_type
            graph.input.append(helper.make_tensor_value_info(entry.name, kind, entry.dims))
    with suppress(Exception):  # what cannot be told is not needed to run the network
        light = onnx.shape_inference.infer_shapes(light, data_prop=True)
    values = [*light.graph.input, *light.graph.value_info, *light.graph.output]
    return [value for value in values if value.type.tensor_type.HasField("shape")]
