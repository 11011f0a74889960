"""Masks of another resolution than their image."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tile_infer.engine.exports.cog import write_geotiff
from tile_infer.engine.exports.geojson import write_geojson
from tile_infer.engine.exports.ome_tiff import write_ome_tiff
from tile_infer.engine.prediction import Prediction, build_report
from tile_infer.engine.sources.base import Level
from tile_infer.engine.sources.georeference import Georeference, GeoTags
from tile_infer.engine.stitcher.metadata import group_attributes
from tile_infer.engine.stitcher.records import Record, Records

from .finished_masks import finished, read_features

LEVELS = (Level((803, 400), (0.25, 0.5)), Level((201, 100), (1.0, 2.0)))
"""The second, of a quarter the size, is what was segmented."""

SCALES = [
    ((201, 100), (1, 1)),
    ((402, 200), (2, 2)),
    ((804, 400), (4, 4)),
    ((101, 50), (0.5, 0.5)),  # rounded up
    ((51, 25), (0.25, 0.25)),
]


def mask(shape: tuple[int, int]) -> Prediction:
    labels = np.zeros(shape, np.uint8)
    labels[3:5, 1:3] = 1
    return finished(labels, image_levels=LEVELS, unit="micrometer")


@pytest.mark.parametrize(("shape", "scale"), SCALES)
def test_outlines_are_in_pixels_of_level_0(
    shape: tuple[int, int], scale: tuple[float, float], tmp_path: Path
) -> None:
    write_geojson(mask(shape), tmp_path / "m.geojson")
    (feature,) = read_features(tmp_path / "m.geojson")
    (ring,) = feature["geometry"]["coordinates"]
    factor_y, factor_x = 4 / scale[0], 4 / scale[1]
    assert {y for _, y in ring} == {3 * factor_y, 5 * factor_y}
    assert {x for x, _ in ring} == {1 * factor_x, 3 * factor_x}


@pytest.mark.parametrize(("shape", "scale"), SCALES)
def test_pixel_sizes_are_those_of_the_mask(
    shape: tuple[int, int], scale: tuple[float, float], tmp_path: Path
) -> None:
    prediction = mask(shape)
    height, width = 1.0 / scale[0], 2.0 / scale[1]
    write_ome_tiff(prediction, tmp_path / "m.ome.tif")
    with tifffile.TiffFile(tmp_path / "m.ome.tif") as tiff:
        pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
        above, below = tiff.pages[0].tags[282].value
    assert (pixels["PhysicalSizeY"], pixels["PhysicalSizeX"]) == (height, width)
    assert 10_000 * below / above == pytest.approx(width)
    ome = prediction.group.attrs["ome"]
    assert isinstance(ome, dict)
    (finest,) = [
        entry["scale"]
        for entry in ome["multiscales"][0]["datasets"][0]["coordinateTransformations"]
        if entry["type"] == "scale"
    ]
    assert finest == [height, width]


@pytest.mark.parametrize(("shape", "scale"), SCALES)
def test_a_georeference_is_scaled_to_the_mask(
    shape: tuple[int, int], scale: tuple[float, float], tmp_path: Path
) -> None:
    tags = GeoTags((10.0, 20.0, 0.0), (0.0, 0.0, 0.0, 500.0, 900.0, 0.0))
    place = Georeference((10.0, 0.0, 500.0, 0.0, -20.0, 900.0), None, tags)
    prediction = mask(shape)
    plan = replace(prediction.plan, image=replace(prediction.plan.image, georeference=place))
    write_geotiff(replace(prediction, plan=plan), tmp_path / "m.tif")
    with tifffile.TiffFile(tmp_path / "m.tif") as tiff:
        found = tiff.pages[0].tags[33550].value
    assert found == pytest.approx((10 * 4 / scale[1], 20 * 4 / scale[0], 0))
    stated: Any = group_attributes(plan, 1)["tile_infer"]["georeference"]["transform"]
    assert stated == pytest.approx([found[0], 0, 500, 0, -found[1], 900])


def test_areas_are_those_of_the_masks_pixels() -> None:
    plan = mask((402, 200)).plan
    records = Records(plan.grid.blocks, 3)
    records.add(Record(0, (70_000, 10_400, 0), 0))
    report = build_report(plan, "m.zarr", records, [], [], 1.0, 1, {}, {}, None)
    assert report["classes"][1]["area"] == 10_400 * 0.5 * 1.0
