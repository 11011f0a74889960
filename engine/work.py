"""Multiply-adds and bytes of a network's layers, for tiles and images of any size."""

from dataclasses import dataclass
from fractions import Fraction
from math import lcm

from ..tiler.geometry import AxisGeometry, Geometry
from ..tiler.grid import Grid
from .backends.base import Layer, Network

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Work:
    """A network's layers over one tile, and how they grow with it.

    A layer's result has one more pixel for every ``1 / slope`` px of a larger tile.
    """

    tile: Size
    """Height and width of the tile that was run, in pixels."""
    layers: tuple[Layer, ...]
    """Its layers."""
    slopes: tuple[tuple[Fraction, Fraction], ...]
    """Pixels of each layer's result per pixel of the tile, along each axis."""

    def growth(self, tile: Size) -> list[Fraction]:
        """Return how many times larger each layer's result is for another tile."""
        factors = []
        for layer, slope in zip(self.layers, self.slopes, strict=True):
            height = layer.height + (tile[0] - self.tile[0]) * slope[0]
            width = layer.width + (tile[1] - self.tile[1]) * slope[1]
            factors.append(Fraction(height * width) / (layer.height * layer.width))
        return factors

    def multiply_adds(self, tile: Size) -> Fraction:
        """Return the multiplications with addition of one run over a tile."""
        grown = zip(self.layers, self.growth(tile), strict=True)
        return sum((layer.multiply_adds * factor for layer, factor in grown), Fraction(0))

    def bytes(self, tile: Size) -> int:
        """Return the size of all layers' results, more than a run holds at any time."""
        grown = zip(self.layers, self.growth(tile), strict=True)
        return int(sum((layer.bytes * factor for layer, factor in grown), Fraction(0)))

    def largest(self, tile: Size) -> int:
        """Return the numbers in the largest layer's result."""
        grown = zip(self.layers, self.growth(tile), strict=True)
        return int(max((layer.bytes * factor for layer, factor in grown), default=0)) // 4

    def redundancy(self, grid: Grid, lost: Size) -> float:
        """Return the work of a grid over that of one pass over the whole extended image.

        Args:
            grid: The tiles.
            lost: Pixels of a tile without output, along each axis, at the image's scale.
        """
        if not self.layers:
            return grid.tiles * self.of_tile(grid) / (grid.shape[0] * grid.shape[1])
        image = (grid.image_shape[0] + lost[0], grid.image_shape[1] + lost[1])
        return float(grid.tiles * self.multiply_adds(grid.tile) / self.multiply_adds(image))

    def of_tile(self, grid: Grid) -> float:
        """Return the work of one tile; where no layer counts, each pixel of output does."""
        if not self.layers:
            return grid.window[0] * grid.window[1]
        return float(self.multiply_adds(grid.tile))


def measure_work(network: Network, channels: int, geometry: Geometry) -> Work:
    """Run a network to count the work of its layers.

    One that takes several sizes is run over two small tiles, whose difference tells exactly how
    each layer grows; for a fixed size the growth follows from the period.

    Args:
        network: The network.
        channels: Its input channels.
        geometry: What was measured of it.
    """
    y, x = geometry.y, geometry.x
    tile = (y.size, x.size)
    layers = network.layers(channels, tile)
    if y.fixed or x.fixed:
        slopes = [(_slope(y, layer.height), _slope(x, layer.width)) for layer in layers]
        return Work(tile, layers, tuple(slopes))
    more = (lcm(y.step, y.period), lcm(x.step, x.period))
    larger = network.layers(channels, (tile[0] + more[0], tile[1] + more[1]))
    slopes = [
        (Fraction(big.height - small.height, more[0]), Fraction(big.width - small.width, more[1]))
        for small, big in zip(layers, larger, strict=True)
    ]
    return Work(tile, layers, tuple(slopes))


def _slope(axis: AxisGeometry, size: int) -> Fraction:
    """Return the growth of a layer of a fixed tile: its stride divides the period.

    A layer at the tile's scale or below has lost pixels but never gained any, so its stride is at
    most tile / size: 28 px of 572 are the fourth pooling of a valid network, at stride 16 and not
    20. One of more pixels than the tile was scaled up.
    """
    if size > axis.size:
        return Fraction(-(-size // axis.size))
    strides = [n for n in range(1, axis.period + 1) if axis.period % n == 0]
    return Fraction(1, max((n for n in strides if n * size <= axis.size), default=1))
