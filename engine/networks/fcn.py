"""The fully convolutional networks of Long, Shelhamer and Darrell (2015)."""

from typing import Literal

import torch
from torch import Tensor, nn

from ...tiler.errors import SettingError
from .layers import initialise
from .network import SegmentationNetwork
from .upsampling import WAYS, Way
from .vgg import FIRST_FULLY_CONNECTED_PX, Backbone, Classifier, as_convolution, stage_widths


class FCN(SegmentationNetwork):
    """A classifier made convolutional, its coarse scores fused with finer ones on the way back.

    "Fully Convolutional Networks for Semantic Segmentation", arXiv 1411.4038::

        image -> pool1 -> pool2 -> pool3 -> pool4 -> pool5 -> fc6 -> fc7 -> score    stride 32
        FCN-32s                                                 x32 of score
        FCN-16s                                     x16 of (x2 of score + pool4)
        FCN-8s                     x8 of (x2 of (x2 of score + pool4) + pool3)

    where pool3 and pool4 stand for 1x1 convolutions of them. These start at zero, as in the paper,
    so that a finer network begins with the coarsest scores alone.

    Maps ``(batch, channel, y, x)`` to ``(batch, class, y, x)`` of the same size, a multiple of 32.
    With the paper's width of 64, 3 channels and 21 classes FCN-32s has 134.4 million parameters.

    The paper pads the image by 100 px and cuts the middle out at the end; here fc6, a 7x7
    convolution, is zero-padded instead, so that input and output have one size and one origin.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 2,
        width: int = 64,
        stride: Literal[32, 16, 8] = 8,
        way: Literal["transposed", "unpooling", "upsampling"] = "transposed",
        batch_norm: bool = False,
        dropout: float = 0.5,
    ) -> None:
        """Build the network.

        Args:
            in_channels: Channels of the image.
            classes: Channels of the logits.
            width: Channels of the first stage; fc6 and fc7 have 64 times as many.
            stride: Input pixels per score where the scores are finest, the number in its name.
            way: How scores get back to full resolution, one of ``upsampling.WAYS``.
            batch_norm: Whether batch normalisation follows each 3x3 convolution; not in the paper.
            dropout: Share of the values after fc6 and fc7 that training leaves out; 0 for none.

        Raises:
            SettingError: A number is out of range, or the stride or the way is unknown.
        """
        super().__init__(in_channels, classes)
        if width < 1:
            raise SettingError(f"width={width} is not possible; use 1 or more")
        if stride not in (32, 16, 8):
            raise SettingError(f"stride={stride} is not possible; use 32, 16 or 8")
        if way not in WAYS:
            raise SettingError(f"way={way!r} is none; use one of {', '.join(WAYS)}")
        if not 0 <= dropout < 1:
            raise SettingError(f"dropout={dropout} is not possible; use a number from 0 to below 1")
        widths = stage_widths(width)
        self.stride, self.way = stride, way
        self.backbone = Backbone(in_channels, width, batch_norm)
        self.fc6 = nn.Conv2d(
            widths[-1], 64 * width, FIRST_FULLY_CONNECTED_PX, padding=FIRST_FULLY_CONNECTED_PX // 2
        )
        self.fc7 = nn.Conv2d(64 * width, 64 * width, 1)
        self.score = nn.Conv2d(64 * width, classes, 1)
        self.dropout = nn.Dropout(dropout)
        # Poolings to undo, the coarsest first: one for each skip, then all that are left.
        skips = {32: 0, 16: 1, 8: 2}[stride]
        self.skips = nn.ModuleList(nn.Conv2d(widths[3 - k], classes, 1) for k in range(skips))
        coarsest_first = widths[::-1]
        undone = [coarsest_first[k : k + 1] for k in range(skips)] + [coarsest_first[skips:]]
        rises: list[Way] = [WAYS[way](classes, channels) for channels in undone]
        self.rises = nn.ModuleList(rises)
        self.apply(initialise)
        for rise in rises:
            rise.start()
        for name, weights in self.skips.named_parameters():
            if name.endswith("weight"):
                nn.init.zeros_(weights)

    @property
    def period(self) -> int:
        """Smallest shift in pixels under which the network is equivariant: five poolings'."""
        return 32

    @property
    def margin(self) -> int:
        """Pixels lost per side: none."""
        return 0

    @property
    def smallest(self) -> int:
        """Smallest valid input in pixels."""
        return self.period

    def coarse(self, pooled: Tensor) -> Tensor:
        """Return the class scores of stride 32 of what the last pooling gives."""
        x = pooled
        for layer in (self.fc6, self.fc7):
            x = self.dropout(torch.relu(layer(x)))
        scores: Tensor = self.score(x)
        return scores

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits ``(batch, class, y, x)`` of ``image`` ``(batch, channel, y, x)``."""
        unpooled, pooled = self.backbone(image)
        scores = self.coarse(pooled[-1])
        fused = len(self.skips)
        for k, skip in enumerate(self.skips):
            scores = self.rises[k](scores, [unpooled[4 - k]]) + skip(pooled[3 - k])
        logits: Tensor = self.rises[fused](scores, unpooled[4 - fused :: -1])
        return logits

    def adopt(self, classifier: Classifier) -> None:
        """Take over a classifier's weights: its fully connected layers become convolutions.

        Its last layer is taken as well where it has as many classes.

        Raises:
            SettingError: It has another width or number of channels.
        """
        try:
            self.backbone.load_state_dict(classifier.backbone.state_dict())
            side = FIRST_FULLY_CONNECTED_PX
            self.fc6.load_state_dict(as_convolution(classifier.fc6, side).state_dict())
            self.fc7.load_state_dict(as_convolution(classifier.fc7).state_dict())
        except RuntimeError as error:
            raise SettingError(
                "a classifier to adopt needs the width, channels and batch_norm=False of the FCN"
            ) from error
        if classifier.fc8.out_features == self.classes:
            self.score.load_state_dict(as_convolution(classifier.fc8).state_dict())
