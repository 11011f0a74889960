"""A small picture of image and mask, made block by block."""

from collections.abc import Iterator
from math import ceil
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from ..engine.exports.whole_file import whole_file
from ..engine.nodata import missing
from ..engine.sources import Source
from ..engine.sources.base import Level
from ..engine.sources.request import read_whole
from ..tiler.box import Box
from ..tiler.errors import ImageError, failing_as

LIMIT_PX = 2048
"""Longest side of a preview."""

MASK_OPACITY = 0.6

_DARK = 32
"""An 8-bit image whose pixels are all below is stretched like one of 16 bits: labels, mostly."""

_READ_PX = 1024


def preview(
    source: Source,
    group: zarr.Group,
    colours: NDArray[np.uint8],
    level: int,
    nodata: float | None = None,
) -> NDArray[np.uint8]:
    """Return image and mask overlaid, ``(y, x, 3)``, at most ``LIMIT_PX`` long.

    Args:
        source: The image.
        group: The mask's group, as of a prediction.
        colours: Colour ``(class, 3)`` of each label.
        level: Resolution of the image that was segmented.
        nodata: Value of the pixels that hold no data; they are black.
    """
    shape = preview_shape(source.facts.levels[level].shape)
    return overlay(shrunk_image(source, shape, nodata), shrunk_mask(group, shape), colours)


def preview_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """Return the size of the preview of an image; a small image keeps its own.

    >>> preview_shape((8192, 4096))
    (2048, 1024)
    """
    factor = max(1.0, max(shape) / LIMIT_PX)
    return max(1, round(shape[0] / factor)), max(1, round(shape[1] / factor))


def overlay(
    image: NDArray[np.uint8], labels: NDArray[np.generic], colours: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Return the image ``(y, x, 3)`` with every label tinted but 0 and "not computed".

    Args:
        image: Colours ``(y, x, 3)``.
        labels: Labels ``(y, x)``.
        colours: Colour ``(class, 3)`` of each label; those above are "not computed".
    """
    tinted = (labels != 0) & np.less(labels, len(colours))
    tint = colours[np.where(tinted, labels, 0)]
    mixed = image + MASK_OPACITY * (tint.astype(np.float32) - image)
    return np.where(tinted[..., None], np.rint(mixed).astype(np.uint8), image)


def shrunk_image(
    source: Source, shape: tuple[int, int], nodata: float | None = None
) -> NDArray[np.uint8]:
    """Return the image as colours ``(y, x, 3)`` of the given size, each pixel the mean of its area.

    NaN and ``nodata`` are left out of the mean; an area without any data is black.
    It is read from the coarsest resolution that is not smaller, every pixel once.
    """
    number, level = _level_for(source.facts.levels, shape)
    channels = (0, 1, 2) if source.facts.channels >= 3 else (0,)
    total, lost = (np.zeros((*shape, len(channels)), np.float32) for _ in range(2))
    for box in _boxes(level):
        with failing_as(ImageError, "reading", source.facts.name):
            stored = read_whole(source, number, box, channels)
        gone = missing(stored, nodata)
        pixels = np.nan_to_num(stored.astype(np.float32), posinf=0, neginf=0)
        (first_y, starts_y), (first_x, starts_x) = (
            _bins(side.start, side.stop, long, short)
            for side, long, short in zip(box, level.shape, shape, strict=True)
        )
        place = (
            slice(first_y, first_y + len(starts_y)),
            slice(first_x, first_x + len(starts_x)),
        )
        if gone is not None:
            pixels[gone] = 0
            lost[place] += _sums(gone.astype(np.float32), starts_y, starts_x)
        total[place] += _sums(pixels, starts_y, starts_x)
    rows, columns = (
        np.diff(_edges(long, short)) for long, short in zip(level.shape, shape, strict=True)
    )
    count = rows[:, None, None] * columns[None, :, None] - lost
    mean = total / np.maximum(count, 1)
    bright = source.facts.dtype == "uint8" and mean.max() >= _DARK
    if not bright and count.any():
        low, high = np.percentile(mean[count > 0], (1, 99))
        mean = np.where(count > 0, (mean - low) * (255 / max(high - low, 1e-12)), 0)
    colours = np.rint(mean.clip(0, 255)).astype(np.uint8)
    return np.broadcast_to(colours, (*shape, 3)).copy()


def _sums(
    pixels: NDArray[np.float32], starts_y: NDArray[np.int64], starts_x: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the sum over each area, which begins at these rows and columns."""
    sums: NDArray[np.float32] = np.add.reduceat(
        np.add.reduceat(pixels, starts_y, axis=0), starts_x, axis=1
    )
    return sums


def shrunk_mask(group: zarr.Group, shape: tuple[int, int]) -> NDArray[np.generic]:
    """Return the labels ``(y, x)`` at the given size, from the mask's own lower resolutions.

    A mask may be coarser than its image: then its pixels are repeated.
    """
    arrays = sorted(
        (array for name, array in group.arrays() if name.isdigit()),
        key=lambda array: array.shape[0] * array.shape[1],
    )
    large_enough = (
        array for array in arrays if array.shape[0] >= shape[0] and array.shape[1] >= shape[1]
    )
    array = next(large_enough, arrays[-1])
    rows, columns = (
        ((2 * np.arange(short) + 1) * long) // (2 * short)
        for long, short in zip(array.shape, shape, strict=True)
    )
    labels: NDArray[np.generic] = np.asarray(array[:])[np.ix_(rows, columns)]
    return labels


def write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write colours ``(y, x, 3)``.

    Raises:
        OutputError: The file cannot be written.
    """
    import imagecodecs

    with whole_file(path) as file:
        file.write(imagecodecs.png_encode(np.ascontiguousarray(picture), level=6))


def _level_for(levels: tuple[Level, ...], shape: tuple[int, int]) -> tuple[int, Level]:
    return min(
        (
            (number, level)
            for number, level in enumerate(levels)
            if level.shape[0] >= shape[0] and level.shape[1] >= shape[1]
        ),
        key=lambda entry: entry[1].shape[0] * entry[1].shape[1],
    )


def _boxes(level: Level) -> Iterator[Box]:
    """Yield rectangles that cover the level, of whole segments and about a megapixel or two."""
    height, width = level.shape
    segment_y, segment_x = level.segment or (1, 1)
    step_x = min(width, ceil(_READ_PX / segment_x) * segment_x)
    rows = max(1, _READ_PX * _READ_PX // step_x)
    # A segment larger than that is kept by the source while its rows are read in turn.
    step_y = ceil(rows / segment_y) * segment_y if segment_y <= rows else rows
    for y in range(0, height, step_y):
        for x in range(0, width, step_x):
            yield Box.of(y, min(y + step_y, height), x, min(x + step_x, width))


def _edges(long: int, short: int) -> NDArray[np.int64]:
    """Return where each of ``short`` pixels begins among ``long``, and the end."""
    return -(-np.arange(short + 1, dtype=np.int64) * long // short)


def _bins(start: int, stop: int, long: int, short: int) -> tuple[int, NDArray[np.int64]]:
    """Return the first small pixel that ``[start, stop)`` reaches, and where each begins in it."""
    edges = _edges(long, short)
    first = int(np.searchsorted(edges, start, side="right")) - 1
    last = int(np.searchsorted(edges, stop, side="left"))
    return first, np.maximum(edges[first:last] - start, 0)
