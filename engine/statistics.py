"""Statistics of a whole image, gathered square by square: never those of a tile."""

from collections.abc import Iterator
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from ..tiler.box import Box
from ..tiler.errors import ImageError, failing_as
from .nodata import Missing, missing
from .sources import Source
from .sources.request import read_whole

STRIDE_PX = 2048
"""Largest side of the squares in which statistics are gathered."""

SQUARE_VALUES = 4 * STRIDE_PX**2
"""Values that are read at a time: of many channels the squares are smaller."""

PIECE_VALUES = 1 << 20
"""Values that are worked on at a time: some 40 bytes each."""

SAMPLES = 8
"""Squares per axis that are looked at to see which range an image uses."""

SAMPLE_PX = 256
"""Side of those squares."""


def mean_and_deviation(
    source: Source,
    level: int,
    channels: tuple[int, ...],
    nodata: float | None = None,
    *,
    joint: bool = False,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each channel, in raw units.

    Values without data are left out; a channel without any has mean and deviation 0.

    Args:
        source: The image.
        level: Its resolution.
        channels: Which of its channels.
        nodata: The value, besides NaN, that holds no data.
        joint: Whether all channels are counted together.

    Raises:
        ImageError: A pixel is infinite.
    """
    # Chan, Golub and LeVeque 1979: merging the moments of parts loses no digits to cancellation.
    groups = 1 if joint else len(channels)
    count, mean, squares = (np.zeros(groups) for _ in range(3))
    for pixels, gone in _squares(source, level, channels, nodata, groups):
        part = pixels.astype(np.float64)
        if gone is not None:
            part[gone] = 0
        here = np.full(groups, len(part)) if gone is None else (~gone).sum(axis=0)
        part_mean = part.sum(axis=0) / np.maximum(here, 1)
        off = part - part_mean
        if gone is not None:
            off[gone] = 0
        delta = part_mean - mean
        total = np.maximum(count + here, 1)
        mean = mean + delta * here / total
        squares = squares + (off**2).sum(axis=0) + delta**2 * count * here / total
        count = count + here
    deviation = np.sqrt(squares / np.maximum(count, 1))
    repeats = len(channels) // groups
    return tuple(mean.tolist()) * repeats, tuple(deviation.tolist()) * repeats


def percentiles(
    source: Source,
    level: int,
    channels: tuple[int, ...],
    percents: tuple[float, ...],
    nodata: float | None = None,
    *,
    joint: bool = False,
) -> list[tuple[float, ...]]:
    """Return percentiles per channel: the exact pixel values, whatever the outliers.

    Pixels are turned into unsigned integers of the same order. Each pass over the image counts 16
    more bits of those that share the percentile's upper bits.

    Args:
        source: The image.
        level: Its resolution.
        channels: Which of its channels.
        percents: Which percentiles, in percent; 0 is the smallest pixel, 100 the largest.
        nodata: The value, besides NaN, that holds no data and is left out.
        joint: Whether all channels are counted together.

    Returns:
        For each percentile a value per channel, in raw units; 0 for a channel without data.

    Raises:
        ImageError: A pixel is infinite.
    """
    kind = np.dtype(source.facts.dtype)
    groups = 1 if joint else len(channels)
    # Of each percentile and channel: the bits known so far, and how many such pixels lie below.
    known = [[0] * groups for _ in percents]
    below = [[0.0] * groups for _ in percents]
    first = max(0, 8 * kind.itemsize - 16)
    with_data = [True] * groups
    for shift in range(first, -1, -16):
        counts = np.zeros((len(percents), groups, 1 << 16), np.int64)
        for pixels, gone in _squares(source, level, channels, nodata, groups):
            keys = _ordered_keys(pixels)
            for index, group in np.ndindex(counts.shape[:2]):
                there = keys[:, group] if gone is None else keys[~gone[:, group], group]
                mine = there >> np.uint64(shift)
                mine = mine[mine >> np.uint64(16) == known[index][group]] & np.uint64(0xFFFF)
                counts[index, group] += np.bincount(mine.astype(np.intp), minlength=1 << 16)
        for index, group in np.ndindex(counts.shape[:2]):
            summed = counts[index, group].cumsum()
            if shift == first:  # every value with data is counted in the first pass
                below[index][group] = max(1, np.ceil(percents[index] / 100 * summed[-1]))
                with_data[group] = summed[-1] > 0
            bits = min(int((summed < below[index][group]).sum()), (1 << 16) - 1)
            below[index][group] -= summed[bits - 1] if bits else 0
            known[index][group] = known[index][group] << 16 | bits
    repeats = len(channels) // groups
    return [
        tuple(
            _value_of_key(key, kind) if there else 0.0
            for key, there in zip(keys, with_data, strict=True)
        )
        * repeats
        for keys in known
    ]


def _ordered_keys(pixels: NDArray[np.generic]) -> NDArray[np.uint64]:
    """Return an unsigned integer for each pixel, larger for the larger pixel."""
    size = pixels.dtype.itemsize
    if pixels.dtype.kind in "bu":
        return pixels.astype(np.uint64)
    sign = np.uint64(1 << (8 * size - 1))
    bits = np.ascontiguousarray(pixels).view(f"u{size}").astype(np.uint64)
    if pixels.dtype.kind == "i":
        return bits ^ sign
    every = np.uint64((1 << 8 * size) - 1)
    return np.where(bits & sign, bits ^ every, bits | sign)


def _value_of_key(key: int, kind: np.dtype[np.generic]) -> float:
    """Return the pixel that has a key."""
    if kind.kind in "bu":
        return float(key)
    sign = 1 << (8 * kind.itemsize - 1)
    if kind.kind == "i":
        return float(key - sign)
    bits = key ^ sign if key & sign else key ^ ((1 << 8 * kind.itemsize) - 1)
    return float(np.array(bits, f"u{kind.itemsize}").view(kind))


def sampled_range(
    source: Source, level: int, channels: tuple[int, ...], nodata: float | None = None
) -> tuple[float, float] | None:
    """Return the smallest and largest finite pixel with data, of squares spread over the image.

    ``None`` where they hold no data.
    """
    height, width = source.facts.levels[level].shape
    low, high = np.inf, -np.inf
    for y in _spread(height):
        for x in _spread(width):
            box = Box.of(y, min(y + SAMPLE_PX, height), x, min(x + SAMPLE_PX, width))
            pixels = _read(source, level, box, channels)
            gone = missing(pixels, nodata)
            pixels = pixels[np.isfinite(pixels) if gone is None else np.isfinite(pixels) & ~gone]
            if pixels.size:
                low, high = min(low, float(pixels.min())), max(high, float(pixels.max()))
    return (low, high) if low <= high else None


def _spread(length: int) -> list[int]:
    """Return the starts of at most ``SAMPLES`` squares, evenly spread."""
    last = max(0, length - SAMPLE_PX)
    count = min(SAMPLES, -(-length // SAMPLE_PX))
    return sorted({round(last * index / max(1, count - 1)) for index in range(count)})


def _squares(
    source: Source, level: int, channels: tuple[int, ...], nodata: float | None, groups: int
) -> Iterator[tuple[NDArray[np.generic], Missing | None]]:
    """Yield the image piece by piece, ``(value, group)``, and which values hold no data.

    Raises:
        ImageError: A pixel is infinite.
    """
    height, width = source.facts.levels[level].shape
    side = min(STRIDE_PX, isqrt(SQUARE_VALUES // len(channels)) or 1)
    rows = max(1, PIECE_VALUES // groups)
    for y in range(0, height, side):
        for x in range(0, width, side):
            box = Box.of(y, min(y + side, height), x, min(x + side, width))
            square = _read(source, level, box, channels).reshape(-1, groups)
            for start in range(0, len(square), rows):
                pixels = square[start : start + rows]
                if pixels.dtype.kind == "f" and np.isinf(pixels).any():
                    raise ImageError(
                        "the image holds infinity, so it has no statistics; use normalize=none, "
                        "normalize=unit, or mean and std"
                    )
                yield pixels, missing(pixels, nodata)


def _read(source: Source, level: int, box: Box, channels: tuple[int, ...]) -> NDArray[np.generic]:
    with failing_as(ImageError, "reading", source.facts.name):
        return read_whole(source, level, box, channels)
