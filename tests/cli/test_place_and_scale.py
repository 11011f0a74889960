"""Images that know where they lie, how large their pixels are, and which of them hold no data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from tile_infer.cli.options import nodata_of

from ..engine.geotiffs import write_geotiff
from .conftest import Run
from .test_usage import assert_one_error


def halves(nodata: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Dark and bright columns, and four rows of ten without data."""
    pixels = np.full((40, 60), 50, np.uint8)
    pixels[:, 30:] = 200
    pixels[:16] = nodata
    return pixels


def test_the_tif_lies_where_the_image_does(run: Run, bright: Path, tmp_path: Path) -> None:
    pixels = [halves(), halves()[::2, ::2]]
    image = write_geotiff(tmp_path / "a.tif", pixels, size=(20.0, 10.0), nodata="0")
    for level in ("0", "1"):
        done = run(
            image, "--model", bright, "--level", level, "--out", f"{level}.zarr",
            "--also", f"{level}.tif",
        )  # fmt: skip
        assert done.code == 0, done.err
        factor = 1 + int(level)
        with tifffile.TiffFile(f"{level}.tif") as tiff:
            tags = tiff.pages[0].tags
            assert tags[33550].value == (10.0 * factor, 20.0 * factor, 0.0)
            assert tags[33922].value == (0.0, 0.0, 0.0, 500_000.0, 5_600_000.0, 0.0)
            assert tags[42113].value == "255"
            assert tiff.geotiff_metadata["ProjectedCSTypeGeoKey"] == 32633
            labels = tiff.asarray()
        empty = 16 // factor
        assert (labels[:empty] == 255).all()
        assert (labels[empty:] == (pixels[int(level)][empty:] > 127)).all()


def test_nodata_is_told_and_left_out_of_the_shares(run: Run, bright: Path, tmp_path: Path) -> None:
    image = write_geotiff(tmp_path / "a.tif", [halves()], nodata="0")
    done = run(image, "--model", bright, "--report", "r.json", "--preview", "p.png")
    assert done.code == 0
    assert "note: pixels of 0 hold no data, as a.tif says" in done.err
    assert "use --nodata none where that is wrong" in done.err
    lines = [line.split() for line in done.out.splitlines()]
    assert ["nodata", "40.00", "%"] in [line[:3] for line in lines]
    assert ["class", "1", "50.00", "%"] in [line[:4] for line in lines]
    report: dict[str, Any] = json.loads(Path("r.json").read_text())
    assert report["nodata"] == {"pixels": 960, "share": 0.4}


def test_a_wrong_tag_is_switched_off_or_replaced(run: Run, bright: Path, tmp_path: Path) -> None:
    image = write_geotiff(tmp_path / "a.tif", [halves()], nodata="0")

    def counted(*options: str) -> list[int]:
        done = run(image, "--model", bright, "--overwrite", *options)
        assert done.code == 0, done.err
        labels = np.asarray(zarr.open_array("a.bright.zarr/0", mode="r")[:])
        return [int((labels == label).sum()) for label in (0, 1, 255)]

    assert counted() == [720, 720, 960]
    assert counted("--nodata", "none") == [1680, 720, 0]
    assert counted("--nodata", "200") == [1680, 0, 720]


def test_a_negative_value_is_no_option(run: Run, bright: Path, tmp_path: Path) -> None:
    pixels = np.where(halves() == 0, np.int16(-9999), np.int16(30000))
    image = write_geotiff(tmp_path / "a.tif", [pixels])
    for option in (["--nodata", "-9999"], ["--nodata=-9999"]):
        done = run(image, "--model", bright, "--report", "r.json", "--overwrite", *option)
        assert done.code == 0, done.err
        assert json.loads(Path("r.json").read_text())["nodata"]["pixels"] == 960


def test_a_value_that_no_pixel_can_have_is_refused(run: Run, bright: Path, tmp_path: Path) -> None:
    image = write_geotiff(tmp_path / "a.tif", [halves()])
    done = run(image, "--model", bright, "--nodata", "-9999")
    assert done.code == 2
    assert_one_error(done.err, "--nodata -9999 is not possible", "uint8")


@pytest.mark.parametrize("text", ["", "0,0", "off"])
def test_what_is_no_value_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no value of a pixel; write a number, or none"):
        nodata_of(text)
