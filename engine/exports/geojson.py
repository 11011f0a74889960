"""A mask as GeoJSON polygons, for QuPath and whatever else reads outlines."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..prediction import Prediction
from .colours import Colour
from .labels import Labels
from .outlines import Points, trace
from .rings import polygon
from .whole_file import whole_file

TOLERANCE_PX = 0
"""How far an outline is from the pixels' edges: only corners on a straight line are left out."""

ObjectType: TypeAlias = Literal["annotation", "detection"]
OBJECT_TYPES: tuple[str, ...] = get_args(ObjectType)

Scale: TypeAlias = NDArray[np.float64] | NDArray[np.int64]

_BACKGROUND = 0
_SLICE = 1 << 16
_DIGITS = 4


def write_geojson(
    prediction: Prediction,
    path: Path,
    *,
    colours: Sequence[Colour | None] = (),
    object_type: ObjectType = "annotation",
) -> None:
    """Write one polygon with its holes for each region of each class but 0 and "not computed".

    A region is what is connected by the pixels' sides. Its outline follows the pixels' edges
    (tolerance ``TOLERANCE_PX``); rings are simple and wound as RFC 7946 says, first point repeated.
    Coordinates are ``x, y`` in pixels of the image's level 0, whatever level was segmented and
    wherever the image lies on the earth.

    Args:
        prediction: The mask.
        path: The file, written under another name until it is whole.
        colours: Colour of each label; where there is none QuPath chooses its own.
        object_type: What QuPath makes of a region; detections are lighter where there are many.

    Raises:
        OutputError: The file cannot be written.
    """
    labels = Labels.of(prediction)
    properties = [
        json.dumps({"objectType": object_type, "classification": _classification(name, colour)})
        for name, colour in zip_longest(labels.class_names, colours)
    ]
    scale = np.array(labels.factor[::-1])
    with whole_file(path) as file:
        file.write(b'{"type":"FeatureCollection","features":[')
        before = "\n"
        for region in trace(labels.levels[0], (_BACKGROUND, labels.not_computed)):
            file.write(
                f'{before}{{"type":"Feature","properties":{properties[region.label]},'.encode()
            )
            file.writelines(_geometry(polygon(region.rings), scale))
            file.write(b"}")
            before = ",\n"
        file.write(b"\n]}\n")


def _classification(name: str, colour: Colour | None) -> dict[str, Any]:
    return {"name": name} | ({} if colour is None else {"color": colour})


def _geometry(rings: Iterable[Points], scale: Scale) -> Iterator[bytes]:
    """Yield the text of a polygon in parts, so that a long outline is never one text."""
    yield b'"geometry":{"type":"Polygon","coordinates":['
    for number, ring in enumerate(rings):
        yield b",[" if number else b"["
        for start in range(0, len(ring), _SLICE):
            stop = start + _SLICE
            yield _points(ring[start:stop], scale) + (b"," if stop < len(ring) else b"")
        yield b"," + _points(ring[:1], scale) + b"]"
    yield b"]}"


def _points(points: Points, scale: Scale) -> bytes:
    scaled = points * scale
    if scaled.dtype.kind == "f":
        scaled = np.round(scaled, _DIGITS)
    return msgspec.json.encode(scaled.tolist())[1:-1]
