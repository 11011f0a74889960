"""The place and the nodata value that a GeoTIFF states (OGC 19-008, GDAL's tag 42113)."""

from math import hypot, isfinite
from typing import Any

import numpy as np

from .georeference import Affine, Georeference, GeoTags

_PIXEL_SCALE, _TIE_POINTS, _MATRIX = 33550, 33922, 34264
_KEYS, _KEY_NUMBERS, _KEY_TEXT = 34735, 34736, 34737
_NODATA = 42113

_MODEL_TYPE, _RASTER_TYPE = 1024, 1025
_PROJECTED, _GEOGRAPHIC = 1, 2
_PIXEL_IS_POINT = 2
_CRS_KEY = {_PROJECTED: 3072, _GEOGRAPHIC: 2048}
_LINEAR_UNIT = 3076
_METERS = {9001: 1.0, 9002: 0.3048, 9003: 1200 / 3937}
_WEB_MERCATOR = ("EPSG:3857", "EPSG:3785")
_EPSG_CODES = range(1024, 32767)
"""32767 stands for a system that is described by further keys, 0 for none."""


def tiff_georeference(page: Any) -> Georeference | None:
    """Return the place of a page, ``None`` for one that is no GeoTIFF or whose tags are broken."""
    tags = GeoTags(
        pixel_scale=_numbers(page, _PIXEL_SCALE, 3)[:3],
        tie_points=_numbers(page, _TIE_POINTS, 6),
        matrix=_numbers(page, _MATRIX, 16)[:16],
        keys=tuple(int(number) for number in _numbers(page, _KEYS, 4)),
        key_numbers=_numbers(page, _KEY_NUMBERS, 1),
        key_text=_text(page, _KEY_TEXT),
    )
    if not (tags.pixel_scale or tags.tie_points or tags.matrix):
        return None
    return Georeference(_transform(tags), _crs(tags), tags)


def tiff_nodata(page: Any) -> float | None:
    """Return the value that stands for no data, ``None`` where none is stated.

    NaN is not returned: it is no data wherever it occurs.
    """
    try:
        value = float(_text(page, _NODATA))
    except ValueError:
        return None
    return value if isfinite(value) else None


def pixel_meters(georeference: Georeference | None) -> tuple[float, float] | None:
    """Return height and width of a pixel in metres on the ground.

    ``None`` in degrees and unknown units, and for Web Mercator, whose metres are shorter the
    further they are from the equator.
    """
    if georeference is None or georeference.transform is None:
        return None
    if georeference.crs in _WEB_MERCATOR:
        return None
    keys = _short_keys(georeference.tags)
    meters = _METERS.get(keys.get(_LINEAR_UNIT, 0))
    if keys.get(_MODEL_TYPE) != _PROJECTED or meters is None:
        return None
    a, b, _, d, e, _ = georeference.transform
    return hypot(b, e) * meters, hypot(a, d) * meters


def is_pixel_point(tags: GeoTags) -> bool:
    """Say whether a stated position means the centre of a pixel, not its corner."""
    return _short_keys(tags).get(_RASTER_TYPE) == _PIXEL_IS_POINT


def _transform(tags: GeoTags) -> Affine | None:
    half = 0.5 if is_pixel_point(tags) else 0.0
    if tags.tie_points and tags.pixel_scale and 0 not in tags.pixel_scale[:2]:
        column, row, _, x, y, _ = tags.tie_points[:6]
        # GDAL, too, takes an image for north-up whatever the sign of the scale.
        size_x, size_y = tags.pixel_scale[0], abs(tags.pixel_scale[1])
        left, top = x - (column + half) * size_x, y + (row + half) * size_y
        return size_x, 0.0, left, 0.0, -size_y, top
    if tags.matrix:
        a, b, _, c, d, e, _, f = tags.matrix[:8]
        return a, b, c - half * (a + b), d, e, f - half * (d + e)
    return None


def _crs(tags: GeoTags) -> str | None:
    keys = _short_keys(tags)
    code = keys.get(_CRS_KEY.get(keys.get(_MODEL_TYPE, 0), 0), 0)
    return f"EPSG:{code}" if code in _EPSG_CODES else None


def _short_keys(tags: GeoTags) -> dict[int, int]:
    """Return the keys whose value stands in the directory itself."""
    entries = (tags.keys[start : start + 4] for start in range(4, len(tags.keys), 4))
    return {key: value for key, place, count, value in entries if (place, count) == (0, 1)}


def _numbers(page: Any, tag: int, group: int) -> tuple[float, ...]:
    """Return a tag's numbers, which come in groups; none if they do not or are not finite."""
    value = page.tags.valueof(tag)
    try:
        numbers = tuple(np.atleast_1d(np.asarray(value, np.float64)).tolist())
    except (TypeError, ValueError):
        return ()
    whole = len(numbers) % group == 0 and all(isfinite(number) for number in numbers)
    return numbers if whole and value is not None else ()


def _text(page: Any, tag: int) -> str:
    value = page.tags.valueof(tag)
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace").replace("\ufffd", "?")
    return value if isinstance(value, str) else ""
