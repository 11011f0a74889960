"""One pass over the whole mirror-extended image: what every mask is compared with.

Nothing here comes from the engine, nor do the numbers it is called with: margin and period are
worked out by hand from the networks' layers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

TOLERANCE = 1e-5
"""Rounding that two ways to compute the same fp32 logits may differ by, of the largest logit."""


@dataclass(frozen=True)
class Shape:
    """What a network does to sizes, worked out by hand."""

    margin: int
    """Pixels lost per side."""
    period: int
    """Product of the poolings."""
    smallest: int
    """One valid input size; all others are whole periods away."""
    padding_reach: int = 0
    """No output pixel further from the border than this feels zero padding."""


def mirrored(length: int, before: int, after: int) -> NDArray[np.intp]:
    """Walk from ``-before`` to ``length + after``, turning round at the first and last pixel."""
    where, step, path = 0, 1, [0]
    while len(path) < before + length + after + 2 * length:
        if length > 1 and not 0 <= where + step < length:
            step = -step
        where += step if length > 1 else 0
        path.append(where)
    # Walking down from pixel 0 meets the same pixels as walking up: 1, 2, 3, ...
    return np.array(path[before:0:-1] + path[: length + after], dtype=np.intp)


def whole_pass(
    network: Callable[[torch.Tensor], torch.Tensor], image: NDArray[np.floating], shape: Shape
) -> NDArray[np.float32]:
    """Return the logits ``(class, y, x)`` of a normalised image ``(y, x, channel)``.

    The first pixel read is a whole number of periods and the margin before the image.
    """
    lead = -(-shape.padding_reach // shape.period) * shape.period
    for axis in (0, 1):
        length = image.shape[axis]
        needed = lead + length + shape.padding_reach + 2 * shape.margin
        size = shape.smallest + max(0, -(-(needed - shape.smallest) // shape.period)) * shape.period
        before = lead + shape.margin
        image = image.take(mirrored(length, before, size - length - before), axis=axis)
        if axis == 0:
            height = length
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32))
    with torch.inference_mode():
        logits: NDArray[np.float32] = network(pixels)[0].numpy()
    return logits[:, lead : lead + height, lead : lead + length]


def label_of(logits: NDArray[np.floating]) -> NDArray[np.intp]:
    """Return the best class, or for one class whether its logit is above 0."""
    best = (logits[0] > 0) if len(logits) == 1 else logits.argmax(axis=0)
    return np.asarray(best, np.intp)


def logit_error(
    found: NDArray[np.floating], reference: NDArray[np.floating], scale: float = 0
) -> float:
    """Return the largest difference as a share of the largest logit."""
    largest = max(float(np.abs(reference).max()), scale)
    return float(np.abs(found.astype(np.float64) - reference).max()) / largest


def clear_pixels(reference: NDArray[np.floating], scale: float = 0) -> NDArray[np.bool_]:
    """Return where the best two logits differ by more than rounding can."""
    both = np.concatenate([reference, 0 * reference]) if len(reference) == 1 else reference
    second, best = np.partition(both, -2, axis=0)[-2:]
    clear: NDArray[np.bool_] = best - second > 2 * TOLERANCE * max(np.abs(reference).max(), scale)
    return clear


def assert_whole_pass(logits: Any, labels: Any, reference: NDArray[np.floating]) -> None:
    """Fail unless a run's logits and labels are those of the whole pass, rounding aside."""
    logits, labels = np.asarray(logits), np.asarray(labels)
    assert (logits.shape, labels.shape) == (reference.shape, reference.shape[1:])
    error, wrong = logit_error(logits, reference), wrong_share(labels, reference)
    assert error <= TOLERANCE, f"logits differ by {error:.2g} of the largest"
    assert wrong == 0, f"{wrong:.2g} of the labels differ"


def wrong_share(labels: NDArray[np.generic], reference: NDArray[np.floating]) -> float:
    """Return the share of pixels whose label is not the reference's, rounding aside."""
    return float(((labels != label_of(reference)) & clear_pixels(reference)).mean())
