"""A loop by hand: the image mirrored all around, tile after tile, each into its place."""

import numpy as np
import tifffile
import torch

from counted import Counted
from one_run import Done, Job, run


def segment(job: Job) -> Done:
    """Segment into a NumPy file."""
    network = Counted(job.network)
    image = tifffile.imread(job.image)
    height, width, _ = image.shape
    tile, core = job.tile, job.core
    margin = (tile - core) // 2
    after = [margin + -side % core for side in (height, width)]
    padded = np.pad(image, ((margin, after[0]), (margin, after[1]), (0, 0)), mode="reflect")
    labels = np.empty((height, width), np.uint8)
    with torch.inference_mode():
        for y in range(0, height, core):
            for x in range(0, width, core):
                part = padded[y : y + tile, x : x + tile]
                pixels = torch.from_numpy(part).permute(2, 0, 1)[None].float() / 255
                found = network(pixels)[0].argmax(0).numpy()
                labels[y : y + core, x : x + core] = found[: height - y, : width - x]
    out = job.out.with_suffix(".npy")
    np.save(out, labels)
    return Done(out, network.input_px)


if __name__ == "__main__":
    run(segment, "numpy", "tifffile")
