"""Redundancy is work done over the work of one whole pass, in multiply-adds."""

from typing import cast

import pytest

from tile_infer.engine.backends.base import Layer, Network
from tile_infer.engine.work import Work, measure_work
from tile_infer.tiler.axis import exact_grid
from tile_infer.tiler.geometry import AxisGeometry, Geometry
from tile_infer.tiler.grid import Grid


def unet_layers(tile: int, channels: int = 64) -> tuple[Layer, ...]:
    """Derive by hand the layers of the paper's U-Net for a square tile."""
    layers = []

    def convolution(size: int, before: int, after: int, kernel: int) -> None:
        work = size * size * after * before * kernel * kernel
        layers.append(Layer(work, size, size, 4 * after * size * size))

    size, before = tile, 1
    for level in range(5):
        convolution(size - 2, before, channels, 3)
        convolution(size - 4, channels, channels, 3)
        before, channels = channels, channels * 2
        size = size - 4 if level == 4 else (size - 4) // 2
    channels //= 2
    for _ in range(4):
        # A 2 x 2 up-convolution with stride 2 uses one of its weights per output pixel.
        convolution(2 * size, channels, channels // 2, 1)
        channels, size = channels // 2, 2 * size
        convolution(size - 2, 2 * channels, channels, 3)
        convolution(size - 4, channels, channels, 3)
        size -= 4
    convolution(size, channels, 2, 1)
    return tuple(layers)


class Fake:
    def layers(self, channels: int, tile: tuple[int, int]) -> tuple[Layer, ...]:
        return unet_layers(tile[0])


FAKE = cast(Network, Fake())


@pytest.mark.parametrize(
    ("tile", "expected"), [(572, 1.386), (1084, 1.152), (2044, 1.070), (4092, 1.034)]
)
def test_the_papers_network_repeats_as_much_as_was_derived(tile: int, expected: float) -> None:
    geometry = AxisGeometry(tile, 0, 16, 92, 92)
    core = geometry.core_of(tile)
    axis = exact_grid(core * 100, geometry, core_limit=core)
    work = measure_work(FAKE, 1, Geometry(geometry, geometry))
    assert work.redundancy(Grid(axis, axis), (184, 184)) == pytest.approx(expected, abs=1e-3)


def test_growth_that_was_measured_on_small_tiles_is_that_derived_from_the_period() -> None:
    free = AxisGeometry(204, 16, 16, 92, 92)
    fixed = AxisGeometry(1084, 0, 16, 92, 92)
    measured = measure_work(FAKE, 1, Geometry(free, free))
    derived = measure_work(FAKE, 1, Geometry(fixed, fixed))
    for tile in ((1084, 1084), (572, 2044), (20000, 1004)):
        assert measured.multiply_adds(tile) == derived.multiply_adds(tile)
        assert measured.bytes(tile) == derived.bytes(tile)
    assert measured.bytes((1084, 1084)) == sum(layer.bytes for layer in unet_layers(1084))


def test_one_tile_that_is_the_whole_image_repeats_nothing() -> None:
    geometry = AxisGeometry(572, 0, 4, 92, 92)
    axis = exact_grid(388, geometry, core_limit=388)
    assert axis.core == 388
    work = measure_work(FAKE, 1, Geometry(geometry, geometry))
    assert work.redundancy(Grid(axis, axis), (184, 184)) == 1


def test_a_network_without_layers_counts_by_pixels() -> None:
    axis = exact_grid(100, AxisGeometry(64, 0, 1, 0, 0), core_limit=64)
    work = Work((64, 64), (), ())
    assert work.redundancy(Grid(axis, axis), (0, 0)) == pytest.approx(128**2 / 100**2)
