"""Pixels that cannot be decoded stop a run, or are left out and named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import zarr
from torch import nn
from zarr.core.indexing import OIndex

from tile_infer import ImageError, Prediction, predict_large
from tile_infer.engine.conduct import Conduct
from tile_infer.engine.sources import open_source
from tile_infer.engine.sources.tiff import TiffSource
from tile_infer.engine.unread import marked, read_rest
from tile_infer.tiler.box import Box
from tile_infer.tiler.errors import SettingError

SHAPE = (700, 900)
IMAGE = np.random.default_rng(0).integers(0, 255, SHAPE, np.uint8)
BROKEN = [Box.of(128, 256, 640, 768), Box.of(640, 700, 0, 128)]
HALO = 2


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))


def tiff(folder: Path) -> Path:
    """Write an image of which two tiles are no longer what they were."""
    path = folder / "image.tif"
    tifffile.imwrite(path, IMAGE, tile=(128, 128), compression="zlib")
    with tifffile.TiffFile(path) as file:
        offsets, columns = file.pages.first.dataoffsets, -(-SHAPE[1] // 128)
    with path.open("r+b") as raw:
        for box in BROKEN:
            raw.seek(offsets[box.y.start // 128 * columns + box.x.start // 128])
            raw.write(b"\0" * 64)
    return path


def chunked(folder: Path) -> Path:
    path = folder / "image.zarr"
    array = zarr.create_array(path, shape=SHAPE, chunks=(128, 128), dtype="uint8")
    array[:] = IMAGE
    for box in BROKEN:
        chunk = path / "c" / str(box.y.start // 128) / str(box.x.start // 128)
        chunk.write_bytes(chunk.read_bytes()[:20])
    return path


@pytest.fixture(params=[tiff, chunked])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    made: Path = request.param(tmp_path)
    return made


def check(found: Prediction, expected: Prediction) -> None:
    """Compare with the mask of the unharmed image."""
    labels, whole = np.asarray(found), np.asarray(expected)
    near = np.zeros(SHAPE, np.bool_)
    for box in BROKEN:
        assert (labels[box.slices] == 255).all()
        y, x = box
        near[max(0, y.start - HALO) : y.stop + HALO, max(0, x.start - HALO) : x.stop + HALO] = True
    np.testing.assert_array_equal(labels[~near], whole[~near])
    lost = sum(height * width for height, width in (box.shape for box in BROKEN))
    assert (labels == 255).sum() == lost
    report = found.report
    places = [{"y": list(box.y.ends), "x": list(box.x.ends)} for box in BROKEN]
    assert report["unread"] == {"pixels": lost, "level": 0, "places": places}
    assert report["nodata"]["pixels"] == 0
    assert sum(each["pixels"] for each in report["classes"]) == IMAGE.size - lost
    assert sum(each["share"] for each in report["classes"]) == pytest.approx(1, abs=1e-5)
    ours: Any = found.group.attrs["tile_infer"]
    assert ours["unread"] == places


def test_a_place_that_cannot_be_decoded_stops_the_run(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"level 0, pixels y \d+:\d+, x \d+:\d+ cannot be read"):
        predict_large(path, network(), tmp_path / "mask.zarr", tile=(132, 132))


def test_filled_places_are_labelled_and_named(path: Path, tmp_path: Path) -> None:
    out, expected = tmp_path / "mask.zarr", predict_large(IMAGE, network())
    found = predict_large(path, network(), out, on_read_error="fill")
    check(found, expected)
    again = predict_large(path, network(), out)
    assert again.report["blocks_run"] == 0
    check(again, expected)  # another start tells the same


def test_a_run_that_a_broken_place_stopped_goes_on_with_fill(path: Path, tmp_path: Path) -> None:
    out, expected = tmp_path / "mask.zarr", predict_large(IMAGE, network())
    with pytest.raises(ImageError):
        predict_large(path, network(), out, tile=(132, 132), workers=1)
    found = predict_large(path, network(), out, tile=(132, 132), on_read_error="fill")
    check(found, expected)


def test_an_image_without_a_fault_is_as_ever(tmp_path: Path) -> None:
    whole = predict_large(IMAGE, network())
    filled = predict_large(IMAGE, network(), on_read_error="fill")
    np.testing.assert_array_equal(np.asarray(whole), np.asarray(filled))
    assert filled.report["unread"] == {"pixels": 0, "level": 0, "places": []}
    ours: Any = filled.group.attrs["tile_infer"]
    assert "unread" not in ours


def test_what_is_around_a_broken_segment_is_read(tmp_path: Path) -> None:
    source = open_source(tiff(tmp_path))
    box = Box.of(100, 300, 600, 900)
    pixels, places = read_rest(source, 0, box, (0,))
    assert places == (BROKEN[0],)
    expected = IMAGE[box.slices].copy()
    gone = marked(places, box)
    assert gone is not None
    assert gone.sum() == 128 * 128
    expected[gone] = 0
    np.testing.assert_array_equal(pixels[..., 0], expected)
    assert read_rest(source, 0, Box.of(0, 100, 0, 100), (0,))[1] == ()
    assert marked((), box) is None


@pytest.mark.parametrize("make", [tiff, chunked])
def test_memory_that_runs_out_is_no_fault_of_the_image(
    make: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path)

    def too_large(*arguments: Any, **named: Any) -> Any:
        raise MemoryError

    source = open_source(path)
    if isinstance(source, TiffSource):
        monkeypatch.setattr(source._levels[0][0], "_decode", too_large)
    monkeypatch.setattr(OIndex, "__getitem__", too_large)
    with pytest.raises(ImageError, match="cannot be read: MemoryError"):
        read_rest(source, 0, Box.of(0, 100, 0, 100), (0,))


class Unsteady(nn.Module):
    """Gives NaN where a pixel is 255."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.cat([pixels, torch.where(pixels == 1, torch.nan, 1 - pixels)], dim=1)


def test_nan_stops_a_run_or_is_counted_by_block(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (1100, 1300), np.uint8)
    image[:50, :40] = 255
    image[900, 1250] = 255
    out = tmp_path / "mask.zarr"
    with pytest.raises(ArithmeticError, match=r"NaN or infinity for \d+ pixels of block \d+ "):
        predict_large(image, Unsteady(), out, tile=(512, 512))
    found = predict_large(image, Unsteady(), out, tile=(512, 512), on_nan="report")
    not_finite = found.report["not_finite"]
    assert not_finite["pixels"] == (image == 255).sum() == 2001
    assert [each["pixels"] for each in not_finite["blocks"]] == [2000, 1]
    np.testing.assert_array_equal(np.asarray(found) == 255, image == 255)
    assert sum(each["pixels"] for each in found.report["classes"]) == image.size - 2001


@pytest.mark.parametrize(
    ("named", "value"), [("on_nan", "fill"), ("on_read_error", "report"), ("verify", 1.5)]
)
def test_conduct_that_is_none_is_refused(named: str, value: Any) -> None:
    with pytest.raises(SettingError, match=f"{named}="):
        Conduct(**{named: value})
