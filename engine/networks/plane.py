"""Seeded smooth noise on an endless plane, at points and over whole blocks."""

import numpy as np
from numpy.typing import NDArray

BLOCK_PX = 512
"""Side of the blocks that the plane is made in, aligned to its origin."""

Floats = NDArray[np.float32]
Points = NDArray[np.float64]


class Plane:
    """Numbers that depend on seed and place alone, so any part can be made without the rest.

    A salt tells one field from another; each use has its own.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        side = np.arange(256, dtype=np.float64)
        grid = np.meshgrid(side, side, indexing="ij")
        self._table = (2 * self.uniform(2, *grid) - 1).astype(np.float32)

    def uniform(self, salt: int, j: Points, i: Points) -> Points:
        """Return a number in ``[0, 1)`` for each integer place ``(j, i)``."""
        # Integer mixing in the manner of splitmix64; overflow is meant.
        key = (self._seed * 1_000_003 + salt) * 0x9E3779B97F4A7C15 % 2**64
        h = j.astype(np.int64).astype(np.uint64) * np.uint64(0xBF58476D1CE4E5B9)
        h = h ^ (i.astype(np.int64).astype(np.uint64) * np.uint64(0x94D049BB133111EB))
        h ^= np.uint64(key)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            h = (h ^ (h >> np.uint64(shift))) * np.uint64(factor)
        h ^= h >> np.uint64(31)
        return np.asarray((h >> np.uint64(11)).astype(np.float64) * 2.0**-53)

    def noise(self, salt: int, scale: float, y: Points, x: Points) -> Points:
        """Return smooth noise in ``[-1, 1]`` that varies over ``scale`` pixels, at points."""
        v, u = y / scale, x / scale
        j, i = np.floor(v), np.floor(u)
        ty, tx = _ease(v - j), _ease(u - i)
        top = self.uniform(salt, j, i) * (1 - tx) + self.uniform(salt, j, i + 1) * tx
        low = self.uniform(salt, j + 1, i) * (1 - tx) + self.uniform(salt, j + 1, i + 1) * tx
        return 2 * (top * (1 - ty) + low * ty) - 1

    def lookup(self, v: Floats, u: Floats) -> Floats:
        """Return noise of scale 1 at any real places; repeats after 256."""
        j, i = np.floor(v), np.floor(u)
        ty, tx = v - j, u - i
        left, top = i.astype(np.int32) & 255, (j.astype(np.int32) & 255) * 256
        right, low = (left + 1) & 255, (top + 256) & 0xFFFF
        table = self._table.ravel()
        above = table.take(top + left) * (1 - tx) + table.take(top + right) * tx
        below = table.take(low + left) * (1 - tx) + table.take(low + right) * tx
        return np.asarray(above * (1 - ty) + below * ty)


class Block:
    """The ``BLOCK_PX`` square of a plane whose first pixel is ``(y0, x0)``."""

    def __init__(self, plane: Plane, y0: int, x0: int) -> None:
        self.plane = plane
        self.y0 = y0
        self.x0 = x0

    def noise(self, salt: int, scale: float) -> Floats:
        """Return :meth:`Plane.noise` at every pixel ``(y, x)``, as two small matrix products."""
        rows, j = _lattice(self.y0, scale)
        columns, i = _lattice(self.x0, scale)
        values = 2 * self.plane.uniform(salt, *np.meshgrid(j, i, indexing="ij")) - 1
        return rows @ (values.astype(np.float32) @ columns.T)

    def pixels(self) -> tuple[Floats, Floats]:
        """Return the pixels' places, ``(y, 1)`` and ``(1, x)``."""
        side = np.arange(BLOCK_PX, dtype=np.float32)
        return (side + np.float32(self.y0))[:, None], (side + np.float32(self.x0))[None, :]

    def cells(self, side: int, reach: int) -> tuple[Points, Points]:
        """Return the indices of the square cells that lie within ``reach`` pixels of the block."""
        j, i = (
            np.arange((start - reach) // side, (start + BLOCK_PX + reach) // side + 1)
            for start in (self.y0, self.x0)
        )
        grid_j, grid_i = np.meshgrid(j.astype(np.float64), i.astype(np.float64), indexing="ij")
        return grid_j.ravel(), grid_i.ravel()


def _ease(t: Points) -> Points:
    """Return the quintic that leaves 0 and reaches 1 with no slope and no curvature."""
    return t * t * t * (t * (t * 6 - 15) + 10)


def _lattice(start: int, scale: float) -> tuple[Floats, Points]:
    """Return weights ``(pixel, lattice point)`` for one axis of a block, and the lattice points."""
    place = np.arange(start, start + BLOCK_PX) / scale
    below = np.floor(place)
    share = _ease(place - below)
    row, column = np.arange(BLOCK_PX), (below - below[0]).astype(np.int64)
    points = np.arange(below[0], below[-1] + 2)
    weights = np.zeros((BLOCK_PX, points.size), np.float32)
    weights[row, column] = 1 - share
    weights[row, column + 1] = share
    return weights, points
