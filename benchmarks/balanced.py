"""Random weights that say both classes as often: a mask of one class would hide every fault."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


def balance(network: nn.Module, head: nn.Module, pixels: NDArray[np.uint8]) -> None:
    """Shift the bias of a network's last convolution by what it says of ``(y, x, 3)``."""
    with torch.no_grad():
        logits = network(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255)[0]
        head.bias[0] += (logits[1] - logits[0]).median()  # type: ignore[index,operator]
