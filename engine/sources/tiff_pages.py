"""The pixels of one TIFF page: a rectangle of it, decoding only the segments it touches."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...tiler.box import Box
from ...tiler.errors import ImageError, cause_of
from ..memory import available_bytes, human
from ..remote import RequestError
from .positional_file import PositionalFile
from .remote_file import RemoteFile
from .segment_cache import SegmentCache
from .segment_uses import SegmentUses
from .tiff_frames import JPEG, refusal

PageFile: TypeAlias = PositionalFile | RemoteFile

_MOST_CUT = 2
"""A page of plain pixels is opened, though the file ends before them, if it is not larger than the
file by more than this: planning the work for a size that is made up takes any time."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page lies, for the text of errors."""

    path: str
    level: int

    def broken(self, y0: int, y1: int, x0: int, x1: int, why: str) -> ImageError:
        """Return the error for pixels that cannot be read."""
        return ImageError(
            f"{self.path}: level {self.level}, pixels y {y0}:{y1}, x {x0}:{x1} cannot be read: "
            f"{why}; get a good copy, or convert the file if its encoding is unusual"
        )


class PageReader(Protocol):
    """One page, opened; may be read by several threads at once."""

    @property
    def samples(self) -> int:
        """Samples per pixel."""
        ...

    @property
    def segment(self) -> tuple[int, int] | None:
        """Height and width of what is decoded as one piece, ``None`` for single pixels."""
        ...

    def read_into(self, out: NDArray[Any], box: Box, samples: tuple[int, ...]) -> None:
        """Write a rectangle's samples into ``out``, ``(y, x, sample)``."""
        ...

    def expect(self, boxes: Iterable[Box]) -> None:
        """Announce all rectangles that will be read, each once."""
        ...


class RawPage:
    """A page stored as one plain raster, of which a rectangle is a run of bytes per row."""

    segment = None

    def __init__(self, file: PageFile, page: Any, place: Place, start: int | None = None) -> None:
        keyframe = page.keyframe
        self._file = file
        self._place = place
        self._start = int(page.dataoffsets[0]) if start is None else start
        self._planes, _, self._height, self._width, self._interleaved = keyframe.shaped
        self._dtype = np.dtype(keyframe.dtype).newbyteorder(keyframe.parent.byteorder)
        self.samples = self._planes * self._interleaved
        needed_bytes = self.samples * self._height * self._width * self._dtype.itemsize
        if needed_bytes > _MOST_CUT * file.size_bytes:
            why = f"they need {needed_bytes} bytes, and the file has {file.size_bytes}"
            raise place.broken(0, self._height, 0, self._width, why)

    def read_into(self, out: NDArray[Any], box: Box, samples: tuple[int, ...]) -> None:
        """Write a rectangle's samples into ``out``, ``(y, x, sample)``."""
        if self._planes == 1:
            pixels = self._raster(0, box)
            out[...] = pixels if samples == tuple(range(self.samples)) else pixels[..., samples]
            return
        for i, plane in enumerate(samples):
            out[..., i] = self._raster(plane, box)[..., 0]

    def expect(self, boxes: Iterable[Box]) -> None:
        """Do nothing: no pixel beside a rectangle is decoded."""

    def _raster(self, plane: int, box: Box) -> NDArray[Any]:
        height, width = box.shape
        pixel_bytes = self._interleaved * self._dtype.itemsize
        row_bytes = self._width * pixel_bytes
        first = self._start + (plane * self._height + box.y.start) * row_bytes
        skip = box.x.start * pixel_bytes
        if 2 * width >= self._width:  # one read of whole rows costs less than a read per row
            data = self._bytes(first, height * row_bytes, box)
            rows = np.frombuffer(data, self._dtype).reshape(height, self._width, self._interleaved)
            return rows[:, box.x.as_slice()]
        starts = (first + y * row_bytes + skip for y in range(height))
        data = b"".join(
            self._file.each(lambda start: self._bytes(start, width * pixel_bytes, box), starts)
        )
        return np.frombuffer(data, self._dtype).reshape(height, width, self._interleaved)

    def _bytes(self, start: int, size: int, box: Box) -> bytes:
        edges = box.y.start, box.y.stop, box.x.start, box.x.stop
        return _read(self._file, start, size, self._place, edges)


