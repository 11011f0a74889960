"""Constants for what a description does to an image's pixels."""

import numpy as np

from ..tiler.errors import ModelError
from .backends.preprocessing import Preprocessing
from .sources import Source
from .statistics import mean_and_deviation, percentiles

Constants = tuple[tuple[float, ...], tuple[float, ...], str]


def preprocessing_constants(
    steps: Preprocessing,
    source: Source,
    level: int,
    channels: tuple[int, ...],
    who: str,
    nodata: float | None = None,
) -> Constants:
    """Return offset and scale per channel, as ``(raw - offset) * scale``, and what they do.

    Args:
        steps: What is to be done.
        source: The image.
        level: Its resolution.
        channels: Which of its channels.
        who: Who says so, for errors.
        nodata: The value, besides NaN, that holds no data.

    Raises:
        ModelError: A step cannot be followed, or is not meant for so many channels.
        ImageError: The image has no statistics.
    """
    if steps.unsupported:
        raise ModelError(
            f"pre-processing {steps.unsupported}, {who}, is not supported; use normalize, or mean "
            "and std, to say another"
        )
    if steps.dtype and not np.can_cast(source.facts.dtype, steps.dtype):
        raise ModelError(
            f"the network wants {steps.dtype}, {who}, and {source.facts.name} is "
            f"{source.facts.dtype}; convert the image, or use normalize to say how it is scaled"
        )
    count = len(channels)
    gain, shift = (_each(value, count, who) for value in (steps.gain, steps.shift))
    low, spread, what = np.zeros(count), np.ones(count), []
    if steps.statistic == "zscore":
        moments = mean_and_deviation(source, level, channels, nodata, joint=steps.joint)
        low, spread = map(np.array, moments)
        what.append("mean 0, deviation 1 over the image")
    elif steps.statistic == "percentile":
        limits = percentiles(source, level, channels, steps.percentiles, nodata, joint=steps.joint)
        low, high = map(np.array, limits)
        spread = high - low
        what.append(f"percentiles {steps.percentiles[0]:g} and {steps.percentiles[1]:g} to 0 and 1")
    if steps.joint:
        what.append("all channels alike")
    spread = spread + steps.eps
    scale = gain / np.where(spread > 0, spread, 1)
    # A gain of 0 leaves nothing of the pixels to shift.
    offset = low - shift / np.where(scale == 0, 1, scale)
    if any(shift) or any(gain != 1):
        what.append(f"times {_shown(gain)} plus {_shown(shift)}")
    if steps.clip != (None, None):
        what.append(f"clipped to {steps.clip[0]} .. {steps.clip[1]}".replace("None", ""))
    return (
        tuple(np.broadcast_to(offset, count).tolist()),
        tuple(np.broadcast_to(scale, count).tolist()),
        ", ".join(what) or "pixels as they are",
    )


def _each(
    values: tuple[float, ...], channels: int, who: str
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    if len(values) not in (1, channels):
        raise ModelError(
            f"pre-processing is for {len(values)} channels, {who}, but the network is given "
            f"{channels}; use channels to choose as many"
        )
    return np.resize(np.array(values, np.float64), channels)


def _shown(values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> str:
    return ", ".join(dict.fromkeys(f"{value:g}" for value in values.tolist()))
