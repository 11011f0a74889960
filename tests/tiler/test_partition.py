"""Another partition is at the same phase, keeps the halo, and has other tiles."""

from dataclasses import replace

import pytest

from tile_infer.tiler.axis import AxisGrid, exact_grid, overlapping_grid
from tile_infer.tiler.geometry import AxisGeometry
from tile_infer.tiler.partition import OTHER_CORE_PX, other_axis
from tile_infer.tiler.scale import SAME, Scale

PAPER = AxisGeometry(572, 16, 16, 92, 92)
"""The paper's U-Net; its output of 388 px leaves cores of 384."""
FIXED = AxisGeometry(572, 0, 16, 92, 92)
PADDED = AxisGeometry(256, 32, 16, 0, 0, 40, 44)


def sound(axis: AxisGrid, other: AxisGrid, geometry: AxisGeometry) -> None:
    """Fail unless every window of the other tiles is clear of margin and halo, at one phase."""
    assert geometry.takes(other.tile)
    assert other.core != axis.core
    assert other.core % geometry.period_out == 0
    assert other.lead == axis.lead
    first = geometry.crop(other.lead)
    assert first >= geometry.halo_before
    assert first + other.window + geometry.halo_after <= geometry.output(other.tile)
    assert other.stride % geometry.period == axis.stride % geometry.period == 0


@pytest.mark.parametrize("length", [100, 700, 5000, 100_000])
@pytest.mark.parametrize("geometry", [PAPER, PADDED])
def test_tiles_of_several_sizes_become_smaller(geometry: AxisGeometry, length: int) -> None:
    axis = exact_grid(length, geometry, core_limit=1024)
    other = other_axis(axis, geometry, length, exact=True)
    assert other is not None
    sound(axis, other, geometry)
    if length >= 700 and geometry is PADDED:
        assert other.tile < axis.tile
        assert other.core <= max(OTHER_CORE_PX, geometry.core_of(geometry.size))


def test_the_smallest_tile_keeps_less_of_itself() -> None:
    axis = exact_grid(5000, PAPER, core_limit=384)
    assert axis.tile == PAPER.size
    other = other_axis(axis, PAPER, 5000, exact=True)
    assert other is not None
    sound(axis, other, PAPER)
    assert (other.tile, other.core) == (PAPER.size, 256)


def test_a_tile_of_one_period_becomes_larger() -> None:
    axis = exact_grid(5000, PADDED, core_limit=16)
    assert axis.core == 16
    other = other_axis(axis, PADDED, 5000, exact=True)
    assert other is not None
    sound(axis, other, PADDED)
    assert other.core == 32


def test_a_wrong_place_in_the_tile_is_not_taken_over() -> None:
    right = exact_grid(5000, PADDED, core_limit=512)
    wrong = replace(right, lead=PADDED.halo_before, tile=right.tile + 32)
    assert other_axis(wrong, PADDED, 5000, exact=True) == other_axis(
        right, PADDED, 5000, exact=True
    )


def test_a_fixed_tile_keeps_less_of_itself() -> None:
    axis = exact_grid(5000, FIXED, core_limit=1024)
    other = other_axis(axis, FIXED, 5000, exact=True)
    assert other is not None
    sound(axis, other, FIXED)
    assert (other.tile, other.core) == (572, 288)
    small = other_axis(axis, FIXED, 100, exact=True)
    assert small is not None
    sound(axis, small, FIXED)
    assert small.core <= 50


def test_a_tile_that_leaves_one_period_has_no_other() -> None:
    geometry = AxisGeometry(200, 0, 16, 92, 92)
    axis = exact_grid(5000, geometry, core_limit=1024)
    assert axis.core == 16
    assert other_axis(axis, geometry, 5000, exact=True) is None


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5])
def test_blended_tiles_overlap_more(overlap: float) -> None:
    axis = overlapping_grid(5000, PADDED, overlap=overlap, size_limit=512, blended=True)
    other = other_axis(axis, PADDED, 5000, exact=False)
    assert other is not None
    assert (other.tile, other.lead) == (axis.tile, axis.lead)
    assert other.window == (axis.window if overlap else other.core)
    assert other.core < axis.core
    assert other.core % PADDED.period_out == 0


def test_scaled_cores_stay_whole_pixels_of_the_image() -> None:
    scale = Scale(up=1, down=4)
    geometry = AxisGeometry(256, 32, 16, 0, 0, 8, 8, scale)
    axis = exact_grid(5000, geometry, core_limit=1024)
    other = other_axis(axis, geometry, axis.mask_length, exact=True)
    assert other is not None
    sound(axis, other, geometry)
    assert scale != SAME
