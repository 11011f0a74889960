"""Masks of another resolution than their image."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from tile_infer.engine.exports.cog import write_geotiff
from tile_infer.engine.exports.geojson import write_geojson
from tile_infer.engine.exports.ome_tiff import write_ome_tiff
from tile_infer.engine.prediction import Prediction, build_report
from tile_infer.engine.sources.base import Level
from tile_infer.engine.stitcher.records import Record
from tile_infer.tiler.scale import Scale

from .finished_masks import finished, read_features

LEVELS = (Level((803, 400), (0.25, 0.5)), Level((201, 100), (1.0, 2.0)))
"""The second, of a quarter the size, is what was segmented."""

SCALES = [Scale(1), Scale(2), Scale(3), Scale(1, 2), Scale(1, 4)]


def mask(scale: Scale) -> Prediction:
    height, width = (scale.mask_px(length) for length in LEVELS[1].shape)
    labels = np.zeros((height, width), np.uint8)
    labels[3:5, 1:3] = 1
    return finished(labels, 240, image_levels=LEVELS, unit="micrometer", scale=scale)


@pytest.mark.parametrize("scale", SCALES, ids=str)
def test_outlines_are_in_pixels_of_level_0(scale: Scale, tmp_path: Path) -> None:
    write_geojson(mask(scale), tmp_path / "m.geojson")
    (feature,) = read_features(tmp_path / "m.geojson")
    (ring,) = feature["geometry"]["coordinates"]
    factor = 4 * scale.down / scale.up
    assert {y for _, y in ring} == {round(3 * factor, 4), round(5 * factor, 4)}
    assert {x for x, _ in ring} == {round(1 * factor, 4), round(3 * factor, 4)}


@pytest.mark.parametrize("scale", SCALES, ids=str)
def test_pixel_sizes_are_those_of_the_mask(scale: Scale, tmp_path: Path) -> None:
    prediction = mask(scale)
    height, width = 1.0 * scale.down / scale.up, 2.0 * scale.down / scale.up
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


@pytest.mark.parametrize("scale", SCALES, ids=str)
def test_a_georeference_is_scaled_to_the_mask(scale: Scale, tmp_path: Path) -> None:
    tags = {33550: (10.0, 20.0, 0.0), 33922: (0.0, 0.0, 0.0, 500.0, 900.0, 0.0)}
    write_geotiff(mask(scale), tmp_path / "m.tif", tags)
    with tifffile.TiffFile(tmp_path / "m.tif") as tiff:
        found = tiff.pages[0].tags[33550].value
    assert found == pytest.approx((40 * scale.down / scale.up, 80 * scale.down / scale.up, 0))


def test_areas_are_those_of_the_masks_pixels() -> None:
    plan = mask(Scale(2)).plan
    record = Record(0, (70_000, 10_400, 0), 0)
    report = build_report(plan, "m.zarr", [record], 1.0, 1)
    assert report["classes"][1]["area"] == 10_400 * 0.5 * 1.0
