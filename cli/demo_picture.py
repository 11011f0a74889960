"""The demo's picture: the slide, half with its mask, beside a part at full resolution."""

import numpy as np
import zarr
from numpy.typing import NDArray

from ..engine.sources import Source
from ..tiler.box import Box
from .palette import class_colours
from .preview import overlay, shrunk_image, shrunk_mask

PANEL_PX = 1080
"""Side of either half."""

MARGIN_PX = 36

ZOOM = 3
"""Pixels of the picture per pixel of the slide, in the part shown at full resolution."""

LINE_PX = 3
"""Width of the lines around the nuclei."""

SHOWN_PLACE = (2000, 200)
"""First row and column of that part: a gland among fibres, lymphocytes and blood."""

_INK = np.array([32, 32, 36], np.uint8)


def demo_picture(
    source: Source, group: zarr.Group, labels: NDArray[np.generic]
) -> NDArray[np.uint8]:
    """Return the picture ``(y, x, 3)``.

    Args:
        source: The slide, square, and large enough for ``SHOWN_PLACE``.
        group: The mask's group.
        labels: The mask ``(y, x)``.
    """
    panel = (PANEL_PX, PANEL_PX)
    whole = shrunk_image(source, panel)
    masked = overlay(whole, shrunk_mask(group, panel), class_colours(2))
    half = PANEL_PX // 2
    whole[:, half:] = masked[:, half:]
    whole[:, half - 1 : half + 2] = _INK
    seen_px = PANEL_PX // ZOOM
    y, x = SHOWN_PLACE
    box = Box.of(y, y + seen_px, x, x + seen_px)
    part = outlined(source.read(0, box, (0, 1, 2)).astype(np.uint8), labels[box.slices], ZOOM)
    height, width = PANEL_PX + 2 * MARGIN_PX, 2 * PANEL_PX + 3 * MARGIN_PX
    page = np.full((height, width, 3), 255, np.uint8)
    for panel_x, picture in ((MARGIN_PX, whole), (2 * MARGIN_PX + PANEL_PX, part)):
        page[MARGIN_PX:-MARGIN_PX, panel_x : panel_x + PANEL_PX] = picture
        _draw_frame(page, MARGIN_PX, panel_x, PANEL_PX, 2)
    scale = PANEL_PX / source.facts.levels[0].shape[0]
    at_y, at_x = MARGIN_PX + round(y * scale), MARGIN_PX + round(x * scale)
    _draw_frame(page, at_y, at_x, round(seen_px * scale), 4)
    return page


def outlined(image: NDArray[np.uint8], labels: NDArray[np.generic], zoom: int) -> NDArray[np.uint8]:
    """Return the image enlarged, with a line around every region of label 1."""
    large = enlarge(image.astype(np.float32), zoom)
    inside = enlarge((labels == 1).astype(np.float32)[..., None], zoom)[..., 0]
    line = (inside > 0.5) & ~_shrink(inside > 0.5, LINE_PX)
    picture = np.rint(large).astype(np.uint8)
    picture[line] = class_colours(2)[1]
    return picture


def enlarge(values: NDArray[np.float32], zoom: int) -> NDArray[np.float32]:
    """Return ``(y, x, channel)`` enlarged by linear interpolation between pixel centres."""
    for axis in (0, 1):
        size = values.shape[axis]
        at = ((np.arange(size * zoom) + 0.5) / zoom - 0.5).clip(0, size - 1)
        left = at.astype(np.int64)
        right = np.minimum(left + 1, size - 1)
        share = (at - left).astype(np.float32)
        share = share[:, None, None] if axis == 0 else share[None, :, None]
        values = values.take(left, axis) * (1 - share) + values.take(right, axis) * share
    return values


def _shrink(region: NDArray[np.bool_], by_px: int) -> NDArray[np.bool_]:
    """Return the region without its outermost pixels."""
    for _ in range(by_px):
        padded = np.pad(region, 1, mode="edge")
        region = (
            region & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        )
    return region


def _draw_frame(page: NDArray[np.uint8], y: int, x: int, side_px: int, width_px: int) -> None:
    """Draw a line around the square that begins at ``y`` and ``x``."""
    rows = slice(y - width_px, y + side_px + width_px)
    columns = slice(x - width_px, x + side_px + width_px)
    for start in (-width_px, side_px):
        page[y + start : y + start + width_px, columns] = _INK
        page[rows, x + start : x + start + width_px] = _INK
