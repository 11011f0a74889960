"""Pixels that hold no data: they are filled before the network sees them, and left out after."""

from math import isfinite, isnan
from typing import Any, Literal, SupportsFloat

import numpy as np
from numpy.typing import NDArray

from ..tiler.box import Box, Interval
from ..tiler.errors import SettingError
from ..tiler.scale import SAME, Scale
from .backends.base import Recipe
from .sources import ImageFacts

Missing = NDArray[np.bool_]


def nodata_setting(value: object) -> float | Literal["none"]:
    """Return what a caller said of nodata: a value, or ``none`` for none but NaN.

    Raises:
        SettingError: It is neither.
    """
    if isinstance(value, str):
        if value == "none":
            return "none"
    elif isinstance(value, SupportsFloat):
        number = float(value)
        if isnan(number):
            return "none"
        if isfinite(number):
            return number
    raise SettingError(f"nodata={value!r} is not possible; use a finite number or none")


def choose_nodata(
    facts: ImageFacts, asked: float | Literal["none"] | None
) -> tuple[float | None, list[str]]:
    """Return the value that holds no data besides NaN, ``None`` for none, and notes about it.

    What the image states counts unless something else is asked for. A value that no pixel can
    have is none.

    Raises:
        SettingError: The value asked for is one that no pixel can have.
    """
    if asked == "none":
        return None, []
    if asked is not None:
        value = _as_stored(asked, facts.dtype)
        if value is None:
            raise SettingError(
                f"nodata={asked:g} is not possible: {facts.name} has {facts.dtype} pixels, which "
                "never hold it; use another value or none"
            )
        return value, []
    value = None if facts.nodata is None else _as_stored(facts.nodata, facts.dtype)
    if value is None:
        return None, []
    return value, [
        f"pixels of {value:g} hold no data, as {facts.name} says: they are labelled as not "
        "computed; use nodata=none where that is wrong"
    ]


def _as_stored(nodata: float, dtype: str) -> float | None:
    """Return a value as pixels hold it, ``None`` where none can be equal to it."""
    limits = _limits(dtype)
    if limits is None:
        with np.errstate(over="ignore"):
            rounded = float(np.dtype(dtype).type(nodata))
        return rounded if isfinite(rounded) else None
    low, high = map(float, limits)
    return nodata if low <= nodata <= high and nodata == int(nodata) else None


def _limits(dtype: str) -> tuple[int, int] | None:
    """Return the smallest and largest whole number of a type, ``None`` for floats."""
    kind = np.dtype(dtype).kind
    if kind == "f":
        return None
    return (0, 1) if kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))


def _pixel(value: float, dtype: str) -> Any:
    """Return a number as the nearest one that a pixel can hold."""
    limits = _limits(dtype)
    if limits is not None:
        value = min(max(round(value), limits[0]), limits[1])
    return np.dtype(dtype).type(value)


def missing(pixels: NDArray[np.generic], nodata: float | None) -> Missing | None:
    """Return which values hold no data: NaN, and those equal to ``nodata``.

    ``None`` where that is none of them.
    """
    found: Missing | None = None
    if nodata is not None:
        found = np.asarray(pixels == _pixel(nodata, pixels.dtype.name))
    if pixels.dtype.kind == "f":
        broken = np.isnan(pixels)
        found = broken if found is None else found | broken
    return None if found is None or not found.any() else found


def fill_missing(
    pixels: NDArray[np.generic],
    nodata: float | None,
    recipe: Recipe,
    broken: Missing | None = None,
) -> tuple[NDArray[np.generic], Missing | None]:
    """Replace the values that hold no data by what the network sees as 0.

    That is the offset of the normalisation, rounded to what a pixel can hold: one value for each
    channel, the same for every tile.

    Args:
        pixels: ``(y, x, channel)``; changed in place unless they are read-only.
        nodata: The value that holds no data besides NaN.
        recipe: Its ``offset`` counts.
        broken: Pixels, ``(y, x)``, that hold no data in any channel, whatever their value.

    Returns:
        The pixels, and at which of them, ``(y, x)``, no channel holds data; ``None`` for nowhere.
    """
    empty: Missing | None = None
    for channel, offset in enumerate(recipe.offset):
        found = missing(pixels[..., channel], nodata)
        if broken is not None:
            found = broken if found is None else found | broken
        if found is None:
            empty = np.zeros(pixels.shape[:2], np.bool_)
            continue
        if not pixels.flags.writeable:
            pixels = pixels.copy()
        pixels[..., channel][found] = _pixel(offset, pixels.dtype.name)
        empty = found if empty is None else empty & found
    return pixels, empty if empty is not None and empty.any() else None


def empty_of_mask(
    empty: Missing | None,
    region: Box,
    box: Box,
    scale: Scale = SAME,
) -> Missing | None:
    """Return which pixels of the mask cover nothing but pixels without data.

    Args:
        empty: Image pixels without data, ``(y, x)``; ``None`` for none.
        region: Where they lie in the image; holds all that ``box`` covers of it.
        box: Rectangle of the mask, in its own pixels.
        scale: Pixels of the mask per pixel of the image.

    Returns:
        ``(y, x)`` of the size of ``box``; ``None`` for none.
    """
    if empty is None:
        return None
    for axis in (0, 1):
        empty = _covered(empty, axis, region[axis], box[axis], scale)
    return empty if empty.any() else None


def _covered(empty: Missing, axis: int, region: Interval, side: Interval, scale: Scale) -> Missing:
    """Return along one axis whether all pixels that a pixel of the mask covers are empty."""
    numbers = np.arange(side.start, side.stop)
    starts = numbers * scale.down // scale.up - region.start
    stops = -(-(numbers + 1) * scale.down // scale.up) - region.start
    stops = np.minimum(stops, region.size)  # the last pixel may reach beyond the image
    if (stops - starts == 1).all():
        return empty.take(starts, axis)
    # reduceat takes pairs of start and stop, which must lie inside: one more row does no harm.
    padded = np.concatenate([empty, empty.take([-1], axis)], axis)
    pairs = np.stack([starts, stops], axis=1).ravel()
    reduced: Missing = np.logical_and.reduceat(padded, pairs, axis)
    return reduced.take(np.arange(0, len(pairs), 2), axis)


def leave_out(
    empty: Missing | None,
    labels: NDArray[np.generic],
    scores: NDArray[np.floating] | None,
    recipe: Recipe,
) -> int:
    """Label the pixels without data "not computed", in place; return how many there are.

    Args:
        empty: Which pixels of the mask these are, ``(y, x)``; ``None`` for none.
        labels: ``(y, x)``.
        scores: ``(class, y, x)``; NaN there.
        recipe: Its ``not_computed`` counts.
    """
    if empty is None:
        return 0
    labels[empty] = recipe.not_computed
    if scores is not None:
        scores[:, empty] = np.nan
    return int(np.count_nonzero(empty))
