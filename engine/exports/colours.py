"""Colours of a mask's classes."""

from collections.abc import Mapping, Sequence
from operator import index
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...tiler.errors import SettingError
from ..plan import Plan

Colour: TypeAlias = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

Colours: TypeAlias = Mapping[str, Sequence[int]] | Sequence[Sequence[int]] | NDArray[np.integer]
"""Colours by the classes' names, or one for each label, 0 included."""


def class_colours(plan: Plan, chosen: Colours | None = None) -> tuple[Colour | None, ...]:
    """Return the colour of each label; ``None`` where neither user nor model has one.

    Args:
        plan: Knows the classes, and the colours that the model's metadata has.
        chosen: Colours of the user, which win over the model's.

    Raises:
        SettingError: A colour is none, a name is no class, or there is not one for each label.
    """
    names, own = plan.class_names, plan.network.class_colours
    colours: list[Colour | None] = [*own] if len(own) == len(names) else [None] * len(names)
    if chosen is None:
        return tuple(colours)
    if isinstance(chosen, Mapping):
        for name, colour in chosen.items():
            if name not in names:
                raise SettingError(
                    f"colours= names the class {name!r}, which is not there; "
                    f"use some of {', '.join(names)}"
                )
            colours[names.index(name)] = _colour(colour)
        return tuple(colours)
    if len(chosen) != len(names):
        raise SettingError(
            f"colours= has {len(chosen)} colours for {len(names)} classes; give one for each of "
            f"{', '.join(names)}, or a dict from names to colours"
        )
    return tuple(map(_colour, chosen))


def _colour(values: Sequence[int] | NDArray[np.integer]) -> Colour:
    try:
        red, green, blue = map(index, values)
    except (TypeError, ValueError):
        red = green = blue = -1
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise SettingError(
            f"a colour is red, green and blue of 0 to 255; got {values!r}; "
            "write it like (200, 30, 0)"
        )
    return red, green, blue
