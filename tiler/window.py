"""Weights of overlapping tiles that add up to one everywhere."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .errors import SettingError


def _hann(size: int) -> NDArray[np.float64]:
    # Sampled between the zeros at both ends, so that no pixel of a tile is worth nothing.
    weights: NDArray[np.float64] = np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2
    return weights


def _gaussian(size: int) -> NDArray[np.float64]:
    # A standard deviation of an eighth of the tile, as is usual for segmentation.
    offset = (np.arange(size) + 0.5 - size / 2) / (size / 8)
    weights: NDArray[np.float64] = np.exp(-0.5 * offset**2)
    return weights


WINDOWS: dict[str, Callable[[int], NDArray[np.float64]]] = {"hann": _hann, "gaussian": _gaussian}
"""Shape of a tile's weight along one axis, by name."""


def partition_of_unity(kind: str, size: int, step: int) -> NDArray[np.float64]:
    """Return weights whose copies, repeated every ``step`` pixels, add up to one.

    The window is divided by its own periodic sum, which is known beforehand: nothing is counted
    while tiles are summed, and a step that does not divide the tile is as good as one that does.

    Args:
        kind: ``hann`` or ``gaussian``.
        size: Pixels of a tile along the axis.
        step: Distance of neighbouring tiles in pixels, at most ``size``.

    Returns:
        ``size`` weights.

    Raises:
        SettingError: The tiles leave gaps, or the window is unknown.

    >>> partition_of_unity("hann", 4, 2).round(3).tolist()
    [0.146, 0.854, 0.854, 0.146]
    """
    if kind not in WINDOWS:
        raise SettingError(f"blend {kind!r} is unknown; use one of {', '.join(WINDOWS)}")
    if not 1 <= step <= size:
        raise SettingError(
            f"tiles of {size} px every {step} px leave gaps; use a step of 1 to {size}"
        )
    weights = WINDOWS[kind](size)
    phase = np.arange(size) % step
    return weights / np.bincount(phase, weights)[phase]
