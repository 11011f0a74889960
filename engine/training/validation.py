"""How well a network does, in the middle of training, on images it does not learn from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ...tiler.box import Box
from ..measures import confusion_of, counts_of, pixel_error
from .images import Labelled, rectangle
from .tiles import TakesTiles, TileShape

_USUAL_PX = 572
"""Side of the tiles of the U-Net paper."""

_SPOILT_PX = 32
"""Left out on each side of a zero-padded tile's output where the tile is large enough."""


@dataclass(frozen=True, slots=True)
class Score:
    """Measures over all pixels of the validation images."""

    loss: float
    """Mean cross-entropy of a pixel, unweighted."""
    dice: float
    """Mean Dice of the classes but the background."""
    iou: float
    """Mean IoU of the classes but the background."""
    pixel_error: float
    """Share of wrong pixels."""


def validation_tile(network: TakesTiles, images: Sequence[Labelled], tile_px: int) -> TileShape:
    """Return tiles that are no smaller than those learnt from, nor much larger than the images.

    Of the smallest valid tiles nearly all is margin, and measuring with them would take hours.

    Args:
        network: What is measured.
        images: What it is measured on.
        tile_px: Largest side of the tiles that are learnt from.
    """
    longest = max(max(image.shape) for image in images)
    whole = longest + 2 * (network.margin + _SPOILT_PX) + network.period
    return TileShape.largest(network, max(network.smallest, tile_px, min(whole, _USUAL_PX)))


def validate(
    network: torch.nn.Module,
    images: Sequence[Labelled],
    tile: TileShape,
    period: int,
    device: torch.device,
) -> Score:
    """Label images tile by tile, mirrored beyond their borders, and compare with the truth.

    Args:
        network: From ``(batch, channel, y, x)`` to logits; left in the mode it is in.
        images: With what they show.
        tile: Side of the tiles.
        period: Tiles lie at multiples of it, so that all have one phase.
        device: Where the network is.
    """
    training = network.training
    network.eval()
    confusion: NDArray[np.int64] | None = None
    loss, pixels = 0.0, 0
    try:
        for image in images:
            for box, logits in _tiles(network, image, tile, period, device):
                classes = logits.shape[0]
                truth = torch.from_numpy(rectangle(image.truth.classes, box).astype(np.int64))
                loss += float(
                    torch.nn.functional.cross_entropy(logits[None], truth[None], reduction="sum")
                )
                pixels += truth.numel()
                found = logits.argmax(0).numpy()
                table = confusion_of(found, truth.numpy(), classes)
                confusion = table if confusion is None else confusion + table
    finally:
        network.train(training)
    assert confusion is not None
    counts = [counts_of(confusion, label) for label in range(1, len(confusion))]
    return Score(
        loss / pixels,
        float(np.mean([count.dice for count in counts])),
        float(np.mean([count.iou for count in counts])),
        pixel_error(confusion),
    )


def _tiles(
    network: torch.nn.Module,
    image: Labelled,
    tile: TileShape,
    period: int,
    device: torch.device,
) -> Iterator[tuple[Box, torch.Tensor]]:
    """Yield squares that share the image among them, and the logits of each."""
    spoilt = _SPOILT_PX if tile.margin_px == 0 else 0
    spoilt = 0 if tile.output_px < 3 * spoilt else spoilt
    inner = tile.output_px - 2 * spoilt
    core = inner // period * period or inner  # less than a period: only the smallest of tiles
    for y in range(0, image.shape[0], core):
        for x in range(0, image.shape[1], core):
            top, left = y - spoilt - tile.margin_px, x - spoilt - tile.margin_px
            pixels = image.normalised(Box.of(top, top + tile.input_px, left, left + tile.input_px))
            with torch.inference_mode():
                logits = network(torch.from_numpy(pixels)[None].to(device))[0].float().cpu()
            height, width = min(core, image.shape[0] - y), min(core, image.shape[1] - x)
            part = logits[:, spoilt : spoilt + height, spoilt : spoilt + width]
            yield Box.of(y, y + height, x, x + width), part
