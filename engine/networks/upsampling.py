"""Three ways from coarse class scores back to full resolution."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .layers import bilinear_kernel


class Transposed(nn.Module):
    """A transposed convolution per class that starts as bilinear resizing."""

    def __init__(self, classes: int, channels: Sequence[int]) -> None:
        super().__init__()
        factor = 1 << len(channels)
        self.rise = nn.ConvTranspose2d(
            classes, classes, 2 * factor, factor, factor // 2, groups=classes, bias=False
        )

    def start(self) -> None:
        """Set the weights that training starts with."""
        with torch.no_grad():
            self.rise.weight.copy_(bilinear_kernel(self.rise.stride[0]).expand_as(self.rise.weight))

    def forward(self, scores: Tensor, unpooled: Sequence[Tensor]) -> Tensor:
        """Return ``scores`` at the resolution of the last of ``unpooled``."""
        logits: Tensor = self.rise(scores)
        return logits


class Upsampled(nn.Module):
    """Bilinear resizing, then a 3x3 convolution."""

    def __init__(self, classes: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.rise = nn.Upsample(
            scale_factor=1 << len(channels), mode="bilinear", align_corners=False
        )
        self.smooth = nn.Conv2d(classes, classes, 3, padding=1)

    def start(self) -> None:
        """Set the weights that training starts with: the convolution copies."""
        nn.init.dirac_(self.smooth.weight)

    def forward(self, scores: Tensor, unpooled: Sequence[Tensor]) -> Tensor:
        """Return ``scores`` at the resolution of the last of ``unpooled``."""
        logits: Tensor = self.smooth(self.rise(scores))
        return logits


class Unpooled(nn.Module):
    """Pooling by pooling undone: spread over its channels, put where maxima were, convolved."""

    def __init__(self, classes: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.spread = nn.ModuleList(nn.Conv2d(classes, count, 1) for count in channels)
        self.gather = nn.ModuleList(nn.Conv2d(count, classes, 3, padding=1) for count in channels)

    def start(self) -> None:
        """Leave the weights as they were drawn."""

    def forward(self, scores: Tensor, unpooled: Sequence[Tensor]) -> Tensor:
        """Return ``scores`` at the resolution of the last of ``unpooled``.

        Args:
            scores: ``(batch, class, y, x)``.
            unpooled: What came into each pooling to undo, the coarsest first.
        """
        for spread, gather, features in zip(self.spread, self.gather, unpooled, strict=True):
            scores = gather(unpool(spread(scores), features))
        return scores


Way = Transposed | Unpooled | Upsampled
WAYS: dict[str, type[Way]] = {
    "transposed": Transposed,
    "unpooling": Unpooled,
    "upsampling": Upsampled,
}


def unpool(values: Tensor, features: Tensor) -> Tensor:
    """Put each value where the largest of its 2 x 2 features lies, and zeros elsewhere.

    Same as ``max_unpool2d`` with the indices of ``max_pool2d``, in operations that ONNX has for
    free sizes; of equal features the first counts.

    Args:
        values: ``(batch, channel, y, x)``.
        features: ``(batch, channel, 2 y, 2 x)``.
    """
    four = torch.stack(
        [features[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)], dim=2
    )
    place = torch.arange(4, device=four.device).view(1, 1, 4, 1, 1)
    spread = values.unsqueeze(2) * (four.argmax(dim=2, keepdim=True) == place)
    # (batch, channel, 4, y, x) to (batch, 4 channel, y, x), each four becoming a square.
    return nn.functional.pixel_shuffle(spread.flatten(1, 2), 2)
