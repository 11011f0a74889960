"""This package, in one call; the network as TorchScript or ONNX."""

import os
import sys
from importlib import import_module

from one_run import Done, Job, run
from tile_infer import predict_large


def segment(job: Job) -> Done:
    """Segment into an OME-Zarr."""
    out = job.out.with_suffix(".zarr")
    # Else a run would profit from what the runs before it have measured.
    cache = job.out.with_name("kept") if job.kept else job.out.with_suffix(".cache")
    os.environ["TILE_INFER_CACHE"] = str(cache)
    tile = (job.tile, job.tile) if job.fixed else None
    prediction = predict_large(
        job.image,
        job.network,
        out,
        tile=tile,
        backend=job.backend,
        precision=job.precision,
        trust_model=True,
        verify=0,  # nobody else does, and certificate.py measures it
    )
    grid = prediction.plan.grid
    return Done(out, grid.tiles * grid.tile[0] * grid.tile[1], "0")


if __name__ == "__main__":
    # As everybody's libraries, what runs the network is imported before the clock starts.
    if any(each.endswith(".onnx") for each in sys.argv):
        import_module("onnxruntime")
    else:
        import_module("torch.fx.experimental.proxy_tensor")
        import_module("torch._dynamo")  # what Torch's tracer imports when it is first used
    run(segment, "tile-infer", "onnxruntime-gpu", "zarr", "tifffile")
