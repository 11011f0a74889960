"""The layers that all networks are made of, and the weights they start with."""

import torch
from torch import Tensor, nn


def convolutions(
    before: int, after: int, count: int = 2, padding: int = 1, batch_norm: bool = False
) -> nn.Sequential:
    """Return 3x3 convolutions, each with ReLU, and with batch normalisation between if asked for.

    Args:
        before: Channels that come in.
        after: Channels of each of them.
        count: How many there are.
        padding: 1 keeps the size, with zeros around; 0 loses a pixel per side and convolution.
        batch_norm: Whether to normalise.
    """
    layers: list[nn.Module] = []
    for channels in (before, *[after] * (count - 1)):
        layers.append(nn.Conv2d(channels, after, 3, padding=padding))
        if batch_norm:
            layers.append(nn.BatchNorm2d(after))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def initialise(layer: nn.Module) -> None:
    """Draw the weights as in the U-Net paper (He et al. 2015); for :meth:`nn.Module.apply`.

    Normal with deviation ``sqrt(2 / N)``, where N is the number of inputs of one output.
    """
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
    elif isinstance(layer, nn.ConvTranspose2d):
        # A 2x2 up-convolution of stride 2 computes each output from one pixel of all channels.
        nn.init.normal_(layer.weight, std=(2.0 / layer.in_channels) ** 0.5)
    else:
        return
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def bilinear_kernel(factor: int) -> Tensor:
    """Return the transposed convolution's kernel, ``2 factor`` square, that is bilinear resizing.

    >>> bilinear_kernel(2)[0].tolist()
    [0.0625, 0.1875, 0.1875, 0.0625]
    """
    # Weight falls linearly from the kernel's middle, which lies between two pixels.
    distance = (torch.arange(2 * factor) - (factor - 0.5)).abs() / factor
    return torch.outer(1 - distance, 1 - distance)
