"""The whole image, mirrored all around as far as one pass over it needs."""

import numpy as np
import tifffile
from numpy.typing import NDArray

from one_run import Job

PERIOD_PX = 16
SEEN_PX = 128
"""More than a U-Net of four poolings sees to each side, in whole periods."""


def extended_image(job: Job) -> tuple[NDArray[np.uint8], tuple[slice, slice]]:
    """Return the pixels ``(y, x, channel)``, and where the image lies in what comes of them.

    Zero-padded networks are given more of the mirrored image than they see, so that their zeros
    count for nothing; valid ones what they lose.
    """
    image = tifffile.imread(job.image)
    height, width, _ = image.shape
    lost = job.tile - job.core
    margin = lost // 2 or SEEN_PX
    # Whole periods more than a tile, so that no pooling drops a row.
    after = [margin + (job.core - side) % PERIOD_PX for side in (height, width)]
    padded = np.pad(image, ((margin, after[0]), (margin, after[1]), (0, 0)), mode="reflect")
    before = 0 if lost else margin
    return padded, (slice(before, before + height), slice(before, before + width))
