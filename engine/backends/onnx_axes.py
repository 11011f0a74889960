"""Follow the axes of a tensor, one letter each, through the nodes of an ONNX graph."""

from collections.abc import Sequence

import numpy as np
import onnx

from .onnx_chain import Constants, attribute

NEW = "+"
"""An axis that is not one of those that are followed."""

_KEEP_NAMES = (
    "Abs Add And BitShift Cast Ceil Celu Clip Concat CumSum DequantizeLinear Div Dropout Elu "
    "Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish Hardmax Identity "
    "LeakyRelu Less LessOrEqual Log LogSoftmax Max Mean Min Mish Mod Mul Neg Not Or PRelu Pad "
    "Pow QuantizeLinear Reciprocal Relu Resize Round Selu Sigmoid Sign Slice Softmax Softplus "
    "Softsign Split Sqrt Sub Sum Swish Tanh ThresholdedRelu Upsample Where"
)
_KEEP = frozenset(_KEEP_NAMES.split())
"""Operators whose result has the axes of what they are given."""

_JOINS_NAMES = (
    "Add And Concat Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mul Or Pow Sub "
    "Sum Where"
)
JOINS = frozenset(_JOINS_NAMES.split())
"""Operators all of whose inputs have the axes of the result."""

_REDUCE_NAMES = (
    "ArgMax ArgMin ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin "
    "ReduceProd ReduceSum ReduceSumSquare"
)
_REDUCE = frozenset(_REDUCE_NAMES.split())


def forward(node: onnx.NodeProto, axes: str, constants: Constants) -> str | None:
    """Return the axes of a node's result from those of its input, ``None`` where unknown."""
    rank = len(axes)
    if not rank:
        return None
    if node.op_type == "Transpose":
        order = attribute(node, "perm", [*range(rank)][::-1])
        return "".join(axes[n] for n in order) if len(order) == rank else None
    if node.op_type == "Unsqueeze":
        given = _axes_of(node, constants)
        return None if given is None else _inserted(axes, [n % (rank + len(given)) for n in given])
    gone = _gone(node, rank, constants)
    return None if gone is None else "".join(a for n, a in enumerate(axes) if n not in gone)


def backward(node: onnx.NodeProto, axes: str, constants: Constants) -> str | None:
    """Return the axes of a node's first input from those of its result, ``None`` where unknown."""
    rank = len(axes)
    if not rank:
        return None
    if node.op_type == "Transpose":
        order = attribute(node, "perm", [*range(rank)][::-1])
        found = dict(zip(order, axes, strict=False))
        return "".join(found[n] for n in range(rank)) if len(order) == rank else None
    if node.op_type == "Unsqueeze":
        given = _axes_of(node, constants)
        if given is None:
            return None
        new = {n % rank for n in given}
        return "".join(a for n, a in enumerate(axes) if n not in new)
    for more in (0, 1, 2):  # how many axes the node has taken away
        gone = _gone(node, rank + more, constants)
        if gone is not None and len(gone) == more:
            return _inserted(axes, sorted(gone))
    return None


def reduced_axes(node: onnx.NodeProto, rank: int, constants: Constants) -> set[int] | None:
    """Return the axes that a reduction sums up, ``None`` where it does not say."""
    if node.op_type in ("ArgMax", "ArgMin"):
        return {attribute(node, "axis", 0) % rank}
    given = _axes_of(node, constants)
    return None if given is None else {n % rank for n in given}


def _gone(node: onnx.NodeProto, rank: int, constants: Constants) -> set[int] | None:
    """Return which axes of its input a node takes away, ``None`` where that is unknown."""
    if node.op_type in _KEEP:
        return set()
    if node.op_type == "Squeeze":
        given = _axes_of(node, constants)
        return None if given is None else {n % rank for n in given}
    if node.op_type == "Gather":
        index = constants.get(node.input[1])
        axis = attribute(node, "axis", 0)
        if index is None or not -rank <= axis < rank:
            return None
        return {axis % rank} if index.ndim == 0 else set() if index.ndim == 1 else None
    if node.op_type in _REDUCE:
        if attribute(node, "keepdims", 1):
            return set()
        return reduced_axes(node, rank, constants)
    return None


def _axes_of(node: onnx.NodeProto, constants: Constants) -> list[int] | None:
    """Return the axes that a node names, as an attribute or as an input."""
    stated: Sequence[int] | None = attribute(node, "axes", None)
    if stated is not None:
        return list(stated)
    named = constants.get(node.input[1]) if len(node.input) > 1 else None
    return None if named is None else np.atleast_1d(named).astype(int).tolist()


def _inserted(axes: str, where: list[int]) -> str:
    """Return axes with new ones at certain places of the result."""
    result = list(axes)
    for place in sorted(where):
        result.insert(place, NEW)
    return "".join(result)
