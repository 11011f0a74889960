"""The first image of a TIFF as tifffile reads it, with its palette and orientation applied."""

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

_PALETTE, _ORIENTATION = 3, 274


def first_plane(path: Path) -> NDArray[Any]:
    """Return the first plane of the first image, ``(y, x, channel)``."""
    with tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        page = series.keyframe
        pixels, axes = series.asarray(squeeze=False), series.get_axes(False)
        colours = page.colormap.T if page.photometric == _PALETTE else None
        orientation = page.tags.valueof(_ORIENTATION)
    stack = [axes.index(a) for a in axes if a not in "YXCS"]
    planes = pixels.transpose(
        stack + [axes.index(a) for a in "YX"] + [axes.index(a) for a in axes if a in "CS"]
    )
    plane = planes[(0,) * len(stack)]
    plane = plane.reshape(*plane.shape[:2], -1)
    if colours is not None:
        stems_from_8_bit = not (colours % 257).any() or not (colours % 256).any()
        colours = (colours >> 8).astype(np.uint8) if stems_from_8_bit else colours
        plane = colours[plane[..., 0].astype(int)]
    return _turned(plane, orientation)


def _turned(plane: NDArray[Any], orientation: Any) -> NDArray[Any]:
    """Return a plane as it is to be seen: mirrored left to right first, then turned."""
    mirrored = {2: 1, 4: 3, 5: 8, 7: 6}
    quarters = {3: 2, 6: -1, 8: 1}
    if orientation in mirrored:
        plane, orientation = plane[:, ::-1], mirrored[orientation]
    return np.rot90(plane, quarters.get(orientation, 0))
