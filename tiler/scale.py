"""How many pixels of mask a network makes of a pixel of the image."""

from dataclasses import dataclass

from .errors import SettingError

LARGEST = 32
"""Larger steps between image and mask have not been seen in a segmentation network."""


@dataclass(frozen=True, slots=True)
class Scale:
    """``up / down`` pixels of mask per pixel of image: ``n`` or ``1 / n``.

    Where both grids matter, geometry counts fine pixels: ``up`` to a pixel of the image, ``down``
    to one of the mask, so that everything stays an integer.

    >>> print(Scale(2), Scale(1, 4), Scale(1, 4).mask_px(10), Scale(2).image_px(6))
    2 1/4 3 3
    """

    up: int = 1
    """Fine pixels in a pixel of the image."""
    down: int = 1
    """Fine pixels in a pixel of the mask."""

    def __post_init__(self) -> None:
        if min(self.up, self.down) != 1 or max(self.up, self.down) > LARGEST:
            raise SettingError(f"a scale is n or 1/n, n up to {LARGEST}; got {self.up}/{self.down}")

    def mask_px(self, image_px: int) -> int:
        """Return the pixels of mask that so many pixels of image need, the last one begun."""
        return -(-image_px * self.up // self.down)

    def image_px(self, mask_px: int) -> int:
        """Return the pixels of image under so many pixels of mask, the last one begun."""
        return -(-mask_px * self.down // self.up)

    def __str__(self) -> str:
        return str(self.up) if self.down == 1 else f"{self.up}/{self.down}"


SAME = Scale()
"""The mask has the image's resolution."""
