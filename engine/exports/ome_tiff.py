"""A mask as OME-TIFF, for QuPath, Fiji and whatever else reads Bio-Formats' files."""

from importlib.metadata import version
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from ..naming import printable
from ..prediction import Prediction
from .labels import Labels
from .tiff_directory import ASCII, Tag
from .tiled_tiff import write_tiled_tiff
from .whole_file import whole_file

_SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_DESCRIPTION = 270


def write_ome_tiff(prediction: Prediction, path: Path) -> None:
    """Write a tiled, pyramidal, deflated OME-TIFF with pixel size and class names.

    Args:
        prediction: The mask.
        path: The file, written under another name until it is whole.

    Raises:
        OutputError: The file cannot be written.
    """
    labels = Labels.of(prediction)
    with whole_file(path) as file:
        tags = {_DESCRIPTION: Tag(ASCII, ome_xml(labels))}
        write_tiled_tiff(file, labels, tags, nested=True)


def ome_xml(labels: Labels) -> str:
    """Return the OME-XML of a mask: one plane, the classes' names as a map from label to name."""
    height, width = labels.levels[0].shape
    sizes = "".join(
        f' PhysicalSize{axis}="{size!r}" PhysicalSize{axis}Unit="\u00b5m"'
        for axis, size in zip("YX", labels.pixel_micrometers or (), strict=False)
    )
    names = "".join(
        f'<M K="{label}">{escape(printable(name))}</M>'
        for label, name in enumerate(labels.class_names)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<OME xmlns="{_SCHEMA}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        f'xsi:schemaLocation="{_SCHEMA} {_SCHEMA}/ome.xsd" '
        f'Creator="tile-infer {version("tile-infer")}">'
        f'<Image ID="Image:0" Name={quoteattr(printable(labels.name))}>'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="{labels.levels[0].dtype.name}" '
        f'SizeX="{width}" SizeY="{height}" SizeC="1" SizeZ="1" SizeT="1"{sizes}>'
        '<Channel ID="Channel:0:0" Name="label" SamplesPerPixel="1"/>'
        '<TiffData IFD="0" PlaneCount="1"/></Pixels>'
        '<AnnotationRef ID="Annotation:0"/></Image>'
        '<StructuredAnnotations><MapAnnotation ID="Annotation:0" Namespace="tile-infer/classes">'
        f"<Value>{names}</Value></MapAnnotation></StructuredAnnotations></OME>"
    )
