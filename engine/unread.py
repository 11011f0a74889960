"""Pixels of an image that cannot be decoded: what is read around them, and where they are."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..tiler.box import Box, Interval
from ..tiler.errors import ImageError
from .halving import is_out_of_memory
from .sources import Source
from .sources.request import read_whole

_PIECE_PX = (256, 256)
"""What is given up as one where an image is not made of segments."""


@dataclass(frozen=True, slots=True)
class Unread:
    """What of a block's image cannot be decoded."""

    places: tuple[Box, ...]
    """Segments of the image, in pixels of the level that is worked on."""
    pixels: int
    """Pixels of the block's mask that are not computed for that."""


def read_rest(
    source: Source, level: int, box: Box, channels: tuple[int, ...]
) -> tuple[NDArray[np.generic], tuple[Box, ...]]:
    """Return what can be decoded of a rectangle.

    Args:
        source: The image.
        level: Resolution to read from.
        box: Rectangle in pixels of that level.
        channels: Channels to return, in this order.

    Returns:
        Pixels ``(y, x, channel)``, and the image's segments that lie in the rectangle and cannot be
        decoded. In those, pixels are 0.

    Raises:
        ImageError: Memory ran out, which tells nothing of the image.
    """
    try:
        return read_whole(source, level, box, channels), ()
    except ImageError as error:  # of which of its segments, not every source can say
        _check_broken(error)
    facts = source.facts.levels[level]
    pixels = np.zeros((*box.shape, len(channels)), source.facts.dtype)
    broken = []
    for place in _segments(box, facts.segment or _PIECE_PX, facts.shape):
        part = place.clip(box)
        try:
            pixels[part.shift(-box.y.start, -box.x.start).slices] = read_whole(
                source, level, part, channels
            )
        except ImageError as error:
            _check_broken(error)
            broken.append(place)
    return pixels, tuple(broken)


def _check_broken(error: ImageError) -> None:
    """Raise an error that says nothing of the image: memory that ran out while it was decoded."""
    if is_out_of_memory(error):
        raise error


def _segments(box: Box, segment: tuple[int, int], shape: tuple[int, int]) -> Iterator[Box]:
    """Yield the segments that a rectangle meets, row by row, cut off at the image's end."""
    spans = [
        [
            Interval(n * size, min((n + 1) * size, length))
            for n in range(side.start // size, -(-side.stop // size))
        ]
        for side, size, length in zip(box, segment, shape, strict=True)
    ]
    return (Box(y, x) for y in spans[0] for x in spans[1])


def marked(places: tuple[Box, ...], box: Box) -> NDArray[np.bool_] | None:
    """Return which pixels ``(y, x)`` of a rectangle lie in some places; ``None`` for none."""
    if not places:
        return None
    found = np.zeros(box.shape, np.bool_)
    for place in places:
        found[place.clip(box).shift(-box.y.start, -box.x.start).slices] = True
    return found
