"""Statistics of a whole image, gathered square by square: never those of a tile."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..tiler.box import Box
from ..tiler.errors import ImageError
from .sources import Source

STRIDE_PX = 2048
"""Side of the squares in which statistics are gathered."""

SAMPLES = 8
"""Squares per axis that are looked at to see which range an image uses."""

SAMPLE_PX = 256
"""Side of those squares."""


def mean_and_deviation(
    source: Source, level: int, channels: tuple[int, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each channel, in raw units.

    Raises:
        ImageError: A pixel is NaN or infinite.
    """
    # Chan, Golub and LeVeque 1979: merging the moments of parts loses no digits to cancellation.
    count, mean, squares = 0, np.zeros(len(channels)), np.zeros(len(channels))
    for pixels in _squares(source, level, channels):
        _require_finite(pixels)
        part = pixels.astype(np.float64)
        part_mean = part.mean(axis=0)
        delta = part_mean - mean
        total = count + len(part)
        mean = mean + delta * len(part) / total
        squares = (
            squares + ((part - part_mean) ** 2).sum(axis=0) + delta**2 * count * len(part) / total
        )
        count = total
    return tuple(mean.tolist()), tuple(np.sqrt(squares / count).tolist())


def percentiles(
    source: Source,
    level: int,
    channels: tuple[int, ...],
    percents: tuple[float, ...],
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
        joint: Whether all channels are counted together.

    Returns:
        For each percentile a value per channel, in raw units.

    Raises:
        ImageError: A pixel is NaN or infinite.
    """
    kind = np.dtype(source.facts.dtype)
    height, width = source.facts.levels[level].shape
    # Of each percentile and channel: the bits known so far, and how many such pixels lie below.
    groups = 1 if joint else len(channels)
    count = height * width * len(channels) // groups
    known = [[0] * groups for _ in percents]
    below = [[max(1, np.ceil(percent / 100 * count))] * groups for percent in percents]
    for shift in range(max(0, 8 * kind.itemsize - 16), -1, -16):
        counts = np.zeros((len(percents), groups, 1 << 16), np.int64)
        for pixels in _squares(source, level, channels):
            _require_finite(pixels)
            keys = _ordered_keys(pixels).reshape(-1, groups)
            for index, channel in np.ndindex(counts.shape[:2]):
                mine = keys[:, channel] >> np.uint64(shift)
                mine = mine[mine >> np.uint64(16) == known[index][channel]] & np.uint64(0xFFFF)
                counts[index, channel] += np.bincount(mine.astype(np.intp), minlength=1 << 16)
        for index, channel in np.ndindex(counts.shape[:2]):
            summed = counts[index, channel].cumsum()
            bits = int((summed < below[index][channel]).sum())
            below[index][channel] -= summed[bits - 1] if bits else 0
            known[index][channel] = known[index][channel] << 16 | bits
    repeats = len(channels) // groups
    return [tuple(_value_of_key(key, kind) for key in keys) * repeats for keys in known]


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


def _require_finite(pixels: NDArray[np.generic]) -> None:
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise ImageError(
            "the image holds NaN or infinity, so it has no statistics; use normalize=none, "
            "normalize=unit, or mean and std"
        )


def sampled_range(source: Source, level: int, channels: tuple[int, ...]) -> tuple[float, float]:
    """Return the smallest and largest finite pixel of squares spread over the image."""
    height, width = source.facts.levels[level].shape
    low, high = np.inf, -np.inf
    for y in _spread(height):
        for x in _spread(width):
            box = Box.of(y, min(y + SAMPLE_PX, height), x, min(x + SAMPLE_PX, width))
            pixels = source.read(level, box, channels)
            pixels = pixels[np.isfinite(pixels)]
            if pixels.size:
                low, high = min(low, float(pixels.min())), max(high, float(pixels.max()))
    return (low, high) if low <= high else (0.0, 0.0)


def _spread(length: int) -> list[int]:
    """Return the starts of at most ``SAMPLES`` squares, evenly spread."""
    last = max(0, length - SAMPLE_PX)
    count = min(SAMPLES, -(-length // SAMPLE_PX))
    return sorted({round(last * index / max(1, count - 1)) for index in range(count)})


def _squares(
    source: Source, level: int, channels: tuple[int, ...]
) -> Iterator[NDArray[np.generic]]:
    height, width = source.facts.levels[level].shape
    for y in range(0, height, STRIDE_PX):
        for x in range(0, width, STRIDE_PX):
            box = Box.of(y, min(y + STRIDE_PX, height), x, min(x + STRIDE_PX, width))
            yield source.read(level, box, channels).reshape(-1, len(channels))
