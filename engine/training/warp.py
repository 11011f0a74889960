"""Where each pixel of a training tile comes from: turned, mirrored and smoothly deformed."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GRID = 3
"""Nodes per axis of the grid of random displacements, the outer ones at the tile's corners."""


@dataclass(frozen=True, slots=True)
class Warp:
    """A map from a square tile's pixels to places in the image."""

    angle: float = 0.0
    """Rotation in radians, from +x towards +y."""
    flip: bool = False
    """Whether the tile is mirrored left to right before it is turned."""
    nodes: NDArray[np.float64] | None = None
    """Displacements along y and x at the nodes in pixels, ``(2, 3, 3)``; ``None`` for none."""

    def places(self, size: int, centre: tuple[float, float]) -> NDArray[np.float64]:
        """Return the place ``(2, y, x)`` in the image of each pixel of the tile.

        Args:
            size: Side of the tile in pixels.
            centre: Where the tile's middle lies in the image, in coordinates of pixel centres.
        """
        offset = np.arange(size) - (size - 1) / 2
        y, x = offset[:, None], (-offset if self.flip else offset)[None, :]
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        places = np.stack([centre[0] + y * cos + x * sin, centre[1] + x * cos - y * sin])
        return places if self.nodes is None else places + displacements(self.nodes, size)


def displacements(nodes: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Return the displacement ``(2, y, x)`` of each pixel, by bicubic interpolation of the nodes.

    Args:
        nodes: Displacements ``(2, 3, 3)``; they are met at the nodes.
        size: Side of the tile in pixels.
    """
    from scipy import ndimage

    at = np.linspace(0, GRID - 1, size)
    # One cubic spline per node, as the interpolation is linear in the nodes: (pixel, node).
    weights = np.stack(
        [ndimage.map_coordinates(unit, at[None], order=3, mode="mirror") for unit in np.eye(GRID)],
        axis=1,
    )
    return np.asarray(weights @ nodes @ weights.T)
