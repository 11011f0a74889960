"""Whole slides that OpenSlide reads: DICOM, MRXS, VMS and others that are no plain TIFF."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from ...tiler.box import Box
from ...tiler.errors import ImageError, MissingExtraError, SettingError, first_line
from ..naming import readable
from .base import ImageFacts, Level
from .choice import Choice, listed
from .identity import content_identity, file_samples
from .request import checked_channels
from .segment_cache import CACHE_BYTES, SegmentCache
from .segment_uses import SegmentUses
from .slide_files import first_dicom, is_dicom, slide_files
from .tiff import is_tiff
from .tiff_directories import check_directories

_TILE_PX = 1024
_WHITE = "FFFFFF"
_SUFFIXES = (".mrxs", ".svslide", ".bif")
_MAGIC = (b"[Virtual Microsc", b"[Uncompressed Vi", b"ZISRAWFILE")


def is_slide(path: Path, head: bytes) -> bool:
    """Say whether a file is a slide that is left to OpenSlide.

    Of the TIFF family these are Ventana's only: their tiles overlap and must be stitched.
    """
    if path.suffix.lower() in _SUFFIXES or head.startswith(_MAGIC) or is_dicom(path):
        return True
    return is_tiff(path, head) and _is_ventana(path)


class SlideSource:
    """A slide as OpenSlide shows it: RGB of 8 bits, the whole canvas with all its empty parts.

    Where nothing was scanned, and as far as a pixel is transparent, the background colour that the
    slide names shows, white where it names none. OpenSlide counts in pixels of level 0: where a
    level is no whole number of times smaller, each of its tiles of 1024 px is read from the nearest
    pixel of level 0, so up to half of one aside and interpolated by OpenSlide. The tiles lie on one
    grid: whatever box is asked for, a pixel has one value.
    """

    def __init__(
        self,
        path: Path,
        axes: str | None = None,
        choice: Choice | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """Open a slide.

        Args:
            path: Its file; of DICOM one of its files, or the folder of one slide.
            axes: Not possible, the axes are known.
            choice: Nothing but the first, a slide is one image.
            cache_bytes: Decoded tiles to keep.

        Raises:
            ImageError: It is damaged, or of a kind that OpenSlide does not know.
            MissingExtraError: OpenSlide is not installed.
            SettingError: ``axes`` is given, or another page than the first.
        """
        if axes is not None:
            raise SettingError(
                f"axes={axes!r} is for arrays; {path} names its own axes; leave axes out"
            )
        choice = choice or Choice()
        choice.image_of(1, str(path), "one image")
        self._path = first_dicom(path) if path.is_dir() else path
        self._slide = _opened(self._path)
        self._closed = False
        self.cache = SegmentCache(cache_bytes)
        try:
            properties = dict(self._slide.properties)
            files = slide_files(self._path, properties)
            if path.is_dir():
                _check_alone(path, files)
            self._sizes = [(h, w) for w, h in self._slide.level_dimensions]
            choice.plane_of((), (), str(path), listed("YX", self._sizes[0]))
            self._uses = [
                SegmentUses((-(-h // _TILE_PX), -(-w // _TILE_PX)), (_TILE_PX, _TILE_PX))
                for h, w in self._sizes
            ]
            self._downsamples = [float(d) for d in self._slide.level_downsamples]
            self._background = _colour(properties.get("openslide.background-color", _WHITE))
            pixel_size = _pixel_size(properties)
            self._facts = ImageFacts(
                name=readable(path.name),
                dtype="uint8",
                channels=3,
                axes="YXC",
                levels=tuple(_level(size, self._sizes[0], pixel_size) for size in self._sizes),
                identity=_identity(properties, self._sizes, files),
                unit=None if pixel_size is None else "micrometer",
            )
        except BaseException:
            self._slide.close()
            raise

    @property
    def facts(self) -> ImageFacts:
        """Facts about the slide."""
        return self._facts

    def read(
        self, level: int, box: Box, channels: tuple[int, ...] | None = None
    ) -> NDArray[np.generic]:
        """Return the pixels of ``box`` as ``(y, x, channel)``; see `Source.read`."""
        wanted = checked_channels(self._facts, level, box, channels)
        out = np.empty((*box.shape, len(wanted)), np.uint8)
        if 0 in box.shape:
            return out
        for row in range(box.y.start // _TILE_PX, -(-box.y.stop // _TILE_PX)):
            for column in range(box.x.start // _TILE_PX, -(-box.x.stop // _TILE_PX)):
                tile = self._tile(level, row, column)
                y, x = row * _TILE_PX, column * _TILE_PX
                top, left = max(box.y.start, y), max(box.x.start, x)
                part = tile[top - y : box.y.stop - y, left - x : box.x.stop - x]
                top, left = top - box.y.start, left - box.x.start
                height, width = part.shape[:2]
                out[top : top + height, left : left + width] = (
                    part if channels is None else part[..., wanted]
                )
        return out

    def _tile(self, level: int, row: int, column: int) -> NDArray[np.generic]:
        return self.cache.get(
            (level, row, column),
            lambda: self._decoded(level, row * _TILE_PX, column * _TILE_PX),
            lambda: self._uses[level].is_last(0, row, column),
        )

    def _decoded(self, level: int, y: int, x: int) -> NDArray[np.uint8]:
        height, width = (
            min(_TILE_PX, length - start)
            for start, length in zip((y, x), self._sizes[level], strict=True)
        )
        scale = self._downsamples[level]
        try:
            region = self._slide.read_region(
                (round(x * scale), round(y * scale)), level, (width, height)
            )
        except Exception as error:  # of OpenSlide, of Pillow, of ctypes once it is closed
            if not self._closed:  # after an error, OpenSlide reads nothing more from what is open
                self._slide = _opened(self._path)
            raise ImageError(
                f"{self._path}: level {level}, pixels y {y}:{y + height}, x {x}:{x + width} cannot "
                f"be read: {first_line(error)}; get a good copy, with all files of the slide"
            ) from error
        return over_background(np.asarray(region), self._background)

    def expect(self, level: int, boxes: Iterable[Box]) -> None:
        """Announce all that will be read; see `SegmentedSource.expect`."""
        self._uses[level].expect(boxes)

    def close(self) -> None:
        """Release the slide; no thread may be reading it."""
        if not self._closed:
            self._closed = True
            self._slide.close()


def over_background(rgba: NDArray[np.uint8], background: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return RGB of colours that are not premultiplied, laid over a background.

    >>> pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], np.uint8)
    >>> over_background(pixels, np.array([255, 255, 255], np.uint8)).tolist()
    [[[10, 20, 30], [255, 255, 255], [204, 204, 204]]]
    """
    alpha = rgba[..., 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(rgba[..., :3])
    opacity = alpha.astype(np.uint16)
    mixed = rgba[..., :3] * opacity + background * (255 - opacity)
    return ((mixed + 127) // 255).astype(np.uint8)


def _opened(path: Path) -> Any:
    try:
        import openslide
    except (ImportError, OSError) as error:  # the bindings, or the library that they bind
        raise MissingExtraError(
            f"{path} is a slide that OpenSlide reads: pip install openslide-python openslide-bin"
        ) from error
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError as error:
        raise ImageError(
            f"{path} is no slide that OpenSlide knows, or lacks files that belong beside it; "
            "get all of them, or convert it to TIFF"
        ) from error
    except openslide.OpenSlideError as error:
        raise ImageError(
            f"{path} cannot be opened as a slide: {first_line(error)}; get a good copy, with all "
            "files of the slide"
        ) from error


def _colour(text: str) -> NDArray[np.uint8]:
    try:
        values = bytes.fromhex(text)
    except ValueError:
        values = b""
    return np.frombuffer(values if len(values) == 3 else bytes.fromhex(_WHITE), np.uint8)


def _check_alone(folder: Path, files: list[Path]) -> None:
    others = [path for path in sorted(folder.iterdir()) if path not in files and is_dicom(path)]
    if others:
        raise ImageError(
            f"a folder must hold one slide; {folder} holds {files[0].name} and, of another, "
            f"{others[0].name}; pass one of these files"
        )


def _is_ventana(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            check_directories(path, file, path.stat().st_size, most=1)
        with tifffile.TiffFile(path) as tiff:
            return bool(tiff.is_bif)
    except Exception:  # what is wrong with it is told by whoever reads it
        return False


def _pixel_size(properties: dict[str, str]) -> tuple[float, float] | None:
    try:
        height, width = (float(properties[f"openslide.mpp-{axis}"]) for axis in "yx")
    except (KeyError, ValueError):
        return None
    known = all(math.isfinite(size) and size > 0 for size in (height, width))
    return (height, width) if known else None


def _level(
    size: tuple[int, int], full: tuple[int, int], pixel_size: tuple[float, float] | None
) -> Level:
    segment = min(_TILE_PX, size[0]), min(_TILE_PX, size[1])
    if pixel_size is None:
        return Level(size, None, segment)
    height, width = pixel_size
    return Level(size, (height * (full[0] / size[0]), width * (full[1] / size[1])), segment)


def _identity(properties: dict[str, str], sizes: list[tuple[int, int]], files: list[Path]) -> str:
    lengths = [path.stat().st_size for path in files]
    facts = {"bytes": lengths, "sizes": sizes, "hash": properties.get("openslide.quickhash-1")}

    def samples() -> Any:
        for path, length in zip(files, lengths, strict=True):
            with path.open("rb") as file:
                yield from file_samples(file, length)

    return content_identity(facts, samples())
