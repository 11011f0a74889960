"""Training tiles: a network's input from the image, and the truth of its valid output."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ...tiler.errors import SettingError
from .augmentation import Augmentation
from .images import Labelled, around, rectangle

_SPLINE_PX = 12
"""So far a cubic spline's coefficient feels its neighbours: 0.27 per pixel, 1e-7 in all."""


class TakesTiles(Protocol):
    """What tiles ask of a network."""

    @property
    def period(self) -> int:
        """Smallest shift in pixels under which the network is equivariant."""
        ...

    @property
    def margin(self) -> int:
        """Pixels lost per side."""
        ...

    @property
    def smallest(self) -> int:
        """Smallest valid input in pixels."""
        ...


@dataclass(frozen=True, slots=True)
class TileShape:
    """Sides of a square tile in pixels.

    ::

        |<-------- input --------->|
        |  margin |<-output->|     |
    """

    input_px: int
    """What the network is fed."""
    margin_px: int
    """What it loses per side."""

    @property
    def output_px(self) -> int:
        """What it returns."""
        return self.input_px - 2 * self.margin_px

    @classmethod
    def largest(cls, network: TakesTiles, tile_px: int) -> "TileShape":
        """Return the largest tile that a network takes and that is not larger than asked.

        Raises:
            SettingError: Even its smallest is.
        """
        if tile_px < network.smallest:
            raise SettingError(
                f"tile={tile_px} is smaller than the network takes; use {network.smallest} or more"
            )
        periods = (tile_px - network.smallest) // network.period
        return cls(network.smallest + periods * network.period, network.margin)


class Tile(NamedTuple):
    """One training example."""

    image: NDArray[np.float32]
    """Input ``(channel, y, x)``, normalised."""
    truth: NDArray[np.int64]
    """Class of each output pixel, ``(y, x)``."""
    weights: NDArray[np.float32]
    """Weight of each output pixel, ``(y, x)``."""


class TileSampler:
    """Random tiles; which ones depends on seed and step alone, so any step can be made again."""

    def __init__(
        self,
        images: Sequence[Labelled],
        weights: Sequence[NDArray[np.float32]],
        shape: TileShape,
        augmentation: Augmentation,
        seed: int,
    ) -> None:
        """Take the training set.

        Args:
            images: What to draw from; a large image is drawn more often than a small one.
            weights: Weight of each pixel, ``(y, x)`` for each image.
            shape: The tiles.
            augmentation: How they vary.
            seed: Of all that is drawn.
        """
        self.images, self.weights, self.shape = images, weights, shape
        self.augmentation, self.seed = augmentation, seed
        areas = np.array([image.truth.classes.size for image in images], np.float64)
        self._shares = areas / areas.sum()

    def batch(self, step: int, count: int) -> Tile:
        """Return the tiles of one step, stacked."""
        tiles = [self.tile(step, index) for index in range(count)]
        return Tile(*(np.stack(parts) for parts in zip(*tiles, strict=True)))

    def tile(self, step: int, index: int = 0) -> Tile:
        """Return one of the tiles of one step."""
        random = np.random.default_rng((self.seed, step, index))
        number = int(random.choice(len(self.images), p=self._shares))
        image, weights = self.images[number], self.weights[number]
        corner = [self._corner(length, random) for length in image.shape]
        warp = self.augmentation.warp(random)
        size, margin = self.shape.input_px, self.shape.margin_px
        centre = corner[0] - margin + (size - 1) / 2, corner[1] - margin + (size - 1) / 2
        places = warp.places(size, centre)
        inner = np.s_[margin : size - margin]
        nearest = np.rint(places).astype(np.int64)
        if self.augmentation.on_grid:
            pixels = _gathered(image, nearest)
        else:
            pixels = _interpolated(image, places)
        y, x = nearest[:, inner, inner]
        box = around(np.stack([y, x]).astype(np.float64), 0)
        here = y - box.y.start, x - box.x.start
        return Tile(
            self.augmentation.varied(pixels, random),
            rectangle(image.truth.classes, box)[here].astype(np.int64),
            rectangle(weights, box)[here],
        )

    def _corner(self, length: int, random: np.random.Generator) -> int:
        """Draw where the output begins along one axis of an image."""
        reach = self.augmentation.shift_px
        # In an image smaller than the output, the rest shows the mirrored image.
        low, high = sorted((0, length - self.shape.output_px))
        return int(random.integers(low - reach, high + reach, endpoint=True))


def _gathered(image: Labelled, nearest: NDArray[np.int64]) -> NDArray[np.float32]:
    box = around(nearest.astype(np.float64), 0)
    pixels = image.normalised(box)
    return pixels[:, nearest[0] - box.y.start, nearest[1] - box.x.start]


def _interpolated(image: Labelled, places: NDArray[np.float64]) -> NDArray[np.float32]:
    from scipy import ndimage

    box = around(places, _SPLINE_PX)
    pixels = image.normalised(box)
    here = places - np.array([box.y.start, box.x.start])[:, None, None]
    return np.stack(
        [
            ndimage.map_coordinates(channel, here, np.float32, order=3, mode="mirror")
            for channel in pixels
        ]
    )