class SegmentedPage:
    """A page stored in tiles or strips, decoded one by one into a shared cache."""

    def __init__(
        self, file: PageFile, page: Any, place: Place, cache: SegmentCache, empty: float
    ) -> None:
        """Prepare a page; ``empty`` is the value of the segments that a sparse file leaves out."""
        keyframe = page.keyframe
        self._file = file
        self._place = place
        self._cache = cache
        self._decode = keyframe.decode  # made on first access, which is not safe in a thread
        self._compression = int(keyframe.compression)
        bits = keyframe.bitspersample
        self._sample_bits = min(bits) if isinstance(bits, tuple) else int(bits)
        self._options: dict[str, Any] = {}
        if keyframe.compression in JPEG:
            self._options = {"jpegtables": page.jpegtables, "jpegheader": keyframe.jpegheader}
        self._empty = empty
        self._planes, _, self._height, self._width, self._interleaved = keyframe.shaped
        self.samples = self._planes * self._interleaved
        if keyframe.is_tiled:
            self.segment = (keyframe.tilelength, keyframe.tilewidth)
        else:
            self.segment = (keyframe.rowsperstrip, self._width)
        if min(self.segment) < 1:
            raise ImageError(f"{place.path}: tiles need a size; the file says {self.segment}")
        height = self.segment[0] if keyframe.is_tiled else min(self.segment[0], self._height)
        self._check_memory(height, np.dtype(keyframe.dtype).itemsize)
        self._grid = -(-self._height // self.segment[0]), -(-self._width // self.segment[1])
        self._offsets = np.array(page.dataoffsets, np.int64)
        self._sizes = np.array(page.databytecounts, np.int64)
        there, needed = min(len(self._offsets), len(self._sizes)), self._planes * prod(self._grid)
        if there < needed:
            height, width = self._height, self._width
            why = f"the file says where {there} of their {needed} tiles or strips are"
            raise place.broken(0, height, 0, width, why)
        self._uses = SegmentUses(self._grid, self.segment, self._planes)

    def _check_memory(self, height: int, value_bytes: int) -> None:
        width = self.segment[1]
        needed_bytes = height * width * self._interleaved * value_bytes
        free_bytes = available_bytes()
        if needed_bytes > free_bytes:
            raise ImageError(
                f"a compressed tile or strip is decoded whole; {self._place.path} has some of "
                f"{height} x {width} px that need {human(needed_bytes)}, and {human(free_bytes)} "
                "are free; convert it to a tiled TIFF"
            )

    def read_into(self, out: NDArray[Any], box: Box, samples: tuple[int, ...]) -> None:
        """Write a rectangle's samples into ``out``, ``(y, x, sample)``."""
        if 0 in box.shape:
            return
        height, width = self.segment
        rows = range(box.y.start // height, -(-box.y.stop // height))
        columns = range(box.x.start // width, -(-box.x.stop // width))
        self._file.each(
            lambda place: self._read_segment(out, box, samples, *place), product(rows, columns)
        )

    def _read_segment(
        self, out: NDArray[Any], box: Box, samples: tuple[int, ...], row: int, column: int
    ) -> None:
        height, width = self.segment
        ys, from_ys = _overlap(box.y.start, box.y.stop, row * height, height)
        xs, from_xs = _overlap(box.x.start, box.x.stop, column * width, width)
        if self._planes > 1:
            for i, plane in enumerate(samples):
                out[ys, xs, i] = self._piece(plane, row, column)[from_ys, from_xs, 0]
            return
        piece = self._piece(0, row, column)[from_ys, from_xs]
        if samples == tuple(range(self.samples)):
            out[ys, xs] = piece
            return
        for i, sample in enumerate(samples):  # all at once take two to four times as long
            out[ys, xs, i] = piece[..., sample]

    def expect(self, boxes: Iterable[Box]) -> None:
        """Announce all rectangles that will be read, each once."""
        self._uses.expect(boxes)

    def _piece(self, plane: int, row: int, column: int) -> NDArray[Any]:
        index = (plane * self._grid[0] + row) * self._grid[1] + column
        return self._cache.get(
            (id(self), index),
            lambda: self._decoded(index, row, column),
            lambda: self._uses.is_last(plane, row, column),
        )

    def _decoded(self, index: int, row: int, column: int) -> NDArray[np.generic]:
        """Return segment ``index`` as ``(y, x, sample)``, at least its part inside the image."""
        y0, x0 = row * self.segment[0], column * self.segment[1]
        y1, x1 = min(y0 + self.segment[0], self._height), min(x0 + self.segment[1], self._width)
        start, size = int(self._offsets[index]), int(self._sizes[index])
        if start == 0 or size == 0:  # a sparse file leaves out segments without data
            empty = np.asarray(self._empty)
            return np.broadcast_to(empty, (y1 - y0, x1 - x0, self._interleaved))
        data = _read(self._file, start, size, self._place, (y0, y1, x0, x1))
        inside_bits = (y1 - y0) * (x1 - x0) * self._interleaved * self._sample_bits
        samples = self.segment[0] * self.segment[1] * self._interleaved
        header = self._options.get("jpegheader")
        why = refusal(self._compression, data, samples, inside_bits // 8, header)
        if why is not None:
            raise self._place.broken(y0, y1, x0, x1, why)
        try:
            pixels = self._decode(data, index, **self._options)[0][0]
        except Exception as error:  # each codec raises its own
            raise self._place.broken(y0, y1, x0, x1, _one_line(error)) from error
        if pixels.shape[0] < y1 - y0 or pixels.shape[1] < x1 - x0:
            raise self._place.broken(y0, y1, x0, x1, f"only {pixels.shape[:2]} pixels came out")
        if pixels.shape[2] < self._interleaved:
            why = f"{pixels.shape[2]} of {self._interleaved} samples came out"
            raise self._place.broken(y0, y1, x0, x1, why)
        return np.asarray(pixels)


def _read(
    file: PageFile, start: int, size: int, place: Place, edges: tuple[int, int, int, int]
) -> bytes:
    """Return the bytes of pixels y0, y1, x0, x1."""
    try:
        data = file.read(start, size)
    except RequestError:  # tells nothing of the pixels
        raise
    except (OSError, ValueError) as error:
        raise place.broken(*edges, cause_of(error)) from error
    if len(data) < size:
        raise place.broken(*edges, "the file ends before them")
    return data


def _overlap(start: int, stop: int, origin: int, length: int) -> tuple[slice, slice]:
    """Return where ``[start, stop)`` and a segment meet, counted from either's beginning."""
    first, last = max(start, origin), min(stop, origin + length)
    return slice(first - start, last - start), slice(first - origin, last - origin)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:120] or type(error).__name__
