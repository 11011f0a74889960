"""Constants that bring raw pixels to what the network expects, the same for every tile."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..tiler.box import Box
from ..tiler.errors import ImageError, SettingError
from .backends.base import NetworkFacts
from .settings import Settings
from .sources import Source

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

STRIDE_PX = 2048
"""Side of the squares in which statistics are gathered."""

SAMPLES = 8
"""Squares per axis that are looked at to see which range an image uses."""


@dataclass(frozen=True, slots=True)
class Normalization:
    """``(raw - offset) * scale`` per channel, and where it comes from."""

    mode: str
    """``none``, ``unit``, ``zscore``, ``percentile``, ``imagenet`` or ``given``."""
    offset: tuple[float, ...]
    """Subtracted from the raw pixels."""
    scale: tuple[float, ...]
    """Multiplied after that."""
    note: str
    """What was done, and who asked for it."""
    warning: str | None = None
    """What looks wrong about it."""


def full_scale(dtype: str) -> float:
    """Return the raw value that stands for 1: an integer type's maximum; 1 for floats.

    >>> full_scale("uint8"), full_scale("float32"), full_scale("bool")
    (255.0, 1.0, 1.0)
    """
    kind = np.dtype(dtype)
    return float(np.iinfo(kind).max) if kind.kind in "iu" else 1.0


def resolve_normalization(
    settings: Settings, network: NetworkFacts, source: Source, level: int, channels: tuple[int, ...]
) -> Normalization:
    """Decide how pixels are normalised, reading the image's statistics where that needs them.

    Raises:
        SettingError: Constants do not fit the number of channels, or the mode is unknown.
        ImageError: Statistics of an image that holds NaN or infinity.
    """
    dtype, count = source.facts.dtype, len(channels)
    full = full_scale(dtype)
    mode: str | None = settings.normalize
    mean, std, who = settings.mean, settings.std, "as asked"
    if mode in (None, "auto") and mean is None:
        mode, mean, std, who = network.normalize, network.mean, network.std, "as the model says"
    if mean is not None and std is not None:
        return _constants("given", mean, std, full, count, f"normalised by mean and std, {who}")
    assumed = mode in (None, "auto")
    if assumed:
        mode = "none" if full == 1 else "unit"
        who = "assumed; say normalize otherwise"
    if mode == "none":
        return Normalization("none", (0.0,) * count, (1.0,) * count, f"pixels as they are ({who})")
    if mode == "unit":
        warning = _unused_range(source, level, channels, full) if assumed else None
        note = f"{dtype} divided by {full:g} ({who})"
        return Normalization("unit", (0.0,) * count, (1 / full,) * count, note, warning)
    if mode == "imagenet":
        return _constants(
            "imagenet", IMAGENET_MEAN, IMAGENET_STD, full, count, f"ImageNet's mean and std ({who})"
        )
    if mode == "zscore":
        offset, scale = _mean_and_scale(source, level, channels)
        return Normalization("zscore", offset, scale, f"mean 0, deviation 1 over the image ({who})")
    if mode == "percentile":
        low, high = _percentiles(source, level, channels, (1.0, 99.8))
        scales = tuple(1 / (h - lo) if h > lo else 1.0 for lo, h in zip(low, high, strict=True))
        return Normalization(
            "percentile", low, scales, f"percentiles 1 and 99.8 to 0 and 1 ({who})"
        )
    raise SettingError(
        f"normalize={mode!r} is unknown; use none, unit, zscore, percentile or imagenet"
    )


def _constants(
    mode: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    full: float,
    channels: int,
    note: str,
) -> Normalization:
    if not len(mean) == len(std) == channels:
        raise SettingError(
            f"normalisation has {len(mean)} means and {len(std)} deviations, but the network is "
            f"given {channels} channels; give one of each per channel"
        )
    scale = tuple(1 / (value * full) for value in std)
    return Normalization(mode, tuple(value * full for value in mean), scale, note)


def _squares(
    source: Source, level: int, channels: tuple[int, ...]
) -> Iterator[NDArray[np.generic]]:
    height, width = source.facts.levels[level].shape
    for y in range(0, height, STRIDE_PX):
        for x in range(0, width, STRIDE_PX):
            box = Box.of(y, min(y + STRIDE_PX, height), x, min(x + STRIDE_PX, width))
            yield source.read(level, box, channels).reshape(-1, len(channels))


def _mean_and_scale(
    source: Source, level: int, channels: tuple[int, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    # Chan, Golub and LeVeque 1979: merging the moments of parts loses no digits to cancellation.
    count, mean, squares = 0, np.zeros(len(channels)), np.zeros(len(channels))
    for pixels in _squares(source, level, channels):
        part = pixels.astype(np.float64)
        part_mean = part.mean(axis=0)
        delta = part_mean - mean
        total = count + len(part)
        mean = mean + delta * len(part) / total
        squares = (
            squares + ((part - part_mean) ** 2).sum(axis=0) + delta**2 * count * len(part) / total
        )
        count = total
    if not np.isfinite(squares).all():
        raise ImageError(
            "the image holds NaN or infinity, so it has no mean; use normalize none or unit"
        )
    deviation = np.sqrt(squares / count)
    return tuple(mean.tolist()), tuple((1 / np.where(deviation > 0, deviation, 1)).tolist())


def _percentiles(
    source: Source, level: int, channels: tuple[int, ...], percents: tuple[float, float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return two percentiles per channel, from 65536 bins between the extremes."""
    bins = 1 << 16
    low, high = _extremes(_squares(source, level, channels), len(channels))
    span = np.where(high > low, high - low, 1)
    # Integers up to 16 bits have a bin for each value, so that their percentiles are exact.
    if np.dtype(source.facts.dtype).kind in "iu":
        span = np.maximum(span, bins - 1)
    counts = np.zeros((len(channels), bins), np.int64)
    for pixels in _squares(source, level, channels):
        index = ((pixels.astype(np.float64) - low) / span * (bins - 1)).round().astype(np.int64)
        for channel in range(len(channels)):
            counts[channel] += np.bincount(index[:, channel], minlength=bins)
    share = counts.cumsum(axis=1) / counts.sum(axis=1, keepdims=True)
    found = [(share < percent / 100).sum(axis=1) / (bins - 1) * span + low for percent in percents]
    return tuple(found[0].tolist()), tuple(found[1].tolist())


