"""MONAI's patches, put together in Zarr."""

import numpy as np
import tifffile
import torch
import zarr
from monai.inferers import PatchInferer, SlidingWindowSplitter, ZarrAvgMerger

from counted import Counted
from one_run import Done, Job, run

ROWS = 1024


def segment(job: Job) -> Done:
    """Segment into a Zarr array, by way of one of logits."""
    network = Counted(job.network)
    image = torch.from_numpy(tifffile.imread(job.image)).permute(2, 0, 1)[None].float() / 255
    inferer = PatchInferer(
        SlidingWindowSplitter((job.tile, job.tile), overlap=job.overlap or 0.0),
        ZarrAvgMerger,
        batch_size=job.batch or 1,
        store=str(job.out.with_suffix(".logits.zarr")),
    )
    with torch.inference_mode():
        logits = inferer(image, network)
    out = job.out.with_suffix(".zarr")
    labels = zarr.open_array(out, mode="w", shape=logits.shape[2:], dtype="uint8")
    for y in range(0, labels.shape[0], ROWS):
        labels[y : y + ROWS] = np.argmax(logits[0, :, y : y + ROWS], axis=0)
    return Done(out, network.input_px)


if __name__ == "__main__":
    run(segment, "monai", "zarr", "numpy", "tifffile")
