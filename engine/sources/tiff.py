"""TIFF files: whole slides, pyramids, GeoTIFF, OME-TIFF, plain ones."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from ...tiler.box import Box
from ...tiler.errors import ImageError, SettingError, first_line
from ..naming import readable
from .base import ImageFacts, Level
from .identity import content_identity, file_samples
from .pixel_type import native_dtype
from .positional_file import PositionalFile
from .request import checked_channels
from .segment_cache import SegmentCache
from .tiff_pages import PageReader, Place, RawPage, SegmentedPage
from .tiff_scale import tiff_pixel_size

CACHE_BYTES = 64 * 1024 * 1024
"""Decoded segments kept per image, unless said otherwise."""

_CHANNEL_AXES = {"YX": "YX", "YXS": "YXC", "YXC": "YXC", "SYX": "CYX", "CYX": "CYX"}
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# Python prints warnings of loggers without a handler; what matters is raised here as an error.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def is_tiff(path: Path, head: bytes) -> bool:
    """Say whether a file's first bytes are those of a TIFF or BigTIFF."""
    return head[:4] in _MAGIC


class TiffSource:
    """The first image of a TIFF file, at all its resolutions.

    Pixels are as stored: of a palette image the indices, no inversion of MinIsWhite, alpha and
    other extra samples as channels. Only JPEG's YCbCr becomes RGB.
    """

    def __init__(self, path: Path, axes: str | None = None, cache_bytes: int = CACHE_BYTES) -> None:
        """Open a file.

        Raises:
            ImageError: The file is no TIFF that can be read, or has other axes than y, x, channel.
            SettingError: ``axes`` is given; a TIFF names its axes itself.
        """
        if axes is not None:
            raise SettingError(f"axes={axes!r} is for unnamed arrays; {path} names its own axes")
        self.cache = SegmentCache(cache_bytes)
        self._path = path
        self._file = PositionalFile(path)
        try:
            with tifffile.TiffFile(path) as tiff:
                self._open(tiff)
        except ImageError:
            self._file.close()
            raise
        except Exception as error:  # tifffile raises anything on a broken file
            self._file.close()
            why = first_line(error)
            raise ImageError(
                f"{path} cannot be opened as TIFF: {why}; it is damaged, cut short or of an "
                "unknown kind, get a good copy or convert it to a tiled TIFF"
            ) from error

    def _open(self, tiff: Any) -> None:
        if not tiff.series:
            raise ImageError(f"{self._path} holds no image; get a good copy")
        series = tiff.series[0]
        axes, shape = _squeezed(series)
        if axes not in _CHANNEL_AXES or 0 in shape or series.keyframe.imagedepth != 1:
            found = ", ".join(f"{a} ({n})" for a, n in zip(axes, shape, strict=True))
            raise ImageError(
                f"an image has the axes Y, X and at most one for channels (C or S); {self._path} "
                f"has {found}; save one plane of it"
            )
        if series.dtype is None or series.keyframe.dtype is None:
            raise ImageError(
                f"{self._path} has {series.keyframe.bitspersample}-bit pixels of an unknown "
                "format; convert it to 8, 16 or 32 bit"
            )
        self._dtype = native_dtype(series.keyframe.dtype, str(self._path))
        kept_axes = _CHANNEL_AXES[axes]
        channels = shape[kept_axes.index("C")] if "C" in kept_axes else 1
        self._levels: list[list[PageReader]] = []
        for number, level in enumerate(series.levels):
            level_axes, level_shape = _squeezed(level)
            alike = level_axes == axes and level.keyframe.dtype == series.keyframe.dtype
            if not alike or _channels_of(level_axes, level_shape) != channels:
                break  # not a smaller version of the same image
            self._levels.append(self._pages(tiff, level, number, channels))
        pixel_size = tiff_pixel_size(tiff, series.keyframe)
        self._facts = ImageFacts(
            name=readable(self._path.name),
            dtype=self._dtype.name,
            channels=channels,
            axes=kept_axes,
            levels=tuple(
                _level(series.keyframe, level.keyframe, pages[0].segment, pixel_size)
                for level, pages in zip(series.levels, self._levels, strict=False)
            ),
            identity=self._identity(kept_axes, shape),
            unit=None if pixel_size is None else "micrometer",
        )

    def _pages(self, tiff: Any, series: Any, level: int, channels: int) -> list[PageReader]:
        """Return readers whose samples, one page after the other, are the image's channels."""
        place = Place(str(self._path), level)
        keyframe = series.keyframe
        per_page = keyframe.shaped[0] * keyframe.shaped[4]
        height, width = _height_width(*_squeezed(series))
        if (
            keyframe.shaped[1] != 1
            or keyframe.shaped[2:4] != (height, width)
            or channels % per_page
            or series.transform is not None
        ):
            raise ImageError(
                f"pages must hold whole channels; {self._path} has pages {keyframe.shape} for an "
                f"image {series.shape}; convert it to a tiled TIFF"
            )
        count = channels // per_page
        if keyframe.is_final and series.dataoffset and keyframe.parent is tiff:
            # Writers may leave out the entries of pages that follow each other without a gap.
            starts = (series.dataoffset + i * keyframe.nbytes for i in range(count))
            return [RawPage(self._file, keyframe, place, start) for start in starts]
        pages = list(series)
        if len(pages) != count or any(p is None or p.parent is not tiff for p in pages):
            raise ImageError(
                f"all channels must be in one file; {self._path} refers to other files or lacks "
                "some; save it as one OME-TIFF"
            )
        readers: list[PageReader] = []
        for page in pages:
            if keyframe.is_final and page.dataoffsets[0]:
                readers.append(RawPage(self._file, page, place))
            else:
                readers.append(SegmentedPage(self._file, page, place, self.cache))
        return readers

    def _identity(self, axes: str, shape: tuple[int, ...]) -> str:
        size_bytes = self._path.stat().st_size
        facts = {"bytes": size_bytes, "axes": axes, "shape": shape, "dtype": self._dtype.name}
        with self._path.open("rb") as file:
            return content_identity(facts, file_samples(file, size_bytes))

    @property
    def facts(self) -> ImageFacts:
        """Facts about the image."""
        return self._facts

    def read(
        self, level: int, box: Box, channels: tuple[int, ...] | None = None
    ) -> NDArray[np.generic]:
        """Return the pixels of ``box`` as ``(y, x, channel)``; see `Source.read`."""
        wanted = checked_channels(self._facts, level, box, channels)
        pages = self._levels[level]
        out = np.empty((*box.shape, len(wanted)), self._dtype)
        if len(pages) == 1:
            pages[0].read_into(out, box, wanted)
            return out
        for i, channel in enumerate(wanted):
            page, sample = divmod(channel, pages[0].samples)
            pages[page].read_into(out[..., i : i + 1], box, (sample,))
        return out

    def close(self) -> None:
        """Release the file."""
        self._file.close()


def _squeezed(series: Any) -> tuple[str, tuple[int, ...]]:
    """Return axes and lengths without the axes of length 1 that are neither y nor x."""
    kept = [
        (axis, length)
        for axis, length in zip(series.axes, series.shape, strict=True)
        if length != 1 or axis in "YX"
    ]
    return "".join(axis for axis, _ in kept), tuple(length for _, length in kept)


def _height_width(axes: str, shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[axes.index("Y")], shape[axes.index("X")]


def _channels_of(axes: str, shape: tuple[int, ...]) -> int:
    return next((n for axis, n in zip(axes, shape, strict=True) if axis not in "YX"), 1)


def _level(
    full: Any, page: Any, segment: tuple[int, int] | None, pixel_size: tuple[float, float] | None
) -> Level:
    if pixel_size is not None:
        pixel_size = (
            pixel_size[0] * (full.imagelength / page.imagelength),
            pixel_size[1] * (full.imagewidth / page.imagewidth),
        )
    return Level((page.imagelength, page.imagewidth), pixel_size, segment)