def _extremes(
    parts: Iterator[NDArray[np.generic]], channels: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = np.full(channels, np.inf), np.full(channels, -np.inf)
    for pixels in parts:
        values = pixels.astype(np.float64)
        low, high = np.minimum(low, values.min(axis=0)), np.maximum(high, values.max(axis=0))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ImageError("the image holds NaN or infinity; use normalize none or unit")
    return low, high


def _unused_range(source: Source, level: int, channels: tuple[int, ...], full: float) -> str | None:
    """Return a warning where an image of more than 8 bits uses little of its type's range."""
    if full <= 255:
        return None
    height, width = source.facts.levels[level].shape
    side = 256
    parts = (
        source.read(
            level, Box.of(y, min(y + side, height), x, min(x + side, width)), channels
        ).reshape(-1, len(channels))
        for y in _spread(height, side)
        for x in _spread(width, side)
    )
    low, high = _extremes(parts, len(channels))
    if high.max() >= full / 4:
        return None
    return (
        f"the {source.facts.dtype} image was divided by {full:g}, but its pixels lie between "
        f"{low.min():g} and {high.max():g}: the network sees almost black; normalize zscore or "
        "percentile, or mean and std, may be what it was trained with"
    )


def _spread(length: int, side: int) -> list[int]:
    """Return the starts of at most ``SAMPLES`` squares, evenly spread."""
    last = max(0, length - side)
    count = min(SAMPLES, -(-length // side))
    return sorted({round(last * index / max(1, count - 1)) for index in range(count)})
