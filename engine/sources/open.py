"""Opening whatever holds an image."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import zarr

from ...tiler.errors import ImageError, SettingError
from .array import ArraySource, is_array
from .base import Source
from .tiff import TiffSource, is_tiff
from .zarr import ZarrSource, is_zarr

_HEAD_BYTES = 16


class FileFormat(NamedTuple):
    """A kind of image file; a further one is a module and a line in ``FILE_FORMATS``."""

    name: str
    recognises: Callable[[Path, bytes], bool]
    """Told by the path and the first 16 bytes."""
    open: Callable[[Path, str | None], Source]


FILE_FORMATS = (FileFormat("TIFF", is_tiff, TiffSource),)


def open_source(image: Any, *, axes: str | None = None) -> Source:
    """Open an image.

    Args:
        image: Path of a TIFF file or of a Zarr folder, or a NumPy, Zarr or Dask array, or a Zarr
            group with OME metadata.
        axes: For an array whose axes have no names: one letter per axis, such as ``CYX``.

    Returns:
        The image, to be closed after use.

    Raises:
        ImageError: There is no such file, or it is no image, or not one this can read.
        SettingError: ``axes`` contradicts a file that names its axes.

    >>> import numpy as np
    >>> open_source(np.zeros((572, 388, 3), np.uint8)).facts.axes
    'YXC'
    """
    if isinstance(image, (str, os.PathLike)):
        return _open_path(Path(image), axes)
    if isinstance(image, (zarr.Array, zarr.Group)):
        return ZarrSource(image, axes)
    if is_array(image):
        return ArraySource(image, axes)
    raise ImageError(
        f"an image is a path, or a NumPy, Zarr or Dask array; got {type(image).__name__}; "
        "pass one of those"
    )


def _open_path(path: Path, axes: str | None) -> Source:
    known = ", ".join(format_.name for format_ in FILE_FORMATS) + " and Zarr"
    try:
        if path.is_dir():
            if is_zarr(path):
                return ZarrSource(path, axes)
            raise ImageError(
                f"{path} is a folder without Zarr metadata; pass an image file or a Zarr folder"
            )
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        for format_ in FILE_FORMATS:
            if format_.recognises(path, head):
                return format_.open(path, axes)
    except (ImageError, SettingError):
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{path} does not exist; check the path") from error
    except OSError as error:
        raise ImageError(
            f"{path} cannot be read: {error.strerror or error}; check its permissions"
        ) from error
    if not head:
        raise ImageError(f"{path} is empty; get a good copy")
    raise ImageError(f"{path} is not an image of a known kind ({known}); convert it to TIFF")
