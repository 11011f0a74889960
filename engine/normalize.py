"""Constants that bring raw pixels to what the network expects, the same for every tile."""

from dataclasses import dataclass
from math import inf

import numpy as np

from ..tiler.errors import ModelError, SettingError
from .backends.base import NetworkFacts
from .preprocessing_constants import preprocessing_constants
from .settings import Settings
from .sources import Source
from .statistics import mean_and_deviation, percentiles, sampled_range

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

USUAL_PERCENTILES = (1.0, 99.8)
"""What ``percentile`` turns into 0 and 1, unless the model says others."""

GLARING = 16
"""Floats above this are no numbers from 0 to 1, nor standardised ones."""


@dataclass(frozen=True, slots=True)
class Normalization:
    """``(raw - offset) * scale`` per channel, and where it comes from."""

    mode: str
    """``none``, ``unit``, ``zscore``, ``percentile``, ``imagenet``, ``given`` or ``described``."""
    offset: tuple[float, ...]
    """Subtracted from the raw pixels."""
    scale: tuple[float, ...]
    """Multiplied after that."""
    note: str
    """What was done, and who asked for it."""
    warning: str | None = None
    """What looks wrong about it."""
    clip: tuple[float | None, float | None] = (None, None)
    """Smallest and largest number that the network is given."""


def full_scale(dtype: str) -> float:
    """Return the raw value that stands for 1: an integer type's maximum; 1 for floats.

    >>> full_scale("uint8"), full_scale("float32"), full_scale("bool")
    (255.0, 1.0, 1.0)
    """
    kind = np.dtype(dtype)
    return float(np.iinfo(kind).max) if kind.kind in "iu" else 1.0


def resolve_normalization(
    settings: Settings,
    network: NetworkFacts,
    source: Source,
    level: int,
    channels: tuple[int, ...],
    nodata: float | None = None,
) -> Normalization:
    """Decide how pixels are normalised, reading the image's statistics where that needs them.

    Values without data, i.e. NaN and ``nodata``, do not count.

    Raises:
        SettingError: Constants do not fit the number of channels, or the mode is unknown.
        ImageError: Statistics of an image that holds infinity.
    """
    dtype, count = source.facts.dtype, len(channels)
    full = full_scale(dtype)
    mode: str | None = settings.normalize
    mean, std, who = settings.mean, settings.std, "as asked"
    limits = USUAL_PERCENTILES
    whole_numbers = np.dtype(network.input_dtype).kind in "iu"
    if mode in (None, "auto") and mean is None:
        if network.preprocessing is not None:
            who = network.says("preprocessing")
            offset, scale, what = preprocessing_constants(
                network.preprocessing, source, level, channels, who, nodata
            )
            clip = network.preprocessing.clip
            if not whole_numbers:
                return Normalization("described", offset, scale, f"{what} ({who})", clip=clip)
            if any(offset) or set(scale) != {1.0} or clip != (None, None):
                raise ModelError(
                    f"{network.name} takes {network.input_dtype} pixels as they are, and its "
                    f"pre-processing is {what} ({who}); use normalize=none if that is wrong"
                )
        mode, mean, std = network.normalize, network.mean, network.std
        who = network.says("normalize" if mean is None else "mean")
        limits = network.percentiles or limits
    if whole_numbers:
        return _raw(network, source, mode, mean, who, count)
    if mean is not None and std is not None:
        return _constants("given", mean, std, full, count, f"normalised by mean and std, {who}")
    assumed = mode in (None, "auto")
    if assumed:
        mode = "none" if full == 1 else "unit"
        who = "assumed; say normalize otherwise"
    warning = _strange_range(source, level, channels, full, nodata) if assumed else None
    if mode == "none":
        note = f"pixels as they are ({who})"
        return Normalization("none", (0.0,) * count, (1.0,) * count, note, warning)
    if mode == "unit":
        note = f"{dtype} divided by {full:g} ({who})"
        return Normalization("unit", (0.0,) * count, (1 / full,) * count, note, warning)
    if mode == "imagenet":
        return _constants(
            "imagenet", IMAGENET_MEAN, IMAGENET_STD, full, count, f"ImageNet's mean and std ({who})"
        )
    if mode == "zscore":
        mean, std = mean_and_deviation(source, level, channels, nodata)
        scale = tuple(1 / value if value > 0 else 1.0 for value in std)
        return Normalization("zscore", mean, scale, f"mean 0, deviation 1 over the image ({who})")
    if mode == "percentile":
        low, high = percentiles(source, level, channels, limits, nodata)
        scales = tuple(1 / (h - lo) if h > lo else 1.0 for lo, h in zip(low, high, strict=True))
        note = f"percentiles {limits[0]:g} and {limits[1]:g} to 0 and 1 ({who})"
        return Normalization("percentile", low, scales, note)
    raise SettingError(
        f"normalize={mode!r} is unknown; use none, unit, zscore, percentile or imagenet"
    )


def largest_input(
    source: Source,
    level: int,
    channels: tuple[int, ...],
    normalization: Normalization,
    nodata: float | None = None,
) -> float:
    """Return the largest number, whatever its sign, that the network may be given."""
    kind = np.dtype(source.facts.dtype)
    if kind.kind in "iu":
        extremes = (float(np.iinfo(kind).min), float(np.iinfo(kind).max))
    else:
        sampled = kind.kind != "b"
        extremes = sampled_range(source, level, channels, nodata) if sampled else (0.0, 1.0)
    values = [
        (extreme - offset) * scale
        for extreme in extremes
        for offset, scale in zip(normalization.offset, normalization.scale, strict=True)
    ]
    low, high = normalization.clip
    return max(
        abs(min(max(value, -inf if low is None else low), inf if high is None else high))
        for value in values
    )


def _raw(
    network: NetworkFacts,
    source: Source,
    mode: str | None,
    mean: tuple[float, ...] | None,
    who: str,
    channels: int,
) -> Normalization:
    """Return no normalisation, for a network that takes whole numbers.

    Raises:
        SettingError: Something else is wanted, or its type does not hold the image's numbers.
    """
    wanted, dtype = network.input_dtype, source.facts.dtype
    if mean is not None or mode not in (None, "auto", "none"):
        asked = "mean and std" if mean is not None else f"normalize={mode}"
        raise SettingError(
            f"{network.name} takes {wanted} pixels as they are, so {asked} ({who}) is not "
            "possible; leave it out"
        )
    if not np.can_cast(dtype, wanted):
        raise SettingError(
            f"{network.name} takes {wanted} pixels as they are, and {source.facts.name} is "
            f"{dtype}; convert the image to {wanted}"
        )
    note = f"pixels as they are (the network takes {wanted})"
    return Normalization("none", (0.0,) * channels, (1.0,) * channels, note)


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


def _strange_range(
    source: Source, level: int, channels: tuple[int, ...], full: float, nodata: float | None
) -> str | None:
    """Return a warning where an assumed scale leaves the network almost black, or glaring."""
    dtype = source.facts.dtype
    if dtype in ("bool", "uint8", "int8"):
        return None
    low, high = sampled_range(source, level, channels, nodata)
    if full > 1 and high < full / 4:
        what = f"was divided by {full:g}, but its pixels lie between {low:g} and {high:g}"
        seen = "almost black"
    elif full == 1 and high > GLARING:
        what = f"was left as it is, and its pixels lie between {low:g} and {high:g}"
        seen = "numbers far from 0 to 1"
    else:
        return None
    return (
        f"the {dtype} image {what}: the network sees {seen}; use normalize=zscore, "
        "normalize=percentile, or mean and std, whichever it was trained with"
    )
