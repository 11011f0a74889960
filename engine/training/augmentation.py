"""Random variation of the training tiles: place, direction, shape and grey values."""

from dataclasses import dataclass, fields
from math import inf, pi
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ...tiler.errors import SettingError
from .warp import GRID, Warp

Rotation = Literal["none", "quarter", "free"]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How much training tiles vary; the defaults are the U-Net paper's, 3 x 3 nodes and 10 px."""

    shift_px: int = 32
    """How far a tile's output may reach beyond the image, where it shows the mirrored image."""
    rotation: Rotation = "free"
    """By any angle, by quarter turns, or not at all."""
    flip: bool = True
    """Whether half the tiles are mirrored."""
    elastic_px: float = 10.0
    """Standard deviation of the displacements on the coarse grid; 0 for none."""
    contrast: float = 0.15
    """Grey values are multiplied by up to ``1 + contrast``, or divided by it, about their mean."""
    brightness: float = 0.15
    """Grey values are shifted by up to so many standard deviations of the tile."""
    colour: float = 0.05
    """As ``contrast`` and ``brightness``, for each channel on its own."""

    def __post_init__(self) -> None:
        if self.rotation not in get_args(Rotation):
            raise SettingError(
                f"rotation={self.rotation!r} is none of {', '.join(get_args(Rotation))}"
            )
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not 0 <= value < inf:
                raise SettingError(f"{field.name}={value} is not possible; use 0 or more")

    @classmethod
    def none(cls) -> "Augmentation":
        """Return the one that changes nothing but the tile's place within the image."""
        return cls(0, "none", False, 0.0, 0.0, 0.0, 0.0)

    def warp(self, random: np.random.Generator) -> Warp:
        """Draw a direction and a deformation."""
        angle = 0.0
        if self.rotation == "free":
            angle = random.uniform(0, 2 * pi)
        elif self.rotation == "quarter":
            angle = pi / 2 * int(random.integers(4))
        flip = bool(self.flip and random.integers(2))
        nodes = None
        if self.elastic_px > 0:
            nodes = random.normal(0, self.elastic_px, (2, GRID, GRID))
        return Warp(angle, flip, nodes)

    @property
    def on_grid(self) -> bool:
        """Whether every warp takes pixels to pixels, so that nothing is interpolated."""
        return self.elastic_px == 0 and self.rotation != "free"

    def varied(
        self, image: NDArray[np.float32], random: np.random.Generator
    ) -> NDArray[np.float32]:
        """Return an image ``(channel, y, x)`` with other grey values, about its own mean."""
        channels = image.shape[0]
        gain = _factor(self.contrast, random, 1) * _factor(self.colour, random, channels)
        shift = random.uniform(-self.brightness, self.brightness, 1)
        shift = shift + random.uniform(-self.colour, self.colour, channels)
        if not (self.contrast or self.brightness or self.colour):
            return image
        mean = image.mean((1, 2), keepdims=True)
        shift = (shift * float(image.std()))[:, None, None].astype(np.float32)
        varied = (image - mean) * gain[:, None, None].astype(np.float32) + mean + shift
        return np.asarray(varied, np.float32)


def _factor(most: float, random: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Return factors between ``1 / (1 + most)`` and ``1 + most``, as often below 1 as above."""
    limit = np.log1p(most)
    return np.exp(random.uniform(-limit, limit, count))
