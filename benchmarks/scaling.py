"""What sharing out costs where blocks cost next to nothing: many workers, few cores.

``nothing``: blocks that are answered at once go through the same window of submitted blocks. What
is left is the scheduler's, the client's and the connections' time.

``alone``: what the process that shares out does and holds for each block before the first: what is
done is looked for in the output, and the rest is put in order.

``finishing``: what the end of a run in parts takes, which one process does.
"""

import argparse
import tempfile
import tracemalloc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import distributed
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from generated_image import generated
from results_file import save
from tile_infer import plan_prediction, predict_large
from tile_infer.engine.cluster import Cluster
from tile_infer.engine.cluster_worker import BlockPlugin, Done
from tile_infer.engine.crew import Effort
from tile_infer.engine.finish import finish
from tile_infer.engine.local_cluster import local_cluster
from tile_infer.engine.predict import opened_mask
from tile_infer.engine.stitcher.records import Record
from tile_infer.engine.stitcher.store import claim, open_store

HEIGHT_PX, BLOCK_PX = 16, 1536
"""An image of one row of tiles, each of which is a block: many blocks of few pixels."""

FEW_WORKERS = 4
"""That leave the scheduler something of the cores."""


class Nothing(BlockPlugin):
    """Answers each block at once."""

    def compute(self, block: int, pixels: Any) -> Done:
        """Return what a worker returns, of a block that was not computed."""
        return Done(Record(block, (1, 1), 0), "nothing", Effort(), [])


@contextmanager
def opened_cluster(workers: int) -> Iterator[distributed.Client]:
    """Open a cluster of processes of one thread; the scheduler is here."""
    with local_cluster(workers) as client:
        client.wait_for_workers(workers, timeout=600)
        yield client


def pixels(blocks: int) -> NDArray[np.uint8]:
    """Return an image ``(y, x)`` of so many blocks, none of one colour."""
    row = np.resize(np.arange(251, dtype=np.uint8), blocks * BLOCK_PX)
    return np.broadcast_to(row, (HEIGHT_PX, row.size))


def nothing(client: distributed.Client, workers: int, blocks: int) -> dict[str, Any]:
    """Return what blocks cost that are answered at once."""
    name, cluster = f"nothing-{blocks}", Cluster(client)
    client.register_plugin(Nothing(name, order=None), name=name)  # type: ignore[arg-type]
    begun, cpu = perf_counter(), process_time()
    seen = sum(1 for _ in cluster._blocks(name, range(blocks), None, {}, print))
    spent, cpu = perf_counter() - begun, process_time() - cpu
    client.unregister_worker_plugin(name)
    assert seen == blocks
    return {
        "workers": workers,
        "blocks": blocks,
        "ms_a_block": round(1e3 * spent / blocks, 3),
        "cpu_ms_a_block_of_the_sharing_process": round(1e3 * cpu / blocks, 3),
    }


def alone(blocks: int) -> dict[str, Any]:
    """Return what the process that shares out does and holds for each block."""
    network = nn.Conv2d(1, 2, 1).eval()
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as name:
        warnings.simplefilter("ignore")  # a halo that is given is not measured
        plan = plan_prediction(
            pixels(blocks), network, tile=(HEIGHT_PX, BLOCK_PX), workers=1, halo=0
        )
        assert plan.grid.blocks == blocks
        store = open_store(Path(name) / "mask.zarr")
        claim(store, plan.to_dict())

        def share_out() -> None:
            _, records = opened_mask(store, plan)
            left = (block for block in range(blocks) if block not in records)
            assert len(plan.strips.order(plan.grid, left)) == blocks

        share_out()  # begins the mask
        begun = perf_counter()
        share_out()
        spent = perf_counter() - begun
        tracemalloc.start()
        share_out()
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return {
        "blocks": blocks,
        "microseconds_a_block": round(1e6 * spent / blocks, 2),
        "bytes_a_block_at_most": round(most / blocks, 1),
    }


def finishing(side: int) -> dict[str, Any]:
    """Return what the end of a run in parts takes: each chunk is decoded, the last levels made."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "mask.zarr"
        network = nn.Conv2d(3, 2, 1).eval()
        done = predict_large(generated(side), network, out, part="0/1", verify=0)
        begun = perf_counter()
        finish(out)
        spent = perf_counter() - begun
    grid = done.plan.grid
    return {
        "image_px": [side, side],
        "block_px": list(grid.block),
        "chunk_px": list(grid.chunk),
        "blocks": grid.blocks,
        "ms_a_block": round(1e3 * spent / grid.blocks, 2),
    }


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=32)
    parser.add_argument("--nothing", type=int, nargs="*", default=(1_000, 10_000, 100_000))
    parser.add_argument("--side", type=int, default=16384, help="of the mask that is finished")
    options = parser.parse_args()
    figures: dict[str, Any] = {"alone": [alone(blocks) for blocks in options.nothing]}
    print(figures["alone"], flush=True)
    figures["finishing"] = finishing(options.side)
    print(figures["finishing"], flush=True)
    figures["nothing"] = []
    for workers in sorted({FEW_WORKERS, options.workers}):
        with opened_cluster(workers) as client:
            nothing(client, workers, 200)  # connections
            for blocks in options.nothing:
                if workers > FEW_WORKERS and blocks > 10_000:  # they fight for the cores
                    continue
                figures["nothing"].append(nothing(client, workers, blocks))
                print(figures["nothing"][-1], flush=True)
    print(save("scaling", figures))


if __name__ == "__main__":
    main()
