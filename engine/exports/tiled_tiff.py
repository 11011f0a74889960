"""Write a mask's levels as one tiled BigTIFF file, tile by tile."""

import os
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from importlib.metadata import version
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..stitcher.store import ZarrArray
from .labels import Labels
from .tiff_directory import (
    ASCII,
    HEADER_BYTES,
    IFD8,
    LONG,
    LONG8,
    RATIONAL,
    SHORT,
    Tag,
    Tags,
    directory,
    header,
)

TILE_PX = 512

SPAN_TILES = 16
"""Tiles of one row that are read at a time: all that is in memory, whatever the image's size."""

_DEFLATE_LEVEL = 6
_SUB_DIRECTORIES, _OFFSETS, _BYTE_COUNTS = 330, 324, 325
_CENTIMETER = 3


def write_tiled_tiff(file: BinaryIO, labels: Labels, tags: Tags, *, nested: bool) -> None:
    """Write all levels, deflated, each pixel as it is.

    All directories come first, then the tiles, those of the smallest level first: the order that a
    cloud-optimised GeoTIFF asks for, and good for any reader that fetches parts.

    ::

        header | directory 0 | directory 1 | ... | tiles of the last level | ... | of level 0

    Args:
        file: Where to write; empty.
        labels: The mask.
        tags: More tags for level 0.
        nested: Whether lower levels are sub-directories of level 0, as in OME-TIFF, or follow it
            as overviews.
    """
    levels = labels.levels
    directories = [_level_tags(array, reduced=number > 0) for number, array in enumerate(levels)]
    directories[0] |= _resolution(labels.pixel_micrometers) | tags
    if nested and len(levels) > 1:
        directories[0][_SUB_DIRECTORIES] = Tag(IFD8, [0] * (len(levels) - 1))
    places = [HEADER_BYTES]
    for entries in directories:
        places.append(places[-1] + len(directory(entries, 0, 0)))
    file.write(bytes(places[-1]))
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for array, entries in reversed(list(zip(levels, directories, strict=True))):
            offsets, byte_counts = _write_tiles(file, array, pool)
            entries[_OFFSETS] = Tag(LONG8, offsets)
            entries[_BYTE_COUNTS] = Tag(LONG8, byte_counts)
    if nested and len(levels) > 1:
        directories[0][_SUB_DIRECTORIES] = Tag(IFD8, places[1:-1])
    file.seek(0)
    file.write(header(places[0]))
    for number, entries in enumerate(directories):
        last = nested or number + 1 == len(levels)
        file.write(directory(entries, places[number], 0 if last else places[number + 1]))


def tiles(array: ZarrArray) -> Iterator[list[NDArray[np.generic]]]:
    """Yield the tiles of a level row by row, some at a time; what lies outside the image is 0."""
    height, width = array.shape
    step = SPAN_TILES * TILE_PX
    for y in range(0, height, TILE_PX):
        for x in range(0, width, step):
            pixels = np.asarray(array[y : y + TILE_PX, x : x + step])
            columns = -(-pixels.shape[1] // TILE_PX)
            padded = np.zeros((TILE_PX, columns * TILE_PX), array.dtype.newbyteorder("<"))
            padded[: pixels.shape[0], : pixels.shape[1]] = pixels
            yield np.split(padded, columns, axis=1)


def _write_tiles(
    file: BinaryIO, array: ZarrArray, pool: ThreadPoolExecutor
) -> tuple[list[int], list[int]]:
    """Append the tiles of a level; return the offset and the length of each."""
    offsets, byte_counts = [], []
    place = file.tell()
    for span in tiles(array):
        for deflated in pool.map(_deflate, span):
            offsets.append(place)
            byte_counts.append(len(deflated))
            place += file.write(deflated)
    return offsets, byte_counts


def _deflate(tile: NDArray[np.generic]) -> bytes:
    return zlib.compress(tile.tobytes(), _DEFLATE_LEVEL)


def _level_tags(array: ZarrArray, *, reduced: bool) -> Tags:
    height, width = array.shape
    unknown = [0] * (-(-height // TILE_PX) * -(-width // TILE_PX))
    return {
        254: Tag(LONG, [int(reduced)]),  # a lower resolution of another image
        256: Tag(LONG, [width]),
        257: Tag(LONG, [height]),
        258: Tag(SHORT, [8 * array.dtype.itemsize]),
        259: Tag(SHORT, [8]),  # deflate
        262: Tag(SHORT, [1]),  # 0 is black
        277: Tag(SHORT, [1]),  # samples per pixel
        284: Tag(SHORT, [1]),  # samples lie together
        305: Tag(ASCII, f"tile-infer {version('tile-infer')}"),
        322: Tag(LONG, [TILE_PX]),
        323: Tag(LONG, [TILE_PX]),
        _OFFSETS: Tag(LONG8, unknown),
        _BYTE_COUNTS: Tag(LONG8, unknown),
        339: Tag(SHORT, [1]),  # unsigned
    }


def _resolution(pixel_micrometers: tuple[float, float] | None) -> Tags:
    if pixel_micrometers is None:
        return {}
    y, x = (
        Fraction(10_000 / size).limit_denominator(10_000).as_integer_ratio()
        for size in pixel_micrometers
    )
    if max(*y, *x) >= 1 << 32 or min(*y, *x) < 1:
        return {}
    return {282: Tag(RATIONAL, x), 283: Tag(RATIONAL, y), 296: Tag(SHORT, [_CENTIMETER])}
