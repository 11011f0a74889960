"""Checks what is asked of a source before anything is read."""

from ...tiler.box import Box
from ...tiler.errors import SettingError
from .base import ImageFacts


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
