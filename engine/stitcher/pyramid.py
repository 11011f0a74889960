"""Lower resolutions of a mask, by the commonest label of four."""

from math import gcd

import numpy as np
from numpy.typing import NDArray

from ...tiler.box import Box, Interval
from ...tiler.grid import Grid
from .store import ZarrArray

SMALLEST_PX = 1024
"""The pyramid ends with a level that is not larger than this."""


def level_shapes(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the height and width of every level, level 0 first.

    >>> level_shapes((3001, 2000))
    [(3001, 2000), (1501, 1000), (751, 500)]
    """
    shapes = [shape]
    while max(shapes[-1]) > SMALLEST_PX:
        height, width = shapes[-1]
        shapes.append((-(-height // 2), -(-width // 2)))
    return shapes


def block_levels(grid: Grid) -> int:
    """Return how many lower levels a block fills with whole chunks of its own."""
    possible = len(level_shapes(grid.shape)) - 1
    # A block that spans its axis owns every chunk there, however its size divides.
    chunks = gcd(
        *(0 if axis.blocks == 1 else axis.block // axis.chunk for axis in (grid.y, grid.x))
    )
    if chunks == 0:
        return possible
    return min(possible, (chunks & -chunks).bit_length() - 1)


def box_at(box: Box, level: int) -> Box:
    """Return the rectangle of a lower level that ``box`` shrinks to."""
    return Box(*(Interval(side.start >> level, -(-side.stop // (1 << level))) for side in box))


def halve(labels: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return labels ``(y, x)`` at half the resolution: of four, the one that occurs most.

    The upper left one wins a tie that it takes part in, else the upper right one. An odd last
    row or column is repeated.

    >>> halve(np.array([[1, 2, 0], [2, 3, 0]])).tolist()
    [[2, 0]]
    """
    height, width = labels.shape
    if height % 2 or width % 2:
        labels = np.pad(labels, ((0, height % 2), (0, width % 2)), mode="edge")
    # Copies without gaps are compared three times as fast.
    a, b, c, d = (labels[y::2, x::2].copy() for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)))
    alone = (a != b) & (a != c) & (a != d)
    np.copyto(a, c, where=alone & (c == d))
    np.copyto(a, b, where=alone & ((b == c) | (b == d)))
    return a


def build_level(finer: ZarrArray, coarser: ZarrArray) -> int:
    """Fill a level from the one above it, chunk by chunk; return how many were written."""
    height, width = coarser.chunks
    written = 0
    for y in range(0, coarser.shape[0], height):
        for x in range(0, coarser.shape[1], width):
            part = finer[2 * y : 2 * (y + height), 2 * x : 2 * (x + width)]
            coarser[y : y + height, x : x + width] = halve(np.asarray(part))
            written += 1
    return written
