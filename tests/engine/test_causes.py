"""Parts whose answer depends on the tile's size are found in files and modules, and named."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tile_infer import TileInferWarning, inspect_network, plan_prediction
from tile_infer.engine.backends import Network, open_network

F = nn.functional


class Plain(nn.Module):
    """Convolutions, pooling and upsampling: nothing that depends on the tile's size."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 2, 3, padding=1)
        self.normal = nn.BatchNorm2d(8)
        self.shift = nn.Parameter(torch.randn(1, 8, 1, 1))

    def inside(self, x: Tensor) -> Tensor:
        return x

    def forward(self, image: Tensor) -> Tensor:
        x = self.inside(self.normal(self.first(image)) + self.shift)
        x = F.interpolate(F.max_pool2d(x, 2), scale_factor=2, mode="bilinear", align_corners=False)
        logits: Tensor = self.last(x * x.mean(dim=1, keepdim=True))
        return logits.softmax(dim=1)


class With(Plain):
    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def inside(self, x: Tensor) -> Tensor:
        result: Tensor = self.part(x)
        return result


class Squeeze(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * F.adaptive_avg_pool2d(x, 1).sigmoid()


class Means(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=(2, 3), keepdim=True)


class Largest(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / x.amax(dim=(2, 3), keepdim=True)


class Corners(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        half = F.max_pool2d(x, 2)
        return F.interpolate(half, scale_factor=2, mode="bilinear", align_corners=True)


class Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        places = F.max_pool2d(x, 8).flatten(2)
        weights = (places.transpose(1, 2) @ places).softmax(-1)
        seen = (places @ weights).reshape(x.shape[0], x.shape[1], 8, 8)
        return x + F.interpolate(seen, scale_factor=8.0, mode="nearest")


class Places(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(1, 8, 64, 64))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.position


class WholePool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - F.avg_pool2d(x, 64)


CASES: dict[str, tuple[nn.Module, str, str]] = {
    "instance": (
        nn.InstanceNorm2d(8, affine=True),
        "InstanceNormalization",
        "instance normalisation",
    ),
    "group": (nn.GroupNorm(2, 8), "GroupNormalization", "group normalisation"),
    "layer": (
        nn.LayerNorm([8, 64, 64]),
        "LayerNormalization over the tile",
        "layer normalisation over the tile",
    ),
    "squeeze": (Squeeze(), "GlobalAveragePool", "mean over the tile"),
    "means": (Means(), "ReduceMean over the tile", "mean over the tile"),
    "largest": (Largest(), "ReduceMax over the tile", "amax over the tile"),
    "corners": (Corners(), "Resize with align_corners", "upsample_bilinear2d with align_corners"),
    "attention": (Attention(), "attention over the tile", "attention over the tile"),
    "places": (
        Places(),
        "a constant that differs from place to place",
        "a constant that differs from place to place",
    ),
    "whole pool": (WholePool(), "AveragePool of the whole tile", "avg_pool2d of the whole tile"),
}


def write(path: Path, module: nn.Module, size: int = 64) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of itself
        torch.onnx.export(
            module.eval(),
            (torch.zeros(1, 1, size, size),),
            str(path),
            dynamo=False,
            opset_version=18,
        )
    return path


def found(network: Network, size: int = 64) -> tuple[str, ...]:
    network.logits(np.ones((1, 1, size, size), np.float32))  # tells what a module is made of
    return network.facts.tile_dependent


@pytest.mark.parametrize("case", CASES)
def test_each_part_is_named(tmp_path: Path, case: str) -> None:
    part, in_file, in_module = CASES[case]
    module = With(part).eval()
    assert found(open_network(write(tmp_path / "net.onnx", module))) == (in_file,)
    assert found(open_network(module)) == (in_module,)


def test_what_is_there_several_times_is_counted(tmp_path: Path) -> None:
    module = With(nn.Sequential(nn.InstanceNorm2d(8, affine=True), Corners(), Corners())).eval()
    assert found(open_network(write(tmp_path / "net.onnx", module))) == (
        "InstanceNormalization",
        "Resize with align_corners (2x)",
    )
    assert found(open_network(module)) == (
        "instance normalisation",
        "upsample_bilinear2d with align_corners (2x)",
    )


def test_a_network_without_such_parts_has_none(tmp_path: Path) -> None:
    module = Plain().eval()
    assert found(open_network(write(tmp_path / "net.onnx", module))) == ()
    assert found(open_network(module)) == ()
    assert inspect_network(module).bounded


def test_a_pooling_that_covers_a_tiny_tile_is_not_one_of_the_whole() -> None:
    network = open_network(Plain().eval())
    assert found(network, 2) == ("max_pool2d of the whole tile",)
    assert found(network, 64) == found(network, 2) == ()


def test_what_leads_to_another_output_is_not_named(tmp_path: Path) -> None:
    class Two(Plain):
        def forward(self, image: Tensor) -> Any:
            return super().forward(image), image.mean(dim=(2, 3), keepdim=True) + image

    path = write(tmp_path / "net.onnx", Two())
    assert found(open_network(path, "0")) == ()
    assert found(open_network(path, "1")) == ("ReduceMean over the tile",)


@pytest.mark.parametrize("form", ["onnx", "torch"])
def test_the_warning_of_a_plan_names_the_part(tmp_path: Path, form: str) -> None:
    module = With(nn.InstanceNorm2d(8, affine=True)).eval()
    model: Any = module if form == "torch" else write(tmp_path / "net.onnx", module)
    plan = plan_prediction(np.zeros((100, 100), "uint8"), model)
    name = CASES["instance"][1 if form == "onnx" else 2]
    assert plan.network.tile_dependent == (name,)
    (warning,) = [text for text in plan.warnings if "cannot be tiled exactly" in text]
    assert f"every pixel of a tile influences every other, through {name} (two tiles" in warning
    assert type(plan).from_dict(plan.to_dict()) == plan


def test_a_part_that_has_no_effect_is_no_reason_to_blend(tmp_path: Path) -> None:
    class Off(Plain):
        def inside(self, x: Tensor) -> Tensor:
            return x + 0 * x.mean(dim=(2, 3), keepdim=True)

    path = write(tmp_path / "net.onnx", Off())
    with warnings.catch_warnings():
        warnings.simplefilter("error", TileInferWarning)
        plan = plan_prediction(np.zeros((100, 100), "uint8"), path)
    assert plan.exact
    assert plan.warnings == ()
    assert plan.notes[-1] == (
        "ReduceMean over the tile: depends on the tile's size, but had no effect on the logits "
        "of noise"
    )
