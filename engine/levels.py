"""Which resolution of an image is worked on, by the size of its pixels."""

from dataclasses import replace
from typing import NamedTuple

from ..tiler.errors import SettingError
from .backends.base import NetworkFacts
from .downsampling import downsampling
from .settings import Settings
from .sources import ImageFacts
from .sources.lengths import length_text, micrometers_per, pixel_text

TOLERANCE = 0.1
"""How far a pixel may be, along each axis, from the size that is asked for."""

_ROUNDING = 1e-9

Size = tuple[float, float]
"""Height and width of a pixel in micrometers."""


class LevelChoice(NamedTuple):
    """A resolution, and what there is to say about it."""

    level: int
    notes: list[str]
    warnings: list[str]


def with_pixel_size(facts: ImageFacts, mpp: float | None) -> ImageFacts:
    """Return the facts with pixels of ``mpp`` micrometers at level 0, as they are for ``None``.

    Lower levels have larger pixels by the ratio of their sizes. Pixels above a millimetre, as of
    the earth, are told in metres.
    """
    if mpp is None:
        return facts
    unit, size = ("micrometer", mpp) if mpp < 1000 else ("meter", mpp / 1e6)
    height, width = facts.levels[0].shape
    levels = []
    for level in facts.levels:
        factors = downsampling(height, level.shape[0]), downsampling(width, level.shape[1])
        levels.append(replace(level, pixel_size=(size * factors[0], size * factors[1])))
    return replace(facts, levels=tuple(levels), unit=unit)


def choose_level(facts: ImageFacts, network: NetworkFacts, settings: Settings) -> LevelChoice:
    """Decide which resolution is worked on.

    It is the level asked for, or the one whose pixels have the size asked for, or the one whose
    pixels have the size that the network was trained on, else level 0.

    Args:
        facts: The image; pixel sizes are as ``with_pixel_size`` left them.
        network: Its ``pixel_size`` counts.
        settings: Their ``level``, ``mpp`` and ``mpp_image`` count.

    Raises:
        SettingError: There is no such level, none has pixels of the size asked for, or none has
            those of the network and nothing is asked for.
    """
    notes: list[str] = []
    warnings: list[str] = []
    sizes, trained = _micrometers(facts), network.pixel_size
    if settings.level is not None:
        level = settings.level
        if level >= len(sizes):
            raise SettingError(f"level={level} is not in {facts.name}; it has {_listed(facts)}")
    elif settings.mpp is not None:
        level = _level_asked_for(settings.mpp, facts)
    elif trained is not None and sizes[0] is not None:
        level = _level_trained_on(trained, facts, network.name, settings)
        if level:
            notes.append(
                f"level {level} is segmented, as its pixels are what {network.name} was trained "
                f"on ({pixel_text(trained)}); use level=0 for the full image"
            )
    else:
        level = 0
    size = sizes[level]
    if trained is not None and size is None:
        notes.append(
            f"{network.name} was trained on pixels of {pixel_text(trained)}; {facts.name} does not "
            "state the size of its own: taken to fit"
        )
    if trained is not None and size is not None and not _fits(size, trained):
        warnings.append(
            f"{network.name} was trained on pixels of {pixel_text(trained)}, and those of level "
            f"{level} of {facts.name} are {pixel_text(size)}: expect a worse mask"
        )
    return LevelChoice(level, notes, warnings)


def _level_trained_on(trained: Size, facts: ImageFacts, name: str, settings: Settings) -> int:
    level = _fitting(_micrometers(facts), trained)
    if level is None and settings.mpp_image is None:
        raise SettingError(
            f"{name} was trained on pixels of {pixel_text(trained)}, and {facts.name} has none "
            f"within 10 % of that; it has {_listed(facts)}; use level=0 to segment it as it is, or "
            "mpp_image=X where the image states a wrong size"
        )
    return level or 0


def _level_asked_for(mpp: float, facts: ImageFacts) -> int:
    sizes = _micrometers(facts)
    if sizes[0] is None:
        raise SettingError(
            f"mpp={mpp:g} needs an image that states the size of its pixels, and {facts.name} does "
            f"not; it has {_listed(facts)}; use level=N, or mpp_image=X for the size at level 0"
        )
    level = _fitting(sizes, (mpp, mpp))
    if level is None:
        raise SettingError(
            f"mpp={mpp:g}: no level of {facts.name} has pixels within 10 % of {length_text(mpp)}; "
            f"it has {_listed(facts)}; use level=N, or mpp_image=X where the image states a wrong "
            "size"
        )
    return level


def _fitting(sizes: list[Size | None], wanted: Size) -> int | None:
    """Return the level whose pixels are nearest to a size, ``None`` where none is near enough."""
    near = [
        (sum(abs(s / w - 1) for s, w in zip(size, wanted, strict=True)), level)
        for level, size in enumerate(sizes)
        if size is not None and _fits(size, wanted)
    ]
    return min(near)[1] if near else None


def _fits(size: Size, wanted: Size) -> bool:
    return all(abs(s / w - 1) <= TOLERANCE + _ROUNDING for s, w in zip(size, wanted, strict=True))


def _micrometers(facts: ImageFacts) -> list[Size | None]:
    unit = micrometers_per(facts.unit or "")
    return [
        None
        if unit is None or level.pixel_size is None
        else (level.pixel_size[0] * unit, level.pixel_size[1] * unit)
        for level in facts.levels
    ]


def _listed(facts: ImageFacts) -> str:
    """Return all levels with their sizes, for errors."""
    texts = []
    for number, (level, size) in enumerate(zip(facts.levels, _micrometers(facts), strict=True)):
        pixels = "" if size is None else f" px of {pixel_text(size)}"
        texts.append(f"{number}: {level.shape[0]} x {level.shape[1]}{pixels}")
    return ", ".join(texts)
