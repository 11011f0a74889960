"""Bring the noise that a network is measured with to the type of its input."""

import numpy as np
from numpy.typing import NDArray

_CONTRAST, _GREY = 32, 128
"""What noise of size 1 is multiplied with, and put around, to become bytes of an image."""

_EXACT = 1 << 24
"""Largest whole number up to which single precision holds all."""


def as_input(tiles: NDArray[np.float32], dtype: str) -> NDArray[np.generic]:
    """Return noise as a network takes it.

    Noise of size 1 becomes the bytes of a common image where the network takes whole numbers, and
    what is larger is cut off at the ends of their type. Each pixel is changed alone and never
    folded back, so that crops stay crops and a brighter one stays brighter.

    >>> as_input(np.float32([-9, 0, 0.5, 1]), "uint8").tolist()
    [0, 128, 144, 160]
    """
    kind = np.dtype(dtype)
    if kind.kind not in "iu":
        return tiles.astype(kind, copy=False)
    limits = np.iinfo(kind)
    shifted = np.rint(tiles * np.float32(_CONTRAST) + np.float32(0 if limits.min else _GREY))
    low, high = max(limits.min, -_EXACT), min(limits.max, _EXACT)
    result: NDArray[np.generic] = shifted.clip(low, high).astype(kind)
    return result
