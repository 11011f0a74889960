"""Networks whose output is coarser or finer than the image, with what they do to sizes by hand."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import leaky_relu

from .whole_pass import mirrored


@dataclass(frozen=True)
class Scaled:
    """A network and one way to run it over a whole extended image."""

    module: nn.Module
    up: int
    """Pixels of mask per ``down`` pixels of image."""
    down: int
    before: int
    """Pixels of mirror before the image: the margin, and whole periods that hold the halo."""
    crop: int
    """Output pixels before the one at the image's first pixel."""
    multiple: int
    """What a whole size is a multiple of, ``size`` apart."""
    size: int = 0

    def whole_pass(self, image: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the logits ``(class, y, x)`` of a normalised image ``(y, x, channel)``."""
        lengths = []
        for axis in (0, 1):
            length = image.shape[axis]
            lengths.append(-(-length * self.up // self.down))
            needed = self.before + length + self.before + 2 * self.multiple
            total = self.size + -(-(needed - self.size) // self.multiple) * self.multiple
            where = mirrored(length, self.before, total - length - self.before)
            image = image.take(where, axis=axis)
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)[None]))
        with torch.inference_mode():
            logits: NDArray[np.float32] = self.module(pixels)[0].numpy()
        y, x = (slice(self.crop, self.crop + length) for length in lengths)
        assert logits[:, y, x].shape[1:] == tuple(lengths), "the extended image is too small"
        return logits[:, y, x]


class _Leaky(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return leaky_relu(image, 0.1)


def _layers(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(*layers).eval()
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                inputs = layer.in_channels * (
                    layer.kernel_size[0] ** 2 if isinstance(layer, nn.Conv2d) else 1
                )
                layer.weight.normal_(0, (2 / inputs) ** 0.5)
    return module


def _convolution(before: int, after: int, padding: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=padding), _Leaky())


def scaled_networks() -> dict[str, Scaled]:
    """Return the networks by name; each takes one channel and returns three classes."""
    return {
        # Two poolings down and one up, padded: half the size, period 4.
        "half": Scaled(
            _layers(
                _convolution(1, 6, 1),
                nn.MaxPool2d(2),
                _convolution(6, 8, 1),
                nn.MaxPool2d(2),
                _convolution(8, 8, 1),
                nn.ConvTranspose2d(8, 6, 2, 2),
                nn.Conv2d(6, 3, 3, padding=1),
            ),
            *(1, 2),
            before=32,
            crop=16,
            multiple=4,
        ),
        # Three poolings, padded: an eighth, period 8.
        "eighth": Scaled(
            _layers(
                *(_convolution(1, 4, 1), nn.MaxPool2d(2)),
                *(_convolution(4, 6, 1), nn.AvgPool2d(2)),
                *(_convolution(6, 8, 1), nn.MaxPool2d(2)),
                nn.Conv2d(8, 3, 3, padding=1),
            ),
            *(1, 8),
            before=64,
            crop=8,
            multiple=8,
        ),
        # A stem of 4 px with stride 2, valid: loses 2 px, one on either side.
        "valid stem": Scaled(
            _layers(nn.Conv2d(1, 6, 4, stride=2), _Leaky(), nn.Conv2d(6, 3, 1)),
            *(1, 2),
            before=1,
            crop=0,
            multiple=2,
        ),
        # Valid convolution, pooling, valid convolution: 6 px lost, 3 on either side.
        "valid half": Scaled(
            _layers(_convolution(1, 6, 0), nn.MaxPool2d(2), nn.Conv2d(6, 3, 3)),
            *(1, 2),
            before=3,
            crop=0,
            multiple=2,
        ),
        # A pooling, back up, and up again: twice the size, period 2.
        "twice": Scaled(
            _layers(
                _convolution(1, 6, 1),
                nn.MaxPool2d(2),
                _convolution(6, 8, 1),
                nn.ConvTranspose2d(8, 8, 2, 2),
                _Leaky(),
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
                nn.Conv2d(8, 3, 3, padding=1),
            ),
            *(2, 1),
            before=16,
            crop=32,
            multiple=2,
        ),
        # Valid at twice the size: one fine pixel is lost on either side, half one of the image.
        "valid twice": Scaled(
            _layers(nn.Conv2d(1, 6, 1), _Leaky(), nn.Upsample(scale_factor=2), nn.Conv2d(6, 3, 3)),
            *(2, 1),
            before=4,
            crop=7,
            multiple=1,
        ),
        # Sub-pixel convolution, as of super-resolution networks.
        "thrice": Scaled(
            _layers(_convolution(1, 8, 1), nn.Conv2d(8, 27, 3, padding=1), nn.PixelShuffle(3)),
            *(3, 1),
            before=8,
            crop=24,
            multiple=1,
        ),
        # A transposed convolution that overshoots: 2 n + 1 px, of which the last is of no pixel.
        "overshooting": Scaled(
            _layers(_convolution(1, 6, 1), nn.ConvTranspose2d(6, 3, 3, stride=2)),
            *(2, 1),
            before=8,
            crop=16,
            multiple=1,
        ),
    }
