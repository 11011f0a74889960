"""Which pixel types an image may have."""

import numpy as np
from numpy.typing import DTypeLike

from ...tiler.errors import ImageError


def native_dtype(dtype: DTypeLike, name: str) -> np.dtype[np.generic]:
    """Return the type pixels are handed out in: native byte order.

    Raises:
        ImageError: The type is neither boolean, integer nor real, or wider than 64 bits.
    """
    stored = np.dtype(dtype)
    if stored.kind not in "buif" or stored.itemsize > 8:
        raise ImageError(
            f"pixels must be integers or real numbers of at most 64 bits; {name} holds {stored}; "
            "convert it, for instance to its magnitude"
        )
    return stored.newbyteorder("=")
