"""What training makes small, from logits ``(batch, class, y, x)`` and the true classes."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From logits, true classes ``(batch, y, x)`` and weights ``(batch, y, x)`` to one number."""


def weighted_cross_entropy(logits: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """Return the mean over pixels of ``-w(x) log p(x)``, p the soft-max of the true class.

    The energy of Ronneberger et al. 2015, eq. 1, by the number of pixels: the weights are not
    divided out, so a tile with many narrow gaps counts more than one without.
    """
    return (functional.cross_entropy(logits, truth, reduction="none") * weights).mean()


def soft_dice_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Return 1 less the mean soft Dice coefficient of the classes that the tiles show.

    ``2 sum(p y) / (sum(p) + sum(y))`` over all pixels of the batch, p the soft-max.
    """
    p = logits.softmax(1)
    y = functional.one_hot(truth, logits.shape[1]).movedim(-1, 1).to(p.dtype)
    over_pixels = (0, 2, 3)
    area = y.sum(over_pixels)
    dice = 2 * (p * y).sum(over_pixels) / (p.sum(over_pixels) + area)
    return 1 - dice[area > 0].mean()


def hybrid(logits: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """Return half the weighted cross-entropy plus the soft Dice loss, after Zhou et al. 2018."""
    return 0.5 * weighted_cross_entropy(logits, truth, weights) + soft_dice_loss(logits, truth)


LOSSES: Mapping[str, Loss] = {"cross_entropy": weighted_cross_entropy, "hybrid": hybrid}


def deeply_supervised(
    loss: Loss, heads: Sequence[Tensor], truth: Tensor, weights: Tensor
) -> Tensor:
    """Return the mean loss of the logits of all heads; of a single head, its loss."""
    return torch.stack([loss(logits, truth, weights) for logits in heads]).mean()
