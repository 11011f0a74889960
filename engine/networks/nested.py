"""UNet++ of Zhou et al. (2018, 2019), and its ablations UNet+ and U-Net^e."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...tiler.errors import SettingError
from .layers import convolutions, initialise
from .network import SegmentationNetwork

Skips = Literal["dense", "neighbour", "encoder"]
Node = tuple[int, int]
"""Level, 0 at full resolution, and column, 0 in the encoder."""


class NestedUNet(SegmentationNetwork):
    """U-Nets of every depth within each other, zero-padded, on one encoder.

    "UNet++: A Nested U-Net Architecture for Medical Image Segmentation", arXiv 1807.10165, and
    "UNet++: Redesigning Skip Connections to Exploit Multiscale Features in Image Segmentation",
    arXiv 1912.05074. Node X(i, j) is two 3x3 convolutions H over its skips and the node below it,
    doubled by a 2x2 up-convolution U::

        X(0,0)  X(0,1)  X(0,2)  X(0,3)  X(0,4)      X(i,0) = H(pool(X(i-1,0)))
        X(1,0)  X(1,1)  X(1,2)  X(1,3)              X(i,j) = H([skips, U(X(i+1,j-1))])
        X(2,0)  X(2,1)  X(2,2)
        X(3,0)  X(3,1)                   dense      X(i,0) .. X(i,j-1)     UNet++
        X(4,0)                           neighbour  X(i,j-1)               UNet+
                                         encoder    X(i,0)                 U-Net^e

    Maps ``(batch, channel, y, x)`` to ``(batch, class, y, x)`` of the same size, a multiple of 16.
    With the papers' width of 32 and 3 channels UNet++ has 9.04 million parameters.

    With deep supervision each X(0, j) has a 1x1 convolution as its head, and :meth:`forward` gives
    the mean of their logits (the papers' accurate mode, which averages probabilities instead; a
    mean of logits leaves softmax or sigmoid to the engine). :meth:`pruned` gives the fast mode.
    """

    def __init__(
        self,
        in_channels: int = 1,
        classes: int = 2,
        width: int = 32,
        depth: int = 4,
        skips: Skips = "dense",
        deep_supervision: bool = True,
        batch_norm: bool = False,
    ) -> None:
        """Build the nodes that the heads need.

        Args:
            in_channels: Channels of the image.
            classes: Channels of the logits.
            width: Channels of the first level; each level doubles them.
            depth: Number of poolings.
            skips: Which nodes of its level a node sees, as drawn above.
            deep_supervision: Whether every X(0, j) has a head, or only the last.
            batch_norm: Whether batch normalisation follows each 3x3 convolution; not in the papers.

        Raises:
            SettingError: A number is below 1, or the skips are unknown.
        """
        super().__init__(in_channels, classes)
        if min(width, depth) < 1:
            raise SettingError(f"a nested U-Net needs width and depth >= 1; got {width}, {depth}")
        if skips not in ("dense", "neighbour", "encoder"):
            raise SettingError(f"skips must be 'dense', 'neighbour' or 'encoder', got {skips!r}")
        self.width, self.depth, self.skips = width, depth, skips
        self.deep_supervision, self.batch_norm = deep_supervision, batch_norm
        widths = [width * 2**level for level in range(depth + 1)]
        ends = range(1, depth + 1) if deep_supervision else (depth,)
        needed: set[Node] = set()
        for end in ends:
            self._need((0, end), needed)
        # By column, as they can be computed.
        self.order = sorted(needed, key=lambda node: (node[1], node[0]))
        self.pool = nn.MaxPool2d(2)
        self.nodes, self.up = nn.ModuleDict(), nn.ModuleDict()
        for level, column in self.order:
            own = widths[level]
            before = widths[level - 1] if level else in_channels
            if column:
                self.up[_key(level, column)] = nn.ConvTranspose2d(widths[level + 1], own, 2, 2)
                before = own * (1 + len(self._seen((level, column))))
            self.nodes[_key(level, column)] = convolutions(before, own, batch_norm=batch_norm)
        self.ends = nn.ModuleDict({str(end): nn.Conv2d(width, classes, 1) for end in ends})
        self.apply(initialise)

    @property
    def period(self) -> int:
        """Smallest shift in pixels under which the network is equivariant."""
        return 1 << self.depth

    @property
    def margin(self) -> int:
        """Pixels lost per side: none."""
        return 0

    @property
    def smallest(self) -> int:
        """Smallest valid input in pixels."""
        return self.period

    def heads(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of every head, the deepest last."""
        found: dict[Node, Tensor] = {}
        for level, column in self.order:
            if column:
                rise = self.up[_key(level, column)](found[level + 1, column - 1])
                x = torch.cat([*(found[node] for node in self._seen((level, column))), rise], 1)
            else:
                x = self.pool(found[level - 1, 0]) if level else image
            found[level, column] = self.nodes[_key(level, column)](x)
        return tuple(head(found[0, int(end)]) for end, head in self.ends.items())

    def forward(self, image: Tensor) -> Tensor:
        """Return the mean of the heads' logits ``(batch, class, y, x)``."""
        heads = self.heads(image)
        return heads[0] if len(heads) == 1 else torch.stack(heads).mean(0)

    def pruned(self, level: int) -> "NestedUNet":
        """Return the network of one head, without the nodes that this head does not need.

        Args:
            level: Its column, 1 (smallest and fastest) to ``depth``.

        Raises:
            SettingError: There is no such head.
        """
        if str(level) not in self.ends:
            heads = ", ".join(f"L{end}" for end in self.ends)
            raise SettingError(f"prune=L{level} is not possible; this network has {heads}")
        small = NestedUNet(**self.pruned_options(level))
        state = self.state_dict()
        small.load_state_dict({key: state[key] for key in small.state_dict()})
        return small.train(self.training)

    def pruned_options(self, level: int) -> dict[str, Any]:
        """Return the arguments that build what :meth:`pruned` returns, e.g. for a checkpoint."""
        return {
            "in_channels": self.in_channels,
            "classes": self.classes,
            "width": self.width,
            "depth": level,
            "skips": self.skips,
            "deep_supervision": False,
            "batch_norm": self.batch_norm,
        }

    def _seen(self, node: Node) -> list[Node]:
        level, column = node
        if self.skips == "dense":
            return [(level, before) for before in range(column)]
        return [(level, column - 1 if self.skips == "neighbour" else 0)]

    def _need(self, node: Node, needed: set[Node]) -> None:
        level, column = node
        if level < 0 or node in needed:
            return
        needed.add(node)
        if not column:
            self._need((level - 1, 0), needed)
            return
        for other in [*self._seen(node), (level + 1, column - 1)]:
            self._need(other, needed)


def _key(level: int, column: int) -> str:
    return f"{level}_{column}"
