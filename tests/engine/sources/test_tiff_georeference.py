"""Where a GeoTIFF says it lies, how large its pixels are, and which of them hold no data."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tile_infer.engine.sources import ImageFacts, open_source
from tile_infer.engine.sources.georeference import Affine
from tile_infer.tiler.box import Box

from ..geotiffs import FOOT, keys, write_geotiff
from .test_real_images import DATA, WORLD, needs


def facts(path: Path, *levels: tuple[int, int], **options: Any) -> ImageFacts:
    sizes = levels or ((200, 300),)
    write_geotiff(path / "a.tif", [np.zeros(size, np.uint8) for size in sizes], **options)
    with closing(open_source(path / "a.tif")) as source:
        return source.facts


def transform(found: ImageFacts) -> Affine | None:
    assert found.georeference is not None
    return found.georeference.transform


def test_pixel_scale_and_tie_point_are_the_transform_of_the_corners(tmp_path: Path) -> None:
    found = facts(tmp_path, size=(20.0, 10.0), tie=(3.0, 4.0, 0.0, 530.0, 920.0, 0.0))
    assert transform(found) == (10.0, 0.0, 500.0, 0.0, -20.0, 1000.0)
    assert found.georeference is not None
    assert found.georeference.crs == "EPSG:32633"
    assert found.georeference.tags.tie_points == (3.0, 4.0, 0.0, 530.0, 920.0, 0.0)


def test_a_position_of_a_centre_is_moved_to_the_corner(tmp_path: Path) -> None:
    found = facts(tmp_path, size=(20.0, 10.0), directory=keys(raster=2))
    assert transform(found) == (10.0, 0.0, 500_000.0 - 5.0, 0.0, -20.0, 5_600_000.0 + 10.0)


@pytest.mark.parametrize(("raster", "half"), [(1, 0.0), (2, 0.5)])
def test_a_turned_image_has_its_matrix(tmp_path: Path, raster: int, half: float) -> None:
    matrix = (3.0, 1.0, 0.0, 100.0, 4.0, -2.0, 0.0, 200.0, *[0.0] * 7, 1.0)
    found = facts(tmp_path, size=None, tie=(), matrix=matrix, directory=keys(raster=raster))
    assert transform(found) == (3.0, 1.0, 100 - half * 4, 4.0, -2.0, 200 - half * 2)
    assert found.levels[0].pixel_size == pytest.approx((5**0.5, 5.0))


def test_control_points_are_kept_though_they_are_no_transform(tmp_path: Path) -> None:
    points = (0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 9.0, 0.0, 0.0, 3.0, 4.0, 0.0)
    found = facts(tmp_path, size=None, tie=points)
    assert transform(found) is None
    assert found.georeference is not None
    assert found.georeference.tags.tie_points == points
    assert found.levels[0].pixel_size is None


@pytest.mark.parametrize(
    ("directory", "crs"),
    [
        (keys(epsg=3857), "EPSG:3857"),
        (keys(model=2, epsg=4326), "EPSG:4326"),
        (keys(epsg=32767), None),  # described by further keys
        (keys(model=3), None),  # geocentric
    ],
)
def test_the_reference_system_is_told_by_its_code(
    tmp_path: Path, directory: tuple[int, ...], crs: str | None
) -> None:
    found = facts(tmp_path, directory=directory)
    assert found.georeference is not None
    assert found.georeference.crs == crs


def test_every_level_has_its_pixel_size_in_metres(tmp_path: Path) -> None:
    found = facts(tmp_path, (200, 301), (100, 151), (50, 76), size=(20.0, 10.0))
    assert found.unit == "meter"
    sizes = [level.pixel_size for level in found.levels]
    assert sizes == [(20.0, 10.0), (40.0, 20.0), (80.0, 40.0)]


def test_feet_are_a_length_too(tmp_path: Path) -> None:
    size = facts(tmp_path, directory=keys(unit=FOOT)).levels[0].pixel_size
    assert size == pytest.approx((3.048, 3.048))


@pytest.mark.parametrize("directory", [keys(model=2, epsg=4326), keys(unit=None), keys(epsg=3857)])
def test_degrees_and_unknown_units_are_no_pixel_size(
    tmp_path: Path, directory: tuple[int, ...]
) -> None:
    found = facts(tmp_path, directory=directory)
    assert (found.unit, found.levels[0].pixel_size) == (None, None)
    assert found.georeference is not None


def test_a_plain_tiff_lies_nowhere(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 30), np.uint8))
    with closing(open_source(tmp_path / "a.tif")) as source:
        assert (source.facts.georeference, source.facts.nodata) == (None, None)


@pytest.mark.parametrize(
    "broken",
    [
        {"tie": (0.0, 0.0, 0.0, float("nan"), 1.0, 0.0), "size": None},
        {"tie": (0.0, 0.0, 1.0), "size": None},
    ],
)
def test_broken_tags_are_no_place(tmp_path: Path, broken: dict[str, Any]) -> None:
    assert facts(tmp_path, **broken).georeference is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0.0),
        ("-9999", -9999.0),
        (" -3.4028234663852886e+38 ", -3.4028234663852886e38),
        ("nan", None),  # is no data wherever it occurs
        ("-inf", None),
        ("none", None),
        (None, None),
    ],
)
def test_the_nodata_value_is_that_of_gdals_tag(
    tmp_path: Path, text: str | None, value: float | None
) -> None:
    assert facts(tmp_path, nodata=text).nodata == value


def test_the_index_of_a_palette_is_no_nodata_value_of_its_colours(tmp_path: Path) -> None:
    colours = np.zeros((3, 256), np.uint16)
    tags = [(42113, "s", 0, "7", True)]
    pixels = np.zeros((20, 30), np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, photometric="palette", colormap=colours, extratags=tags
    )
    with closing(open_source(tmp_path / "a.tif")) as source:
        assert (source.facts.channels, source.facts.nodata) == (3, None)
        assert "says that 7 of its palette holds no data" in source.facts.doubts[0]


@pytest.mark.parametrize("stated", ["-9999", "nan"])
def test_missing_tiles_hold_the_nodata_value_at_every_level(tmp_path: Path, stated: str) -> None:
    tags = [(42113, "s", 0, stated, True)]
    options: dict[str, Any] = {"tile": (64, 64), "dtype": "float32", "photometric": "minisblack"}
    tile = np.ones((64, 64), np.float32)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for number, (height, width) in enumerate(((128, 256), (64, 128))):
            tiles = iter([tile, None] * (height * width // (2 * 64 * 64)))
            tiff.write(
                tiles,
                shape=(height, width),
                subfiletype=number,
                extratags=tags if number == 0 else [],
                metadata=None,
                **options,
            )
    with closing(open_source(tmp_path / "a.tif")) as source:
        assert len(source.facts.levels) == 2
        for number in (0, 1):
            got = source.read(number, Box.of(0, 64, 60, 68))[..., 0]
            np.testing.assert_array_equal(got[:, :4], 1)
            np.testing.assert_array_equal(got[:, 4:], float(stated))


@needs(WORLD)
def test_the_world_lies_where_it_does() -> None:
    with closing(open_source(WORLD)) as source:
        found = source.facts
    assert transform(found) == (0.01, 0.0, -180.0, 0.0, -0.01, 90.0)
    assert found.georeference is not None
    assert (found.georeference.crs, found.nodata) == ("EPSG:4326", 0.0)
    assert {level.pixel_size for level in found.levels} == {None}


@needs(DATA / "large/cog_cmap.tif")
def test_metres_of_web_mercator_are_none_on_the_ground() -> None:
    with closing(open_source(DATA / "large/cog_cmap.tif")) as source:
        found = source.facts
    assert [level.pixel_size for level in found.levels] == [None] * 5
    place = transform(found)
    assert place is not None
    assert place[0] == 1.1943285669558765
    assert found.georeference is not None
    assert found.georeference.crs == "EPSG:3857"
