"""One pass over the whole image, mirrored all around: what every mask is compared with. Torch."""

import numpy as np
import torch

from counted import Counted
from extended_image import extended_image
from one_run import Done, Job, run


def segment(job: Job) -> Done:
    """Segment into a NumPy file."""
    network = Counted(job.network)
    padded, inside = extended_image(job)
    with torch.inference_mode():
        logits = network(torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 255)[0]
    labels = logits[(slice(None), *inside)].argmax(0)
    out = job.out.with_suffix(".npy")
    np.save(out, labels.numpy().astype(np.uint8))
    return Done(out, network.input_px)


if __name__ == "__main__":
    run(segment, "numpy", "tifffile")
