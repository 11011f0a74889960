"""TorchIO's grid sampler and aggregator; an image is a volume one voxel deep."""

import numpy as np
import tifffile
import torch
import torchio as tio

from counted import Counted
from one_run import Done, Job, run


def segment(job: Job) -> Done:
    """Segment into a NumPy file."""
    network = Counted(job.network)
    pixels = torch.from_numpy(tifffile.imread(job.image)).permute(2, 0, 1)[..., None].float() / 255
    subject = tio.Subject(image=tio.ScalarImage(tensor=pixels))
    overlap = round(job.tile * (job.overlap or 0.0))
    sampler = tio.GridSampler(subject, (job.tile, job.tile, 1), (overlap, overlap, 0))
    aggregator = tio.GridAggregator(sampler)
    with torch.inference_mode():
        for batch in tio.SubjectsLoader(sampler, batch_size=job.batch or 1):
            logits = network(batch["image"][tio.DATA][..., 0])
            labels = logits.argmax(1, keepdim=True)[..., None]
            aggregator.add_batch(labels, batch[tio.LOCATION])
    out = job.out.with_suffix(".npy")
    np.save(out, aggregator.get_output_tensor()[0, ..., 0].numpy().astype(np.uint8))
    return Done(out, network.input_px)


if __name__ == "__main__":
    run(segment, "torchio", "numpy", "tifffile")
