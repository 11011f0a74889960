"""What was announced is decoded once and dropped with its last use, however a file stores it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tile_infer.engine.sources.segment_uses import SegmentUses
from tile_infer.engine.sources.tiff import TiffSource
from tile_infer.tiler.box import Box

PIXELS = np.random.default_rng(0).integers(0, 255, (210, 330, 3), np.uint8)
TILED = {"tile": (32, 48), "compression": "zlib"}
PER_PLANE = 7 * 7
"""Of 210 x 330 px, in tiles of 32 x 48."""

STORED: dict[str, tuple[Any, dict[str, Any], int]] = {
    "pixel by pixel": (PIXELS, {"photometric": "rgb", **TILED}, PER_PLANE),
    "planes": (
        np.moveaxis(PIXELS, -1, 0),
        {"photometric": "rgb", "planarconfig": "separate", **TILED},
        3 * PER_PLANE,
    ),
    "pages": (
        np.moveaxis(PIXELS, -1, 0),
        {"photometric": "minisblack", "metadata": {"axes": "CYX"}, **TILED},
        3 * PER_PLANE,
    ),
    "turned": (
        PIXELS,
        {"photometric": "rgb", "extratags": [(274, 3, 1, 6, True)], **TILED},
        PER_PLANE,
    ),
    "strips": (PIXELS, {"photometric": "rgb", "rowsperstrip": 8, "compression": "zlib"}, 27),
    "palette": (
        PIXELS[..., 0],
        {"photometric": "palette", "colormap": np.tile(np.arange(256) * 257, (3, 1)), **TILED},
        PER_PLANE,
    ),
}


@pytest.fixture(params=STORED.values(), ids=list(STORED))
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[TiffSource, int]]:
    pixels, options, segments = request.param
    tifffile.imwrite(tmp_path / "i.tif", pixels, **options)
    source = TiffSource(tmp_path / "i.tif")
    yield source, segments
    source.close()


def overlapping(shape: tuple[int, int]) -> list[Box]:
    """Return rectangles of 100 px and up to 20 more, which cover an image."""
    height, width = shape
    return [
        Box.of(y, min(y + 120, height), x, min(x + 120, width))
        for y in range(0, height, 100)
        for x in range(0, width, 100)
    ]


def test_what_was_announced_is_decoded_once_and_then_dropped(
    stored: tuple[TiffSource, int],
) -> None:
    source, segments = stored
    boxes = overlapping(source.facts.levels[0].shape)
    source.expect(0, boxes)
    for box in boxes:
        source.read(0, box)
    assert source.cache.decoded == segments
    assert source.cache.held_bytes == 0


def test_what_was_not_announced_is_kept(stored: tuple[TiffSource, int]) -> None:
    source, _ = stored
    for box in overlapping(source.facts.levels[0].shape):
        source.read(0, box)
    assert source.cache.held_bytes > 0


def test_without_memory_segments_are_decoded_again(stored: tuple[TiffSource, int]) -> None:
    source, segments = stored
    source.cache.max_bytes = 1
    boxes = overlapping(source.facts.levels[0].shape)
    source.expect(0, boxes)
    for box in boxes:
        source.read(0, box)
    assert source.cache.decoded > segments


def test_reads_are_counted_down_by_segment() -> None:
    uses = SegmentUses((2, 2), (10, 10))
    uses.expect([Box.of(0, 10, 0, 20), Box.of(0, 11, 0, 10)])
    assert [uses.is_last(0, 0, 0), uses.is_last(0, 0, 0), uses.is_last(0, 0, 1)] == [
        False,
        True,
        True,
    ]
    assert uses.is_last(0, 1, 0)
    assert not uses.is_last(0, 1, 1)
