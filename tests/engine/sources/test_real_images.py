"""Images that nobody here made, from a folder beside the repository."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from tile_infer.engine.sources import open_source
from tile_infer.tiler.box import Box
from tile_infer.tiler.errors import ImageError

DATA = Path(
    os.environ.get("TILE_INFER_TEST_DATA") or Path(__file__).resolve().parents[3] / "../shared/data"
)
SLIDE = DATA / "slides/CMU-1-Small-Region.svs"
WORLD = DATA / "large/cog_world.tif"
ODD = DATA / "odd_tiff"


def needs(path: Path) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        not path.exists(), reason=f"no {path.name}; set TILE_INFER_TEST_DATA to the data folder"
    )


def channels_last(pixels: NDArray[Any], axes: str) -> NDArray[Any]:
    return np.moveaxis(pixels, 0, -1) if axes == "CYX" else pixels


@needs(SLIDE)
def test_slide_equals_tifffile_at_every_level() -> None:
    source = open_source(SLIDE)
    assert source.facts.levels[0].shape == (2967, 2220)
    assert source.facts.levels[0].pixel_size == (0.499, 0.499)
    with tifffile.TiffFile(SLIDE) as tiff:
        assert len(source.facts.levels) == len(tiff.series[0].levels)
        for number, level in enumerate(tiff.series[0].levels):
            height, width = source.facts.levels[number].shape
            got = source.read(number, Box.of(0, height, 0, width))
            np.testing.assert_array_equal(got, level.asarray())
    source.close()


@needs(WORLD)
def test_cloud_optimised_geotiff_equals_tifffile_at_every_level() -> None:
    source = open_source(WORLD)
    sizes = [level.shape for level in source.facts.levels]
    assert (len(sizes), sizes[0], sizes[-1]) == (7, (18000, 36000), (282, 563))
    with tifffile.TiffFile(WORLD) as tiff:
        for number in range(2, 7):
            height, width = sizes[number]
            got = source.read(number, Box.of(0, height, 0, width))
            np.testing.assert_array_equal(got[..., 0], tiff.series[0].levels[number].asarray())
    decoded = source.cache.decoded  # type: ignore[attr-defined]
    # A box that straddles four of the level's 512-px tiles.
    got = source.read(0, Box.of(5000, 5200, 20400, 20500))
    assert source.cache.decoded - decoded == 4  # type: ignore[attr-defined]
    half = source.read(1, Box.of(2500, 2600, 10200, 10250))
    assert np.mean(got[::2, ::2] == half) > 0.9  # nearest-neighbour overviews
    source.close()


@needs(ODD)
def test_odd_files_equal_tifffile_or_are_refused() -> None:
    rng = np.random.default_rng(0)
    opened = equal = 0
    for path in sorted(p for p in ODD.rglob("*") if p.is_file()):
        try:
            source = open_source(path)
        except ImageError:
            continue
        opened += 1
        facts = source.facts
        height, width = facts.levels[0].shape
        (y0, y1), (x0, x1) = (sorted(rng.integers(0, n + 1, 2).tolist()) for n in (height, width))
        try:
            with tifffile.TiffFile(path) as tiff:
                pixels = channels_last(tiff.series[0].asarray(), facts.axes)
        except Exception:  # then this must not make up pixels either
            with pytest.raises(ImageError):
                source.read(0, Box.of(0, height, 0, width))
            continue
        got = source.read(0, Box.of(y0, y1, x0, x1))
        expected = pixels.reshape(height, width, -1)[y0:y1, x0:x1]
        np.testing.assert_array_equal(got, expected, err_msg=str(path))
        assert got.dtype == expected.dtype
        equal += 1
        source.close()
    assert (opened, equal) >= (240, 230)
