"""Which pixel types an image may have."""

import numpy as np
from numpy.typing import DTypeLike

from ...tiler.errors import ImageError


def native_dtype(dtype: DTypeLike, name: str) -> np.dtype[np.generic]:
    """Return the type pixels are handed out in: native byte order, ``uint8`` for ``bool``.

    Raises:
        ImageError: The type is neither boolean, integer nor real.
    """
    stored = np.dtype(dtype)
    if stored.kind == "b":
        return np.dtype(np.uint8)
    if stored.kind not in "uif":
        raise ImageError(
            f"pixels must be integers or real numbers; {name} holds {stored}; "
            "convert it, for instance to its magnitude"
        )
    return stored.newbyteorder("=")
