"""The demo network, which learnt stained tissue only, on a real image of fluorescent nuclei.

The image is one the network was never meant for: bright nuclei on black instead of dark ones on
pink, twice as large, one channel. Each way to make it look more like what was learnt is a row; no
way was chosen by the result.
"""

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

import tile_infer.engine.networks
from data_folder import DATA
from results_file import save
from tile_infer import predict_large
from tile_infer.engine.matching import Matching
from tile_infer.engine.measures import confusion_of, counts_of
from tile_infer.tiler.box import Box

DEMO = Path(tile_infer.engine.networks.__file__).parent / "demo.onnx"
MIN_SIZE_PX = 30
HAEMATOXYLIN = np.array([0.65, 0.704, 0.286])
"""Optical density of red, green and blue, Ruifrok and Johnston 2001."""

_DENSITY = 2.0
"""Of the brightest pixel."""

Grey = NDArray[np.float64]


def _grey(image: Grey) -> Grey:
    return np.repeat(image[..., None], 3, axis=2)


COLOURS: Mapping[str, Callable[[Grey], Grey]] = {
    "grey": _grey,
    "grey, inverted": lambda image: _grey(1 - image),
    "as if stained with haematoxylin": lambda image: np.exp(
        -_DENSITY * image[..., None] * HAEMATOXYLIN
    ),
}


def stretched(image: NDArray[Any]) -> Grey:
    """Return the image with its 1st percentile at 0 and its 99.8th at 1."""
    low, high = np.percentile(image, [1, 99.8])
    return np.asarray(np.clip((image - low) / (high - low), 0, 1), np.float64)


def halved(image: Grey) -> Grey:
    """Return the means of squares of 2 x 2 pixels."""
    height, width = image.shape
    return np.asarray(image.reshape(height // 2, 2, width // 2, 2).mean((1, 3)), np.float64)


def main() -> None:
    """Run each way, and write the table."""
    image = tifffile.imread(DATA / "nuclei" / "img2d.tif")
    truth = tifffile.imread(DATA / "nuclei" / "mask2d.tif").astype(np.int64)
    rows = []
    for colour, factor in product(COLOURS, (1, 2)):
        grey = stretched(image)
        pixels = COLOURS[colour](halved(grey) if factor == 2 else grey)
        mask = np.asarray(predict_large(np.rint(255 * pixels).astype(np.uint8), DEMO))
        mask = mask.repeat(factor, 0).repeat(factor, 1)
        labels = np.asarray(mask, np.int64)
        matching = Matching(truth.shape[1], instances=True, min_size=MIN_SIZE_PX, iou=0.5)
        matching.add(Box.of(0, truth.shape[0], 0, truth.shape[1]), labels, truth)
        pixel = counts_of(confusion_of(labels, (truth > 0).astype(np.int64), 2), 1)
        rows.append(
            {
                "colours": colour,
                "reduced_by": factor,
                "iou": pixel.iou,
                "dice": pixel.dice,
                "instance_f1": matching.counts()[1].f(1),
            }
        )
        print(rows[-1])
    print(save("demo_fluorescence", {"min_size_px": MIN_SIZE_PX, "rows": rows}))


if __name__ == "__main__":
    main()
