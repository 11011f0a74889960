"""Which order of blocks decodes how much, and what it keeps for that."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tile_infer.engine.sources import ImageFacts, Level
from tile_infer.engine.sources.segment_cache import CACHE_BYTES, SegmentCache
from tile_infer.engine.sources.segment_uses import SegmentUses
from tile_infer.engine.strips import Strips, choose_strips
from tile_infer.tiler.axis import exact_grid
from tile_infer.tiler.geometry import AxisGeometry
from tile_infer.tiler.grid import Grid

PAPER = AxisGeometry(572, 0, 16, 92, 92)
MUCH = 1 << 40


def grid_of(height: int, width: int) -> Grid:
    y, x = (exact_grid(length, PAPER, core_limit=384) for length in (height, width))
    return Grid(y, x).with_blocks((2, 2))


def image(grid: Grid, segment: tuple[int, int] | None) -> ImageFacts:
    return ImageFacts("i", "uint8", 3, "YXC", (Level(grid.image_shape, segment=segment),), "")


def decoded(grid: Grid, segment: tuple[int, int], strips: Strips) -> float:
    """Return how often a segment is decoded in the mean, by one thread."""
    rows, columns = (-(-n // size) for n, size in zip(grid.image_shape, segment, strict=True))
    cache, uses = SegmentCache(strips.kept_bytes), SegmentUses((rows, columns), segment)
    order = strips.order(grid, range(grid.blocks))
    regions = [grid.region(grid.block_box(block)) for block in order]
    uses.expect(regions)

    def pixels() -> NDArray[np.generic]:
        return np.broadcast_to(np.uint8(0), (*segment, 3))

    for box in regions:
        for row in range(box.y.start // segment[0], -(-box.y.stop // segment[0])):
            for column in range(box.x.start // segment[1], -(-box.x.stop // segment[1])):
                key = row, column
                cache.get(key, pixels, lambda key=key: uses.is_last(0, *key))  # type: ignore[misc]
    return cache.decoded / (rows * columns)


def test_every_block_is_in_the_order_once_and_its_strip_is_finished_before_the_next() -> None:
    grid = grid_of(8000, 20_000)
    order = Strips(3, 0).order(grid, range(grid.blocks))
    assert sorted(order) == list(range(grid.blocks))
    columns = [block % grid.x.blocks // 3 for block in order]
    assert columns == sorted(columns)
    assert len(set(columns)) == -(-grid.x.blocks // 3) > 1


def test_blocks_that_are_done_are_left_out_and_change_no_other_ones_place() -> None:
    grid, strips = grid_of(8000, 20_000), Strips(3, 0)
    left = [block for block in range(grid.blocks) if block % 5]
    assert list(strips.order(grid, left)) == [
        block for block in strips.order(grid, range(grid.blocks)) if block % 5
    ]


def test_an_image_of_usual_width_is_one_strip_in_which_each_segment_is_decoded_once() -> None:
    grid = grid_of(12_000, 24_000)
    strips = choose_strips(grid, image(grid, (256, 256)), 0, 3, MUCH)
    assert strips == Strips(grid.x.blocks, CACHE_BYTES)
    assert decoded(grid, (256, 256), strips) == 1


def test_a_huge_image_is_decoded_hardly_more_than_once_in_strips_and_more_in_rows() -> None:
    grid = grid_of(60_000, 60_000)
    strips = choose_strips(grid, image(grid, (256, 256)), 0, 3, MUCH)
    assert 1 < strips.columns < grid.x.blocks
    assert strips.kept_bytes == CACHE_BYTES
    assert 1 < decoded(grid, (256, 256), strips) < 1.03
    assert decoded(grid, (256, 256), Strips(grid.x.blocks, CACHE_BYTES)) > 1.1


def test_segments_that_span_the_image_are_kept_for_a_row_of_blocks() -> None:
    grid = grid_of(6000, 20_000)
    segment = (8, 20_000)
    strips = choose_strips(grid, image(grid, segment), 0, 3, MUCH)
    assert strips.columns == grid.x.blocks
    assert strips.kept_bytes > CACHE_BYTES
    assert decoded(grid, segment, strips) == 1
    assert decoded(grid, segment, Strips(grid.x.blocks, CACHE_BYTES)) > 5


def test_without_the_memory_for_it_no_more_is_kept_than_usual() -> None:
    grid = grid_of(6000, 20_000)
    strips = choose_strips(grid, image(grid, (8, 20_000)), 0, 3, 1 << 20)
    assert strips == Strips(grid.x.blocks, CACHE_BYTES)


@pytest.mark.parametrize("side", [300, 30_000])
def test_where_pixels_are_read_alone_there_is_one_strip(side: int) -> None:
    grid = grid_of(side, side)
    assert choose_strips(grid, image(grid, None), 0, 3, MUCH).columns == grid.x.blocks


def test_what_is_kept_does_not_grow_with_the_image() -> None:
    kept = set()
    for side in (20_000, 100_000, 400_000):
        grid = grid_of(2000, side)
        kept.add(choose_strips(grid, image(grid, (256, 256)), 0, 3, MUCH).kept_bytes)
    assert kept == {CACHE_BYTES}
