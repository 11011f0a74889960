"""GeoJSON, rasterised again."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tile_infer.engine.exports import ExportOptions, export
from tile_infer.engine.exports.geojson import write_geojson
from tile_infer.engine.sources.base import Level

from .finished_masks import filled, finished, read_features


def blobs() -> NDArray[np.uint8]:
    random = np.random.default_rng(3).integers(0, 3, (60, 47)).astype(np.uint8)
    labels = np.kron(random, np.ones((5, 7), np.uint8))
    labels[100:120, 50:90] = 255
    return labels


def test_the_polygons_filled_again_are_the_mask(tmp_path: Path) -> None:
    labels = blobs()
    write_geojson(finished(labels, 64, names=["none", "tumour", "other"]), tmp_path / "m.geojson")
    again = np.zeros_like(labels)
    for feature in read_features(tmp_path / "m.geojson"):
        assert feature["geometry"]["type"] == "Polygon"
        rings = [[tuple(point) for point in ring] for ring in feature["geometry"]["coordinates"]]
        name = feature["properties"]["classification"]["name"]
        pixels = filled(rings, (labels.shape[0], labels.shape[1]))
        assert not again[pixels].any()
        again[pixels] = ["none", "tumour", "other"].index(name)
    np.testing.assert_array_equal(again, np.where(labels == 255, 0, labels))


def test_properties_are_those_that_qupath_reads(tmp_path: Path) -> None:
    labels = np.array([[0, 1]], np.uint8)
    options = ExportOptions(colours=np.array([[0, 0, 0], [1, 2, 3]]), object_type="detection")
    export(finished(labels, names=["none", "Büro"]), tmp_path / "m.geojson", options)
    (feature,) = read_features(tmp_path / "m.geojson")
    assert feature == {
        "type": "Feature",
        "properties": {
            "objectType": "detection",
            "classification": {"name": "Büro", "color": [1, 2, 3]},
        },
        "geometry": {
            "type": "Polygon",
            "coordinates": [[[1, 0], [2, 0], [2, 1], [1, 1], [1, 0]]],
        },
    }


@pytest.mark.parametrize(
    ("level0", "expected"),
    [
        ((80, 120), (4, 4)),
        ((77, 123), (4, 4)),  # levels round their own size
        ((50, 80), (2.5, 2.6667)),
        ((10, 15), (0.5, 0.5)),  # a mask finer than its image
    ],
)
def test_coordinates_are_those_of_level_0(
    level0: tuple[int, int], expected: tuple[float, float], tmp_path: Path
) -> None:
    levels = (Level(level0), Level((20, 30)))
    labels = np.zeros((20, 30), np.uint8)
    labels[0, 1] = 1
    write_geojson(finished(labels, image_levels=levels), tmp_path / "m.geojson")
    (feature,) = read_features(tmp_path / "m.geojson")
    y, x = expected
    (ring,) = feature["geometry"]["coordinates"]
    assert max(point[1] for point in ring) == y
    assert min(point[0] for point in ring) == x


def test_a_mask_without_regions_has_no_features(tmp_path: Path) -> None:
    labels = np.array([[0, 255]], np.uint8)
    write_geojson(finished(labels), tmp_path / "m.geojson")
    assert read_features(tmp_path / "m.geojson") == []
