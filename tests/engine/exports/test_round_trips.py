"""Masks read back by libraries of others: shapely, tifffile, ome-types and ome-zarr-models."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import ome_types
import pytest
import shapely
import tifffile
import zarr
from numpy.typing import NDArray
from ome_types.model import UnitsLength
from ome_zarr_models.v05 import Image
from torch import nn

from tile_infer import predict_large
from tile_infer.engine.prediction import Prediction
from tile_infer.engine.sources.base import Level

from .finished_masks import finished, read_features

CHUNK = 64
NAMES = ["none", "tumour", "stroma", "vessel"]

Mask = NDArray[np.uint8]


def hard_mask() -> Mask:
    """Return what outlines have trouble with, across the borders of chunks and of levels."""
    random = np.random.default_rng(11)
    labels = np.kron(random.integers(0, 4, (110, 110)), np.ones((10, 10))).astype(np.uint8)
    labels[:150, :330] = 0
    y, x = np.indices((150, 150))
    radius = np.hypot(y - 70, x - 70)
    for outer, label in ((68, 1), (55, 0), (40, 2), (30, 1), (20, 3), (12, 255), (5, 1)):
        labels[:150, :150][radius < outer] = label  # islands in holes in islands
    labels[20:110, 180:300] = 1
    labels[CHUNK : 2 * CHUNK, 192:256] = 2  # one whole chunk
    labels[30:40, 182:298:2] = 255
    labels[CHUNK - 1, 150:330] = labels[CHUNK, 150:330] = 3  # along a border of chunks
    labels[200:300, 200:300] = random.integers(0, 4, (100, 100))
    labels[400:500, 400:500] = np.where(random.random((100, 100)) < 0.1, 255, 1)
    labels[600:700, 600:700] = np.indices((100, 100)).sum(axis=0) % 2 + 1  # corners that touch
    labels[-1, ::3] = labels[::3, -1] = 2
    return labels


@pytest.fixture(scope="module")
def prediction() -> Prediction:
    return finished(
        hard_mask(),
        CHUNK,
        names=NAMES,
        image_levels=(Level((1100, 1100), (0.5, 0.25)),),
        unit="micrometer",
    )


@pytest.fixture(scope="module")
def features(prediction: Prediction, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    path = tmp_path_factory.mktemp("geojson") / "m.geojson"
    prediction.export(path)
    return read_features(path)


def rasterised(features: list[Any], shape: tuple[int, int]) -> Mask:
    """Return the labels whose polygon covers each pixel's centre; 200 where two do."""
    labels = np.zeros(shape, np.uint8)
    for feature in features:
        polygon = shapely.geometry.shape(feature["geometry"])
        left, top, right, bottom = (int(side) for side in polygon.bounds)
        y, x = np.mgrid[top:bottom, left:right] + 0.5
        shapely.prepare(polygon)
        inside = shapely.contains_xy(polygon, x, y)
        part = labels[top:bottom, left:right]
        label = NAMES.index(feature["properties"]["classification"]["name"])
        part[inside] = np.where(part[inside] == 0, label, 200)
    return labels


def polygons_of(labels: Mask) -> Mask:
    return np.where(labels == 255, 0, labels)


def test_polygons_rasterised_again_are_the_mask(features: list[Any]) -> None:
    labels = polygons_of(hard_mask())
    again = rasterised(features, (1100, 1100))
    np.testing.assert_array_equal(again, labels)
    for axis in (0, 1):
        assert (again != np.roll(labels, 1, axis)).any(), "a shift would be seen"


def test_polygons_without_their_holes_are_not_the_mask(features: list[Any]) -> None:
    filled = deepcopy(features)
    for feature in filled:
        del feature["geometry"]["coordinates"][1:]
    assert (rasterised(filled, (1100, 1100)) == 200).any()


def test_polygons_are_valid_and_wound_as_the_standard_says(
    features: list[Any],
) -> None:
    for feature in features:
        polygon = shapely.geometry.shape(feature["geometry"])
        assert polygon.is_valid, shapely.is_valid_reason(polygon)
        assert polygon.exterior.is_ccw
        assert not any(ring.is_ccw for ring in polygon.interiors)


