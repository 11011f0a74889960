"""PNG, JPEG, JPEG 2000 and BMP: decoded whole, once, when first read."""

import io
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from ...tiler.box import Box
from ...tiler.errors import ImageError, SettingError, first_line
from ..memory import available_bytes, human
from ..naming import readable
from .base import ImageFacts, Level
from .choice import Choice, listed
from .identity import content_identity, file_samples
from .pixel_type import native_dtype
from .raster_headers import (
    Header,
    HeaderError,
    bmp_header,
    jpeg2000_header,
    jpeg_header,
    jpeg_segments,
    png_header,
)
from .request import checked_channels


class Raster(NamedTuple):
    """A format without tiles that can be decoded alone."""

    name: str
    magic: tuple[bytes, ...]
    """Any of these begins a file."""
    header: Callable[[BinaryIO], Header]
    decode: Callable[[bytes], NDArray[Any]]
    scratch_bytes: int
    """What the decoder needs per value beside the image."""


def _decoded_jpeg(data: bytes) -> NDArray[Any]:
    # The decoder fills what is missing with grey, and only warns.
    scan = max(at for _, at in jpeg_segments(io.BytesIO(data)))
    if data.rfind(b"\xff\xd9") < scan:
        raise ValueError("the file ends before its last pixels")
    return np.asarray(imagecodecs.jpeg_decode(data))


RASTERS = (
    Raster("PNG", (b"\x89PNG\r\n\x1a\n",), png_header, imagecodecs.png_decode, 0),
    Raster("JPEG", (b"\xff\xd8\xff",), jpeg_header, _decoded_jpeg, 2),
    Raster(
        "JPEG 2000",
        (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
        jpeg2000_header,
        imagecodecs.jpeg2k_decode,
        8,
    ),
    Raster("BMP", (b"BM",), bmp_header, imagecodecs.bmp_decode, 0),
)


def is_raster(kind: Raster, path: Path, head: bytes) -> bool:
    """Say whether a file's first bytes are those of a format, whatever its name."""
    return head.startswith(kind.magic)


class RasterSource:
    """A picture file without tiles, held in memory whole from the first read to ``close()``.

    Values are as the format defines them: palettes expanded to RGB, grey of fewer than 8 bits
    scaled to 8, JPEG converted to RGB. The orientation that a camera notes in EXIF is not applied:
    rows and columns are those stored. Damage inside a JPEG that its decoder only warns of is not
    seen; an end that is missing is.
    """

    def __init__(
        self, kind: Raster, path: Path, axes: str | None = None, choice: Choice | None = None
    ) -> None:
        """Read a file's header.

        Raises:
            ImageError: It is broken, of an unknown kind, or larger than the free memory.
            SettingError: ``axes`` is given, or another page than the first.
        """
        if axes is not None:
            raise SettingError(
                f"axes={axes!r} is for arrays; {path} names its own axes; leave axes out"
            )
        choice = choice or Choice()
        choice.image_of(1, str(path), "one image")
        self._kind = kind
        self._path = path
        self._lock = threading.Lock()
        self._pixels: NDArray[Any] | None = None
        self._closed = False
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            try:
                self._header = kind.header(file)
            except HeaderError as error:
                raise ImageError(
                    f"{path} cannot be opened as {kind.name}: {error}; get a good copy or convert "
                    "it to TIFF"
                ) from error
            identity = content_identity(
                {"bytes": size_bytes, "format": kind.name}, file_samples(file, size_bytes)
            )
        header = self._header
        choice.plane_of((), (), str(path), listed("YX", (header.height, header.width)))
        if header.height < 1 or header.width < 1:
            raise ImageError(
                f"an image needs pixels; {path} has {header.height} x {header.width}; "
                "get a good copy"
            )
        dtype = native_dtype(header.dtype, str(path))
        self._check_memory(header.samples * (dtype.itemsize + kind.scratch_bytes) + size_bytes)
        channels = header.channels
        if channels is None:
            channels, dtype = self._whole().shape[2], self._whole().dtype
        axes = "YX" if channels == 1 else "YXC"
        self._facts = ImageFacts(
            name=readable(path.name),
            dtype=dtype.name,
            channels=channels,
            axes=axes,
            levels=(Level((header.height, header.width)),),
            identity=identity,
            alpha=header.alpha,
        )

    def _check_memory(self, needed_bytes: int) -> None:
        free_bytes = available_bytes()
        if needed_bytes > free_bytes:
            raise ImageError(
                f"a {self._kind.name} file is decoded whole; {self._path} needs "
                f"{human(needed_bytes)} and {human(free_bytes)} are free; "
                "convert it to a tiled TIFF"
            )

    def _whole(self) -> NDArray[Any]:
        with self._lock:
            if self._closed:
                raise ImageError(f"{self._path} is closed; open it again")
            if self._pixels is None:
                self._pixels = self._decoded()
            return self._pixels

    def _decoded(self) -> NDArray[Any]:
        try:
            pixels = self._kind.decode(self._path.read_bytes())
        except Exception as error:  # each codec raises its own
            why = first_line(error)
            raise ImageError(
                f"{self._path} cannot be decoded as {self._kind.name}: {why}; get a good copy or "
                "convert it to TIFF"
            ) from error
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        if not self._header.announces(pixels.shape, pixels.dtype.name):
            raise ImageError(
                f"{self._path} decodes to {pixels.shape} {pixels.dtype}, which its header does "
                "not say; convert it to TIFF"
            )
        return pixels

    @property
    def facts(self) -> ImageFacts:
        """Facts about the image."""
        return self._facts

    def read(
        self, level: int, box: Box, channels: tuple[int, ...] | None = None
    ) -> NDArray[np.generic]:
        """Return the pixels of ``box`` as ``(y, x, channel)``; see `Source.read`."""
        wanted = checked_channels(self._facts, level, box, channels)
        region = self._whole()[box.slices]
        return np.array(region if channels is None else region[..., wanted], order="C")

    def close(self) -> None:
        """Release the pixels."""
        with self._lock:
            self._closed = True
            self._pixels = None


def raster_opener(kind: Raster) -> Callable[[Path, str | None, Choice], RasterSource]:
    """Return what opens files of a format."""
    return partial(RasterSource, kind)
