"""This package, in one call; the network as TorchScript or ONNX."""

import onnxruntime  # noqa: F401  # imported before the clock starts, as everybody's libraries are

from one_run import Done, Job, run
from tile_infer import predict_large


def segment(job: Job) -> Done:
    """Segment into an OME-Zarr."""
    out = job.out.with_suffix(".zarr")
    tile = None if job.core == job.tile else (job.tile, job.tile)
    prediction = predict_large(job.image, job.network, out, tile=tile, trust_model=True)
    grid = prediction.plan.grid
    return Done(out, grid.tiles * grid.tile[0] * grid.tile[1], "0")


if __name__ == "__main__":
    run(segment, "tile-infer", "onnxruntime-gpu", "zarr", "tifffile")
