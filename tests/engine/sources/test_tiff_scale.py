from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from tile_infer.engine.sources import open_source
from tile_infer.engine.sources.tiff import TiffSource


def pixel_size(path: Path, **options: Any) -> tuple[float, float] | None:
    tifffile.imwrite(path / "a.tif", np.zeros((20, 30), np.uint8), **options)
    source = TiffSource(path / "a.tif")
    source.close()
    size = source.facts.levels[0].pixel_size
    assert source.facts.unit == (None if size is None else "micrometer")
    return size


def test_resolution_per_centimeter_and_inch_is_understood(tmp_path: Path) -> None:
    size = pixel_size(tmp_path, resolution=(40_000, 20_000), resolutionunit="CENTIMETER")
    assert size == pytest.approx((0.5, 0.25))
    size = pixel_size(tmp_path, resolution=(50_800, 50_800), resolutionunit="INCH")
    assert size == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize("dpi", [72, 96, 150, 300, 1])
def test_print_resolutions_are_no_pixel_size(tmp_path: Path, dpi: int) -> None:
    assert pixel_size(tmp_path, resolution=(dpi, dpi), resolutionunit="INCH") is None


def test_print_resolution_in_centimeters_is_no_pixel_size(tmp_path: Path) -> None:
    resolution = (72 / 2.54, 72 / 2.54)
    assert pixel_size(tmp_path, resolution=resolution, resolutionunit="CENTIMETER") is None


def test_resolution_without_unit_is_no_pixel_size(tmp_path: Path) -> None:
    assert pixel_size(tmp_path, resolution=(40_000, 40_000), resolutionunit="NONE") is None
    assert pixel_size(tmp_path) is None


def test_aperio_description_gives_micrometers_per_pixel(tmp_path: Path) -> None:
    text = "Aperio Image Library v11.2.1 \n30x20 -> 30x20|AppMag = 20|MPP = 0.4990|Left = 1"
    assert pixel_size(tmp_path, description=text, metadata=None) == (0.499, 0.499)


def test_imagej_unit_gives_the_scale_of_its_resolution(tmp_path: Path) -> None:
    size = pixel_size(tmp_path, imagej=True, resolution=(4, 2), metadata={"unit": "um"})
    assert size == pytest.approx((0.5, 0.25))


def test_ome_size_in_an_unknown_unit_is_no_pixel_size(tmp_path: Path) -> None:
    def size(unit: str) -> tuple[float, float] | None:
        metadata = {"PhysicalSizeX": 2.0, "PhysicalSizeY": 3.0, "axes": "YX"}
        metadata |= {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
        return pixel_size(tmp_path, ome=True, metadata=metadata)

    assert size("pixel") is None
    assert size("mm") == (3000.0, 2000.0)


def test_the_thumbnail_of_a_slide_has_not_the_pixels_of_its_scan(tmp_path: Path) -> None:
    text = "Aperio Image Library v11.2.1 \n60x40 (0,0 60x40) -> 30x20|AppMag = 20|MPP = 0.5"
    with tifffile.TiffWriter(tmp_path / "a.svs") as tiff:
        for size, tile in (((40, 60), (16, 16)), ((20, 30), None)):
            pixels = np.zeros((*size, 3), np.uint8)
            tiff.write(pixels, tile=tile, description=text, metadata=None, photometric="rgb")
    found = []
    for number in (0, 1):
        with closing(open_source(tmp_path / "a.svs", series=number)) as source:
            found.append(source.facts.levels[0].pixel_size)
    assert found == [(0.5, 0.5), None]
