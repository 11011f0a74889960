"""Opening whatever holds an image."""

import errno
import os
from collections.abc import Callable
from contextlib import closing
from functools import partial
from glob import glob, has_magic
from pathlib import Path
from typing import Any, NamedTuple

import zarr

from ...tiler.errors import ImageError, SettingError
from ..remote import RequestError
from ..url import Url, located
from .array import ArraySource, is_array, is_named_array, named_array
from .base import Source
from .choice import Choice
from .raster import RASTERS, is_raster, raster_opener
from .remote_file import RemoteFile
from .slide import SlideSource, is_slide
from .slide_files import holds_dicom
from .tiff import TiffSource, is_tiff
from .zarr import ZarrSource
from .zarr_files import is_n5, is_remote_zarr, is_zarr, is_zipped_zarr

_HEAD_BYTES = 16


class FileFormat(NamedTuple):
    """A kind of image file; a further one is a module and a line in ``FILE_FORMATS``."""

    name: str
    recognises: Callable[[Path, bytes], bool]
    """Told by the path and the first 16 bytes."""
    open: Callable[[Path, str | None, Choice], Source]


FILE_FORMATS = (
    # First, as an MRXS file begins with a JPEG, and some slides are TIFFs.
    FileFormat("slides", is_slide, SlideSource),
    FileFormat("TIFF", is_tiff, TiffSource),
    *(FileFormat(kind.name, partial(is_raster, kind), raster_opener(kind)) for kind in RASTERS),
    FileFormat("zipped Zarr", is_zipped_zarr, ZarrSource),
)

_NOT_READ = {
    b"GIF8": "a GIF",
    b"RIFF": "a WebP or another RIFF file",
    b"8BPS": "a Photoshop file",
    b"%PDF": "a PDF",
    b"v/1\x01": "an OpenEXR file",
    b"SIMP": "a FITS file",
    b"\x89HDF": "an HDF5 or NetCDF file",
    b"PK\x03\x04": "a ZIP file",
    b"\x1f\x8b": "a gzip file",
}
"""First bytes of known formats, for a refusal that names them."""


def open_source(
    image: Any,
    *,
    axes: str | None = None,
    page: int | None = None,
    series: int | None = None,
    z: int | None = None,
    t: int | None = None,
) -> Source:
    """Open an image.

    Args:
        image: Path or URL of a TIFF or Zarr; path of a PNG, JPEG, JPEG 2000 or BMP file, of a slide
            that OpenSlide reads, or of a zipped Zarr; or a NumPy, Zarr, Dask or xarray array, or a
            Zarr group with OME metadata.
        axes: For an array whose axes have no names: one letter per axis, such as ``CYX``. For a
            TIFF: other names for the axes of its stack.
        page: Plane of a stack, counted from 0 in stored order over all axes but y, x, channel and
            those that ``z`` and ``t`` choose.
        series: Image of a file that holds several, counted from 0.
        z: Index along the axis named z.
        t: Index along the axis named t.

    Returns:
        The image, to be closed after use.

    Raises:
        ImageError: There is no such file, or it is no image, or not one this can read.
        SettingError: ``axes`` contradicts a file that names its axes, or what is chosen is not
            there.

    >>> import numpy as np
    >>> open_source(np.zeros((572, 388, 3), np.uint8)).facts.axes
    'YXC'
    """
    choice = Choice(page, series, z, t)
    if isinstance(image, (str, os.PathLike, Url)):
        place = located(image)
        if isinstance(place, Url):
            return _open_url(place, axes, choice)
        return _open_path(place, axes, choice)
    if isinstance(image, (zarr.Array, zarr.Group)):
        return ZarrSource(image, axes, choice)
    if is_named_array(image):
        return named_array(image, axes, choice)
    if is_array(image):
        return ArraySource(image, axes, choice)
    raise ImageError(
        f"an image is a path, or a NumPy, Zarr, Dask or xarray array; got {type(image).__name__}; "
        "pass one of those"
    )


def _open_path(path: Path, axes: str | None, choice: Choice) -> Source:
    known = ", ".join(format_.name for format_ in FILE_FORMATS) + " and Zarr"
    try:
        if path.is_dir():
            if is_zarr(path):
                return ZarrSource(path, axes, choice)
            if holds_dicom(path):
                return SlideSource(path, axes, choice)
            if is_n5(path):
                raise ImageError(
                    f"{path} is N5, which is not read; convert it to Zarr, or read it into a Dask "
                    "array and pass that from Python"
                )
            raise ImageError(
                f"{path} is a folder without Zarr metadata or DICOM files; pass an image file, a "
                "Zarr folder or the folder of a DICOM slide"
            )
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        for format_ in FILE_FORMATS:
            if format_.recognises(path, head):
                return format_.open(path, axes, choice)
    except (ImageError, SettingError):
        raise
    except FileNotFoundError as error:
        raise ImageError(_why_missing(path)) from error
    except OSError as error:
        raise ImageError(
            f"{path} cannot be read: {error.strerror or error}; check its permissions"
        ) from error
    if not head:
        raise ImageError(f"{path} is empty; get a good copy")
    for magic, kind in _NOT_READ.items():
        if head.startswith(magic):
            raise ImageError(
                f"{path} is {kind}, which is not read ({known} are); convert it to TIFF"
            )
    raise ImageError(f"{path} is not an image of a known kind ({known}); convert it to TIFF")


def _open_url(url: Url, axes: str | None, choice: Choice) -> Source:
    if not url.name:
        raise ImageError(f"{url} is no image; name a TIFF or a Zarr inside it")
    refused: OSError | None = None
    head = b""
    try:
        try:
            with closing(RemoteFile(url)) as file:
                head = file.read(0, _HEAD_BYTES)
        except OSError as error:  # a Zarr is no object, and a server may send anything for it
            if error.errno in (errno.EIO, errno.EAGAIN):
                raise
            refused = error
        if is_tiff(Path(url.name), head):
            return TiffSource(url, axes, choice)
        if is_remote_zarr(url):
            return ZarrSource(url, axes, choice)
    except RequestError:
        if isinstance(refused, RequestError):  # the same again
            raise refused from None
        raise
    if isinstance(refused, RequestError):
        raise refused
    if refused is not None:
        raise ImageError(f"{url} does not exist; check the URL") from refused
    if not head:
        raise ImageError(f"{url} is empty; get a good copy")
    raise ImageError(
        f"{url} is no TIFF or Zarr, which are all that is read by URL; download it, and give its "
        "path"
    )


def _why_missing(path: Path) -> str:
    if not has_magic(str(path)):
        return f"{path} does not exist; check the path"
    count = len(glob(str(path)))  # noqa: PTH207 - absolute patterns too
    if not count:
        return f"no file matches {path}; check the path"
    return f"{path} is a pattern that {count} files match; give it without quotes"
