"""OME-TIFF and GeoTIFF, read back by tifffile and by this package's own source."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from tile_infer.engine.exports import export, tiled_tiff
from tile_infer.engine.exports.cog import scaled_geo_tags, write_geotiff
from tile_infer.engine.exports.ome_tiff import write_ome_tiff
from tile_infer.engine.prediction import Prediction
from tile_infer.engine.sources import open_source
from tile_infer.engine.sources.base import Level
from tile_infer.engine.sources.georeference import Georeference, GeoTags

from .finished_masks import finished

GEO = GeoTags(
    pixel_scale=(10.0, 20.0, 0.0),
    tie_points=(0.0, 0.0, 0.0, 500.0, 900.0, 0.0),
    keys=(1, 1, 0, 2, 1024, 0, 1, 1, 1025, 0, 1, 1),
    key_text="WGS 84|",
)


def random_labels(shape: tuple[int, int], dtype: str = "uint8") -> NDArray[np.generic]:
    return np.random.default_rng(5).integers(0, 300 if dtype == "uint16" else 3, shape, dtype=dtype)


def stored_levels(prediction: Prediction) -> list[NDArray[np.generic]]:
    arrays = [array for _, array in sorted(prediction.group.arrays())]
    return [np.asarray(array[:]) for array in arrays]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("shape", [(1, 1), (512, 512), (700, 2500), (2049, 30)])
@pytest.mark.parametrize("name", ["m.ome.tif", "m.tif"])
def test_the_file_holds_the_mask_and_its_levels(
    name: str, shape: tuple[int, int], dtype: str, tmp_path: Path
) -> None:
    prediction = finished(random_labels(shape, dtype), 300)
    export(prediction, tmp_path / name)
    with tifffile.TiffFile(tmp_path / name) as tiff:
        assert tiff.is_bigtiff
        assert tiff.is_ome == (name == "m.ome.tif")
        (series,) = tiff.series
        assert series.axes == "YX"
        assert all(page.tile == (512, 512) for page in (level.keyframe for level in series.levels))
        for level, expected in zip(series.levels, stored_levels(prediction), strict=True):
            assert level.dtype == expected.dtype
            np.testing.assert_array_equal(level.asarray(), expected)


def test_ome_xml_states_pixel_size_and_classes(tmp_path: Path) -> None:
    prediction = finished(
        random_labels((1500, 40)),
        image_levels=(Level((3000, 80), (250.0, 500.0)), Level((1500, 40), (500.0, 1000.0))),
        unit="nanometer",
        names=["none", "a < b", "ö"],
    )
    write_ome_tiff(prediction, tmp_path / "m.ome.tif")
    with tifffile.TiffFile(tmp_path / "m.ome.tif") as tiff:
        found = tifffile.xml2dict(tiff.ome_metadata)["OME"]
        assert len(tiff.pages) == 1, "lower levels are sub-directories"
    pixels = found["Image"]["Pixels"]
    assert found["Image"]["Name"] == "a & b.tif"
    assert (pixels["PhysicalSizeY"], pixels["PhysicalSizeX"]) == (0.5, 1.0)
    assert (pixels["SizeY"], pixels["SizeX"], pixels["Type"]) == (1500, 40, "uint8")
    names = found["StructuredAnnotations"]["MapAnnotation"]["Value"]["M"]
    assert [(entry["K"], entry["value"]) for entry in names] == [
        (0, "none"),
        (1, "a < b"),
        (2, "ö"),
    ]


@pytest.mark.parametrize("name", ["m.ome.tif", "m.tif"])
def test_the_file_is_an_image_with_levels_and_pixel_size_to_this_package(
    name: str, tmp_path: Path
) -> None:
    levels = (Level((1500, 40), (0.5, 0.25)),)
    prediction = finished(random_labels((1500, 40)), image_levels=levels, unit="micrometer")
    export(prediction, tmp_path / name)
    with closing(open_source(tmp_path / name)) as source:
        assert [level.shape for level in source.facts.levels] == [(1500, 40), (750, 20)]
        assert source.facts.levels[0].pixel_size == pytest.approx((0.5, 0.25))


def test_a_pixel_of_unknown_size_gets_none(tmp_path: Path) -> None:
    write_ome_tiff(finished(random_labels((30, 40))), tmp_path / "m.ome.tif")
    with tifffile.TiffFile(tmp_path / "m.ome.tif") as tiff:
        assert "PhysicalSize" not in tiff.ome_metadata
        assert 282 not in tiff.pages[0].tags


def test_overviews_come_in_the_order_of_a_cloud_optimised_geotiff(tmp_path: Path) -> None:
    write_geotiff(finished(random_labels((2500, 2100))), tmp_path / "m.tif")
    with tifffile.TiffFile(tmp_path / "m.tif") as tiff:
        directories = [page.offset for page in tiff.pages]
        first_tiles = [page.dataoffsets[0] for page in tiff.pages]
        kinds = [page.tags[254].value for page in tiff.pages]
    assert directories[0] == 16
    assert directories == sorted(directories)
    assert max(directories) < min(first_tiles)
    assert first_tiles == sorted(first_tiles, reverse=True)
    assert kinds == [0, 1, 1]


def test_the_georeference_is_scaled_to_the_masks_pixels(tmp_path: Path) -> None:
    levels = (Level((400, 600)), Level((100, 300)))
    place = Georeference(None, None, GEO)
    labels = random_labels((100, 300))
    prediction = finished(labels, image_levels=levels, georeference=place)
    export(prediction, tmp_path / "m.tif")
    with tifffile.TiffFile(tmp_path / "m.tif") as tiff:
        tags = tiff.pages[0].tags
        assert tags[33550].value == (20.0, 80.0, 0.0)
        assert tags[33922].value == GEO.tie_points
        assert tags[34735].value == GEO.keys
        assert tags[34737].value == GEO.key_text
        assert tags[42113].value == "255", "the image's nodata is not the mask's"
        assert 34264 not in tags


def test_an_image_without_a_place_gives_a_file_without_one(tmp_path: Path) -> None:
    write_geotiff(finished(random_labels((30, 40))), tmp_path / "m.tif")
    with tifffile.TiffFile(tmp_path / "m.tif") as tiff:
        assert not tiff.pages[0].is_geotiff


@pytest.mark.parametrize("raster_type", [1, 2])
def test_a_georeference_keeps_the_outer_corners_where_they_are(raster_type: int) -> None:
    keys = (1, 1, 0, 1, 1025, 0, 1, raster_type)
    matrix = (2.0, 0.5, 0.0, 100.0, 0.25, -3.0, 0.0, 50.0, *[0.0] * 7, 1.0)
    tie = (3.0, 4.0, 0.0, 500.0, 900.0, 0.0)
    stored = GeoTags(pixel_scale=GEO.pixel_scale, tie_points=tie, matrix=matrix, keys=keys)
    tags = scaled_geo_tags(stored, (4, 2))
    half = 0.5 if raster_type == 2 else 0.0

    def by_matrix(values: object, column: float, row: float) -> NDArray[np.float64]:
        placed: NDArray[np.float64] = np.reshape(np.array(values, float), (4, 4)) @ [
            column - half,
            row - half,
            0,
            1,
        ]
        return placed

    new = tags[34264].values
    np.testing.assert_allclose(by_matrix(new, 7, 9), by_matrix(matrix, 7 * 2, 9 * 4))
    column, row, _, x, y, _ = map(float, tags[33922].values)
    size_x, size_y, _ = map(float, tags[33550].values)
    assert (size_x, size_y) == (20.0, 80.0)
    # The outer corner of the first pixel, from the tie point.
    assert x - (column + half) * size_x == 500 - (3 + half) * 10
    assert y + (row + half) * size_y == 900 + (4 + half) * 20


def test_no_more_than_a_span_of_tiles_is_read_at_a_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tiled_tiff, "SPAN_TILES", 2)
    prediction = finished(random_labels((1100, 2600)))
    read: list[int] = []
    take = zarr.Array.__getitem__

    def counted(array: zarr.Array[Any], selection: Any) -> Any:
        found = take(array, selection)
        read.append(np.asarray(found).size)
        return found

    monkeypatch.setattr(zarr.Array, "__getitem__", counted)
    write_ome_tiff(prediction, tmp_path / "m.ome.tif")
    assert max(read) == 512 * 1024
    assert sum(read) == sum(level.size for _, level in prediction.group.arrays())
