"""The size of a pixel, as the various kinds of TIFF state it."""

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

from .lengths import micrometers_per

_PRINT_DPI = (72.0, 96.0, 150.0, 300.0)
"""Resolutions that programs fill in for printing; they say nothing about the object."""
_MICROMETERS_PER_UNIT = {2: 25_400.0, 3: 10_000.0}
_MPP = re.compile(r"\bMPP\s*=\s*([0-9.eE+-]+)")

PixelSize = tuple[float, float]


def tiff_pixel_size(tiff: Any, page: Any, image: int = 0) -> PixelSize | None:
    """Return height and width of a pixel of level 0 in micrometers, ``None`` if the file is mute.

    Args:
        tiff: The open ``tifffile.TiffFile``.
        page: The first page of the image.
        image: The image's number in the file.
    """
    if tiff.is_ome and tiff.ome_metadata:
        return _of_ome(tiff.ome_metadata, image)
    if tiff.is_svs:
        # Thumbnail, label and overview repeat the scan's size; only the scan is of it.
        return _of_svs(page.description) if image == 0 else None
    if tiff.is_imagej:
        unit = micrometers_per(str((tiff.imagej_metadata or {}).get("unit", "")))
        if unit is not None:
            return _of_resolution(page, unit)
    unit = _MICROMETERS_PER_UNIT.get(page.tags.valueof(296, 1))
    return None if unit is None else _of_resolution(page, unit)


def _of_ome(xml: str, image: int) -> PixelSize | None:
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return None
    described = [e for e in root.iter() if e.tag.rpartition("}")[2] == "Pixels"]
    if image >= len(described):
        return None
    pixels = described[image]
    sizes = []
    for axis in "YX":
        unit = micrometers_per(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        size = _positive(pixels.get(f"PhysicalSize{axis}"))
        if unit is None or size is None:
            return None
        sizes.append(size * unit)
    return sizes[0], sizes[1]


def _of_svs(description: str) -> PixelSize | None:
    found = _MPP.search(description)
    size = _positive(found.group(1)) if found else None
    return None if size is None else (size, size)


def _of_resolution(page: Any, unit_micrometers: float) -> PixelSize | None:
    """Read the tags XResolution and YResolution, each a fraction of pixels per unit."""
    sizes = []
    for tag in (283, 282):
        value = page.tags.valueof(tag)
        if not isinstance(value, tuple) or len(value) != 2 or min(value) <= 0:
            return None
        per_unit = value[0] / value[1]
        dpi = per_unit * 25_400.0 / unit_micrometers
        if per_unit == 1 or any(abs(dpi - plain) < 1e-3 * plain for plain in _PRINT_DPI):
            return None
        sizes.append(unit_micrometers / per_unit)
    return sizes[0], sizes[1]


def _positive(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None
