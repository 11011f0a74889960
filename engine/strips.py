"""The order of blocks in which neighbours share what was decoded, and how much is kept for that.

Row after row of a wide image, the segments that the next row needs as well would fill more memory
the wider it is. Blocks are therefore walked in strips of bounded width, each row by row::

    1  2 | 7  8
    3  4 | 9 10
    5  6 |11 12
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..tiler.axis import AxisGrid
from ..tiler.grid import Grid
from ..tiler.mirror import mirrored_region
from .sources import ImageFacts
from .sources.segment_cache import CACHE_BYTES


@dataclass(frozen=True, slots=True)
class Strips:
    """How wide a strip is, and what it needs."""

    columns: int
    """Blocks along the width of a strip."""
    kept_bytes: int
    """Decoded segments kept at most; where memory allows, enough to decode each once in a strip."""

    def order(self, grid: Grid, blocks: Iterable[int]) -> "array[int]":
        """Return blocks in the order in which they are computed."""
        numbers = np.fromiter(blocks, np.int64)
        strips = numbers % grid.x.blocks // self.columns
        return array("q", numbers[np.lexsort((numbers, strips))].tobytes())


def choose_strips(
    grid: Grid, image: ImageFacts, level: int, threads: int, spare_bytes: int
) -> Strips:
    """Return the widest strips whose shared segments stay within ``CACHE_BYTES``.

    Strips are never narrower than a segment: one that spans the image is kept for a whole row of
    blocks, if there is memory for that.

    Args:
        grid: The blocks.
        image: The image, which says what it is decoded in.
        level: Resolution that is read.
        threads: Blocks in flight.
        spare_bytes: What may be kept beyond ``CACHE_BYTES``.
    """
    segment = image.levels[level].segment
    if segment is None:
        return Strips(grid.x.blocks, CACHE_BYTES)
    rows, columns = (
        _segments(axis, size) for axis, size in zip((grid.y, grid.x), segment, strict=True)
    )
    height = max(map(len, rows))
    segment_bytes = segment[0] * segment[1] * image.channels * np.dtype(image.dtype).itemsize

    def kept_bytes(count: int) -> int:
        width = max(
            columns[min(first + count, len(columns)) - 1].stop - columns[first].start
            for first in range(0, len(columns), count)
        )
        # What the next row of blocks needs, and what the blocks in flight have in common.
        shared = _shared(rows) * width + threads * _shared(columns) * height
        return segment_bytes * min(shared, height * width)

    fewest = min(grid.x.blocks, -(-segment[1] // grid.scale.image_px(grid.x.block)))
    for strips in range(1, grid.x.blocks // fewest + 1):
        count = -(-grid.x.blocks // strips)
        if kept_bytes(count) <= CACHE_BYTES:
            return Strips(count, CACHE_BYTES)
    wanted = max(CACHE_BYTES, kept_bytes(fewest))
    return Strips(fewest, wanted if wanted - CACHE_BYTES <= spare_bytes else CACHE_BYTES)


def _segments(axis: AxisGrid, size: int) -> list[range]:
    """Return the segments that each row or column of blocks touches."""
    spans = (
        mirrored_region(axis.input_span(axis.tiles_over(axis.block_span(block))), axis.length)
        for block in range(axis.blocks)
    )
    return [range(span.start // size, -(-span.stop // size)) for span in spans]


def _shared(touched: list[range]) -> int:
    """Return how many segments two neighbours have in common at most."""
    return max((one.stop - other.start for one, other in pairwise(touched)), default=0)