def test_polygons_of_a_lower_level_cover_its_pixels_at_level_0(tmp_path: Path) -> None:
    labels = hard_mask()[:300, :150]
    levels = (Level((1200, 300)), Level((300, 150)))
    finished(labels, CHUNK, names=NAMES, image_levels=levels).export(tmp_path / "m.geojson")
    again = rasterised(read_features(tmp_path / "m.geojson"), (1200, 300))
    expected = np.kron(polygons_of(labels), np.ones((4, 2), np.uint8))
    np.testing.assert_array_equal(again, expected)


@pytest.mark.parametrize("name", ["m.ome.tif", "m.tif"])
def test_every_level_of_a_tiff_is_that_of_the_mask(
    prediction: Prediction, name: str, tmp_path: Path
) -> None:
    prediction.export(tmp_path / name)
    stored = [np.asarray(array[:]) for _, array in sorted(prediction.group.arrays())]
    with tifffile.TiffFile(tmp_path / name) as tiff:
        first = tiff.pages[0]
        lower = first.pages if name == "m.ome.tif" else tiff.pages[1:]
        assert (first.subifds is None) == (name == "m.tif")
        found = [page.asarray() for page in (first, *lower)]
    assert [level.shape for level in found] == [(1100, 1100), (550, 550)]
    for level, expected in zip(found, stored, strict=True):
        np.testing.assert_array_equal(level, expected)
        assert (level != np.roll(expected, 1, axis=1)).any(), "a shift would be seen"


def test_ome_types_reads_sizes_and_class_names(prediction: Prediction, tmp_path: Path) -> None:
    prediction.export(tmp_path / "m.ome.tif")
    found = ome_types.from_tiff(tmp_path / "m.ome.tif")
    (image,) = found.images
    pixels = image.pixels
    assert (pixels.size_y, pixels.size_x, pixels.size_c) == (1100, 1100, 1)
    assert (pixels.physical_size_y, pixels.physical_size_x) == (0.5, 0.25)
    assert pixels.physical_size_y_unit == pixels.physical_size_x_unit == UnitsLength.MICROMETER
    assert found.structured_annotations is not None
    (annotation,) = found.structured_annotations.map_annotations
    assert dict(annotation.value) == {str(label): name for label, name in enumerate(NAMES)}
    assert image.annotation_refs[0].id == annotation.id


@pytest.fixture
def stored(tmp_path: Path) -> zarr.Group:
    """A mask on disk, by a network that says 1 where its input is above a half."""
    network = nn.Conv2d(1, 1, 1)
    nn.init.ones_(network.weight)
    nn.init.constant_(network.bias, -0.5)  # type: ignore[arg-type]
    image = (hard_mask() == 1).astype(np.float32)
    predict_large(image, network, tmp_path / "m.zarr")
    return zarr.open_group(tmp_path / "m.zarr", mode="r+")


def test_the_mask_is_a_valid_ome_zarr_image(stored: zarr.Group) -> None:
    multiscale = Image.from_zarr(stored).attributes.ome.multiscales[0]
    assert [axis.name for axis in multiscale.axes] == ["y", "x"]
    assert [dataset.path for dataset in multiscale.datasets] == ["0", "1"]
    assert (np.asarray(stored["0"]) == (hard_mask() == 1)).all()


@pytest.mark.parametrize("wrong", ["axes", "missing", "version"])
def test_attributes_that_are_wrong_are_found_invalid(stored: zarr.Group, wrong: str) -> None:
    ome: Any = dict(stored.attrs)["ome"]
    if wrong == "version":
        ome["version"] = "0.4"
    elif wrong == "axes":
        ome["multiscales"][0]["axes"].pop()
    else:
        ome["multiscales"][0]["datasets"][1]["path"] = "missing"
    stored.attrs["ome"] = ome
    with pytest.raises(ValueError, match=wrong):
        Image.from_zarr(stored)
