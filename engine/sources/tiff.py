"""TIFF files: whole slides, pyramids, GeoTIFF, OME-TIFF, plain ones."""

import logging
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from ...tiler.box import Box
from ...tiler.errors import ImageError, SettingError, first_line
from ...tiler.turn import Turn
from ..downsampling import downsampling
from ..naming import readable
from ..remote import RequestError
from ..url import Location, Url
from .base import ImageFacts, Level
from .choice import Choice
from .identity import content_identity, sampled_parts
from .pixel_type import native_dtype
from .positional_file import PositionalFile
from .remote_file import RemoteFile
from .request import checked_channels
from .segment_cache import CACHE_BYTES, SegmentCache
from .tiff_colour import alpha_channel, check_colour, colour_map
from .tiff_description import check_description
from .tiff_directories import check_directories
from .tiff_georeference import pixel_meters, tiff_georeference, tiff_nodata
from .tiff_pages import PageReader, Place, RawPage, SegmentedPage
from .tiff_scale import tiff_pixel_size
from .tiff_series import Layout, alike, chosen_series, layout_of
from .tiff_views import PalettePage, TurnedPage, turn_of

_ORIENTATION = 274
_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# Python prints warnings of loggers without a handler; what matters is raised here as an error.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def is_tiff(path: Path, head: bytes) -> bool:
    """Say whether a file's first bytes are those of a TIFF or BigTIFF."""
    return head[:4] in _MAGIC


