"""The convolutions of VGG-16, and its classifier."""

import torch
from torch import Tensor, nn

from .layers import convolutions

STAGES = (2, 2, 3, 3, 3)
"""3x3 convolutions before each of the five poolings."""
FIRST_FULLY_CONNECTED_PX = 7
"""Side of what the first fully connected layer sees: 224 / 32."""


def stage_widths(width: int) -> list[int]:
    """Return the channels of each stage.

    >>> stage_widths(64)
    [64, 128, 256, 512, 512]
    """
    return [width * factor for factor in (1, 2, 4, 8, 8)]


class Backbone(nn.Module):
    """Five stages of zero-padded 3x3 convolutions, each followed by a 2x2 max pooling.

    "Very Deep Convolutional Networks for Large-Scale Image Recognition", arXiv 1409.1556,
    configuration D; with ``width=64`` and 3 channels 14,714,688 parameters.
    """

    def __init__(self, in_channels: int, width: int, batch_norm: bool = False) -> None:
        super().__init__()
        widths = stage_widths(width)
        self.stages = nn.ModuleList(
            convolutions(before, after, count, batch_norm=batch_norm)
            for before, after, count in zip([in_channels, *widths], widths, STAGES, strict=False)
        )
        self.pool = nn.MaxPool2d(2)

    def forward(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return what comes into the five poolings, and what comes out of them."""
        unpooled: list[Tensor] = []
        pooled: list[Tensor] = []
        for stage in self.stages:
            unpooled.append(stage(pooled[-1] if pooled else image))
            pooled.append(self.pool(unpooled[-1]))
        return unpooled, pooled


class Classifier(nn.Module):
    """VGG-16: the backbone and three fully connected layers, for images of 224 x 224 px."""

    def __init__(self, in_channels: int = 3, classes: int = 1000, width: int = 64) -> None:
        super().__init__()
        seen = stage_widths(width)[-1] * FIRST_FULLY_CONNECTED_PX**2
        self.backbone = Backbone(in_channels, width)
        self.fc6 = nn.Linear(seen, 64 * width)
        self.fc7 = nn.Linear(64 * width, 64 * width)
        self.fc8 = nn.Linear(64 * width, classes)
        self.dropout = nn.Dropout()

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits ``(batch, class)`` of ``image`` ``(batch, channel, 224, 224)``."""
        x = self.backbone(image)[1][-1].flatten(1)
        for layer in (self.fc6, self.fc7):
            x = self.dropout(torch.relu(layer(x)))
        logits: Tensor = self.fc8(x)
        return logits


def as_convolution(layer: nn.Linear, side: int = 1, padding: int = 0) -> nn.Conv2d:
    """Return a fully connected layer as the convolution that computes it at every place.

    Args:
        layer: The layer; its inputs are a flattened ``(channel, side, side)``.
        side: Side of its field in pixels; 1 after another fully connected layer.
        padding: Zeros around the map.
    """
    convolution = nn.Conv2d(layer.in_features // side**2, layer.out_features, side, padding=padding)
    with torch.no_grad():
        convolution.weight.copy_(layer.weight.view_as(convolution.weight))
        assert convolution.bias is not None
        convolution.bias.copy_(layer.bias)
    return convolution
