"""Checks of what is asked of a source, and of what it gives."""

import numpy as np
from numpy.typing import NDArray

from ...tiler.box import Box
from ...tiler.errors import ImageError, SettingError
from .base import ImageFacts, Source


def checked_channels(
    facts: ImageFacts, level: int, box: Box, channels: tuple[int, ...] | None
) -> tuple[int, ...]:
    """Return the channels to read, all where ``None``.

    Raises:
        SettingError: The image has no such level or channel, or the box leaves the level.
    """
    if not 0 <= level < len(facts.levels):
        raise SettingError(
            f"level={level} is not in {facts.name}; it has levels 0 to {len(facts.levels) - 1}"
        )
    height, width = facts.levels[level].shape
    if box.y.start < 0 or box.x.start < 0 or box.y.stop > height or box.x.stop > width:
        raise SettingError(
            f"a box must lie inside level {level} of {facts.name} ({height} x {width} px); "
            f"got y {box.y.start}:{box.y.stop}, x {box.x.start}:{box.x.stop}"
        )
    if channels is None:
        return tuple(range(facts.channels))
    for channel in channels:
        if not 0 <= channel < facts.channels:
            raise SettingError(
                f"channel {channel} is not in {facts.name}; use 0 to {facts.channels - 1}"
            )
    return channels


def read_whole(
    source: Source, level: int, box: Box, channels: tuple[int, ...]
) -> NDArray[np.generic]:
    """Return the pixels of a rectangle, ``(y, x, channel)``; see `Source.read`.

    Raises:
        ImageError: The file is broken there, or gives fewer pixels than were asked for.
    """
    pixels = source.read(level, box, channels)
    wanted = (*box.shape, len(channels))
    if pixels.shape != wanted:
        raise ImageError(
            f"{source.facts.name}: level {level}, pixels y {box.y.start}:{box.y.stop}, "
            f"x {box.x.start}:{box.x.stop} cannot be read: {pixels.shape} came instead of "
            f"{wanted}; get a good copy"
        )
    return pixels
