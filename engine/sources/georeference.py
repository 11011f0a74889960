"""Where an image lies on the earth."""

from dataclasses import dataclass

Affine = tuple[float, float, float, float, float, float]
"""``(a, b, c, d, e, f)``: the point ``x = a * column + b * row + c``, ``y = d * column + e * row +
f``, where whole numbers of column and row are a pixel's upper left corner; rasterio's order."""


@dataclass(frozen=True, slots=True)
class GeoTags:
    """The tags of a GeoTIFF as stored; empty where there is none."""

    pixel_scale: tuple[float, ...] = ()
    """ModelPixelScale, 33550."""
    tie_points: tuple[float, ...] = ()
    """ModelTiepoint, 33922: six numbers for each point."""
    matrix: tuple[float, ...] = ()
    """ModelTransformation, 34264: sixteen numbers, row by row."""
    keys: tuple[int, ...] = ()
    """GeoKeyDirectory, 34735: four numbers for the header and for each key."""
    key_numbers: tuple[float, ...] = ()
    """GeoDoubleParams, 34736."""
    key_text: str = ""
    """GeoAsciiParams, 34737."""


@dataclass(frozen=True, slots=True)
class Georeference:
    """The place of an image's level 0."""

    transform: Affine | None
    """From pixels of level 0 to the coordinates of ``crs``; ``None`` where control points state
    the place in another way."""
    crs: str | None
    """Coordinate reference system, such as ``EPSG:32633``; ``None`` where it has no EPSG code."""
    tags: GeoTags
    """What a GeoTIFF of the same place needs."""


def scaled(transform: Affine, factor: tuple[float, float]) -> Affine:
    """Return the transform of pixels that are ``factor`` (y, x) times as large.

    >>> scaled((10.0, 0.0, 500.0, 0.0, -10.0, 900.0), (4, 2))
    (20.0, 0.0, 500.0, 0.0, -40.0, 900.0)
    """
    a, b, c, d, e, f = transform
    factor_y, factor_x = factor
    return a * factor_x, b * factor_y, c, d * factor_x, e * factor_y, f
