"""Test-time augmentation: the mean of whole passes over the turned, mirror-extended image."""

from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from tile_infer import SettingError, plan_prediction, predict_large

from .scaled_networks import scaled_networks
from .seeded_networks import SeededUNet, export, seeded, textured, unit
from .whole_pass import Shape, label_of, mirrored

Tta = Literal["flips", "dihedral"]
WAYS: dict[Tta, list[tuple[bool, bool, bool]]] = {
    "flips": [(False, y, x) for y in (False, True) for x in (False, True)],
    "dihedral": [(t, y, x) for t in (False, True) for y in (False, True) for x in (False, True)],
}
ROUNDING = 1e-5
"""Of probabilities in single precision; those stored are float16."""


def turned_mean(
    module: nn.Module, image: NDArray[np.floating], shape: Shape, tta: Tta, *, off_by: int = 0
) -> NDArray[np.float64]:
    """Return the mean probabilities ``(class, y, x)`` of whole passes, worked out on the image.

    The extended image is the same for all: it is turned, run, and turned back.

    Args:
        module: The network.
        image: Normalised pixels ``(y, x, channel)``.
        shape: What the network does to sizes; it loses as much on either side.
        tta: Which turns.
        off_by: Pixels by which the turned image is out of phase.
    """
    lead = -(-shape.padding_reach // shape.period) * shape.period
    lengths = image.shape[:2]
    longest = max(lengths) + 2 * lead + 2 * shape.margin + shape.period
    size = shape.smallest + -(-(longest - shape.smallest) // shape.period) * shape.period
    for axis in (0, 1):
        length, before = lengths[axis], lead + shape.margin
        image = image.take(mirrored(length, before, size - length - before), axis=axis)
    total: NDArray[np.float64] | None = None
    for transpose, flip_y, flip_x in WAYS[tta]:
        turned = image.transpose(1, 0, 2) if transpose else image
        turned = turned[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
        if off_by and (flip_y or flip_x):
            turned = np.roll(turned, off_by, axis=(0, 1))
        pixels = torch.from_numpy(np.ascontiguousarray(turned.transpose(2, 0, 1)[None]))
        with torch.inference_mode():
            logits = module(pixels)[0].double()
        found = (logits.softmax(0) if len(logits) > 1 else logits.sigmoid()).numpy()
        if off_by and (flip_y or flip_x):
            found = np.roll(found, -off_by, axis=(1, 2))
        found = found[:, :: -1 if flip_y else 1, :: -1 if flip_x else 1]
        found = found.transpose(0, 2, 1) if transpose else found
        total = found if total is None else total + found
    assert total is not None
    kept = total[:, lead : lead + lengths[0], lead : lead + lengths[1]]
    return kept / len(WAYS[tta])


def found_by_engine(
    module: Any, image: NDArray[np.generic], tta: Tta, **options: Any
) -> tuple[NDArray[np.generic], NDArray[np.float16]]:
    found = predict_large(
        image,
        module,
        axes="YXC",
        tta=tta,
        output="probabilities",
        normalize="unit",
        workers=2,
        **options,
    )
    assert found.plan.exact
    return np.asarray(found), np.asarray(found.probabilities)


def check(
    labels: NDArray[np.generic], stored: NDArray[np.float16], mean: NDArray[np.float64]
) -> None:
    assert np.abs(stored - mean).max() <= 2**-11  # half a unit of float16 at 1
    both = np.concatenate([mean, 1 - mean]) if len(mean) == 1 else mean
    second, best = np.partition(both, -2, axis=0)[-2:]
    expected = (mean[0] > 0.5) if len(mean) == 1 else label_of(mean)
    assert not ((labels != expected) & (best - second > 2 * ROUNDING)).any()


@pytest.mark.parametrize("size", [(1, 1), (37, 400), (301, 277)], ids=str)
@pytest.mark.parametrize("tta", list(WAYS))
@pytest.mark.parametrize(
    ("depth", "padding", "classes"), [(2, 0, 3), (3, 1, 4), (3, 0, 1)], ids=str
)
def test_the_mean_of_turned_tiles_is_that_of_turned_whole_passes(
    depth: int, padding: int, classes: int, tta: Tta, size: tuple[int, int]
) -> None:
    module, image = seeded(depth, padding, classes=classes), textured(*size)
    labels, stored = found_by_engine(module, image, tta)
    check(labels, stored, turned_mean(module, unit(image), module.shape, tta))


@pytest.mark.parametrize("tta", list(WAYS))
def test_onnx_files_of_a_fixed_size_too(tta: Tta, tmp_path: Any) -> None:
    module, image = seeded(2, 0, channels=2), textured(250, 187, 2)
    path = export(module, tmp_path / "unet.onnx", 2, (140, 140))
    labels, stored = found_by_engine(path, image, tta)
    check(labels, stored, turned_mean(module, unit(image), module.shape, tta))


def test_flips_of_a_tile_that_is_not_square(tmp_path: Any) -> None:
    module, image = seeded(2, 0), textured(250, 187)
    path = export(module, tmp_path / "unet.onnx", 1, (140, 220))
    labels, stored = found_by_engine(path, image, "flips")
    check(labels, stored, turned_mean(module, unit(image), module.shape, "flips"))
    with pytest.raises(SettingError, match="only square tiles can be transposed"):
        plan_prediction(image[..., 0], path, tta="dihedral")


def test_turned_tiles_of_another_phase_would_show() -> None:
    module, image = seeded(3, 0), unit(textured(301, 277))
    right = turned_mean(module, image, module.shape, "flips")
    wrong = turned_mean(module, image, module.shape, "flips", off_by=4)
    assert np.abs(right - wrong).max() > 100 * 2**-11


class Lopsided(nn.Module):
    """Sees three pixels to the left and none to the right, with zeros beyond its tile."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(1, 2, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer(nn.functional.pad(image, (3, 0, 3, 0)))
        return result


@pytest.mark.parametrize("tta", list(WAYS))
def test_a_network_that_looks_to_one_side_gets_its_halo_on_both(tta: Tta) -> None:
    image = textured(150, 211)
    labels, stored = found_by_engine(Lopsided(), image, tta, tile=(64, 64))
    mean = turned_mean(Lopsided(), unit(image), Shape(0, 1, 1, 3), tta)
    check(labels, stored, mean)


def test_a_symmetric_mask_of_a_symmetric_image() -> None:
    half = textured(200, 100)[..., 0]
    image = np.concatenate([half, half[:, ::-1]], axis=1)
    module: SeededUNet = seeded(2, 1)
    once = np.asarray(predict_large(image, module))
    turned = np.asarray(predict_large(image, module, tta="flips"))
    assert (turned != turned[:, ::-1]).mean() < 1e-3
    assert (once != once[:, ::-1]).mean() > 1e-2


@pytest.mark.parametrize("name", ["half", "twice"])
@pytest.mark.parametrize("tta", list(WAYS))
def test_masks_of_another_scale_too(name: str, tta: Tta) -> None:
    scaled = scaled_networks()[name]
    image = textured(64, 48)
    labels, stored = found_by_engine(scaled.module, image, tta)
    total = np.zeros(stored.shape)
    for transpose, flip_y, flip_x in WAYS[tta]:  # 64 and 48 are whole periods
        turned = image.transpose(1, 0, 2) if transpose else image
        turned = turned[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
        logits = torch.from_numpy(scaled.whole_pass(unit(np.ascontiguousarray(turned))))
        found = logits.softmax(0).numpy()[:, :: -1 if flip_y else 1, :: -1 if flip_x else 1]
        total += found.transpose(0, 2, 1) if transpose else found
    check(labels, stored, total / len(WAYS[tta]))


def test_blended_tiles_can_be_turned_as_well() -> None:
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.Conv2d(4, 2, 1)
    ).eval()
    image = textured(500, 300)[..., 0]
    with pytest.warns(match="cannot be tiled exactly"):
        found = predict_large(image, module, tta="flips", output="probabilities")
    assert np.allclose(np.asarray(found.probabilities).sum(axis=0), 1, atol=2e-3)
    assert found.plan.redundancy > 4 * 2


def test_the_work_is_told_and_logits_are_refused() -> None:
    image, module = np.zeros((512, 512), "uint8"), nn.Conv2d(1, 2, 3)
    once, eight = plan_prediction(image, module), plan_prediction(image, module, tta="dihedral")
    assert eight.redundancy == pytest.approx(8 * once.redundancy, rel=0.01)
    with pytest.raises(SettingError, match="output=logits has no meaning"):
        plan_prediction(image, module, tta="flips", output="logits")
