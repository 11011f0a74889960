"""What the samples of a TIFF page mean: colours, indices of a palette, inks, alpha."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...tiler.errors import ImageError

_PALETTE, _YCBCR = 3, 6
_ALPHA = (1, 2)  # associated and unassociated; 0 is data of another kind
_TO_RGB_BY_CODEC = {6, 7, 34892, 33007, 50001}  # kinds of JPEG, and WebP
_APERIO_YCBCR = 33003
_REFUSED = {
    5: "inks (CMYK)",
    8: "CIE L*a*b* colours",
    9: "ICC L*a*b* colours",
    10: "ITU L*a*b* colours",
    32803: "the mosaic of a camera's sensor",
    32844: "LogL luminance",
    32845: "LogLuv colours",
}


def check_colour(page: Any, path: str) -> None:
    """Refuse pixels that are neither values nor RGB.

    Raises:
        ImageError: They are inks, a sensor's mosaic, or in another colour space, YCbCr included
            unless it is inside JPEG or WebP, whose decoder makes RGB of it.
    """
    kind = _REFUSED.get(page.photometric)
    if page.photometric == _YCBCR:
        converted = page.compression in _TO_RGB_BY_CODEC
        if not converted or page.planarconfig != 1 or page.extrasamples:
            kind = "YCbCr outside of JPEG"
    if page.compression == _APERIO_YCBCR and page.samplesperpixel > 1:
        kind = "YCbCr outside of JPEG"
    if kind is not None:
        raise ImageError(
            f"colours must be grey, RGB or a palette; {path} holds {kind}; convert it to RGB"
        )


def colour_map(page: Any, path: str) -> NDArray[np.generic] | None:
    """Return the colours of a palette image, ``(index, channel)``, ``None`` for other images.

    TIFF stores 16-bit colours. They are returned as ``uint8`` where they stem from 8 bits, i.e.
    all are multiples of 257 (divided by it) or of 256 (divided by it) or below 256 (a common
    mistake, as they are); else as ``uint16``.

    Raises:
        ImageError: The map is missing, or the pixels are no indices.
    """
    if page.photometric != _PALETTE:
        return None
    if page.samplesperpixel != 1 or np.dtype(page.dtype).kind not in "bui":
        raise ImageError(
            f"a palette needs one whole number per pixel; {path} has {page.samplesperpixel} x "
            f"{page.dtype}; convert it to RGB"
        )
    stored = None if page.colormap is None else np.asarray(page.colormap)
    if stored is None or stored.ndim != 2 or stored.shape[0] != 3 or stored.shape[1] == 0:
        raise ImageError(f"a palette image needs its colours; {path} lacks them; get a good copy")
    colours = np.ascontiguousarray(stored.T)
    for unit in (257, 256):
        if not (colours % unit).any():
            return (colours // unit).astype(np.uint8)
    return colours.astype(np.uint8 if colours.max() < 256 else np.uint16)


def alpha_channel(page: Any) -> int | None:
    """Return which sample of a page is its transparency."""
    first = page.samplesperpixel - len(page.extrasamples)
    return next((first + i for i, kind in enumerate(page.extrasamples) if kind in _ALPHA), None)
