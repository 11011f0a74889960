"""One pass over the whole image, mirrored all around: what every mask is compared with.

Torch alone. Zero-padded networks are given more of the mirrored image than they see, so that their
zeros count for nothing; valid ones what they lose.
"""

import numpy as np
import tifffile
import torch

from counted import Counted
from one_run import Done, Job, run

PERIOD_PX = 16
SEEN_PX = 128
"""More than a U-Net of four poolings sees to each side, in whole periods."""


def segment(job: Job) -> Done:
    """Segment into a NumPy file."""
    network = Counted(job.network)
    image = tifffile.imread(job.image)
    height, width, _ = image.shape
    lost = job.tile - job.core
    margin = lost // 2 or SEEN_PX
    # Whole periods more than a tile, so that no pooling drops a row.
    after = [margin + (job.core - side) % PERIOD_PX for side in (height, width)]
    padded = np.pad(image, ((margin, after[0]), (margin, after[1]), (0, 0)), mode="reflect")
    with torch.inference_mode():
        logits = network(torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 255)[0]
    before = 0 if lost else margin
    labels = logits[:, before : before + height, before : before + width].argmax(0)
    out = job.out.with_suffix(".npy")
    np.save(out, labels.numpy().astype(np.uint8))
    return Done(out, network.input_px)


if __name__ == "__main__":
    run(segment, "numpy", "tifffile")
