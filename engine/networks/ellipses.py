"""Many soft ellipses at once, drawn into a block."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from .plane import BLOCK_PX, Block, Floats, Points

REACH_PX = 28
"""No ellipse is larger with its border, so one farther from a block does not touch it."""

_PAD_PX = 2 * REACH_PX

Number = TypeVar("Number", bound=np.generic)


class Ellipses(NamedTuple):
    """Ellipses, one entry of each column for each; lengths in pixels."""

    y: Points
    x: Points
    long: Points
    """Half of the long axis."""
    short: Points
    """Half of the short axis."""
    angle: Points
    """Direction of the long axis in radians, from +x towards +y."""
    stain: Points
    """Optical density inside, in units of its stain."""
    rim: Points
    """0 for an even inside, 1 for a pale inside within a dark border."""

    def where(self, keep: NDArray[np.bool_]) -> "Ellipses":
        """Return those that ``keep`` marks."""
        return Ellipses(*(column[keep] for column in self))


def draw(
    kinds: Iterable[Ellipses], block: Block, wobble: tuple[Floats, Floats], border_px: float = 1.7
) -> tuple[Floats, Floats]:
    """Draw ellipses; where some overlap, the strongest counts.

    Args:
        kinds: Ellipses of like size together, which saves work.
        block: Where to draw.
        wobble: Shift of each pixel along y and along x, in pixels, that makes outlines uneven.
        border_px: Width over which the borders fade.

    Returns:
        Cover, 1 inside and 0.5 on the outline, and stain, both ``(y, x)``.
    """
    side = BLOCK_PX + 2 * _PAD_PX
    cover = np.zeros(side * side, np.float32)
    stain = np.zeros(side * side, np.float32)
    for stamp in _stamps(kinds, block, wobble, border_px):
        np.maximum.at(cover, stamp.at.ravel(), stamp.cover.ravel())
        np.maximum.at(stain, stamp.at.ravel(), stamp.stain.ravel())
    return _inner(cover), _inner(stain)


def owners(
    kinds: Iterable[Ellipses], block: Block, wobble: tuple[Floats, Floats], border_px: float = 1.7
) -> NDArray[np.int64]:
    """Return which ellipse covers each pixel ``(y, x)`` most, -1 where none covers half of it.

    Ellipses are counted through all kinds; the other arguments are those of :func:`draw`.
    """
    kinds = list(kinds)
    side = BLOCK_PX + 2 * _PAD_PX
    cover = np.full(side * side, 0.5, np.float32)
    stamps = list(_stamps(kinds, block, wobble, border_px))
    for stamp in stamps:
        np.maximum.at(cover, stamp.at.ravel(), stamp.cover.ravel())
    owner = np.full(side * side, -1, np.int64)
    for stamp in stamps:
        most = stamp.cover >= cover[stamp.at]
        which = np.broadcast_to(stamp.which[:, None, None], most.shape)
        # Of two that cover a pixel alike, the later one, whatever block is drawn.
        np.maximum.at(owner, stamp.at[most], which[most])
    return _inner(owner)


class _Stamp(NamedTuple):
    """Ellipses of one kind, each within a square around it."""

    at: NDArray[np.int64]
    """Pixel of the padded block, ``(ellipse, y, x)``."""
    cover: Floats
    stain: Floats
    which: NDArray[np.int64]
    """Number of each ellipse, counted through all kinds."""


def _stamps(
    kinds: Iterable[Ellipses], block: Block, wobble: tuple[Floats, Floats], border_px: float
) -> Iterator[_Stamp]:
    side = BLOCK_PX + 2 * _PAD_PX
    drift_y, drift_x = (np.pad(field, _PAD_PX, mode="edge").ravel() for field in wobble)
    count = 0
    for kind in kinds:
        first, count = count, count + kind.y.size
        row, column = kind.y - block.y0, kind.x - block.x0
        near = (np.minimum(row, column) > -REACH_PX) & (
            np.maximum(row, column) < BLOCK_PX + REACH_PX
        )
        if not near.any():
            continue
        y, x = row[near, None, None] + _PAD_PX, column[near, None, None] + _PAD_PX
        long, short, angle, density, rim = (
            part[near, None, None].astype(np.float32) for part in kind[2:]
        )
        reach = int(long.max() + border_px) + 3
        window = np.arange(-reach, reach + 1)
        at_y = np.floor(y).astype(np.int64) + window[:, None]
        at_x = np.floor(x).astype(np.int64) + window
        index = at_y * side + at_x
        dy = (at_y - y).astype(np.float32) + drift_y[index]
        dx = (at_x - x).astype(np.float32) + drift_x[index]
        cos, sin = np.cos(angle), np.sin(angle)
        far = np.hypot((dx * cos + dy * sin) / long, (dy * cos - dx * sin) / short)
        # `far - 1` in pixels, near enough: its slope lies between 1 / long and 1 / short.
        soft = np.clip(0.5 + (1 - far) * np.sqrt(long * short) / np.float32(border_px), 0, 1)
        pale = rim * np.clip(1.25 * (0.95 - far), 0, 0.62)
        yield _Stamp(index, soft, soft * density * (1 - pale), first + np.flatnonzero(near))


def _inner(padded: NDArray[Number]) -> NDArray[Number]:
    side, inner = BLOCK_PX + 2 * _PAD_PX, slice(_PAD_PX, _PAD_PX + BLOCK_PX)
    return padded.reshape(side, side)[inner, inner]
