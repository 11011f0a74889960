"""The single nuclei of the synthetic tissue, where its truth only says nucleus or not."""

import numpy as np
from numpy.typing import NDArray

from ...tiler.box import Box
from .anatomy import Anatomy
from .ellipses import owners
from .plane import BLOCK_PX, Block, Plane
from .tissue import outline_wobble

_PLACES_PER_PX = 256
"""Two nuclei nearer than that to one place would be taken for one."""


def nuclei(region: Box, seed: int) -> NDArray[np.int32]:
    """Return the number of the nucleus at each pixel ``(y, x)``, from 1; 0 where there is none.

    Where nuclei overlap, a pixel belongs to the one that covers it most.

    Args:
        region: A rectangle of the slide.
        seed: Which slide, as for ``tissue``.
    """
    plane = Plane(seed)
    names = np.zeros(region.shape, np.int64)
    for y0 in range(region.y.start // BLOCK_PX * BLOCK_PX, region.y.stop, BLOCK_PX):
        for x0 in range(region.x.start // BLOCK_PX * BLOCK_PX, region.x.stop, BLOCK_PX):
            y, x = region.y.clip(y0, y0 + BLOCK_PX), region.x.clip(x0, x0 + BLOCK_PX)
            into = Box(y.shift(-region.y.start), x.shift(-region.x.start)).slices
            names[into] = _names(Block(plane, y0, x0))[Box(y.shift(-y0), x.shift(-x0)).slices]
    inside = names != 0
    numbers = np.zeros(region.shape, np.int32)
    numbers[inside] = np.unique(names[inside], return_inverse=True)[1] + 1
    return numbers


def _names(block: Block) -> NDArray[np.int64]:
    """Return a number for each nucleus that is the same in every block, 0 where there is none."""
    kinds = Anatomy(block).nuclei()
    place_y, place_x = (
        np.rint(np.concatenate(places) * _PLACES_PER_PX).astype(np.int64)
        for places in ([kind.y for kind in kinds], [kind.x for kind in kinds])
    )
    names = (place_y << 32) + place_x
    names = np.append(np.where(names == 0, 1, names), 0)  # the last stands for -1, no nucleus
    return names[owners(kinds, block, outline_wobble(block))]
