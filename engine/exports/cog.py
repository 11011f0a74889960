"""A mask as cloud-optimised GeoTIFF, for QGIS, GDAL and whatever reads plain TIFF."""

from pathlib import Path

from ..prediction import Prediction
from ..sources.georeference import GeoTags
from ..sources.tiff_georeference import is_pixel_point
from .labels import Labels
from .tiff_directory import ASCII, DOUBLE, SHORT, Tag, Tags
from .tiled_tiff import write_tiled_tiff
from .whole_file import whole_file

_PIXEL_SCALE, _TIE_POINTS, _MATRIX = 33550, 33922, 34264
_KEYS, _KEY_NUMBERS, _KEY_TEXT = 34735, 34736, 34737
_NODATA = 42113


def write_geotiff(prediction: Prediction, path: Path) -> None:
    """Write a tiled, deflated BigTIFF with overviews; the label "not computed" is its nodata.

    The image's georeference is scaled to the mask's pixels.

    Args:
        prediction: The mask.
        path: The file, written under another name until it is whole.

    Raises:
        OutputError: The file cannot be written.
    """
    labels = Labels.of(prediction)
    place = prediction.plan.image.georeference
    tags = {} if place is None else scaled_geo_tags(place.tags, labels.factor)
    tags[_NODATA] = Tag(ASCII, str(labels.not_computed))
    with whole_file(path) as file:
        write_tiled_tiff(file, labels, tags, nested=False)


def scaled_geo_tags(stored: GeoTags, factor: tuple[float, float]) -> Tags:
    """Return the georeference of an image whose pixels are ``factor`` (y, x) times as large."""
    factor_y, factor_x = factor
    # Where a position means a pixel's centre, a corner lies half a pixel before it.
    half = 0.5 if is_pixel_point(stored) else 0.0
    tags: Tags = {}
    if stored.pixel_scale:
        x, y, z = stored.pixel_scale
        tags[_PIXEL_SCALE] = Tag(DOUBLE, (x * factor_x, y * factor_y, z))
    if stored.tie_points:
        points = list(stored.tie_points)
        for start in range(0, len(points), 6):
            points[start] = (points[start] + half) / factor_x - half
            points[start + 1] = (points[start + 1] + half) / factor_y - half
        tags[_TIE_POINTS] = Tag(DOUBLE, points)
    if stored.matrix:
        rows = [list(stored.matrix[start : start + 4]) for start in range(0, 16, 4)]
        for row in rows[:3]:
            row[3] += half * (row[0] * (factor_x - 1) + row[1] * (factor_y - 1))
            row[0], row[1] = row[0] * factor_x, row[1] * factor_y
        tags[_MATRIX] = Tag(DOUBLE, [value for row in rows for value in row])
    if stored.keys:
        tags[_KEYS] = Tag(SHORT, stored.keys)
    if stored.key_numbers:
        tags[_KEY_NUMBERS] = Tag(DOUBLE, stored.key_numbers)
    if stored.key_text:
        tags[_KEY_TEXT] = Tag(ASCII, stored.key_text)
    return tags
