"""Images that nobody here made, from a folder beside the repository."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from tile_infer.engine.sources import Source, open_source
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


def expected_planes(path: Path) -> list[NDArray[Any]]:
    """Return the planes of the first image as tifffile reads them, coloured and turned by hand."""
    with tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        page, pixels, axes = series.keyframe, series.asarray(squeeze=False), series.get_axes(False)
        colours = page.colormap.T if page.photometric == 3 else None
    order = [axes.index(a) for a in axes if a not in "YXCS"] + [axes.index(a) for a in "YX"]
    order += [axes.index(a) for a in axes if a in "CS"]
    stacked = pixels.transpose(order)
    first = len([a for a in axes if a not in "YXCS"])
    planes = stacked.reshape(
        -1, *stacked.shape[first : first + 2], max(1, *stacked.shape[first + 2 :], 1)
    )
    if colours is not None:
        eight_bit = not (colours % 257).any() or not (colours % 256).any()
        colours = (colours >> 8).astype(np.uint8) if eight_bit else colours
        planes = colours[planes[..., 0].astype(int)]
    turns = {6: -1, 3: 2, 8: 1}
    orientation = page.tags.valueof(274)
    mirrored = {2: 1, 4: 3, 5: 8, 7: 6}.get(orientation)
    if mirrored in turns:
        planes = np.rot90(planes[:, :, ::-1], turns[mirrored], (1, 2))
    elif mirrored is not None:
        planes = planes[:, :, ::-1]
    else:
        planes = np.rot90(planes, turns.get(orientation, 0), (1, 2))
    return list(planes)


def check_text(error: ImageError, path: Path) -> None:
    assert path.name in str(error)
    assert "\n" not in str(error)


def opened(path: Path, plane: int) -> Source:
    """Open a plane, with as many words as the file asks for."""
    choices: tuple[dict[str, Any], ...] = ({}, {"page": plane}, {"series": 0})
    for choice in (*choices, {"series": 0, "page": plane}):
        try:
            return open_source(path, **choice)
        except ImageError as error:
            check_text(error, path)
            last = error
            if "choose it with" not in str(error):
                raise
    raise last


def whole(path: Path, plane: int) -> NDArray[Any]:
    source = opened(path, plane)
    height, width = source.facts.levels[0].shape
    try:
        return source.read(0, Box.of(0, height, 0, width))
    finally:
        source.close()


def odd_files() -> list[Path]:
    return sorted(path for path in ODD.rglob("*") if path.is_file())


@needs(ODD)
def test_odd_files_equal_tifffile_or_are_refused() -> None:
    equal = 0
    for path in odd_files():
        try:
            first = whole(path, 0)
        except ImageError:
            continue
        for number, expected in enumerate(expected_planes(path)):
            got = whole(path, number) if number else first
            np.testing.assert_array_equal(got, expected, err_msg=str(path))
            assert got.dtype == expected.dtype.newbyteorder("=")
        equal += 1
    assert equal >= 270


@needs(ODD)
def test_odd_files_cut_to_60_percent_are_refused_or_still_right(tmp_path: Path) -> None:
    refused = 0
    for path in odd_files():
        cut = tmp_path / path.name
        cut.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
        try:
            got = whole(cut, 0)
        except ImageError as error:
            check_text(error, cut)
            refused += 1
            continue
        np.testing.assert_array_equal(got, expected_planes(path)[0], err_msg=str(path))
    assert refused >= 230
