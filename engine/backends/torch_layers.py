"""What ONNX's operators are in Torch: those that look at a pixel's neighbours, and norms."""

from collections.abc import Sequence
from math import ceil

import torch
from torch.nn import functional

from ...tiler.errors import ModelError
from .torch_operators import Attributes, Host, Operator
from .torch_resize import resize

Padding = list[tuple[int, int]]
"""Per axis: pixels before and after."""


def _padding(attributes: Attributes, x: torch.Tensor, kernel: Sequence[int]) -> Padding:
    """Return what a convolution or pooling adds around its input."""
    rank, mode = len(kernel), attributes.get("auto_pad", "NOTSET")
    if mode == "VALID":
        return [(0, 0)] * rank
    if mode == "NOTSET":
        return _stated(attributes, rank)
    found = []
    for size, side, step, apart in zip(x.shape[2:], kernel, *_steps(attributes, rank), strict=True):
        added = max(0, (ceil(size / step) - 1) * step + (side - 1) * apart + 1 - size)
        less, more = added // 2, added - added // 2
        found.append((less, more) if mode == "SAME_UPPER" else (more, less))
    return found


def _stated(attributes: Attributes, rank: int) -> Padding:
    pads = attributes.get("pads", [0] * 2 * rank)
    return list(zip(pads[:rank], pads[rank:], strict=True))


def _steps(attributes: Attributes, rank: int) -> tuple[list[int], list[int]]:
    """Return strides and dilations."""
    return attributes.get("strides", [1] * rank), attributes.get("dilations", [1] * rank)


def _padded(
    x: torch.Tensor, padding: Padding, value: float = 0.0, mode: str = "constant"
) -> torch.Tensor:
    if not any(map(any, padding)):
        return x
    sides = [side for pair in reversed(padding) for side in pair]
    return functional.pad(x, sides, mode, value)


def _equal(padding: Padding) -> bool:
    return all(before == after for before, after in padding)


# By the number of axes; these are the ones that autocast knows.
_CONVOLUTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


