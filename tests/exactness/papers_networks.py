"""The papers' networks, small, with weights as after a training, and their geometry by hand."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tile_infer.engine.networks.export import export_onnx
from tile_infer.engine.networks.fcn import FCN
from tile_infer.engine.networks.network import SegmentationNetwork
from tile_infer.engine.networks.registry import build

from .seeded_networks import rarest_share
from .whole_pass import Shape, whole_pass

CLASSES = ("background", "object")


@dataclass(frozen=True)
class Case:
    """A network, and what it does to sizes."""

    network: str
    options: dict[str, Any]
    shape: Shape
    tile: tuple[int, int]
    """A tile that leaves a core, and makes several of a small image."""
    prune: int | None = None
    channels: int = 1


# Same-padded, depth 4. Rows that feel zero padding, counted from the border: a pair of 3x3
# convolutions adds 2, pooling halves and rounds up, an up-convolution doubles.
#   down: 2; 1 + 2 = 3; 2 + 2 = 4; 2 + 2 = 4; 2 + 2 = 4
#   up:   2 * 4 + 2 = 10; 2 * 10 + 2 = 22; 2 * 22 + 2 = 46; 2 * 46 + 2 = 94
# In the nested networks no skip reaches further than the node below: X(i, j) has after column 1
# 8, 10, 10, 10 rows, after column 2 22, 22, 22, after column 3 46, 46 and after column 4 94. So the
# halo of the head at X(0, j) is 8, 22, 46 and 94, and the mean of all has the largest.
SAME = Shape(0, 16, 16, 94)
PRUNED = {1: Shape(0, 2, 2, 8), 2: Shape(0, 4, 4, 22), 3: Shape(0, 8, 8, 46), 4: SAME}

# Valid, depth 4: pairs lose 2 px per side at 1, 2, 4, 8 and 16 px down and 8, 4, 2 and 1 px up:
# 2 * (31 + 15) = 92. From 4 px at the bottom: (4 + 8) * 16 - 4 = 188, output 4.
VALID = Shape(92, 16, 188)

# VGG, stages of 2, 2, 3, 3 and 3 convolutions: 2; 1 + 2 = 3; 2 + 3 = 5; 3 + 3 = 6; 3 + 3 = 6; 3.
# fc6 of 7x7 adds 3: 6 rows of stride 32. Back by a transposed convolution of factor f and kernel
# 2 f (or bilinear): output row y sees input rows up to (y + f / 2) / f, so s rows are s f + f / 2.
#   32s: 6 * 32 + 16 = 208
#   16s: 6 * 2 + 1 = 13 (pool4 has 3); 13 * 16 + 8 = 216
#   8s:  13; 13 * 2 + 1 = 27 (pool3 has 3); 27 * 8 + 4 = 220
# Upsampling has a 3x3 convolution, of 1 row, after each step:
#   32s: 209; 16s: 14, 14 * 16 + 8 + 1 = 233; 8s: 14, 14 * 2 + 1 + 1 = 30, 30 * 8 + 4 + 1 = 245
# Unpooling has one after each doubling, with or without skips: 13, 27, 55, 111, 223.
FCN_REACH = {
    ("fcn32s", "transposed"): 208,
    ("fcn16s", "transposed"): 216,
    ("fcn8s", "transposed"): 220,
    ("fcn32s", "upsampling"): 209,
    ("fcn16s", "upsampling"): 233,
    ("fcn8s", "upsampling"): 245,
    ("fcn32s", "unpooling"): 223,
    ("fcn16s", "unpooling"): 223,
    ("fcn8s", "unpooling"): 223,
}

CASES = {
    "unet": Case("unet", {"width": 2}, VALID, (220, 236)),
    "unet, batch norm": Case("unet", {"width": 2, "batch_norm": True}, VALID, (220, 220)),
    "unet, same": Case("unet", {"width": 2, "padding": "same"}, SAME, (256, 272)),
    "unet_wide": Case("unet_wide", {"width": 4}, SAME, (256, 240), channels=3),
    "unetpp": Case("unetpp", {"width": 3}, SAME, (256, 240), channels=3),
    "unetp": Case("unetp", {"width": 3}, SAME, (256, 240)),
    "unete": Case("unete", {"width": 3}, SAME, (256, 240)),
    **{
        f"{name}, L{level}": Case(
            name, {"width": 3}, shape, (16 * (shape.period + 1), 256), prune=level
        )
        for name in ("unetpp", "unetp", "unete")
        for level, shape in PRUNED.items()
    },
    **{
        f"{name}, {way}": Case(name, {"width": 2, "way": way}, Shape(0, 32, 32, reach), (608, 736))
        for (name, way), reach in FCN_REACH.items()
    },
}


def as_trained(case: Case, image: NDArray[np.float32]) -> SegmentationNetwork:
    """Return the network with seeded weights under which no class is rare on the image.

    Nothing is left as it starts: a skip of zeros or a convolution that copies reaches less far.
    """
    for seed in range(40):
        torch.manual_seed(seed)
        network = build(case.network, in_channels=case.channels, **case.options)
        for name, weights in network.named_parameters():
            if name.startswith("skips") or ".smooth." in name:
                nn.init.normal_(weights, std=(2 / weights[0].numel()) ** 0.5)
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, 0.7, 1.3)
                nn.init.normal_(layer.bias, std=0.2)
                assert layer.running_mean is not None
                assert layer.running_var is not None
                nn.init.normal_(layer.running_mean, std=0.2)
                nn.init.uniform_(layer.running_var, 0.7, 1.3)
        network = network.eval() if case.prune is None else network.eval().pruned(case.prune)
        logits = whole_pass(network, image, case.shape)
        if isinstance(network, FCN) and network.way == "upsampling":
            # A smooth map of few scores: no seed parts the classes, so the last bias does.
            bias = network.get_parameter(f"rises.{len(network.skips)}.smooth.bias")
            bias.data[1] -= float(np.median(logits[1] - logits[0]))
            logits = whole_pass(network, image, case.shape)
        if rarest_share(logits) >= 0.05:
            return network
    raise AssertionError("no seed gives both classes")


def exported(network: SegmentationNetwork, path: Path, size: tuple[int, int] | None = None) -> Path:
    """Write the network as a user would."""
    export_onnx(
        network,
        path,
        in_channels=network.in_channels,
        size=size,
        classes=CLASSES,
        normalize="unit",
    )
    return path
