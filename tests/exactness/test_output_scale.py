"""Guarantee 1 for networks whose mask is coarser or finer than the image."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from tile_infer import inspect_network, plan_prediction, predict_large

from .scaled_networks import Scaled, scaled_networks
from .seeded_networks import export, textured, unit
from .whole_pass import assert_whole_pass, logit_error

NAMES = list(scaled_networks())
SIZES = [(1, 1), (2, 3), (63, 500), (301, 277), (640, 129)]


@cache
def network(name: str) -> Scaled:
    return scaled_networks()[name]


def check(scaled: Scaled, model: Any, image: NDArray[np.generic], **options: Any) -> None:
    found = predict_large(
        image, model, axes="YXC", output="logits", normalize="unit", workers=2, **options
    )
    assert found.plan.exact
    assert_whole_pass(found.logits, found, scaled.whole_pass(unit(image)))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_a_mask_of_another_scale_is_that_of_one_whole_pass(
    name: str, size: tuple[int, int]
) -> None:
    scaled = network(name)
    check(scaled, scaled.module, textured(*size))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tile", [(64, 64), (96, 128), None], ids=str)
def test_onnx_files_of_fixed_and_free_size_too(
    name: str, tile: tuple[int, int] | None, tmp_path: Path
) -> None:
    scaled = network(name)
    path = export(scaled.module, tmp_path / "scaled.onnx", 1, tile)
    check(scaled, path, textured(263, 190))


@pytest.mark.parametrize(("name", "tile"), [("half", 92), ("valid half", 96), ("twice", 100)])
def test_a_stated_tile_gives_the_same_mask(name: str, tile: int) -> None:
    check(network(name), network(name).module, textured(200, 233), tile=tile)


def test_tiles_at_another_phase_than_the_period_says_are_wrong() -> None:
    scaled, image = network("half"), unit(textured(200, 200))
    right = scaled.whole_pass(image)
    shifted = scaled.whole_pass(np.roll(image, -2, axis=0))[:, :-20]  # two px: a pixel of mask
    assert logit_error(shifted, right[:, 1:-19]) > 0.01


@pytest.mark.parametrize(
    ("name", "scale", "period", "step"),
    [
        ("half", "1/2", 4, 4),
        ("eighth", "1/8", 8, 8),
        ("valid stem", "1/2", 2, 2),
        ("twice", "2", 2, 2),
        ("valid twice", "2", 1, 1),
        ("thrice", "3", 1, 1),
    ],
)
def test_scale_period_and_step_are_measured(name: str, scale: str, period: int, step: int) -> None:
    axis = inspect_network(network(name).module).geometry.x
    assert (str(axis.scale), axis.period, axis.step) == (scale, period, step)


class Repeat(nn.Module):
    """Returns each pixel four times."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def test_a_pixel_of_mask_lies_on_its_pixel_of_image() -> None:
    image = np.random.default_rng(0).integers(0, 255, (300, 201), "uint8")
    twice = predict_large(image, Repeat(), output="logits", normalize="none", activation="none")
    assert np.array_equal(np.asarray(twice.logits)[0], image.repeat(2, 0).repeat(2, 1))
    half = predict_large(
        image, nn.AvgPool2d(2), output="logits", normalize="none", activation="none"
    )
    padded = np.pad(image.astype(np.float32), ((0, 0), (0, 1)), mode="reflect")
    means = padded.reshape(150, 2, 101, 2).mean(axis=(1, 3))
    assert np.array_equal(np.asarray(half.logits)[0], means)


def test_pixel_size_area_and_shape_are_those_of_the_mask(tmp_path: Path) -> None:
    import tifffile

    image = textured(700, 900)
    tifffile.imwrite(
        tmp_path / "image.ome.tif",
        image[..., 0],
        metadata={"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25},
    )
    found = predict_large(tmp_path / "image.ome.tif", network("half").module)
    ome: Any = found.group.attrs["ome"]
    transformation = ome["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]
    assert transformation["scale"] == [0.5, 1.0]
    assert found.mask.shape == (350, 450)
    assert sum(entry["area"] for entry in found.report["classes"]) == pytest.approx(
        700 * 0.25 * 900 * 0.5
    )


def test_without_a_pixel_size_the_unit_is_a_pixel_of_the_image() -> None:
    found = predict_large(textured(70, 90)[..., 0], network("twice").module)
    ome: Any = found.group.attrs["ome"]
    transformation = ome["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]
    assert transformation["scale"] == [0.5, 0.5]


@pytest.mark.parametrize("name", ["half", "twice", "eighth"])
def test_the_corner_of_the_mask_lies_on_that_of_the_image(name: str) -> None:
    found = predict_large(textured(1700, 2090)[..., 0], network(name).module)
    ome: Any = found.group.attrs["ome"]
    for dataset in ome["multiscales"][0]["datasets"]:
        scale, translation = dataset["coordinateTransformations"]
        corner = np.subtract(translation["translation"], np.divide(scale["scale"], 2))
        assert corner.tolist() == [-0.5, -0.5]


def test_a_network_that_cannot_be_tiled_exactly_is_blended_at_its_scale() -> None:
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.MaxPool2d(2), nn.Conv2d(4, 2, 1)
    )
    with pytest.warns(match="cannot be tiled exactly"):
        found = predict_large(textured(700, 410)[..., 0], module, output="probabilities")
    assert found.plan.blend == "hann"
    assert found.mask.shape == (350, 205)
    assert np.allclose(np.asarray(found.probabilities).sum(axis=0), 1, atol=2e-3)


def test_redundancy_counts_work_and_not_pixels() -> None:
    plan = plan_prediction(np.zeros((4000, 4000), "uint8"), network("eighth").module)
    assert 1 <= plan.redundancy < 1.6


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (nn.Upsample(scale_factor=1.5), "scale of n or 1/n"),
        (nn.Upsample(scale_factor=(2, 1)), "scale of n or 1/n, the same along both"),
    ],
)
def test_other_scales_are_refused(module: nn.Module, text: str) -> None:
    from tile_infer import ModelError

    with pytest.raises(ModelError, match=text):
        inspect_network(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), module))
