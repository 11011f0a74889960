"""Extension of an image beyond its borders by reflection without repeating the edge pixel.

``d c b [a b c d] c b a``: NumPy calls it ``reflect``; it is what the U-Net paper draws. Reflection
repeats as often as it must, so that an image smaller than the margin, even of one pixel, works.
"""

import numpy as np
from numpy.typing import NDArray

from .box import Box, Interval


def mirror_index(span: Interval, length: int) -> NDArray[np.intp]:
    """Return the image coordinate that each coordinate of ``span`` mirrors.

    Args:
        span: Coordinates along one axis, partly or wholly outside ``[0, length)``.
        length: Pixels of the image along that axis.

    Returns:
        ``span.size`` coordinates inside ``[0, length)``.

    >>> mirror_index(Interval(-3, 6), 4).tolist()
    [3, 2, 1, 0, 1, 2, 3, 2, 1]
    >>> mirror_index(Interval(-2, 2), 1).tolist()
    [0, 0, 0, 0]
    """
    turn = max(1, 2 * (length - 1))  # after so many pixels the reflections repeat
    folded = np.arange(span.start, span.stop, dtype=np.intp) % turn
    return np.minimum(folded, turn - folded) if length > 1 else np.zeros_like(folded)


def mirrored_region(span: Interval, length: int) -> Interval:
    """Return the part of ``[0, length)`` that must be read to mirror ``span``."""
    if span.start >= 0 and span.stop <= length:
        return span
    index = mirror_index(span, length)
    return Interval(int(index.min()), int(index.max()) + 1)


def extend(
    pixels: NDArray[np.generic], region: Box, wanted: Box, shape: tuple[int, int]
) -> NDArray[np.generic]:
    """Return the pixels of ``wanted``, which may reach beyond the image, from those of ``region``.

    Args:
        pixels: Array ``(y, x, ...)`` of ``region``.
        region: Rectangle inside the image, as ``mirrored_region`` gives it for each axis.
        wanted: Rectangle to fill.
        shape: Height and width of the image in pixels.

    Returns:
        Array ``(y, x, ...)`` of ``wanted``, same dtype; no copy where nothing is mirrored.
    """
    for axis in range(2):
        # A gather costs 16 times a plain copy: only where the wanted pixels leave the image.
        if wanted[axis] != region[axis]:
            index = mirror_index(wanted[axis], shape[axis]) - region[axis].start
            pixels = np.take(pixels, index, axis=axis)
    return pixels
