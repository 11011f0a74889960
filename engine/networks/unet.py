"""The U-Net of Ronneberger, Fischer and Brox (2015), with its valid convolutions."""

from typing import Literal

import torch
from torch import Tensor, nn

from ...tiler.errors import SettingError
from .layers import convolutions, initialise
from .network import SegmentationNetwork


class UNet(SegmentationNetwork):
    """The paper's contracting and expanding paths, joined by copy and crop.

    "U-Net: Convolutional Networks for Biomedical Image Segmentation", arXiv 1505.04597. Each level
    has two 3x3 convolutions with ReLU; a 2x2 max pooling leads down and doubles the channels, a 2x2
    up-convolution leads up and halves them; a 1x1 convolution gives the logits. With the defaults
    that is 23 convolutions and 31,030,658 parameters (31.03 million).

    Maps ``(batch, channel, y, x)`` to ``(batch, class, y, x)``. The paper's network, valid and of
    depth 4, loses 184 px per axis: 572 gives 388, and the sizes it takes are ``188 + 16 k``. Other
    sizes run as well but drop a row at some pooling, which shifts the logits: see :meth:`takes`.

    Weights start as in the paper (He et al. 2015): normal with deviation ``sqrt(2 / N)``, where N
    is the number of inputs of one output. Dropout ends the two deepest levels of the contracting
    path; the paper gives no rate, its published network has 0.5.
    """

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 2,
        width: int = 64,
        depth: int = 4,
        padding: Literal["valid", "same"] = "valid",
        batch_norm: bool = False,
        dropout: float = 0.5,
    ) -> None:
        """Build the network.

        Args:
            in_channels: Channels of the image.
            classes: Channels of the logits.
            width: Channels of the first level.
            depth: Number of poolings.
            padding: ``valid`` as in the paper, or ``same`` for zero-padded 3x3 convolutions.
            batch_norm: Whether batch normalisation follows each 3x3 convolution; not in the paper.
            dropout: Share of the values there that training leaves out; 0 for none.

        Raises:
            SettingError: A number is out of range, or the padding is unknown.
        """
        super().__init__(in_channels, classes)
        if min(width, depth) < 1:
            raise SettingError(f"a U-Net needs width and depth >= 1; got {width}, {depth}")
        if not 0 <= dropout < 1:
            raise SettingError(f"dropout={dropout} is not possible; use a number from 0 to below 1")
        if padding not in ("valid", "same"):
            raise SettingError(f"padding must be 'valid' or 'same', got {padding!r}")
        self.depth = depth
        self.padding = padding
        widths = [width * 2**level for level in range(depth + 1)]

        def pair(before: int, after: int) -> nn.Sequential:
            return convolutions(before, after, 2, int(padding == "same"), batch_norm)

        self.down = nn.ModuleList(
            pair(before, after)
            for before, after in zip([in_channels, *widths], widths, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(dropout)
        upwards = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(low, high, 2, 2) for low, high in upwards)
        self.merge = nn.ModuleList(pair(low, high) for low, high in upwards)
        self.head = nn.Conv2d(width, classes, 1)
        self.apply(initialise)

    @property
    def period(self) -> int:
        """Smallest shift in pixels under which the network is equivariant."""
        return 1 << self.depth

    @property
    def margin(self) -> int:
        """Pixels lost per side, 92 for the paper's network."""
        return 0 if self.padding == "same" else 6 * self.period - 4

    @property
    def smallest(self) -> int:
        """Smallest valid input in pixels, 188 for the paper's network."""
        if self.padding == "same":
            return self.period
        # Each level upwards doubles and loses 4: from 4 px at the bottom 4 px stay, from 3 px only
        # one level can be climbed.
        bottom = 3 if self.depth == 1 else 4
        return (bottom + 8) * self.period - 4

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits ``(batch, class, y, x)`` of ``image`` ``(batch, channel, y, x)``."""
        kept: list[Tensor] = []
        x = image
        for level, convolve in enumerate(self.down):
            x = convolve(x if level == 0 else self.pool(x))
            if level >= self.depth - 1:
                x = self.dropout(x)
            kept.append(x)
        kept.pop()
        for rise, convolve in zip(self.up, self.merge, strict=True):
            x = rise(x)
            x = convolve(torch.cat([_crop_centre(kept.pop(), x), x], dim=1))
        logits: Tensor = self.head(x)
        return logits


def _crop_centre(image: Tensor, like: Tensor) -> Tensor:
    """Return the centre of ``image`` with the height and width of ``like``."""
    # Sizes come from the tensors and starts from sizes: an exported graph keeps both free.
    height, width = like.shape[2], like.shape[3]
    top, left = (image.shape[2] - height) // 2, (image.shape[3] - width) // 2
    return image[:, :, top : top + height, left : left + width]
