"""How well many workers are kept busy: blocks that take a second and nothing of the cores.

A whole run on a Dask cluster whose network sleeps a second for each block, beside its reading and
writing. Efficiency is the time that all workers sleep over the time that they are there, from the
first block to the last; the aim is 0.95.

Dask's profiler is off: in every worker it looks a hundred times a second at what the worker does,
which takes a share of the cores that many workers do not share elsewhere.
"""

import argparse
import json
import tempfile
import time
from multiprocessing import parent_process
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import dask
import torch
import zarr
from torch import nn

from results_file import save
from scaling import BLOCK_PX, HEIGHT_PX, opened_cluster, pixels
from tile_infer import Progress, predict_large

AIM = 0.95


class Sleeping(nn.Module):
    """A network of one pixel's view that takes its time, in a worker's process alone.

    What is prepared of a network here, in the process that shares out, is not waited for.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.layer = nn.Conv2d(1, 2, 1)
        self.layer.register_forward_hook(_sleep(seconds))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits ``(n, 2, y, x)``."""
        found: torch.Tensor = self.layer(image)
        return found


def _sleep(seconds: float) -> Any:
    def hook(*_: Any) -> None:
        if parent_process() is not None:
            time.sleep(seconds)

    return hook


def sleeping(workers: int, seconds: float, blocks: int) -> dict[str, Any]:
    """Return the efficiency of a whole run whose blocks sleep."""
    moments: list[float] = []

    def progress(at: Progress) -> None:
        moments.append(perf_counter())
        if at.blocks_done % 500 == 0:
            print(f"{at.blocks_done} of {at.blocks}, {at.seconds:.0f} s", flush=True)

    with tempfile.TemporaryDirectory() as name, opened_cluster(workers) as client:
        torch.manual_seed(0)
        image = Path(name) / "image.zarr"
        zarr.create_array(image, data=pixels(blocks), chunks=(HEIGHT_PX, 16 * BLOCK_PX))
        begun, cpu = perf_counter(), process_time()
        done = predict_large(
            image,
            Sleeping(seconds).eval(),
            Path(name) / "mask.zarr",
            tile=(HEIGHT_PX, BLOCK_PX),
            batch_size=1,
            workers=1,
            halo=0,
            verify=0,
            client=client,
            on_progress=progress,
        )
        whole, cpu = perf_counter() - begun, process_time() - cpu
    assert done.plan.grid.tiles == done.plan.grid.blocks == blocks, "a block is a tile"
    # The clock starts when the first worker has its first block.
    spent = moments[-1] - moments[1] + seconds
    rows = done.report["stages"]
    return {
        "workers": workers,
        "seconds_of_a_block": seconds,
        "blocks": blocks,
        "seconds": round(spent, 2),
        "efficiency": round(blocks * seconds / (workers * spent), 4),
        "seconds_before_the_first_block": round(moments[1] - seconds - begun, 2),
        "seconds_in_all": round(whole, 2),
        "cpu_ms_a_block_of_the_sharing_process": round(1e3 * cpu / blocks, 3),
        "worker_ms_a_block_beside_the_network": round(
            1e3
            * sum(spent for stage, spent in rows.items() if stage not in ("network", "waiting"))
            / blocks,
            2,
        ),
        "aim": AIM,
    }


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=1.0, help="that a block sleeps")
    parser.add_argument("--blocks", type=int, default=10_000)
    options = parser.parse_args()
    with dask.config.set({"distributed.worker.profile.enabled": False}):
        figures = sleeping(options.workers, options.seconds, options.blocks)
    print(json.dumps(figures, indent=1))
    print(save("sleeping", figures))


if __name__ == "__main__":
    main()
