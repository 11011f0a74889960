"""Tiny networks with seeded weights whose geometry can be worked out by hand."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d, pad, relu

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def as_function(module: nn.Module, seed: int = 0) -> Run:
    """Return the module, with seeded weights that keep the signal's size, as a function."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        fan_in = max(1, parameter[0].numel()) if parameter.dim() > 1 else 25
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * (2 / fan_in) ** 0.5)
    return run_of(module)


def untrained(build: Callable[[], nn.Module], seed: int = 0) -> Run:
    """Return a module with the weights it starts with, which let its deep layers fade."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return run_of(build())


def run_of(module: nn.Module) -> Run:
    """Return the module as a function that runs in one thread."""
    module.eval()

    def run(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.no_grad():
                output: NDArray[np.float32] = module(torch.from_numpy(tiles)).numpy()
        finally:
            torch.set_num_threads(threads)
        return output

    return run


def _double(inputs: int, outputs: int, padding: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=padding),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=padding),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """The U-Net of 2015 with few channels; with ``padding=1`` its same-padded descendant.

    Without padding the skips are cropped to what comes up, so it runs at every size.
    """

    def __init__(self, depth: int, padding: int = 0, pool: int = 2, base: int = 4) -> None:
        super().__init__()
        widths = [base * (i + 1) for i in range(depth + 1)]
        self.pool = pool
        self.down = nn.ModuleList(
            _double(a, b, padding) for a, b in zip([1, *widths[:-1]], widths, strict=True)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(widths[i + 1], widths[i], pool, stride=pool) for i in range(depth)
        )
        self.merge = nn.ModuleList(_double(2 * widths[i], widths[i], padding) for i in range(depth))
        self.head = nn.Conv2d(widths[0], 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for block in self.down[:-1]:
            x = block(x)
            skips.append(x)
            x = max_pool2d(x, self.pool)
        x = self.down[-1](x)
        for i in reversed(range(len(skips))):
            x = self.up[i](x)
            top, left = ((s - n) // 2 for s, n in zip(skips[i].shape[2:], x.shape[2:], strict=True))
            skip = skips[i][:, :, top : top + x.shape[2], left : left + x.shape[3]]
            x = self.merge[i](torch.cat([skip, x], dim=1))
        logits: Tensor = self.head(x)
        return logits


class Around(nn.Module):
    """Convolution, a reduction, convolution at low resolution, nearest resizing, convolution."""

    def __init__(self, reduce: nn.Module, factor: tuple[int, int], inputs: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.reduce = reduce
        self.low = nn.Conv2d(inputs, 4, 3, padding=1)
        self.factor = factor
        self.last = nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        low = relu(self.low(self.reduce(relu(self.first(x)))))
        y = interpolate(low, scale_factor=tuple(map(float, self.factor)), mode="nearest")
        if y.shape[2] < x.shape[2] or y.shape[3] < x.shape[3]:
            raise ValueError("the size is not a multiple of the reduction")
        logits: Tensor = self.last(y[:, :, : x.shape[2], : x.shape[3]])
        return logits


class Bilinear(nn.Module):
    """Padded stride-2 convolutions down, bilinear resizing and convolutions up; no skips."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            nn.Conv2d(4 if i else 1, 4, 3, stride=2, padding=1) for i in range(depth)
        )
        self.up = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.down:
            x = relu(layer(x))
        for layer in self.up:
            x = layer(interpolate(relu(x), scale_factor=2.0, mode="bilinear"))
        return x


class SqueezeExcite(nn.Module):
    """A gate per channel from the mean of the whole tile, between two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.gate = nn.Conv2d(4, 4, 1)
        self.last = nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = relu(self.first(x))
        logits: Tensor = self.last(y * torch.sigmoid(self.gate(y.mean((2, 3), keepdim=True))))
        return logits


class FlatOnly(nn.Module):
    """The image, and its mean over blocks of 8 pixels, the latter only where it has no texture."""

    def forward(self, x: Tensor) -> Tensor:
        around = pad(x, (1, 1, 1, 1), mode="replicate")
        texture = (avg_pool2d(around, 3, 1) - x).abs()
        flat = relu(0.01 - avg_pool2d(texture, 5, 1, 2)) * 100
        blocks = interpolate(avg_pool2d(flat * x, 8), scale_factor=8.0)
        return torch.cat([x, blocks], dim=1)


class Crop(nn.Module):
    """What another module returns, less some pixels at the start and at the end of each axis."""

    def __init__(self, inner: nn.Module, before: int, after: int) -> None:
        super().__init__()
        self.inner, self.before, self.after = inner, before, after

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        bottom, right = (n - self.after for n in y.shape[2:])
        return y[:, :, self.before : bottom, self.before : right]


class AlignCorners(nn.Module):
    """Pooling by 2, then bilinear resizing that maps corner to corner."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        low = max_pool2d(relu(self.first(x)), 2)
        y = interpolate(low, size=x.shape[2:], mode="bilinear", align_corners=True)
        logits: Tensor = self.last(y)
        return logits


class ConstantClass(nn.Module):
    """A convolution whose last class is 1 everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.only(x)
        return torch.cat([y, torch.ones_like(y)], dim=1)


class ConstantOutput(nn.Module):
    """The same number everywhere, whatever comes in."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones_like(x)


def convolutions(*kernels: int, padding: int = 0, dilation: int = 1) -> nn.Sequential:
    """Return a stack of convolutions with ReLU between."""
    layers: list[nn.Module] = []
    for i, kernel in enumerate(kernels):
        last = i == len(kernels) - 1
        layers.append(
            nn.Conv2d(4 if i else 1, 2 if last else 4, kernel, padding=padding, dilation=dilation)
        )
        if not last:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)
