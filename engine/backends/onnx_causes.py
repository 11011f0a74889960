"""Find the parts of an ONNX graph whose answer depends on the tile's size."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from .causes import ATTENTION, PLACES, counted, is_over_tile, lies_along_tile
from .onnx_axes import reduced_axes
from .onnx_chain import Constants, attribute, small_constants
from .onnx_shapes import inferred_values

_ONLY_SIZES = {"Shape", "Size"}
"""Operators that look at no value of what they are given."""


@dataclass(frozen=True, slots=True)
class _Graph:
    """What is looked up of a graph."""

    ranks: dict[str, int]
    sizes: dict[str, tuple[int | None, ...]]
    of_image: set[str]
    """Tensors that depend on the image's values."""
    producers: dict[str, onnx.NodeProto]
    constants: Constants
    weights: dict[str, onnx.TensorProto]


def tile_dependent_parts(model: onnx.ModelProto, image: str, logits: str) -> tuple[str, ...]:
    """Return the parts on the way from the image to the logits that depend on the tile's size.

    Args:
        model: The graph.
        image: Name of its image input.
        logits: Name of what it ends in.
    """
    shapes = _shapes(model)
    graph = _Graph(
        ranks={name: len(sizes) for name, sizes in shapes.items()},
        sizes=shapes,
        of_image=_depends_on(model, image),
        producers={name: node for node in model.graph.node for name in node.output},
        constants=small_constants(model),
        weights={entry.name: entry for entry in model.graph.initializer},
    )
    parts = []
    for node in _leading_to(model, logits):
        if node.op_type == "Range" or graph.of_image.intersection(node.output):
            part = _part(node, graph)
            if part:
                parts.append(part)
    return counted(parts)


def _part(node: onnx.NodeProto, graph: _Graph) -> str | None:
    kind = node.op_type
    if kind.startswith("Reduce"):
        return _reduction(node, graph)
    find = _PARTS.get(kind)
    return find(node, graph) if find else None


def _instance(node: onnx.NodeProto, graph: _Graph) -> str:
    before = graph.producers.get(node.input[0])
    return "GroupNormalization" if before and before.op_type == "Reshape" else node.op_type


def _by_name(node: onnx.NodeProto, _: _Graph) -> str:
    return str(node.op_type)


def _layer(node: onnx.NodeProto, graph: _Graph) -> str | None:
    rank = graph.ranks.get(node.input[0], 0)
    first = attribute(node, "axis", -1) % (rank or 1)
    over = is_over_tile(range(first, rank), rank)
    return f"{node.op_type} over the tile" if over else None


def _mean_variance(node: onnx.NodeProto, _: _Graph) -> str | None:
    over = is_over_tile(attribute(node, "axes", [0, 2, 3]), 4)
    return f"{node.op_type} over the tile" if over else None


def _reduction(node: onnx.NodeProto, graph: _Graph) -> str | None:
    rank = graph.ranks.get(node.input[0], 0)
    if not rank:
        return None
    axes = reduced_axes(node, rank, graph.constants)
    if axes is None and len(node.input) < 2:  # over everything
        axes = set(range(rank))
    before = graph.producers.get(node.input[0])
    grouped = rank == 3 and axes == {2} and before is not None and before.op_type == "Reshape"
    return f"{node.op_type} over the tile" if grouped or is_over_tile(axes or (), rank) else None


def _whole_pool(node: onnx.NodeProto, graph: _Graph) -> str | None:
    before = graph.producers.get(node.input[0])
    if before is not None and before.op_type == "Reshape":
        return None  # of something that is no map any more
    there = graph.sizes.get(node.input[0], ())[2:]
    kernel = attribute(node, "kernel_shape", ())
    whole = [size is not None and 1 < size <= n for size, n in zip(there, kernel, strict=False)]
    return f"{node.op_type} of the whole tile" if whole and all(whole) else None


def _corners(node: onnx.NodeProto, _: _Graph) -> str | None:
    mode = attribute(node, "coordinate_transformation_mode", b"")
    return f"{node.op_type} with align_corners" if mode == b"align_corners" else None


def _product(node: onnx.NodeProto, graph: _Graph) -> str | None:
    """Return attention for the first of its two products, that of queries and keys."""
    both = sum(name in graph.of_image for name in node.input) > 1
    weighted = any(_is_softmax(name, graph) for name in node.input)
    return ATTENTION if both and not weighted else None


def _is_softmax(tensor: str, graph: _Graph) -> bool:
    node = graph.producers.get(tensor)
    while node is not None and node.op_type in ("Reshape", "Transpose", "Cast", "Dropout"):
        node = graph.producers.get(node.input[0])
    return node is not None and node.op_type == "Softmax"


def _constant(node: onnx.NodeProto, graph: _Graph) -> str | None:
    ranks = [graph.ranks.get(name, 0) for name in node.input if name in graph.of_image]
    for name in node.input:
        dims = _dims(name, graph)
        if ranks and dims and lies_along_tile(dims, max(ranks)):
            values = _values(name, graph)
            if (values != values.ravel()[0]).any():
                return PLACES
    return None


def _dims(name: str, graph: _Graph) -> tuple[int, ...]:
    if name in graph.weights:
        return tuple(graph.weights[name].dims)
    return graph.constants[name].shape if name in graph.constants else ()


def _values(name: str, graph: _Graph) -> NDArray[Any]:
    weight = graph.weights.get(name)
    return graph.constants[name] if weight is None else numpy_helper.to_array(weight)


_PARTS: dict[str, Callable[[onnx.NodeProto, _Graph], str | None]] = {
    "InstanceNormalization": _instance,
    **dict.fromkeys(
        (
            "GroupNormalization",
            "GlobalAveragePool",
            "GlobalMaxPool",
            "GlobalLpPool",
            "LSTM",
            "GRU",
            "RNN",
            "DFT",
        ),
        _by_name,
    ),
    **dict.fromkeys(("Attention", "MultiHeadAttention"), lambda *_: ATTENTION),
    "Range": lambda *_: "coordinates (Range)",
    "LayerNormalization": _layer,
    "MeanVarianceNormalization": _mean_variance,
    "AveragePool": _whole_pool,
    "MaxPool": _whole_pool,
    "Resize": _corners,
    "MatMul": _product,
    "Einsum": _product,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Concat", "Where"), _constant),
}
"""What to look at in each kind of node."""


def _leading_to(model: onnx.ModelProto, tensor: str) -> list[onnx.NodeProto]:
    """Return the nodes that a tensor's values are made by, in order."""
    wanted, found = {tensor}, []
    for node in reversed(model.graph.node):
        if wanted.intersection(node.output):
            found.append(node)
            if node.op_type not in _ONLY_SIZES:
                wanted.update(node.input)
    return found[::-1]


def _depends_on(model: onnx.ModelProto, image: str) -> set[str]:
    """Return the tensors whose values depend on those of the image."""
    found = {image}
    for node in model.graph.node:
        if node.op_type not in _ONLY_SIZES and found.intersection(node.input):
            found.update(node.output)
    return found


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int | None, ...]]:
    """Return the shapes of all tensors, as far as they can be told without running the graph."""
    found = {}
    for value in inferred_values(model):
        axes = value.type.tensor_type.shape.dim
        found[value.name] = tuple(a.dim_value if a.dim_value > 0 else None for a in axes)
    return found
