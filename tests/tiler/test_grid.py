"""Grids: every pixel in one core, every tile at one phase, every block in whole chunks."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tile_infer.tiler.axis import AxisGrid, exact_grid, overlapping_grid
from tile_infer.tiler.box import Box, Interval
from tile_infer.tiler.errors import SettingError
from tile_infer.tiler.geometry import AxisGeometry
from tile_infer.tiler.grid import Grid
from tile_infer.tiler.scale import Scale

PAPER = AxisGeometry(size=204, step=16, period=16, margin_before=92, margin_after=92)
PAPER_572 = AxisGeometry(size=572, step=0, period=16, margin_before=92, margin_after=92)


@st.composite
def geometries(draw: st.DrawFn) -> AxisGeometry:
    period = draw(st.sampled_from([1, 2, 3, 7, 8, 9, 16, 32]))
    before, after, halo_before, halo_after = (draw(st.integers(0, 60)) for _ in range(4))
    size = before + after + halo_before + halo_after + period * draw(st.integers(2, 20))
    return AxisGeometry(
        size=size,
        step=draw(st.sampled_from([0, 1, period])),
        period=period,
        margin_before=before,
        margin_after=after,
        halo_before=halo_before,
        halo_after=halo_after,
    )


@given(geometry=geometries(), length=st.integers(1, 5000), limit=st.integers(1, 700))
def test_an_exact_grid_computes_every_pixel_once_and_well(
    geometry: AxisGeometry, length: int, limit: int
) -> None:
    grid = exact_grid(length, geometry, core_limit=limit)
    covered = np.zeros(length, int)
    for block in range(grid.blocks):
        span = grid.block_span(block)
        assert span.start % grid.chunk == 0
        tiles = grid.tiles_over(span)
        fed = grid.input_span(tiles)
        for tile in tiles:
            window, tile_span = grid.window_span(tile), grid.tile_span(tile)
            assert fed.start <= tile_span.start
            assert tile_span.stop <= fed.stop
            assert tile_span.start % geometry.period == grid.tile_span(0).start % geometry.period
            # What is kept is neither lost in the margin nor spoiled by the halo.
            assert window.start - tile_span.start >= geometry.margin_before + geometry.halo_before
            assert tile_span.stop - window.stop >= geometry.margin_after + geometry.halo_after
            covered[window.clip(span.start, span.stop).as_slice()] += 1
    assert (covered == 1).all()
    assert geometry.takes(grid.tile)


def test_the_papers_tile_keeps_384_of_its_388_pixels() -> None:
    grid = exact_grid(2000, PAPER_572, core_limit=512)
    assert (grid.tile, grid.core, grid.lead) == (572, 384, 92)
    assert PAPER_572.output(572) == 388
    assert 388 % 16 == 4


def test_a_core_of_384_needs_a_canonical_tile() -> None:
    assert PAPER.tile_for(384) == 572
    assert not PAPER.takes(568)
    with pytest.raises(SettingError, match="use 556 or 572"):
        exact_grid(2000, PAPER, core_limit=512, tile=568)


def test_a_tile_below_the_smallest_is_told_so() -> None:
    with pytest.raises(
        SettingError, match=r"tile=10 px is smaller .* use 204 px or more"
    ) as caught:
        exact_grid(2000, PAPER, core_limit=512, tile=10)
    assert "phase" not in str(caught.value)


def test_a_halo_is_rounded_up_so_that_the_phase_stays() -> None:
    geometry = AxisGeometry(512, 0, 8, 0, 0, halo_before=46, halo_after=46)
    grid = exact_grid(4000, geometry, core_limit=512)
    assert grid.lead == 48
    assert grid.core == (512 - 48 - 46) // 8 * 8


def test_cores_of_a_free_size_network_are_equal_and_cover_little_more_than_the_image() -> None:
    grid = exact_grid(2000, PAPER, core_limit=512)
    assert grid.core == 512
    assert grid.tiles == 4
    assert exact_grid(1100, PAPER, core_limit=512).core == 368


def test_an_asymmetric_margin_shifts_the_tiles() -> None:
    grid = exact_grid(100, AxisGeometry(40, 0, 1, 3, 10), core_limit=512)
    assert grid.tile_span(0) == Interval(-3, 37)
    assert grid.core == 27


def test_a_halo_that_leaves_no_core_is_refused_with_the_mend() -> None:
    geometry = AxisGeometry(128, 0, 8, 0, 0, halo_before=64, halo_after=64)
    with pytest.raises(SettingError, match="leaves no core in the 128-px output"):
        exact_grid(1000, geometry, core_limit=512)


@given(
    geometry=geometries(),
    length=st.integers(1, 3000),
    overlap=st.floats(0, 0.95),
)
def test_a_blended_grid_covers_every_pixel_equally_often_up_to_the_border(
    geometry: AxisGeometry, length: int, overlap: float
) -> None:
    grid = overlapping_grid(length, geometry, overlap=overlap, size_limit=300, blended=True)
    for block in range(grid.blocks):
        span = grid.block_span(block)
        count = np.zeros(span.size, int)
        for tile in grid.tiles_over(span):
            common = grid.window_span(tile).clip(span.start, span.stop)
            count[common.shift(-span.start).as_slice()] += 1
        assert count.min() >= grid.window // grid.core
        assert count.max() <= -(-grid.window // grid.core)


@pytest.mark.parametrize(("overlap", "step"), [(0.5, 48), (2 / 3, 32)])
def test_the_papers_sliding_windows_have_their_steps(overlap: float, step: int) -> None:
    geometry = AxisGeometry(96, 0, 16, 0, 0)
    grid = overlapping_grid(1000, geometry, overlap=overlap, size_limit=96, blended=True)
    assert (grid.window, grid.core) == (96, step)


@given(geometry=geometries(), length=st.integers(1, 3000), overlap=st.floats(0, 0.95))
def test_overlap_without_a_window_keeps_the_middle_of_each_tile(
    geometry: AxisGeometry, length: int, overlap: float
) -> None:
    grid = overlapping_grid(length, geometry, overlap=overlap, size_limit=300, blended=False)
    assert grid.window == grid.core
    assert (grid.lead - geometry.margin_before) % geometry.period == 0


def test_blocks_are_numbered_row_by_row_and_cut_off_at_the_end() -> None:
    grid = Grid(
        exact_grid(1000, PAPER_572, core_limit=512), exact_grid(2000, PAPER_572, core_limit=512)
    )
    assert grid.chunk == (768, 768)
    assert grid.blocks == 6
    assert grid.block_box(5) == Box.of(768, 1000, 1536, 2000)
    assert grid.tiles == 3 * 6
    assert grid.with_blocks((2, 2)).blocks == 2
    assert grid.region(grid.block_box(0)) == Box.of(0, 864, 0, 864)


def test_blocks_of_broken_chunks_are_refused() -> None:
    with pytest.raises(SettingError, match="whole chunks and cores"):
        AxisGrid(length=100, tile=64, lead=0, window=64, core=64, chunk=128, block=192)


@pytest.mark.parametrize("values", [{"size": 0}, {"period": 0}, {"margin_before": -1}])
def test_impossible_geometry_is_refused(values: dict[str, int]) -> None:
    usual = AxisGeometry(572, 0, 16, 92, 92)
    with pytest.raises(SettingError):
        replace(usual, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [Scale(2), Scale(3), Scale(1, 2), Scale(1, 8)], ids=str)
@pytest.mark.parametrize("length", [1, 37, 1000, 2049])
def test_windows_of_a_scaled_mask_meet_without_overlap_at_one_phase(
    scale: Scale, length: int
) -> None:
    period = 4 * scale.down
    axis = AxisGeometry(64 * scale.down, period, period, 1, 2, 5, 3, scale)
    grid = exact_grid(length, axis, core_limit=300)
    covered = [
        px
        for block in range(grid.blocks)
        for tile in grid.tiles_over(grid.block_span(block))
        for window in [grid.window_span(tile).clip(0, grid.mask_length)]
        for px in range(window.start, window.stop)
    ]
    assert covered == list(range(scale.mask_px(length)))
    starts = {grid.tile_span(tile).start % period for tile in range(5)}
    assert len(starts) == 1
    assert axis.crop(grid.lead) >= axis.halo_before
    assert axis.crop(grid.lead) + grid.window + axis.halo_after <= axis.output(grid.tile)
