"""The eight ways to turn and mirror a picture onto its own grid."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .box import Box, Interval


@dataclass(frozen=True, slots=True)
class Turn:
    """A transposition, and flips after it.

    >>> Turn(transpose=True, flip_x=True).apply(np.array([[1, 2], [3, 4]])).tolist()
    [[3, 1], [4, 2]]
    """

    transpose: bool = False
    """Whether rows become columns."""
    flip_y: bool = False
    """Whether what is then the first row becomes the last."""
    flip_x: bool = False
    """Whether what is then the first column becomes the last."""

    @property
    def is_none(self) -> bool:
        """Whether everything stays where it is."""
        return not (self.transpose or self.flip_y or self.flip_x)

    def apply(self, pixels: NDArray[Any], y_axis: int = 0) -> NDArray[Any]:
        """Return a turned view of an array whose axes ``y_axis`` and the next are y and x."""
        turned = pixels.swapaxes(y_axis, y_axis + 1) if self.transpose else pixels
        return self._flipped(turned, y_axis)

    def undo(self, pixels: NDArray[Any], y_axis: int = 0) -> NDArray[Any]:
        """Return a view of a turned array as it was before."""
        flipped = self._flipped(pixels, y_axis)
        return flipped.swapaxes(y_axis, y_axis + 1) if self.transpose else flipped

    def _flipped(self, pixels: NDArray[Any], y_axis: int) -> NDArray[Any]:
        axes = (y_axis, y_axis + 1)
        flipped = tuple(n for n, flip in zip(axes, (self.flip_y, self.flip_x), strict=True) if flip)
        return np.flip(pixels, flipped)

    def size(self, before: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of what is turned."""
        return (before[1], before[0]) if self.transpose else before

    def box_before(self, box: Box, size: tuple[int, int]) -> Box:
        """Return where a rectangle of the turned picture, ``size`` large, was before."""
        y = _mirrored(box.y, size[0]) if self.flip_y else box.y
        x = _mirrored(box.x, size[1]) if self.flip_x else box.x
        return Box(x, y) if self.transpose else Box(y, x)


FLIPS = tuple(Turn(False, y, x) for y, x in product((False, True), repeat=2))
"""The picture, and its three mirror images along the axes."""

DIHEDRAL = tuple(Turn(*turn) for turn in product((False, True), repeat=3))
"""All eight."""


def _mirrored(interval: Interval, length: int) -> Interval:
    return Interval(length - interval.stop, length - interval.start)
