"""Corners of the outlines of labelled regions."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Corners(NamedTuple):
    """Places where an outline turns, on the lattice of the pixels' corners.

    Each belongs to one pixel, the one inside the region that the turn is made around, and joins one
    horizontal to one vertical side of the outline.
    """

    y: Integers
    """Row of the lattice: the upper side of that row of pixels."""
    x: Integers
    """Column of the lattice."""
    label: Integers
    """Label of the region."""
    below: Flags
    """Whether the region lies below the horizontal side, else above."""
    right: Flags
    """Whether the region lies to the right of the vertical side, else to the left."""
    left_end: Flags
    """Whether the corner is the left end of the horizontal side."""
    top_end: Flags
    """Whether the corner is the upper end of the vertical side."""
    run_start: Integers
    """Column where the run of pixels begins that ends at this corner, in the row of pixels below
    it, if the region surrounds the corner but for the lower right; else -1. Every hole has such a
    corner, and its run leads to an outline of the same region that begins further up or left."""


def find_corners(pixels: NDArray[np.generic], top: int, skipped: tuple[int, ...]) -> Corners:
    """Return the corners at the upper left of each pixel but those of the first row and column.

    Args:
        pixels: Labels ``(y, x)`` of whole rows, with the row above and a column of skipped labels
            on either side.
        top: Row of the lattice that the second row of pixels begins at.
        skipped: Labels that get no outline.
    """
    across = pixels[:, 1:] != pixels[:, :-1]
    down = pixels[1:] != pixels[:-1]
    turns = (across[:-1] | across[1:]) & (down[:, :-1] | down[:, 1:])
    row, column = np.divmod(np.flatnonzero(turns), turns.shape[1])
    parts = list(_around(pixels, row, column, skipped))
    found = Corners(*(np.concatenate(field) for field in zip(*parts, strict=True)))

    asked = np.flatnonzero(found.run_start)
    borders = np.flatnonzero(across[1:])
    places = found.y[asked] * turns.shape[1] + found.x[asked]
    before = borders[np.searchsorted(borders, places) - 1]  # the run's own border, in the same row
    run_start = np.full(len(found.y), -1, np.int64)
    run_start[asked] = before % turns.shape[1]
    return found._replace(y=found.y + top, run_start=run_start)


def _around(
    pixels: NDArray[np.generic], row: Integers, column: Integers, skipped: tuple[int, ...]
) -> Iterator[Corners]:
    """Yield the corners that belong to the upper left, upper right, ... pixel around each point.

    Regions are connected by sides, so of four pixels ``a b / b a`` each has a corner of its own.
    """
    around = [[pixels[row + south, column + east] for east in (0, 1)] for south in (0, 1)]
    for south, east in ((0, 0), (0, 1), (1, 0), (1, 1)):
        own, beside = around[south][east], around[south][1 - east]
        beyond, across = around[1 - south][east], around[1 - south][1 - east]
        convex = (own != beside) & (own != beyond)
        concave = (own == beside) & (own == beyond) & (own != across)
        keep = np.flatnonzero((convex | concave) & ~np.isin(own, skipped))
        convex = convex[keep]
        yield Corners(
            y=row[keep],
            x=column[keep],
            label=own[keep].astype(np.int64),
            below=np.full(len(keep), bool(south)),
            right=np.full(len(keep), bool(east)),
            left_end=convex == bool(east),
            top_end=convex == bool(south),
            run_start=(~convex & (not south and not east)).astype(np.int64),
        )
