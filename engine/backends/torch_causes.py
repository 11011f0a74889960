"""Tell which operators of a Torch module give an answer that depends on the tile's size."""

from collections.abc import Callable, Collection
from typing import Any

from .causes import ATTENTION, PLACES, is_over_tile, lies_along_tile

Arguments = tuple[Any, ...]

_ATTENTION = "_scaled_dot_product"
"""How the names of all its operators start."""


def tile_dependent_part(
    name: str, args: Arguments, named: dict[str, Any], weights: Collection[int]
) -> str | None:
    """Return what to call an operator, ``None`` where the tile's size means nothing to it.

    Args:
        name: Name of the operator, as it reaches the dispatcher.
        args: What it is given.
        named: What it is given by name.
        weights: Addresses of the module's parameters and buffers.
    """
    if name.startswith(_ATTENTION):
        return ATTENTION
    if name in _CONSTANTS:
        return _constant(args, weights)
    find = _PARTS.get(name)
    return find(name, args, named) if find else None


def _instance(_: str, args: Arguments, __: dict[str, Any]) -> str | None:
    return "instance normalisation" if args[5] else None  # statistics of what it is given


def _instance_without_state(_: str, args: Arguments, __: dict[str, Any]) -> str | None:
    return "instance normalisation" if args[3] else None


def _layer(_: str, args: Arguments, __: dict[str, Any]) -> str | None:
    rank = args[0].ndim
    over = is_over_tile(range(rank - len(args[1]), rank), rank)
    return "layer normalisation over the tile" if over else None


def _reduction(name: str, args: Arguments, named: dict[str, Any]) -> str | None:
    axes = args[1] if len(args) > 1 else named.get("dim")
    axes = [axes] if isinstance(axes, int) else axes or range(args[0].ndim)
    return f"{name} over the tile" if is_over_tile(axes, args[0].ndim) else None


def _whole_pool(name: str, args: Arguments, _: dict[str, Any]) -> str | None:
    there, kernel = args[0].shape[2:], list(args[1]) * 2
    whole = all(1 < size <= n for size, n in zip(there, kernel, strict=False))
    return f"{name.removesuffix('_with_indices')} of the whole tile" if whole else None


def _corners(name: str, args: Arguments, named: dict[str, Any]) -> str | None:
    aligned = named.get("align_corners", args[2] if len(args) > 2 else False)
    return f"{name} with align_corners" if aligned else None


def _grid(name: str, _: Arguments, __: dict[str, Any]) -> str | None:
    return name


def _product(_: str, args: Arguments, __: dict[str, Any]) -> str | None:
    """Return attention for the first of its two products, whose result is places by places."""
    one, other = args[0].shape, args[1].shape
    return ATTENTION if one[1] == other[2] > one[2] else None


def _constant(args: Arguments, weights: Collection[int]) -> str | None:
    tensors = [arg for arg in args if hasattr(arg, "data_ptr")]
    if len(args) == 2 and isinstance(args[0], list | tuple):  # cat
        tensors = list(args[0])
    rank = max((tensor.ndim for tensor in tensors), default=0)
    for tensor in tensors:
        if tensor.data_ptr() in weights and lies_along_tile(tensor.shape, rank):
            return PLACES
    return None


_CONSTANTS = {"add", "sub", "mul", "div", "cat"}

_PARTS: dict[str, Callable[[str, Arguments, dict[str, Any]], str | None]] = {
    **dict.fromkeys(("native_batch_norm", "cudnn_batch_norm"), _instance),
    "_native_batch_norm_legit": _instance_without_state,
    "native_group_norm": lambda *_: "group normalisation",
    "native_layer_norm": _layer,
    **dict.fromkeys(("mean", "sum", "amax", "amin", "std", "var", "var_mean"), _reduction),
    **dict.fromkeys(("avg_pool2d", "max_pool2d_with_indices"), _whole_pool),
    **dict.fromkeys(
        ("_adaptive_avg_pool2d", "adaptive_max_pool2d"), lambda name, *_: name.lstrip("_")
    ),
    **dict.fromkeys(("upsample_bilinear2d", "upsample_bicubic2d"), _corners),
    **dict.fromkeys(("grid_sampler_2d", "_fft_r2c"), _grid),
    "bmm": _product,
}
"""What to look at in each operator."""
