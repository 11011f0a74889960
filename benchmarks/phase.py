"""Why 384 and not 388: the same tiles at several strides, against one whole pass.

A plain loop, without the engine: 572-px tiles of the paper's U-Net, each giving 388 px, of which as
many as the stride are kept. Random weights; the head is shifted so that both classes are common.
"""

import argparse
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from results_file import save
from tile_infer.engine.networks.unet import UNet

TILE_PX, MARGIN_PX = 572, 92
STRIDES_PX = (388, 384, 380, 372, 368)


def logits(network: UNet, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits ``(class, y, x)`` of one pass over ``image`` ``(y, x)``."""
    with torch.inference_mode():
        found: NDArray[np.float32] = network(torch.from_numpy(image[None, None])).numpy()[0]
    return found


def tiled(
    network: UNet, extended: NDArray[np.float32], side: int, stride: int
) -> NDArray[np.float32]:
    """Return the logits of an image put together from the first ``stride`` px of each tile."""
    result = np.empty((2, side, side), np.float32)
    for y in range(0, side, stride):
        for x in range(0, side, stride):
            tile = extended[y : y + TILE_PX, x : x + TILE_PX]
            kept = logits(network, tile)[:, : min(stride, side - y), : min(stride, side - x)]
            result[:, y : y + stride, x : x + stride] = kept
    return result


def main() -> None:
    """Measure several seeds, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=8, help="channels of the first level")
    parser.add_argument("--side", type=int, default=1604, help="side of the image: 4 + 16 n px")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for seed in range(options.seeds):
        torch.manual_seed(seed)
        network = UNet(in_channels=1, classes=2, width=options.width).eval()
        rng = np.random.default_rng(seed)
        image = rng.random((options.side, options.side), np.float32)
        image += np.kron(rng.random((options.side // 8 + 1,) * 2), np.ones((8, 8)))[
            : options.side, : options.side
        ].astype(np.float32)
        extended = np.pad(image, (MARGIN_PX, MARGIN_PX + TILE_PX), mode="reflect")
        whole = logits(network, extended[: options.side + 184, : options.side + 184])
        offset = float(np.median(whole[1] - whole[0]))
        for stride in STRIDES_PX:
            found = tiled(network, extended, options.side, stride)
            wrong = (found[1] - found[0] > offset) != (whole[1] - whole[0] > offset)
            rows.append(
                {
                    "seed": seed,
                    "stride_px": stride,
                    "labels_differing": float(wrong.mean()),
                    "largest_error_of_largest_logit": float(
                        np.abs(found - whole).max() / np.abs(whole).max()
                    ),
                }
            )
            print(rows[-1], flush=True)
    summary = {
        stride: median(row["labels_differing"] for row in rows if row["stride_px"] == stride)
        for stride in STRIDES_PX
    }
    figures = {
        "width": options.width,
        "side_px": options.side,
        "rows": rows,
        "median_labels_differing": summary,
    }
    print(f"{save('phase', figures)}: {summary}")


if __name__ == "__main__":
    main()
