"""Append nodes to an ONNX graph, and read those that are there."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Constants = dict[str, NDArray[Any]]


class Chain:
    """Nodes appended one after the other, each with an output name that only this chain gives."""

    def __init__(self, model: onnx.ModelProto, name: str) -> None:
        self.graph, self.name = model.graph, f"tile_infer/{name}"
        self.nodes: list[onnx.NodeProto] = []
        self.constants = 0

    def add(self, kind: str, *inputs: str, output: str | None = None, **attributes: object) -> str:
        """Append a node; return the name of its output."""
        name = output or f"{self.name}/{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: object, dtype: object) -> str:
        """Add a constant; return its name."""
        self.constants += 1
        name = f"{self.name}/constant_{self.constants}"
        array = np.asarray(value, dtype=np.dtype(dtype))  # type: ignore[call-overload]
        self.graph.initializer.append(numpy_helper.from_array(array, name))
        return name


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return an attribute of a node, ``default`` where it has none of that name."""
    for entry in node.attribute:
        if entry.name == name:
            return helper.get_attribute_value(entry)
    return default


def small_constants(model: onnx.ModelProto, largest: int = 4096) -> Constants:
    """Return the constants of up to ``largest`` elements, by name."""
    found = {}
    for entry in model.graph.initializer:
        if np.prod(entry.dims, dtype=np.int64) <= largest:
            found[entry.name] = numpy_helper.to_array(entry)
    for node in model.graph.node:
        if node.op_type == "Constant":
            for entry in node.attribute:
                value = helper.get_attribute_value(entry)
                if entry.name == "value" and np.prod(value.dims, dtype=np.int64) <= largest:
                    found[node.output[0]] = numpy_helper.to_array(value)
                elif entry.name in ("value_int", "value_ints", "value_float", "value_floats"):
                    found[node.output[0]] = np.asarray(value)
    return found


def constant_names(model: onnx.ModelProto) -> set[str]:
    """Return the names of all tensors that do not depend on the image."""
    names = {entry.name for entry in model.graph.initializer}
    for node in model.graph.node:  # in topological order
        if all(not name or name in names for name in node.input) and (
            node.input or node.op_type == "Constant"
        ):
            names.update(node.output)
    return names
