"""Write a finished mask in the formats of other tools."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...tiler.errors import OutputError, SettingError, failing_as
from ..prediction import Prediction
from .cog import write_geotiff
from .colours import Colours, class_colours
from .geojson import OBJECT_TYPES, ObjectType, write_geojson
from .ome_tiff import write_ome_tiff


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What some of the formats can also hold."""

    colours: Colours | None = None
    """Colours of the classes, instead of those in the model's metadata."""
    object_type: ObjectType = "annotation"
    """What QuPath makes of a region."""

    def __post_init__(self) -> None:
        if self.object_type not in OBJECT_TYPES:
            raise SettingError(
                f"object_type={self.object_type} is not possible; use {' or '.join(OBJECT_TYPES)}"
            )


_Writer = Callable[[Prediction, Path, ExportOptions], None]


def _ome_tiff(prediction: Prediction, path: Path, options: ExportOptions) -> None:
    write_ome_tiff(prediction, path)


def _geotiff(prediction: Prediction, path: Path, options: ExportOptions) -> None:
    write_geotiff(prediction, path)


def _geojson(prediction: Prediction, path: Path, options: ExportOptions) -> None:
    colours = class_colours(prediction.plan, options.colours)
    write_geojson(prediction, path, colours=colours, object_type=options.object_type)


_WRITERS: dict[str, _Writer] = {  # the longer of two endings comes first
    ".ome.tif": _ome_tiff,
    ".ome.tiff": _ome_tiff,
    ".tif": _geotiff,
    ".tiff": _geotiff,
    ".geojson": _geojson,
}

SUFFIXES = tuple(_WRITERS)
"""Endings of the formats."""

NO_OPTIONS = ExportOptions()


def check_suffix(path: Path) -> str:
    """Return the ending of ``path`` that says the format.

    Raises:
        SettingError: There is no such format.
    """
    name = path.name.lower()
    for suffix in SUFFIXES:
        if name.endswith(suffix):
            return suffix
    raise SettingError(
        f"a mask is exported to {', '.join(SUFFIXES)}; got {path.name}; give it such an ending"
    )


def export(prediction: Prediction, path: Path, options: ExportOptions = NO_OPTIONS) -> None:
    """Write a finished mask in the format that the file's ending names.

    Raises:
        SettingError: There is no such format.
        OutputError: The file cannot be written.
    """
    write = _WRITERS[check_suffix(path)]
    with failing_as(OutputError, "exporting the mask to", str(path)):
        write(prediction, path, options)
