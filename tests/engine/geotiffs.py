"""GeoTIFF files with their tags written one by one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

UTM_33 = 32633
METRE, FOOT = 9001, 9002


def keys(
    *, model: int = 1, raster: int = 1, epsg: int = UTM_33, unit: int | None = METRE
) -> tuple[int, ...]:
    """Return a directory of keys; ``model`` is 1 for projected, 2 for geographic coordinates."""
    entries = [(1024, model), (1025, raster), (3072 if model == 1 else 2048, epsg)]
    entries += [] if unit is None else [(3076, unit)]
    directory = [1, 1, 0, len(entries)]
    for key, value in entries:
        directory += [key, 0, 1, value]
    return tuple(directory)


def write_geotiff(
    path: Path,
    levels: Sequence[NDArray[np.generic]],
    *,
    size: tuple[float, float] | None = (10.0, 10.0),
    tie: Sequence[float] = (0.0, 0.0, 0.0, 500_000.0, 5_600_000.0, 0.0),
    matrix: Sequence[float] | None = None,
    directory: Sequence[int] | None = None,
    nodata: str | None = None,
    **options: Any,
) -> Path:
    """Write levels ``(y, x)`` or ``(y, x, c)`` as a tiled TIFF with overviews.

    ``size`` is height and width of a pixel; the tags are level 0's alone.
    """
    directory = keys() if directory is None else directory
    tags: list[tuple[Any, ...]] = [(34735, "H", len(directory), tuple(directory), True)]
    if size is not None:
        tags.append((33550, "d", 3, (size[1], size[0], 0.0), True))
    if tie:
        tags.append((33922, "d", len(tie), tuple(tie), True))
    if matrix is not None:
        tags.append((34264, "d", 16, tuple(matrix), True))
    if nodata is not None:
        tags.append((42113, "s", 0, nodata, True))
    with tifffile.TiffWriter(path) as tiff:
        for number, pixels in enumerate(levels):
            tiff.write(
                pixels,
                tile=(64, 64),
                photometric="rgb" if pixels.ndim == 3 and pixels.shape[2] == 3 else "minisblack",
                subfiletype=min(number, 1),
                extratags=tags if number == 0 else [],
                metadata=None,
                **options,
            )
    return path
