"""ONNX's Resize in Torch."""

from collections.abc import Callable
from math import floor

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ...tiler.errors import ModelError
from .torch_operators import Attributes, Host

Places = NDArray[np.float32]

_CORNERS = {"half_pixel": False, "pytorch_half_pixel": False, "align_corners": True}
"""Where Torch's own interpolation takes its pixels: whether the outer ones' centres are kept."""

_NEAREST: dict[str, Callable[[Places], Places]] = {
    "round_prefer_floor": lambda place: np.ceil(place - 0.5),
    "round_prefer_ceil": lambda place: np.floor(place + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def resize(
    attributes: Attributes,
    x: torch.Tensor,
    roi: Host | None = None,
    scales: Host | None = None,
    sizes: Host | None = None,
) -> torch.Tensor:
    """Return ``(batch, channel, y, x)`` at another size.

    Raises:
        ModelError: In a way that Torch has not.
    """
    mode = attributes.get("mode", "nearest")
    how = attributes.get("coordinate_transformation_mode", "half_pixel")
    policy = attributes.get("keep_aspect_ratio_policy", "stretch")
    unusual = {"antialias", "exclude_outside"} & {name for name, on in attributes.items() if on}
    if x.ndim != 4 or unusual or policy != "stretch" or how not in (*_CORNERS, "asymmetric"):
        raise ModelError(f"Resize of {x.ndim} axes with {how}, {policy}, {sorted(unusual)}")
    size, factors = _target(attributes, x, scales, sizes)
    # Torch knows sizes only, and takes their quotients for scales.
    whole = all(
        old * factor == new for old, factor, new in zip(x.shape[2:], factors, size, strict=True)
    )
    if mode == "nearest":
        return _nearest(attributes, x, size, factors, how)
    if mode == "cubic":
        if not whole or how not in _CORNERS or attributes.get("cubic_coeff_a", -0.75) != -0.75:
            raise ModelError(f"Resize by cubic functions with {how}")
        return functional.interpolate(x, size, mode="bicubic", align_corners=_CORNERS[how])
    if how in _CORNERS and (whole or _CORNERS[how]):
        return functional.interpolate(x, size, mode="bilinear", align_corners=_CORNERS[how])
    for axis, (new, factor) in enumerate(zip(size, factors, strict=True), 2):
        x = _linear(x, axis, _places(x.shape[axis], new, factor, how))
    return x


def _target(
    attributes: Attributes, x: torch.Tensor, scales: Host | None, sizes: Host | None
) -> tuple[list[int], list[float]]:
    """Return height and width, and how many times those of ``x`` they are."""
    axes = [axis % x.ndim for axis in attributes.get("axes", range(x.ndim))]
    given = sizes if sizes is not None and sizes.size else scales
    if given is None or len(given) != len(axes):
        raise ModelError("Resize without scales or sizes")
    by_axis = dict(zip(axes, given.tolist(), strict=True))
    size, factors = list(x.shape), [1.0] * x.ndim
    for axis, value in by_axis.items():
        if given is sizes:
            size[axis], factors[axis] = int(value), value / x.shape[axis]
        else:
            size[axis], factors[axis] = floor(x.shape[axis] * value), value
    if size[:2] != list(x.shape[:2]):
        raise ModelError("Resize of batch or channels")
    return size[2:], factors[2:]


def _places(old: int, new: int, factor: float, how: str) -> Places:
    """Return where each new pixel lies among the old ones, in ONNX Runtime's single precision."""
    index = np.arange(new, dtype=np.float32)
    if how == "align_corners":
        return index * np.float32(old - 1) / np.float32(max(1, new - 1))
    if how == "asymmetric":
        return index / np.float32(factor)
    if how == "pytorch_half_pixel" and new == 1:
        return 0 * index
    return (index + np.float32(0.5)) / np.float32(factor) - np.float32(0.5)


def _nearest(
    attributes: Attributes, x: torch.Tensor, size: list[int], factors: list[float], how: str
) -> torch.Tensor:
    rounded = _NEAREST[attributes.get("nearest_mode", "round_prefer_floor")]
    chosen = [
        np.clip(rounded(_places(old, new, factor, how)), 0, old - 1).astype(np.int64)
        for old, new, factor in zip(x.shape[2:], size, factors, strict=True)
    ]
    usual = [np.arange(new) * old // new for old, new in zip(x.shape[2:], size, strict=True)]
    if all(map(np.array_equal, chosen, usual)):
        return functional.interpolate(x, size, mode="nearest")
    for axis, indices in enumerate(chosen, 2):
        x = x.index_select(axis, torch.from_numpy(indices).to(x.device))
    return x


def _linear(x: torch.Tensor, axis: int, places: Places) -> torch.Tensor:
    places = np.clip(places, 0, x.shape[axis] - 1)
    lower = np.floor(places).astype(np.int64)
    upper = np.minimum(lower + 1, x.shape[axis] - 1)
    shape = [1, 1, 1, 1]
    shape[axis] = len(places)
    share = torch.from_numpy(places - lower).to(x.device, x.dtype).reshape(shape)
    one, other = (
        x.index_select(axis, torch.from_numpy(each).to(x.device)) for each in (lower, upper)
    )
    return one + (other - one) * share