class TiffSource:
    """One plane of one image of a TIFF file, at all its resolutions.

    A palette becomes its colours (`colour_map` states their type), except in an image with a
    channel axis, where it only colours the channels for display. JPEG's and WebP's YCbCr becomes
    RGB; inks and other colour spaces are refused. The tag Orientation is respected. All else is as
    stored: WhiteIsZero (MinIsWhite) is not inverted, bilevel pixels are booleans, values of fewer
    bits than their type are not scaled, alpha and other extra samples are channels
    (``ImageFacts.alpha`` tells which is alpha), premultiplied colours stay so. Errors about damaged
    pixels give their stored place, before the orientation.
    """

    def __init__(
        self,
        path: Location,
        axes: str | None = None,
        choice: Choice | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """Open a file.

        Args:
            path: The file, or its URL.
            axes: Other names for the axes of a stack, such as ``CYX`` for a file of three pages.
            choice: The plane, where the file holds more than one.
            cache_bytes: Decoded segments to keep.

        Raises:
            ImageError: The file is no TIFF that can be read, or has other axes than y, x, channel.
            SettingError: ``axes`` or ``choice`` do not fit the file.
        """
        self.cache = SegmentCache(cache_bytes)
        self._path = path
        self._file = PositionalFile(path) if isinstance(path, Path) else RemoteFile(path)
        try:
            with self._file.view() as file:
                check_directories(path, file, self._file.size_bytes)
                file.seek(0)
                # By its path, tifffile finds other files of the same image.
                there: Any = path if isinstance(path, Path) else file
                with tifffile.TiffFile(there, name=path.name) as tiff:
                    if isinstance(path, Url) and tiff.is_bif:  # a file of these is a SlideSource
                        raise ImageError(
                            f"{path}: tiles of Ventana's slides overlap, and are stitched in files "
                            "only; download it"
                        )
                    self._open(tiff, axes, choice or Choice())
        except (ImageError, SettingError, RequestError):
            self._file.close()
            raise
        except Exception as error:  # tifffile raises anything on a broken file
            self._file.close()
            why = first_line(error)
            raise ImageError(
                f"{path} cannot be opened as TIFF: {why}; it is damaged, cut short or of an "
                "unknown kind, get a good copy or convert it to a tiled TIFF"
            ) from error

    def _open(self, tiff: Any, axes: str | None, choice: Choice) -> None:
        where = str(self._path)
        check_description(tiff, where)
        number = chosen_series(tiff, choice, where)
        series = tiff.series[number]
        full = series.keyframe
        if series.dtype is None or full.dtype is None:
            raise ImageError(
                f"{self._path} has {full.bitspersample}-bit pixels of an unknown "
                "format; convert it to 8, 16 or 32 bit"
            )
        layout = layout_of(series, choice, axes, where)
        check_colour(full, where)
        stored = self._dtype = native_dtype(full.dtype, where)
        colours = colour_map(full, where) if layout.channels == 1 else None
        channels, kept_axes = layout.channels, layout.axes
        if colours is not None:
            self._dtype, channels, kept_axes = colours.dtype, colours.shape[1], "YXC"
        turn = turn_of(full.tags.valueof(_ORIENTATION))
        # An orientation would turn the place as well; GeoTIFF does not say how.
        georeference = tiff_georeference(full) if turn.is_none else None
        unit, pixel_size = "meter", pixel_meters(georeference)
        if pixel_size is None:
            unit, pixel_size = "micrometer", tiff_pixel_size(tiff, full, number)
        self._levels: list[list[PageReader]] = []
        levels = []
        for level_number, level in enumerate(series.levels):
            if not alike(level, series):
                break  # not a smaller version of the same image
            level_layout = layout_of(level, choice, axes, where)
            place = Place(where, level_number)
            pages = self._pages(tiff, level, level_layout, place, full.nodata)
            if colours is not None:
                pages = [PalettePage(page, colours, stored, place) for page in pages]
            if not turn.is_none:
                pages = [TurnedPage(page, turn, level_layout.size) for page in pages]
            self._levels.append(pages)
            levels.append(_level(layout, level_layout, turn, pages[0].segment, pixel_size))
        nodata = tiff_nodata(full)
        alpha = alpha_channel(full) if channels == full.samplesperpixel else None
        self._facts = ImageFacts(
            name=readable(self._path.name),
            dtype=self._dtype.name,
            channels=channels,
            axes=kept_axes,
            levels=tuple(levels),
            identity=self._identity(number, layout),
            unit=None if pixel_size is None else unit,
            alpha=alpha,
            georeference=georeference,
            # What a palette makes of its index may be the colour of data as well.
            nodata=nodata if colours is None else None,
            doubts=()
            if colours is None or nodata is None
            else (
                f"{readable(self._path.name)} says that {nodata:g} of its palette holds no data, "
                "which is not followed: another index may have the same colour; use nodata=VALUE "
                "to leave out that colour",
            ),
        )

    def _pages(
        self, tiff: Any, series: Any, layout: Layout, place: Place, empty: float
    ) -> list[PageReader]:
        """Return readers whose samples, one page after the other, are the image's channels."""
        keyframe = series.keyframe
        if keyframe.is_final and series.dataoffset and keyframe.parent is tiff:
            # Writers may leave out the entries of pages that follow each other without a gap.
            starts = (series.dataoffset + i * keyframe.nbytes for i in layout.pages)
            return [RawPage(self._file, keyframe, place, start) for start in starts]
        pages: list[Any] = [series[i] if i < len(series) else None for i in layout.pages]
        if any(page is None or page.parent is not tiff for page in pages):
            raise ImageError(
                f"all channels must be in one file; {self._path} refers to other files or lacks "
                "some; save it as one OME-TIFF"
            )
        readers: list[PageReader] = []
        for page in pages:
            if keyframe.is_final and page.dataoffsets[0]:
                readers.append(RawPage(self._file, page, place))
            else:
                readers.append(SegmentedPage(self._file, page, place, self.cache, empty))
        return readers

    def _identity(self, series: int, layout: Layout) -> str:
        size_bytes = self._file.size_bytes
        facts = {"bytes": size_bytes, "series": series, "layout": asdict(layout)}
        facts["dtype"] = self._dtype.name
        samples = self._file.each(self._sample, sampled_parts(size_bytes))
        return content_identity(facts, samples)

    def _sample(self, part: tuple[int, int]) -> bytes:
        start, length = part
        data = self._file.read(start, length)
        if len(data) < length:
            raise ImageError(
                f"{self._path} ends at byte {start + len(data)} of {self._file.size_bytes}, "
                "cut short meanwhile; get a good copy"
            )
        return data

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

    def expect(self, level: int, boxes: Iterable[Box]) -> None:
        """Announce all that will be read; see `SegmentedSource.expect`."""
        boxes = list(boxes)
        for page in self._levels[level]:
            page.expect(boxes)

    def close(self) -> None:
        """Release the file."""
        self._file.close()


def _level(
    full: Layout,
    level: Layout,
    turn: Turn,
    segment: tuple[int, int] | None,
    pixel_size: tuple[float, float] | None,
) -> Level:
    if pixel_size is not None:
        (height, width), (level_height, level_width) = full.size, level.size
        pixel_size = (
            pixel_size[0] * downsampling(height, level_height),
            pixel_size[1] * downsampling(width, level_width),
        )
        if turn.transpose:
            pixel_size = pixel_size[1], pixel_size[0]
    return Level(turn.size(level.size), pixel_size, segment)
