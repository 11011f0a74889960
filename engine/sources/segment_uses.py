"""How often each segment of an image is still to be read."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ...tiler.box import Box


class SegmentUses:
    """Counts down the reads that were announced of each segment, so that the last one is known."""

    def __init__(self, shape: tuple[int, int], segment: tuple[int, int], planes: int = 1) -> None:
        """Expect nothing.

        Args:
            shape: Rows and columns of segments.
            segment: Height and width of one in pixels.
            planes: Times that all of them are there.
        """
        self._segment = segment
        self._left: NDArray[np.int32] = np.zeros((planes, *shape), np.int32)

    def expect(self, boxes: Iterable[Box]) -> None:
        """Announce that each of these rectangles will be read once, and nothing else."""
        self._left[:] = 0
        height, width = self._segment
        for box in boxes:
            rows = slice(box.y.start // height, -(-box.y.stop // height))
            columns = slice(box.x.start // width, -(-box.x.stop // width))
            self._left[:, rows, columns] += 1

    def is_last(self, plane: int, row: int, column: int) -> bool:
        """Count a read; say whether it was the last, not so where none was announced."""
        self._left[plane, row, column] -= 1
        return bool(self._left[plane, row, column] == 0)