def _convolution(
    attributes: Attributes, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    rank = weight.ndim - 2
    padding = _padding(attributes, x, weight.shape[2:])
    strides, dilations = _steps(attributes, rank)
    if not _equal(padding):
        x, padding = _padded(x, padding), [(0, 0)] * rank
    within = [before for before, _ in padding]
    groups = attributes.get("group", 1)
    found: torch.Tensor = _CONVOLUTIONS[rank](x, weight, bias, strides, within, dilations, groups)
    return found


def _transposed_convolution(
    attributes: Attributes, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    rank = weight.ndim - 2
    strides, dilations = _steps(attributes, rank)
    extra = attributes.get("output_padding", [0] * rank)
    full = [
        (size - 1) * step + (side - 1) * apart + 1 + more
        for size, step, side, apart, more in zip(
            x.shape[2:], strides, weight.shape[2:], dilations, extra, strict=True
        )
    ]
    cut = _cut(attributes, full, x.shape[2:], strides)
    # Cut off by the convolution itself where both sides lose as much.
    within = [before for before, _ in cut] if _equal(cut) else [0] * rank
    groups = attributes.get("group", 1)
    found: torch.Tensor = _TRANSPOSED[rank](
        x, weight, bias, strides, within, extra, groups, dilations
    )
    if not _equal(cut):
        for axis, (before, after) in enumerate(cut, 2):
            found = found.narrow(axis, before, found.shape[axis] - before - after)
    return found


def _cut(
    attributes: Attributes, full: Sequence[int], size: Sequence[int], strides: Sequence[int]
) -> Padding:
    """Return what a transposed convolution loses before and after, per axis."""
    rank, mode = len(full), attributes.get("auto_pad", "NOTSET")
    wanted = attributes.get("output_shape")
    if wanted is None:
        if mode not in ("SAME_UPPER", "SAME_LOWER"):
            return _stated(attributes, rank)
        wanted = [length * step for length, step in zip(size, strides, strict=True)]
    lost = [whole - kept for whole, kept in zip(full, wanted[-rank:], strict=True)]
    if min(lost) < 0:
        raise ModelError("ConvTranspose whose output_shape is larger than what it makes")
    halves = [(one // 2, one - one // 2) for one in lost]
    return halves if mode == "SAME_UPPER" else [(after, before) for before, after in halves]


_MAX_POOLS = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_AVERAGE_POOLS = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


def _pools_pad(padding: Padding, kernel: Sequence[int]) -> bool:
    """Say whether Torch's poolings can add such a padding themselves."""
    halves = all(2 * before <= side for (before, _), side in zip(padding, kernel, strict=True))
    return halves and _equal(padding)


def _max_pool(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    kernel = attributes["kernel_shape"]
    strides, dilations = _steps(attributes, len(kernel))
    padding = _padding(attributes, x, kernel)
    if not _pools_pad(padding, kernel):
        x, padding = _padded(x, padding, float("-inf")), [(0, 0)] * len(kernel)
    within, up = [before for before, _ in padding], bool(attributes.get("ceil_mode"))
    pool = _MAX_POOLS[len(kernel)]
    found: torch.Tensor = pool(x, kernel, strides, within, dilations, ceil_mode=up)
    return found


def _average_pool(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    kernel = attributes["kernel_shape"]
    if set(attributes.get("dilations", [1])) != {1}:
        raise ModelError("AveragePool with dilations")
    strides, _ = _steps(attributes, len(kernel))
    padding, up = _padding(attributes, x, kernel), bool(attributes.get("ceil_mode"))
    counted = bool(attributes.get("count_include_pad"))
    pool = _AVERAGE_POOLS[len(kernel)]
    if _pools_pad(padding, kernel):
        within = [before for before, _ in padding]
        found: torch.Tensor = pool(x, kernel, strides, within, up, counted)
        return found
    found = pool(_padded(x, padding), kernel, strides, 0, up)
    if counted:
        return found
    inside: torch.Tensor = pool(
        _padded(torch.ones_like(x[:1, :1]), padding), kernel, strides, 0, up
    )
    return found / inside


def _global_pool(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


def _global_max_pool(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    return x.amax(tuple(range(2, x.ndim)), keepdim=True)


def _pad(
    attributes: Attributes,
    x: torch.Tensor,
    pads: Host,
    value: Host | None = None,
    axes: Host | None = None,
) -> torch.Tensor:
    chosen = range(x.ndim) if axes is None else axes.tolist()
    padding: Padding = [(0, 0)] * x.ndim
    for axis, before, after in zip(chosen, *pads.reshape(2, -1).tolist(), strict=True):
        padding[axis % x.ndim] = before, after
    mode = attributes.get("mode", "constant")
    if mode == "constant":
        return _padded(x, padding, 0.0 if value is None else float(value))
    kinds = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    if any(map(any, padding[:2])) or min(map(min, padding)) < 0:
        raise ModelError(f"Pad with mode {mode} of batch or channels, or that cuts off")
    return _padded(x, padding[2:], mode=kinds[mode])


def _batch_norm(
    attributes: Attributes,
    x: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
) -> torch.Tensor:
    if attributes.get("training_mode"):
        raise ModelError("BatchNormalization in training mode")
    eps = attributes.get("epsilon", 1e-5)
    return functional.batch_norm(x, mean, variance, scale, shift, eps=eps)


def _instance_norm(
    attributes: Attributes, x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor
) -> torch.Tensor:
    return functional.instance_norm(
        x, weight=scale, bias=shift, eps=attributes.get("epsilon", 1e-5)
    )


def _group_norm(
    attributes: Attributes, x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor
) -> torch.Tensor:
    groups = attributes["num_groups"]
    each = x.shape[1] // len(scale)  # before opset 21 they were of a group
    scale, shift = scale.repeat_interleave(each), shift.repeat_interleave(each)
    return functional.group_norm(x, groups, scale, shift, attributes.get("epsilon", 1e-5))


def _layer_norm(
    attributes: Attributes, x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor | None = None
) -> torch.Tensor:
    shape = list(x.shape[attributes.get("axis", -1) % x.ndim :])
    shift = None if shift is None else shift.expand(shape)
    return functional.layer_norm(
        x, shape, scale.expand(shape), shift, attributes.get("epsilon", 1e-5)
    )


def _response_norm(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    return functional.local_response_norm(
        x,
        attributes["size"],
        attributes.get("alpha", 1e-4),
        attributes.get("beta", 0.75),
        attributes.get("bias", 1.0),
    )


def _lp_norm(attributes: Attributes, x: torch.Tensor) -> torch.Tensor:
    norms: torch.Tensor = torch.linalg.vector_norm(
        x, attributes.get("p", 2), attributes.get("axis", -1), keepdim=True
    )
    return x / norms


LAYERS = {
    "AveragePool": Operator(_average_pool),
    "BatchNormalization": Operator(_batch_norm),
    "Conv": Operator(_convolution),
    "ConvTranspose": Operator(_transposed_convolution),
    "GlobalAveragePool": Operator(_global_pool),
    "GlobalMaxPool": Operator(_global_max_pool),
    "GroupNormalization": Operator(_group_norm),
    "InstanceNormalization": Operator(_instance_norm),
    "LRN": Operator(_response_norm),
    "LayerNormalization": Operator(_layer_norm),
    "LpNormalization": Operator(_lp_norm),
    "MaxPool": Operator(_max_pool),
    "Pad": Operator(_pad, host=(1, 2, 3)),
    "Resize": Operator(resize, host=(1, 2, 3)),
}
"""By the name of the node."""
