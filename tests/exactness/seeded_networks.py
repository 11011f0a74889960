"""Seeded U-Nets and textured images on which every class occurs."""

import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .whole_pass import Shape, label_of, whole_pass


class SeededUNet(nn.Module):
    """Two 3x3 convolutions per level, 2x2 poolings down, up-convolutions up, copy and crop."""

    def __init__(
        self, depth: int, padding: int, channels: int = 1, classes: int = 3, width: int = 4
    ) -> None:
        super().__init__()
        sizes = [width + 2 * level for level in range(depth + 1)]
        self.down, self.up, self.merge = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for before, after in zip([channels, *sizes], sizes, strict=False):
            self.down.append(_pair(before, after, padding))
        for level in reversed(range(depth)):
            self.up.append(nn.ConvTranspose2d(sizes[level + 1], sizes[level], 2, 2))
            self.merge.append(_pair(2 * sizes[level], sizes[level], padding))
        self.head = nn.Conv2d(width, classes, 1)
        self.depth, self.padding = depth, padding

    @property
    def shape(self) -> Shape:
        period = 2**self.depth
        if self.padding:
            reach = 2
            for _ in range(self.depth):
                reach = -(-reach // 2) + 2
            for _ in range(self.depth):
                reach = 2 * reach + 2
            return Shape(0, period, period, reach)
        # From 4 px at the bottom: two convolutions and a doubling, level by level, and back up.
        return Shape(6 * period - 4, period, 12 * period - 4)

    def forward(self, image: Tensor) -> Tensor:
        kept = []
        x = image
        for level, convolve in enumerate(self.down):
            x = convolve(nn.functional.max_pool2d(x, 2) if level else x)
            kept.append(x)
        kept.pop()
        for rise, convolve in zip(self.up, self.merge, strict=True):
            x = rise(x)
            skip = kept.pop()
            top, left = (skip.shape[2] - x.shape[2]) // 2, (skip.shape[3] - x.shape[3]) // 2
            skip = skip[:, :, top : top + x.shape[2], left : left + x.shape[3]]
            x = convolve(torch.cat([x, skip], dim=1))
        logits: Tensor = self.head(x)
        return logits


def _pair(before: int, after: int, padding: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=padding),
        nn.LeakyReLU(0.1),
        nn.Conv2d(after, after, 3, padding=padding),
        nn.LeakyReLU(0.1),
    )


def textured(
    height: int, width: int, channels: int = 1, dtype: str = "uint8", seed: int = 0
) -> NDArray[np.generic]:
    """Return ``(y, x, channel)`` with structure of 1, 5, 13 and 37 px, aligned with no pooling."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, channels))
    for patch, weight in ((1, 0.5), (5, 0.7), (13, 1.0), (37, 1.0)):
        rough = rng.standard_normal((height // patch + 2, width // patch + 2, channels))
        fine = rough.repeat(patch, axis=0).repeat(patch, axis=1)
        image += weight * fine[3 % patch : 3 % patch + height, 2 % patch : 2 % patch + width]
    image = np.clip(0.5 + image / 8, 0, 1)
    return (
        image.astype(dtype) if dtype == "float32" else (image * np.iinfo(dtype).max).astype(dtype)
    )


def unit(image: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return pixels as networks are fed by default: integers over their type's largest."""
    full = float(np.iinfo(str(image.dtype)).max) if image.dtype.kind in "iu" else 1.0
    return np.asarray(image.astype(np.float32) * np.float32(1 / full), np.float32)


def seeded(
    depth: int,
    padding: int,
    channels: int = 1,
    classes: int = 3,
    width: int = 4,
    seed: int = 0,
) -> SeededUNet:
    """Return a network whose classes are about equally frequent on ``textured`` images."""
    torch.manual_seed(seed)
    module = SeededUNet(depth, padding, channels, classes, width).eval()
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                inputs = (
                    layer.weight[0].numel() if isinstance(layer, nn.Conv2d) else layer.in_channels
                )
                layer.weight.normal_(0, (2 / inputs) ** 0.5)
                layer.bias.zero_()  # type: ignore[union-attr]
        image = unit(textured(300, 301, channels, seed=seed + 1000))
        balance(module, image, classes)
    return module


def balance(module: SeededUNet, image: NDArray[np.floating], classes: int) -> None:
    """Give the head uncorrelated logits of deviation 1, shifted until no class is rare.

    Logits that rise and fall together would leave two winners, however they are shifted.
    """
    last, head = module.head, nn.Identity()
    module.head = head  # type: ignore[assignment]
    features = whole_pass(module, image, module.shape).reshape(last.in_channels, -1)
    module.head = last
    mean = features.mean(axis=1, keepdims=True)
    strength, directions = np.linalg.eigh(np.cov(features.astype(np.float64)))
    weights = (directions / np.sqrt(strength)).T[::-1][:classes].copy()
    if classes > 1:  # each logit mixes strong and weak directions
        weights = (
            np.linalg.qr(np.random.default_rng(0).normal(size=(classes, classes)))[0] @ weights
        )
    logits = weights @ (features - mean)
    shift = np.zeros((classes, 1))
    for step in range(200 if classes > 1 else 0):
        share = np.bincount((logits + shift).argmax(axis=0), minlength=classes) / logits.shape[1]
        shift[:, 0] -= np.log(share * classes + 1e-2) / (5 + step)
    last.weight.copy_(torch.from_numpy(weights[:, :, None, None]))
    assert last.bias is not None
    last.bias.copy_(torch.from_numpy((shift - weights @ mean)[:, 0]))


def rarest_share(logits: NDArray[np.floating]) -> float:
    """Return the share of pixels of the rarest class."""
    counts = np.bincount(label_of(logits).ravel(), minlength=max(2, len(logits)))
    return float(counts.min() / counts.sum())


def export(
    module: nn.Module,
    path: Path,
    channels: int,
    size: tuple[int, int] | None = None,
    *,
    batch: int | None = None,
    dynamo: bool = False,
) -> Path:
    """Write a network as ONNX, with free or with fixed tile size and batch."""
    height, width = size or (188, 220)
    axes = {} if batch else {0: "batch"}
    free = {"image": axes if size else {**axes, 2: "y", 3: "x"}, "map": axes}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters warn of themselves
        if dynamo:
            tiles = torch.export.Dim("tiles", min=1, max=64)
            torch.onnx.export(
                module,
                (torch.zeros(2, channels, height, width),),
                path,
                dynamo=True,
                dynamic_shapes=({0: tiles},),
                external_data=False,
                verbose=False,
            )
        else:
            torch.onnx.export(
                module,
                (torch.zeros(batch or 1, channels, height, width),),
                str(path),
                dynamo=False,
                opset_version=18,
                input_names=["image"],
                output_names=["map"],
                dynamic_axes=free,
            )
    return path
