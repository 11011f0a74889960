"""Colours of the classes, told apart by everyone."""

import numpy as np
from numpy.typing import NDArray

from ..engine.exports.colours import class_colours as known_colours
from ..engine.plan import Plan

# Seven colours that colour-blind readers tell apart (Okabe and Ito, 2008), those that stand out
# from stained tissue first.
_COLOURS = (
    (240, 228, 66),
    (86, 180, 233),
    (0, 158, 115),
    (213, 94, 0),
    (230, 159, 0),
    (0, 114, 178),
    (204, 121, 167),
)


def class_colours(classes: int) -> NDArray[np.uint8]:
    """Return a colour ``(class, 3)`` for each label; label 0, the background, is black."""
    colours = [(0, 0, 0)] + [_COLOURS[n % len(_COLOURS)] for n in range(classes - 1)]
    return np.array(colours, np.uint8)


def mask_colours(plan: Plan) -> NDArray[np.uint8]:
    """Return a colour ``(class, 3)`` for each label: the model's own, else one of ours."""
    own = known_colours(plan)
    ours = class_colours(len(own)).tolist()
    return np.array([colour or ours[label] for label, colour in enumerate(own)], np.uint8)
