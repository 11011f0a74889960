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
    source: Source, level: int, channels: tuple[int, ...], percents: tuple[float, ...]
) -> list[tuple[float, ...]]:
    """Return percentiles per channel: exact for types of up to 32 bits, whatever the outliers.

    Pixels are turned into 32-bit keys of the same order. A first pass counts their upper halves, a
    second one the lower halves of those that share the percentile's upper half.

    Args:
        source: The image.
        level: Its resolution.
        channels: Which of its channels.
        percents: Which percentiles, in percent.

    Returns:
        For each percentile a value per channel, in raw units.

    Raises:
        ImageError: A pixel is NaN or infinite.
    """
    half, count = 1 << 16, len(channels)
    upper = np.zeros((count, half), np.int64)
    for pixels in _squares(source, level, channels):
        _require_finite(pixels)
        for channel, keys in enumerate(_ordered_keys(pixels).T):
            upper[channel] += np.bincount(keys >> 16, minlength=half)
    # The smallest value that so many pixels do not exceed.
    ranks = [np.ceil(percent / 100 * upper[0].sum()) for percent in percents]
    prefixes = [[int((c.cumsum() < rank).sum()) for c in upper] for rank in ranks]
    lower = np.zeros((len(percents), count, half), np.int64)
    for pixels in _squares(source, level, channels):
        for channel, keys in enumerate(_ordered_keys(pixels).T):
            for index, prefix in enumerate(prefixes):
                inside = keys[keys >> 16 == prefix[channel]] & (half - 1)
                lower[index, channel] += np.bincount(inside, minlength=half)
    found = []
    for index, rank in enumerate(ranks):
        values = []
        for channel, high in enumerate(prefixes[index]):
            left = rank - upper[channel, :high].sum()
            low = int((lower[index, channel].cumsum() < left).sum())
            values.append(_value_of_key(high << 16 | low, source.facts.dtype))
        found.append(tuple(values))
    return found


def _ordered_keys(pixels: NDArray[np.generic]) -> NDArray[np.uint32]:
    """Return a number for each pixel, of which the larger one belongs to the larger pixel."""
    if pixels.dtype.kind in "bu" and pixels.dtype.itemsize <= 4:
        return pixels.astype(np.uint32)
    if pixels.dtype.kind == "i" and pixels.dtype.itemsize <= 4:
        return (pixels.astype(np.int64) + (1 << 31)).astype(np.uint32)
    bits = pixels.astype(np.float32).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _value_of_key(key: int, dtype: str) -> float:
    """Return the pixel that has a key."""
    kind = np.dtype(dtype)
    if kind.kind in "bu" and kind.itemsize <= 4:
        return float(key)
    if kind.kind == "i" and kind.itemsize <= 4:
        return float(key - (1 << 31))
    bits = key & ~(1 << 31) if key >> 31 else ~key & 0xFFFFFFFF
    return float(np.uint32(bits).view(np.float32))


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
