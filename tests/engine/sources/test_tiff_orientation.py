from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tile_infer.engine.sources.tiff import TiffSource
from tile_infer.tiler.box import Box

STORED = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
SMALL = ["ab", "cd", "ef"]
# What is to be seen of SMALL, by hand from the TIFF 6.0 specification, page 36.
SEEN = {
    1: ["ab", "cd", "ef"],
    2: ["ba", "dc", "fe"],
    3: ["fe", "dc", "ba"],
    4: ["ef", "cd", "ab"],
    5: ["ace", "bdf"],
    6: ["eca", "fdb"],
    7: ["fdb", "eca"],
    8: ["bdf", "ace"],
}


def letters(rows: list[str]) -> NDArray[np.uint8]:
    return np.array([[ord(c) for c in row] for row in rows], np.uint8)


def write(path: Path, pixels: NDArray[Any], orientation: int, **options: Any) -> TiffSource:
    tifffile.imwrite(path, pixels, extratags=[(274, "H", 1, orientation, True)], **options)
    return TiffSource(path)


@pytest.mark.parametrize("orientation", SEEN)
def test_each_orientation_is_turned_as_the_specification_says(
    tmp_path: Path, orientation: int
) -> None:
    source = write(tmp_path / "a.tif", letters(SMALL), orientation)
    seen = letters(SEEN[orientation])
    assert source.facts.levels[0].shape == seen.shape
    got = source.read(0, Box.of(0, seen.shape[0], 0, seen.shape[1]))
    np.testing.assert_array_equal(got[..., 0], seen)
    source.close()


@pytest.fixture(scope="module", params=[2, 3, 4, 5, 6, 7, 8])
def turned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("turned") / "a.tif"
    options: dict[str, Any] = {"photometric": "rgb", "tile": (16, 32), "compression": "zlib"}
    source = write(path, STORED, request.param, **options)
    height, width = source.facts.levels[0].shape
    yield source, source.read(0, Box.of(0, height, 0, width))
    source.close()


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_box_of_a_turned_image_is_cut_from_the_whole(turned: Any, data: st.DataObject) -> None:
    source, whole = turned
    height, width = whole.shape[:2]
    y0, y1 = sorted(data.draw(st.tuples(*[st.integers(0, height)] * 2)))
    x0, x1 = sorted(data.draw(st.tuples(*[st.integers(0, width)] * 2)))
    channels = data.draw(st.sampled_from([None, (2,), (1, 0)]))
    got = source.read(0, Box.of(y0, y1, x0, x1), channels)
    part = whole[y0:y1, x0:x1]
    np.testing.assert_array_equal(got, part if channels is None else part[..., list(channels)])
    assert got.flags.c_contiguous


def test_turned_image_decodes_only_the_tiles_of_its_box(tmp_path: Path) -> None:
    source = write(tmp_path / "a.tif", STORED[..., 0], 6, tile=(16, 16), compression="zlib")
    assert source.facts.levels[0].shape == (60, 40)
    source.read(0, Box.of(0, 16, 24, 40))  # the first rows and last columns: stored top left
    assert source.cache.decoded == 1
    source.close()


def test_pixel_size_and_segment_are_turned_with_the_pixels(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "tile": (16, 32),
        "resolution": (10_000, 20_000),
        "resolutionunit": "CENTIMETER",
    }
    plain = write(tmp_path / "a.tif", STORED[..., 0], 1, **options).facts.levels[0]
    turned = write(tmp_path / "b.tif", STORED[..., 0], 8, **options).facts.levels[0]
    assert (plain.pixel_size, plain.segment) == ((0.5, 1.0), (16, 32))
    assert (turned.pixel_size, turned.segment) == ((1.0, 0.5), (32, 16))


@pytest.mark.parametrize("orientation", [0, 9])
def test_orientation_outside_the_specification_is_none(tmp_path: Path, orientation: int) -> None:
    source = write(tmp_path / "a.tif", letters(SMALL), orientation)
    np.testing.assert_array_equal(source.read(0, Box.of(0, 3, 0, 2))[..., 0], letters(SMALL))
    source.close()
