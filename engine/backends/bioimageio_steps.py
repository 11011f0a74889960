"""The Model Zoo's pre- and post-processing in the engine's words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import exp
from typing import Any, NoReturn

from .base import Activation
from .preprocessing import Preprocessing, Statistic


class UnsupportedError(Exception):
    """A step that the engine has no words for; the text names it."""


def read_preprocessing(steps: Iterable[Any], channels: int | None) -> Preprocessing:
    """Return what the steps do, one after the other, to raw pixels.

    A step that cannot be followed is named in ``unsupported``: an option may replace all of them.

    Args:
        steps: Descriptions of the library ``bioimageio.spec``, format 0.5.
        channels: Channels of the input; ``None`` without a channel axis.
    """
    found = Preprocessing()
    try:
        for step in steps:
            found = _STEPS.get(step.id, _refuse)(found, step, channels)
    except UnsupportedError as error:
        return Preprocessing(unsupported=str(error))
    return found


def _refuse(found: Preprocessing, step: Any, channels: int | None) -> NoReturn:
    raise UnsupportedError(step.id)


def _ensure_dtype(found: Preprocessing, step: Any, channels: int | None) -> Preprocessing:
    dtype = step.kwargs.dtype
    if dtype.startswith("float"):
        return found
    if dtype == "bool" or found != Preprocessing():
        raise UnsupportedError(f"ensure_dtype {dtype}")  # cuts off fractions
    return replace(found, dtype=dtype)


def _scale_linear(found: Preprocessing, step: Any, channels: int | None) -> Preprocessing:
    gain, shift = _numbers(step, "gain", channels), _numbers(step, "offset", channels)
    return _linear(found, step, gain, shift)


def _fixed(found: Preprocessing, step: Any, channels: int | None) -> Preprocessing:
    mean, std = _numbers(step, "mean", channels), _numbers(step, "std", channels)
    gain = tuple(1 / value for value in std)
    return _linear(found, step, gain, tuple(-m * g for m, g in zip(mean, gain, strict=True)))


def _zscore(found: Preprocessing, step: Any, channels: int | None) -> Preprocessing:
    return _statistic(found, step, channels, "zscore")


def _percentile(found: Preprocessing, step: Any, channels: int | None) -> Preprocessing:
    if step.kwargs.reference_tensor is not None:
        raise UnsupportedError("scale_range with a reference_tensor")
    limits = (float(step.kwargs.min_percentile), float(step.kwargs.max_percentile))
    return replace(_statistic(found, step, channels, "percentile"), percentiles=limits)


def _clip(found: Preprocessing, step: Any, channels: int | None) -> Preprocessing:
    kwargs = step.kwargs
    names = ("min_percentile", "max_percentile")
    if any(getattr(kwargs, name, None) is not None for name in names):
        raise UnsupportedError("clip at percentiles")
    if found.clip != (None, None):
        raise UnsupportedError("a second clip")
    return replace(found, clip=(kwargs.min, kwargs.max))


_STEPS = {
    "ensure_dtype": _ensure_dtype,
    "scale_linear": _scale_linear,
    "fixed_zero_mean_unit_variance": _fixed,
    "zero_mean_unit_variance": _zscore,
    "scale_range": _percentile,
    "clip": _clip,
}


def _numbers(step: Any, name: str, channels: int | None) -> tuple[float, ...]:
    """Return a number for all channels, or one for each."""
    value = getattr(step.kwargs, name)
    if not isinstance(value, Sequence):
        return (float(value),)
    if step.kwargs.axis != "channel" or len(value) != channels:
        raise UnsupportedError(f"{step.id} with {len(value)} x {name} along {step.kwargs.axis}")
    return tuple(map(float, value))


def _linear(
    found: Preprocessing, step: Any, gain: tuple[float, ...], shift: tuple[float, ...]
) -> Preprocessing:
    if found.clip != (None, None):
        raise UnsupportedError(f"{step.id} after clip")
    gain, shift, gain_before, shift_before = _as_long(gain, shift, found.gain, found.shift)
    return replace(
        found,
        gain=tuple(a * b for a, b in zip(gain, gain_before, strict=True)),
        shift=tuple(a * b + c for a, b, c in zip(gain, shift_before, shift, strict=True)),
    )


def _as_long(*values: tuple[float, ...]) -> list[tuple[float, ...]]:
    """Return tuples of one length: a single number counts for every channel."""
    longest = max(map(len, values))
    return [value * longest if len(value) == 1 else value for value in values]


def _statistic(
    found: Preprocessing, step: Any, channels: int | None, name: Statistic
) -> Preprocessing:
    """Return the statistic; what was scaled evenly before has the same one but for ``eps``."""
    if found.statistic != "none" or found.clip != (None, None):
        raise UnsupportedError(f"{step.id} after a statistic or a clip")
    if len({*found.gain}) > 1 or len({*found.shift}) > 1 or found.gain[0] <= 0:
        raise UnsupportedError(f"{step.id} after a scaling that differs between channels")
    axes = step.kwargs.axes
    if axes is not None and not {"y", "x"} <= set(axes):
        raise UnsupportedError(f"{step.id} over {', '.join(axes)} instead of the whole plane")
    joint = (channels or 1) > 1 and (axes is None or "channel" in axes)
    eps = float(step.kwargs.eps) / found.gain[0]
    return Preprocessing(name, joint=joint, eps=eps, dtype=found.dtype)


@dataclass(frozen=True, slots=True)
class Postprocessing:
    """What becomes of the network's output."""

    activation: Activation | None = None
    """What turns it into probabilities."""
    threshold: float | None = None
    """Probability above which a single channel is 1."""
    left_out: tuple[str, ...] = ()
    """Steps that the mask is made without."""


def read_postprocessing(steps: Iterable[Any], classes: int | None) -> Postprocessing:
    """Return what the steps do to the output, as far as a mask needs it.

    Args:
        steps: Descriptions of the library ``bioimageio.spec``, format 0.5.
        classes: Channels of the output; ``None`` without a channel axis.
    """
    found = Postprocessing()
    names: list[str] = []
    for step in steps:
        before = found
        if step.id == "ensure_dtype":
            continue
        if not names and found.threshold is None:
            if step.id in ("sigmoid", "softmax") and found.activation is None:
                if step.id == "sigmoid" or step.kwargs.axis == "channel":
                    found = replace(found, activation=step.id)
            elif step.id == "binarize" and (classes or 1) == 1:
                found = _binarized(found, step.kwargs.threshold)
        if found == before:
            names.append(step.id)
    return replace(found, left_out=tuple(names))


def _binarized(found: Postprocessing, threshold: Any) -> Postprocessing:
    (limit,) = map(float, threshold if isinstance(threshold, Sequence) else (threshold,))
    if 0 < limit < 1:
        return replace(found, activation=found.activation or "none", threshold=limit)
    # Of an output that is no probability: the sigmoid of both sides says the same.
    probability = 1 / (1 + exp(-limit)) if abs(limit) < 30 else 0.0
    if found.activation is None and 0 < probability < 1:
        return replace(found, activation="sigmoid", threshold=probability)
    return found
