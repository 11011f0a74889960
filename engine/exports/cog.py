"""A mask as cloud-optimised GeoTIFF, for QGIS, GDAL and whatever reads plain TIFF."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..prediction import Prediction
from .labels import Labels
from .tiff_directory import ASCII, DOUBLE, SHORT, Tag, Tags
from .tiled_tiff import write_tiled_tiff
from .whole_file import whole_file

_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION = 33550, 33922, 34264
_KEYS, _KEY_NUMBERS, _KEY_TEXT = 34735, 34736, 34737
_NODATA = 42113
_RASTER_TYPE, _PIXEL_IS_POINT = 1025, 2

GEO_TAGS = (_PIXEL_SCALE, _TIE_POINTS, _TRANSFORMATION, _KEYS, _KEY_NUMBERS, _KEY_TEXT)
"""Tags of a GeoTIFF that say where it lies."""


def write_geotiff(
    prediction: Prediction, path: Path, geo_tags: Mapping[int, Any] | None = None
) -> None:
    """Write a tiled, deflated BigTIFF with overviews; the label "not computed" is its nodata.

    Args:
        prediction: The mask.
        path: The file, written under another name until it is whole.
        geo_tags: The tags among ``GEO_TAGS`` of the image's level 0, as tifffile gives them; others
            are ignored. They are scaled to the mask's pixels.

    Raises:
        OutputError: The file cannot be written.
    """
    labels = Labels.of(prediction)
    tags = scaled_geo_tags(geo_tags or {}, labels.factor)
    tags[_NODATA] = Tag(ASCII, str(labels.not_computed))
    with whole_file(path) as file:
        write_tiled_tiff(file, labels, tags, nested=False)


def scaled_geo_tags(geo_tags: Mapping[int, Any], factor: tuple[float, float]) -> Tags:
    """Return the georeference of an image whose pixels are ``factor`` (y, x) times as large."""
    factor_y, factor_x = factor
    keys = tuple(geo_tags.get(_KEYS, ()))
    entries = [keys[start : start + 4] for start in range(4, len(keys), 4)]
    # Where a position means a pixel's centre, a corner lies half a pixel before it.
    half = 0.5 if (_RASTER_TYPE, 0, 1, _PIXEL_IS_POINT) in entries else 0.0
    tags: Tags = {}
    if _PIXEL_SCALE in geo_tags:
        x, y, z = geo_tags[_PIXEL_SCALE]
        tags[_PIXEL_SCALE] = Tag(DOUBLE, (x * factor_x, y * factor_y, z))
    if _TIE_POINTS in geo_tags:
        points = list(geo_tags[_TIE_POINTS])
        for start in range(0, len(points), 6):
            points[start] = (points[start] + half) / factor_x - half
            points[start + 1] = (points[start + 1] + half) / factor_y - half
        tags[_TIE_POINTS] = Tag(DOUBLE, points)
    if _TRANSFORMATION in geo_tags:
        rows = [list(geo_tags[_TRANSFORMATION][start : start + 4]) for start in range(0, 16, 4)]
        for row in rows[:3]:
            row[3] += half * (row[0] * (factor_x - 1) + row[1] * (factor_y - 1))
            row[0], row[1] = row[0] * factor_x, row[1] * factor_y
        tags[_TRANSFORMATION] = Tag(DOUBLE, [value for row in rows for value in row])
    if keys:
        tags[_KEYS] = Tag(SHORT, keys)
    if _KEY_NUMBERS in geo_tags:
        tags[_KEY_NUMBERS] = Tag(DOUBLE, tuple(geo_tags[_KEY_NUMBERS]))
    if _KEY_TEXT in geo_tags:
        tags[_KEY_TEXT] = Tag(ASCII, geo_tags[_KEY_TEXT])
    return tags
