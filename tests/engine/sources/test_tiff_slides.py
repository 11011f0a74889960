"""Whole slides of scanners that are a TIFF of their own kind."""

from contextlib import closing
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from tile_infer.engine.sources import open_source
from tile_infer.engine.sources.tiff import TiffSource
from tile_infer.tiler.box import Box

from .ndpi_slides import write_ndpi

SIZES = ((512, 768), (256, 384))


def picture(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return colours that change slowly, under some noise."""
    y, x = np.mgrid[: size[0], : size[1]]
    waves = np.stack(
        [128 + 80 * np.sin(x / 40), 128 + 80 * np.cos(y / 50), 128 + 80 * np.sin((x + y) / 60)], -1
    )
    noise = np.random.default_rng(0).integers(0, 20, waves.shape)
    return (waves + noise).clip(0, 255).astype(np.uint8)


def whole(source: Any, level: int = 0) -> NDArray[Any]:
    height, width = source.facts.levels[level].shape
    return np.asarray(source.read(level, Box.of(0, height, 0, width)))


def test_ndpi_has_its_levels_and_is_decoded_between_restart_markers(tmp_path: Path) -> None:
    jpegs = write_ndpi(tmp_path / "a.ndpi", [picture(size) for size in SIZES])
    with closing(open_source(tmp_path / "a.ndpi")) as source:
        assert isinstance(source, TiffSource)
        assert [level.shape for level in source.facts.levels] == list(SIZES)
        assert [level.pixel_size for level in source.facts.levels] == [(0.25, 0.25), (0.5, 0.5)]
        assert source.facts.levels[0].segment == (8, 64)
        source.read(0, Box.of(16, 24, 100, 200))  # three of them, side by side
        assert source.cache.decoded == 3
        for level, jpeg in enumerate(jpegs):
            np.testing.assert_array_equal(whole(source, level), imagecodecs.jpeg_decode(jpeg))


def test_ndpi_with_halved_colours_differs_at_restart_markers_only(tmp_path: Path) -> None:
    (jpeg,) = write_ndpi(tmp_path / "a.ndpi", [picture(SIZES[0])], halved=True)
    with closing(open_source(tmp_path / "a.ndpi")) as source:
        assert source.facts.levels[0].segment == (16, 128)
        difference = np.abs(whole(source).astype(int) - imagecodecs.jpeg_decode(jpeg)).max(-1)
    y, x = np.mgrid[: SIZES[0][0], : SIZES[0][1]]
    inside = (y % 16 > 0) & (y % 16 < 15) & (x % 128 > 0) & (x % 128 < 127)
    assert difference[inside].max() == 0
    assert difference.max() > 0  # colours are not smoothed across a marker


@pytest.mark.parametrize("seen", ["first", "last"])
def test_scn_image_is_chosen_among_overview_and_scan(tmp_path: Path, seen: str) -> None:
    overview, scan, lower = picture((60, 90)), picture((300, 400)), picture((150, 200))
    pages = [overview, scan, lower]
    dimension = '<dimension sizeX="{1}" sizeY="{0}" r="{2}" ifd="{3}"/>'
    small = dimension.format(60, 90, 0, 0)
    large = dimension.format(300, 400, 0, 1) + dimension.format(150, 200, 1, 2)
    xml = (
        '<?xml version="1.0"?><scn><collection name="slide">'
        f'<image name="overview"><pixels sizeX="90" sizeY="60">{small}</pixels></image>'
        f'<image name="scan"><pixels sizeX="400" sizeY="300">{large}</pixels></image>'
        "</collection></scn>"
    )
    path = tmp_path / "a.scn"
    with tifffile.TiffWriter(path) as tiff:
        for number, pixels in enumerate(pages):
            tiff.write(
                pixels,
                photometric="rgb",
                tile=(64, 64),
                compression="zlib",
                description=None if number else xml,
                metadata=None,
            )
    with pytest.raises(OSError, match=r"a\.scn holds .*overview.*scan; choose it with series=0"):
        open_source(path)
    series, expected = (0, [overview]) if seen == "first" else (1, [scan, lower])
    with closing(open_source(path, series=series)) as source:
        assert [level.shape for level in source.facts.levels] == [p.shape[:2] for p in expected]
        for level, pixels in enumerate(expected):
            np.testing.assert_array_equal(whole(source, level), pixels)
