"""Every pixel lands where it belongs: networks that hand their input's coordinates through."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tile_infer import TileInferError, TileInferWarning, predict_large
from tile_infer.tiler.errors import NumericError

from .run_plan import tree
from .seeded_networks import export, textured
from .whole_pass import Shape, logit_error, mirrored, whole_pass

MARGIN = 13


class FarCorners(nn.Module):
    """Returns the pixels ``MARGIN`` up and left of each output pixel, and those down and right."""

    def forward(self, x: Tensor) -> Tensor:
        before, after = x[:, :, : -2 * MARGIN, : -2 * MARGIN], x[:, :, 2 * MARGIN :, 2 * MARGIN :]
        return torch.cat([before, after], dim=1)


def coordinates(height: int, width: int) -> NDArray[np.uint16]:
    y, x = np.mgrid[:height, :width]
    return np.stack([y, x, (y * 251 + x * 17) % 65521], axis=2).astype(np.uint16)


def expected(image: NDArray[np.uint16]) -> NDArray[np.float32]:
    height, width = image.shape[:2]
    y, x = mirrored(height, MARGIN, MARGIN), mirrored(width, MARGIN, MARGIN)
    corners = [image[y[o : o + height]][:, x[o : o + width]] for o in (0, 2 * MARGIN)]
    return np.concatenate(corners, axis=2).transpose(2, 0, 1).astype(np.float32)


SHAPES = [(5, 6), (300, 9), (90, 131), (1100, 133)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("tile", [None, (64, 200), (301, 47)], ids=str)
def test_pixels_stay_where_they_are(shape: tuple[int, int], tile: tuple[int, int] | None) -> None:
    image = coordinates(*shape)
    found = predict_large(
        image, FarCorners(), tile=tile, normalize="none", output="logits", workers=2
    )
    assert found.logits is not None
    np.testing.assert_array_equal(found.logits, expected(image))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", [None, (100, 57)], ids=str)
def test_pixels_stay_where_they_are_in_onnx_and_from_tiff(
    tmp_path: Path, shape: tuple[int, int], size: tuple[int, int] | None
) -> None:
    model = export(FarCorners(), tmp_path / "corners.onnx", 3, size)
    image = coordinates(*shape)
    path = tmp_path / "coordinates.tif"
    tifffile.imwrite(path, image, tile=(64, 48), photometric="rgb", compression="zlib")
    found = predict_large(path, model, normalize="none", output="logits", workers=2)
    assert found.logits is not None
    np.testing.assert_array_equal(found.logits, expected(image))
    assert np.array_equal(found, expected(image).argmax(axis=0))


@pytest.mark.parametrize(("kind", "overlap"), [("hann", 0.5), ("gaussian", 0.7), ("none", 0.4)])
@pytest.mark.parametrize("shape", [(5, 6), (7, 300), (190, 131)], ids=str)
def test_pixels_stay_where_they_are_when_tiles_are_blended(
    kind: Any, overlap: float, shape: tuple[int, int]
) -> None:
    image = coordinates(*shape) % 1009  # float16 holds these
    found = predict_large(
        image,
        FarCorners(),
        tile=(64, 101),
        blend=kind,
        overlap=overlap,
        normalize="none",
        activation="none",
        output="probabilities",
        workers=2,
    )
    assert found.probabilities is not None
    np.testing.assert_array_equal(found.probabilities, expected(image))


def test_channels_are_taken_in_the_order_asked_for() -> None:
    image = coordinates(40, 50)
    found = predict_large(
        image, FarCorners(), channels=(2, 0), normalize="none", output="logits", workers=2
    )
    assert found.logits is not None
    np.testing.assert_array_equal(found.logits, expected(image[:, :, [2, 0]]))


class Rimmed(nn.Module):
    """A zero-padded convolution whose outermost ``rim`` output pixels are NaN."""

    def __init__(self, rim: int) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.rim = rim
        self.convolution = nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        inside = self.convolution(x)[:, :, self.rim : -self.rim, self.rim : -self.rim]
        return nn.functional.pad(inside, [self.rim] * 4, value=float("nan"))


@pytest.mark.parametrize("size", [None, (64, 80)], ids=str)
@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_what_stands_outside_the_core_never_leaks(
    tmp_path: Path, form: str, size: tuple[int, int] | None
) -> None:
    module = Rimmed(9)
    model: Any = export(module, tmp_path / "rim.onnx", 1, size) if form == "onnx" else module
    image = textured(203, 310, dtype="float32")
    options = {"tile": size} if form == "torch" and size else {}
    with pytest.warns(TileInferWarning, match="halo=9 px as asked"):
        found = predict_large(image[:, :, 0], model, halo=9, output="logits", workers=2, **options)  # type: ignore[arg-type]
    assert found.logits is not None
    logits = np.asarray(found.logits)
    assert np.isfinite(logits).all()
    reference = whole_pass(module.convolution, image, Shape(0, 1, 8, 8))  # type: ignore[arg-type]
    assert logit_error(logits, reference) < 1e-6


@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_a_halo_one_pixel_short_is_refused(tmp_path: Path, form: str) -> None:
    module = Rimmed(9)
    model: Any = export(module, tmp_path / "rim.onnx", 1) if form == "onnx" else module
    image = textured(203, 310, dtype="float32")[:, :, 0]
    with pytest.raises(TileInferError):
        predict_large(image, model, halo=8, workers=2)
    with pytest.raises(TileInferError):
        predict_large(image, model, workers=2)


def valid_convolution() -> nn.Module:
    torch.manual_seed(1)
    return nn.Conv2d(1, 3, 3)


@pytest.mark.parametrize("broken", [-np.inf, np.inf])
@pytest.mark.parametrize(("place", "spoiled"), [((10, 3210), 9), ((0, 0), 4), ((19, 3210), 6)])
@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_infinity_inside_fails_with_block_and_count(
    tmp_path: Path, form: str, place: tuple[int, int], spoiled: int, broken: float
) -> None:
    module = valid_convolution()
    model: Any = export(module, tmp_path / "net.onnx", 1) if form == "onnx" else module
    image = textured(20, 5000, dtype="float32")[:, :, 0]
    image[place] = broken
    out = tmp_path / "mask.zarr"
    with pytest.raises(NumericError) as caught:
        predict_large(image, model, out, workers=2)
    text = str(caught.value)
    assert f"NaN or infinity for {spoiled} pixels of block " in text
    assert "\n" not in text
    block = int(text.split(" of block ")[1].split()[0])
    first, last = map(int, text.split(", ")[1].split(")")[0].split(":"))
    assert first <= place[1] < last
    assert f"tile_infer/records/c/{block}/0" not in tree(out)
    with pytest.raises(NumericError, match=f"block {block}"):
        predict_large(image, model, out, workers=2)


@pytest.mark.parametrize("broken", [np.inf, -np.inf])
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_infinity_inside_fails_where_tiles_are_blended_too(
    tmp_path: Path, form: str, classes: int, broken: float
) -> None:
    torch.manual_seed(1)
    module = nn.Conv2d(1, classes, 3)
    model: Any = export(module, tmp_path / "net.onnx", 1) if form == "onnx" else module
    image = textured(60, 70, dtype="float32")[:, :, 0]
    image[30, 40] = broken
    with pytest.raises(NumericError, match="for 9 pixels of block 0"):
        predict_large(image, model, blend="hann", tile=(34, 34), workers=2)
