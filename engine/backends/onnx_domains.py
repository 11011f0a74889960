"""Operators that an ONNX file takes from elsewhere."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx

from ...tiler.errors import ModelError

_STANDARD = ("", "ai.onnx", "ai.onnx.ml")

_PROVIDED = ("com.microsoft", "com.ms.")
"""How the domains begin that ONNX Runtime brings itself."""


def check_operators(model: onnx.ModelProto, path: Path) -> None:
    """Refuse operators that only a library of somebody else's would run: none is ever loaded.

    Raises:
        ModelError: There is one.
    """
    own = {(function.domain, function.name) for function in model.functions}
    parts = (model.graph.node, *(function.node for function in model.functions))
    for node in (node for part in parts for node in _nodes(part)):
        known = node.domain in _STANDARD or node.domain.startswith(_PROVIDED)
        if not known and (node.domain, node.op_type) not in own:
            raise ModelError(
                f"model {path} needs the operator {node.domain:.100}.{node.op_type:.100}, which "
                "neither ONNX nor ONNX Runtime has; networks with custom operators are not run: "
                "export it with standard ones"
            )


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield nodes, and those of the graphs inside them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _nodes(attribute.g.node)
            for graph in attribute.graphs:
                yield from _nodes(graph.node)
