"""Images that know where they lie, how large their pixels are, and which of them hold no data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from tile_infer.cli.options import micrometers_of, nodata_of

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


@pytest.mark.parametrize(
    ("text", "micrometers"),
    [
        ("0.5", 0.5),
        ("0.5um", 0.5),
        ("0.5 \u00b5m", 0.5),
        (".25 UM", 0.25),
        ("250nm", 0.25),
        ("30cm", 300_000),
        ("0.3m", 300_000),
        ("10 metre", 1e7),
    ],
)
def test_a_pixel_is_measured_in_micrometers_or_in_what_is_said(
    text: str, micrometers: float
) -> None:
    assert micrometers_of(text) == pytest.approx(micrometers, rel=1e-12)


@pytest.mark.parametrize(
    "text", ["", "um", "0.5 px", "-1", "0.5x0.5", "1,5", "30 cm2", "0.0001deg"]
)
def test_what_is_no_length_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no size of a pixel; write micrometers like 0\.5"):
        micrometers_of(text)


def test_mpp_chooses_the_level_in_any_unit(run: Run, bright: Path, tmp_path: Path) -> None:
    pixels = [halves(), halves()[::2, ::2], halves()[::4, ::4]]
    image = write_geotiff(tmp_path / "a.tif", pixels, size=(0.15, 0.15))
    for size, shape in (("15cm", (40, 60)), ("0.3m", (20, 30)), ("600000", (10, 15))):
        done = run(image, "--model", bright, "--mpp", size, "--out", "m.zarr", "--overwrite")
        assert done.code == 0, done.err
        assert zarr.open_array("m.zarr/0", mode="r").shape == shape
    done = run("plan", image, "--model", bright, "--mpp", "20cm")
    assert done.code == 2
    assert_one_error(
        done.err,
        "--mpp 200000: no level of a.tif has pixels within 10 % of 20 cm",
        "0 (40 x 60 px of 15 cm), 1 (20 x 30 px of 30 cm), 2 (10 x 15 px of 60 cm)",
        "use --level N, or --mpp-image X",
    )


def test_a_size_that_the_image_lacks_is_given(run: Run, bright: Path, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", halves())
    refused = run("a.tif", "--model", bright, "--mpp", "0.5")
    assert refused.code == 2
    assert_one_error(refused.err, "--mpp 0.5 needs an image that states", "--mpp-image X")
    done = run(
        "a.tif", "--model", bright, "--mpp", "0.5", "--mpp-image", "500nm", "--also", "a.ome.tif"
    )
    assert done.code == 0, done.err
    assert "180 um2" in done.out  # 720 px of 0.5 um x 0.5 um
    with tifffile.TiffFile("a.ome.tif") as tiff:
        pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
    assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeXUnit"]) == (0.5, "\u00b5m")


def test_mpp_and_level_contradict(run: Run, bright: Path, tmp_path: Path) -> None:
    image = write_geotiff(tmp_path / "a.tif", [halves()])
    done = run(image, "--model", bright, "--mpp", "10m", "--level", "0")
    assert done.code == 2
    assert_one_error(done.err, "--mpp and --level contradict")
