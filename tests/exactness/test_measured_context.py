"""What the probe certifies as exact is exact: networks with contexts of many kinds."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d, relu

from tile_infer import predict_large

from .seeded_networks import SeededUNet, balance, seeded, textured, unit
from .whole_pass import TOLERANCE, Shape, logit_error, whole_pass


class Around(nn.Module):
    """Convolutions around something that lowers the resolution and something that raises it."""

    def __init__(self, lower: Callable[[Tensor], Tensor], higher: Callable[[Tensor], Tensor]):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.low = nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Conv2d(8, 3, 3, padding=1)
        self.lower, self.higher = lower, higher

    def forward(self, x: Tensor) -> Tensor:
        fine = relu(self.first(x))
        coarse = self.higher(relu(self.low(self.lower(fine))))
        coarse = coarse[:, :, : fine.shape[2], : fine.shape[3]]
        logits: Tensor = self.last(torch.cat([fine, coarse], dim=1))
        return logits


def times(factor: float, mode: str = "nearest") -> Callable[[Tensor], Tensor]:
    return lambda x: interpolate(x, scale_factor=factor, mode=mode)


def chain(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    "pooling by 3": (lambda: Around(lambda x: max_pool2d(x, 3), times(3)), Shape(0, 3, 3, 30)),
    "ceil mode": (
        lambda: Around(lambda x: max_pool2d(x, 2, ceil_mode=True), times(2)),
        Shape(0, 2, 2, 30),
    ),
    "padded mean, bilinear": (
        lambda: Around(lambda x: avg_pool2d(x, 3, 2, 1), times(2, "bilinear")),
        Shape(0, 2, 2, 30),
    ),
    "dilated": (
        lambda: chain(
            nn.Conv2d(1, 4, 3, padding=2, dilation=2),
            nn.ReLU(),
            nn.Conv2d(4, 3, 3, padding=16, dilation=16),
        ),
        Shape(0, 1, 4, 20),
    ),
    "mirroring inside": (
        lambda: chain(
            nn.Conv2d(1, 4, 5, padding=2, padding_mode="reflect"),
            nn.ReLU(),
            nn.Conv2d(4, 3, 7, padding=3, padding_mode="reflect"),
        ),
        Shape(0, 1, 8, 10),
    ),
    "29 x 29": (
        lambda: chain(nn.Conv2d(1, 4, 29), nn.ReLU(), nn.Conv2d(4, 3, 1)),
        Shape(14, 1, 29),
    ),
    "stem of stride 2": (
        lambda: chain(
            nn.Conv2d(1, 8, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, 2, 1),
            nn.ReLU(),
            nn.Upsample(scale_factor=4, mode="bilinear"),
            nn.Conv2d(8, 3, 3, padding=1),
        ),
        Shape(0, 4, 4, 40),
    ),
    "patches of 16": (
        lambda: chain(
            nn.Conv2d(1, 8, 16, 16),
            nn.GELU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.GELU(),
            nn.ConvTranspose2d(8, 3, 16, 16),
        ),
        Shape(0, 16, 16, 32),
    ),
    "pixel shuffle": (
        lambda: chain(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.PixelUnshuffle(2),
            nn.Conv2d(32, 12, 3, padding=1),
            nn.PixelShuffle(2),
        ),
        Shape(0, 2, 2, 20),
    ),
}


def check(module: nn.Module, shape: Shape, image: NDArray[np.floating]) -> None:
    pixels: Any = image[:, :, 0]
    found = predict_large(pixels, module, normalize="none", output="logits", workers=2)
    reference = whole_pass(module, image, shape)
    assert found.plan.exact
    assert found.logits is not None
    assert logit_error(np.asarray(found.logits), reference) <= TOLERANCE


@pytest.mark.parametrize("name", list(NETWORKS))
@pytest.mark.parametrize("size", [(301, 560), (3, 700)], ids=str)
def test_networks_that_are_no_u_nets(name: str, size: tuple[int, int]) -> None:
    build, shape = NETWORKS[name]
    torch.manual_seed(5)
    check(build().eval(), shape, unit(textured(*size, dtype="float32", seed=3)))


def picture(kind: str) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    if kind == "spots":
        image = np.zeros((300, 620, 1), np.float32)
        image[rng.integers(0, 300, 60), rng.integers(0, 620, 60)] = 1
        return image
    if kind == "squares":
        squares = rng.integers(0, 2, (5, 11, 1)).repeat(60, axis=0).repeat(60, axis=1)
        return squares[:, :620].astype(np.float32)
    scale = {"bright": 1000, "negative": -50}[kind]
    return unit(textured(300, 620, dtype="float32")) * np.float32(scale)


def with_relu(module: SeededUNet) -> SeededUNet:
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, nn.LeakyReLU):
                setattr(part, name, nn.ReLU())
    with torch.no_grad():
        balance(module, unit(textured(300, 301, seed=9)), 3)
    return module


@pytest.mark.parametrize("kind", ["spots", "squares", "bright", "negative"])
@pytest.mark.parametrize("seed", [0, 1])
def test_images_unlike_the_noise_that_the_halo_was_measured_on(kind: str, seed: int) -> None:
    module = with_relu(seeded(3, 1, classes=3, seed=seed))
    check(module, module.shape, picture(kind))


class Sleeper(nn.Module):
    """One branch sees 1 px around; the other 18, but only where pixels are above 3000."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.near = nn.Conv2d(1, 3, 3, padding=1)
        layers: list[nn.Module] = []
        for inputs in (1, 4, 4, 4, 4, 4):
            layers += [nn.Conv2d(inputs, 4, 7, padding=3), nn.ReLU()]
        self.far = nn.Sequential(*layers, nn.Conv2d(4, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.near(x) + self.far(relu(x - 3000))
        return logits


def test_a_branch_that_only_the_images_own_values_wake() -> None:
    image = unit(textured(300, 620, dtype="float32")) * np.float32(9000)
    check(Sleeper(), Shape(0, 1, 8, 18), image)
