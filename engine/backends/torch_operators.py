"""What ONNX's operators are in Torch: those of numbers and of shapes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch.nn import functional

from ...tiler.errors import ModelError
from .onnx_types import numpy_name

Attributes = dict[str, Any]
Host = NDArray[Any]
"""Something that is known before any pixel: a shape, an axis, a scale."""
Result = torch.Tensor | tuple[torch.Tensor, ...]


@dataclass(frozen=True, slots=True)
class Operator:
    """How Torch does what an ONNX node asks for."""

    run: Callable[..., Result]
    """Takes the node's attributes and inputs; ``None`` for an input that is left out."""
    host: tuple[int, ...] = ()
    """Which inputs have to be known before any pixel; they come as arrays of NumPy."""


def _first(function: Callable[[torch.Tensor], torch.Tensor]) -> Operator:
    return Operator(lambda _, x, *rest: function(x))


def _all(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Operator:
    return Operator(lambda _, *inputs: reduce(function, inputs))


def _cast(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    if attributes["to"] == TensorProto.BFLOAT16:  # older versions of onnx call it float32
        return x.bfloat16()
    return x.to(getattr(torch, numpy_name(attributes["to"])))


def _divide(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    whole = not one.is_floating_point()
    return torch.div(one, other, rounding_mode="trunc" if whole else None)


def _modulo(attributes: Attributes, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return torch.fmod(one, other) if attributes.get("fmod") else torch.remainder(one, other)


def _mean(_: Attributes, *inputs: torch.Tensor) -> torch.Tensor:
    return reduce(torch.add, inputs) / len(inputs)


def _clip(_: Attributes, x: torch.Tensor, least: Any = None, most: Any = None) -> torch.Tensor:
    limits = [None if limit is None else limit.item() for limit in (least, most)]
    return x if limits == [None, None] else x.clamp(*limits)


def _prelu(_: Attributes, x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    return torch.where(x < 0, x * slope, x)


def _hard_sigmoid(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    return x.mul(attributes.get("alpha", 0.2)).add(attributes.get("beta", 0.5)).clamp(0, 1)


def _selu(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    alpha, gamma = attributes.get("alpha", 1.67326319), attributes.get("gamma", 1.05070102)
    return functional.elu(x, alpha).mul(gamma)


def _gelu(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    return functional.gelu(x, approximate=attributes.get("approximate", "none"))


def _softmax(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    return x.softmax(attributes.get("axis", -1))


def _log_softmax(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    return x.log_softmax(attributes.get("axis", -1))


def _argmax(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    if attributes.get("select_last_index"):
        raise ModelError("ArgMax with select_last_index")
    return x.argmax(attributes.get("axis", 0), keepdim=bool(attributes.get("keepdims", 1)))


def _reduced(function: Callable[..., torch.Tensor]) -> Operator:
    def run(attributes: Attributes, x: torch.Tensor, axes: Host | None = None) -> torch.Tensor:
        chosen = attributes.get("axes") if axes is None else axes.tolist()
        if not chosen:
            if attributes.get("noop_with_empty_axes"):
                return x
            chosen = list(range(x.ndim))
        return function(x, dim=tuple(chosen), keepdim=bool(attributes.get("keepdims", 1)))

    return Operator(run, host=(1,))


def _product(x: torch.Tensor, dim: tuple[int, ...], keepdim: bool) -> torch.Tensor:
    for axis in sorted((axis % x.ndim for axis in dim), reverse=True):
        x = x.prod(axis, keepdim=keepdim)
    return x


def _gemm(
    attributes: Attributes, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None = None
) -> torch.Tensor:
    a = a.mT if attributes.get("transA") else a
    b = b.mT if attributes.get("transB") else b
    product = (a @ b).mul(attributes.get("alpha", 1.0))
    return product if c is None else product + c.mul(attributes.get("beta", 1.0))


def _concat(attributes: Attributes, *inputs: torch.Tensor) -> torch.Tensor:
    return torch.cat(inputs, attributes["axis"])


def _split(attributes: Attributes, x: torch.Tensor, sizes: Host | None = None) -> Result:
    axis = attributes.get("axis", 0)
    if sizes is not None:
        return torch.split(x, sizes.tolist(), axis)
    count: int = attributes.get("num_outputs") or attributes["outputs"]
    return torch.split(x, -(-x.shape[axis] // count), axis)


def _slice(
    _: Attributes,
    x: torch.Tensor,
    starts: Host,
    ends: Host,
    axes: Host | None = None,
    steps: Host | None = None,
) -> torch.Tensor:
    chosen = range(len(starts)) if axes is None else axes.tolist()
    strides = [1] * len(starts) if steps is None else steps.tolist()
    for axis, start, end, step in zip(chosen, starts.tolist(), ends.tolist(), strides, strict=True):
        kept = range(x.shape[axis])[start:end:step]
        if step > 0:
            x = x[(slice(None),) * (axis % x.ndim) + (slice(kept.start, kept.stop, step),)]
        else:
            x = x.index_select(axis, torch.tensor(list(kept), device=x.device))
    return x


def _gather(attributes: Attributes, x: torch.Tensor, indices: Host) -> torch.Tensor:
    axis = attributes.get("axis", 0) % x.ndim
    if indices.ndim == 0:
        return x.select(axis, int(indices))
    places = torch.from_numpy(indices.reshape(-1) % x.shape[axis]).to(x.device)
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    return x.index_select(axis, places).reshape(shape)


def _reshape(attributes: Attributes, x: torch.Tensor, shape: Host) -> torch.Tensor:
    kept = not attributes.get("allowzero")
    sides = [
        x.shape[n] if side == 0 and kept else int(side) for n, side in enumerate(shape.tolist())
    ]
    return x.reshape(sides)


def _flatten(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    axis = attributes.get("axis", 1)
    rows = int(np.prod(x.shape[: axis % x.ndim if axis < 0 else axis], dtype=np.int64))
    return x.reshape(rows, -1)


def _transpose(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    return x.permute(attributes.get("perm", list(range(x.ndim))[::-1]))


def _squeeze(_: Attributes, x: torch.Tensor, axes: Host | None = None) -> torch.Tensor:
    return x.squeeze() if axes is None else x.squeeze(tuple(axes.tolist()))


def _unsqueeze(_: Attributes, x: torch.Tensor, axes: Host) -> torch.Tensor:
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes.tolist()):
        x = x.unsqueeze(axis)
    return x


def _expand(_: Attributes, x: torch.Tensor, shape: Host) -> torch.Tensor:
    return x.expand(np.broadcast_shapes(x.shape, tuple(shape.tolist())))


def _tile(_: Attributes, x: torch.Tensor, repeats: Host) -> torch.Tensor:
    return x.repeat(repeats.tolist())


def _depth_to_space(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    side = attributes["blocksize"]
    if attributes.get("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(x, side)
    batch, depth, height, width = x.shape
    parts = x.reshape(batch, side, side, depth // side**2, height, width)
    return parts.permute(0, 3, 4, 1, 5, 2).reshape(batch, -1, height * side, width * side)


def _space_to_depth(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    side = attributes["blocksize"]
    batch, depth, height, width = x.shape
    parts = x.reshape(batch, depth, height // side, side, width // side, side)
    return parts.permute(0, 3, 5, 1, 2, 4).reshape(batch, -1, height // side, width // side)


def _einsum(attributes: Attributes, *inputs: torch.Tensor) -> torch.Tensor:
    return torch.einsum(attributes["equation"], *inputs)


def _leaky_relu(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    return functional.leaky_relu(x, attributes.get("alpha", 0.01))


def _elu(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    return functional.elu(x, attributes.get("alpha", 1.0))


def _celu(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    return functional.celu(x, attributes.get("alpha", 1.0))


OPERATORS = {
    "Abs": _first(torch.abs),
    "Add": _all(torch.add),
    "And": _all(torch.logical_and),
    "ArgMax": Operator(_argmax),
    "Cast": Operator(_cast),
    "Ceil": _first(torch.ceil),
    "Celu": Operator(_celu),
    "Clip": Operator(_clip, host=(1, 2)),
    "Concat": Operator(_concat),
    "Cos": _first(torch.cos),
    "DepthToSpace": Operator(_depth_to_space),
    "Div": _all(_divide),
    "Dropout": _first(lambda x: x),
    "Einsum": Operator(_einsum),
    "Elu": Operator(_elu),
    "Equal": _all(torch.eq),
    "Erf": _first(torch.erf),
    "Exp": _first(torch.exp),
    "Expand": Operator(_expand, host=(1,)),
    "Flatten": Operator(_flatten),
    "Floor": _first(torch.floor),
    "Gather": Operator(_gather, host=(1,)),
    "Gelu": Operator(_gelu),
    "Gemm": Operator(_gemm),
    "Greater": _all(torch.gt),
    "GreaterOrEqual": _all(torch.ge),
    "HardSigmoid": Operator(_hard_sigmoid),
    "HardSwish": _first(functional.hardswish),
    "Identity": _first(lambda x: x),
    "IsNaN": _first(torch.isnan),
    "LeakyRelu": Operator(_leaky_relu),
    "Less": _all(torch.lt),
    "LessOrEqual": _all(torch.le),
    "Log": _first(torch.log),
    "LogSoftmax": Operator(_log_softmax),
    "MatMul": _all(torch.matmul),
    "Max": _all(torch.maximum),
    "Mean": Operator(_mean),
    "Min": _all(torch.minimum),
    "Mish": _first(functional.mish),
    "Mod": Operator(_modulo),
    "Mul": _all(torch.mul),
    "Neg": _first(torch.neg),
    "Not": _first(torch.logical_not),
    "Or": _all(torch.logical_or),
    "PRelu": Operator(_prelu),
    "Pow": _all(torch.pow),
    "Reciprocal": _first(torch.reciprocal),
    "ReduceL2": _reduced(lambda x, dim, keepdim: x.square().sum(dim, keepdim=keepdim).sqrt()),
    "ReduceMax": _reduced(torch.amax),
    "ReduceMean": _reduced(torch.mean),
    "ReduceMin": _reduced(torch.amin),
    "ReduceProd": _reduced(_product),
    "ReduceSum": _reduced(torch.sum),
    "Relu": _first(torch.relu),
    "Reshape": Operator(_reshape, host=(1,)),
    "Round": _first(torch.round),
    "Selu": Operator(_selu),
    "Sigmoid": _first(torch.sigmoid),
    "Sign": _first(torch.sign),
    "Sin": _first(torch.sin),
    "Slice": Operator(_slice, host=(1, 2, 3, 4)),
    "Softmax": Operator(_softmax),
    "Softplus": _first(functional.softplus),
    "Softsign": _first(functional.softsign),
    "SpaceToDepth": Operator(_space_to_depth),
    "Split": Operator(_split, host=(1,)),
    "Sqrt": _first(torch.sqrt),
    "Squeeze": Operator(_squeeze, host=(1,)),
    "Sub": _all(torch.sub),
    "Sum": _all(torch.add),
    "Tanh": _first(torch.tanh),
    "Tile": Operator(_tile, host=(1,)),
    "Transpose": Operator(_transpose),
    "Unsqueeze": Operator(_unsqueeze, host=(1,)),
    "Where": Operator(lambda _, chosen, one, other: torch.where(chosen, one, other)),
    "Xor": _all(torch.logical_xor),
}
"""By the name of the node."""
