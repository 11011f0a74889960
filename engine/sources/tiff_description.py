"""Check what an OME-TIFF's description says of its planes before tifffile makes a list of them."""

import re
from math import prod
from typing import Any

from ...tiler.errors import ImageError

MOST_PLANES = 10_000_000
"""Over all files of an image; tifffile keeps a place for each."""

_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b([^>]*)>")
_TIFF_DATA = re.compile(r"<(?:\w+:)?TiffData\b([^>]*)>")
_SIZE = re.compile(r"""\bSize([XYZCT])\s*=\s*["']\s*(\d+)""")
_COUNT = re.compile(r"""\b(?:PlaneCount|IFD|First[ZCT])\s*=\s*["']\s*(\d+)""")


def check_description(tiff: Any, path: str) -> None:
    """Refuse a file whose description announces more planes than any file has.

    Args:
        tiff: The open ``tifffile.TiffFile``.
        path: For the error.

    Raises:
        ImageError: It does.
    """
    text = tiff.ome_metadata if tiff.is_ome else None
    if not text:
        return
    page_values = max(1, tiff.pages.first.size)
    planes = []
    for said in _PIXELS.findall(text):
        sizes = {axis: _number(digits) for axis, digits in _SIZE.findall(said)}
        planes.append(prod(n for axis, n in sizes.items() if axis in "ZCT"))
        planes.append(prod(sizes.values()) // page_values)  # as tifffile counts them as well
    planes += [
        _number(count) for said in _TIFF_DATA.findall(text) for count in _COUNT.findall(said)
    ]
    if max(planes, default=0) > MOST_PLANES:
        raise ImageError(
            f"an image has at most {MOST_PLANES} planes; the OME description of {path} announces "
            "more; get a good copy"
        )


def _number(digits: str) -> int:
    return int(digits[:20])  # of any more, Python refuses to make a number
