"""MONAI's sliding window over the whole image in memory."""

import numpy as np
import tifffile
import torch
from monai.inferers import SlidingWindowInferer

from counted import Counted
from one_run import Done, Job, run


def segment(job: Job) -> Done:
    """Segment into a NumPy file."""
    network = Counted(job.network)
    image = torch.from_numpy(tifffile.imread(job.image)).permute(2, 0, 1)[None].float() / 255
    chosen = {} if job.overlap is None else {"overlap": job.overlap}
    inferer = SlidingWindowInferer((job.tile, job.tile), sw_batch_size=job.batch or 1, **chosen)
    with torch.inference_mode():
        labels = inferer(image, network).argmax(1)[0]
    out = job.out.with_suffix(".npy")
    np.save(out, labels.numpy().astype(np.uint8))
    return Done(out, network.input_px)


if __name__ == "__main__":
    run(segment, "monai", "numpy", "tifffile")
