"""The bytes of a mask, whoever computes its blocks: each way of sharing out against one thread.

Logits are stored as well, so that every bit which the network gives is compared. All runs follow
one plan, by which a block has one thread of the network wherever it is computed. The control is a
run with tiles of another size: its logits are not the same to the last bit, which has to show.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any

import distributed
import numpy as np
from distributed.core import Status

from results_file import save
from scaling import opened_cluster
from tile_infer import Plan, Progress, plan_prediction, predict_large
from tile_infer.engine.finish import finish
from tile_infer.engine.networks.export import export_onnx
from tile_infer.engine.networks.tissue import write_slide
from tile_infer.engine.networks.unet import UNet
from tile_infer.engine.stitcher.store import claim, open_store

WIDTH, TILE_PX, OTHER_TILE_PX = 8, 444, 572
PARTS = 4
SEED = 20240917


class StopError(Exception):
    """Raised on purpose, in the middle of a run."""


@dataclass
class Ways:
    """Runs of one image, network and plan, each of which shares the blocks out in its own way."""

    slide: Path
    network: Path
    plan: Plan
    killed: int = field(default=0, init=False)
    """Workers that were killed."""

    def begin(self, out: Path, workers: int = 1) -> None:
        """Claim an output by the plan, for so many workers of a local run."""
        execution = replace(self.plan.execution, workers=workers, threads=1)
        claim(open_store(out), replace(self.plan, execution=execution).to_dict())

    def run(self, out: Path, **options: Any) -> None:
        """Make what an output lacks."""
        predict_large(self.slide, self.network, out, output="logits", verify=0, **options)

    def threads(self, out: Path, count: int) -> None:
        """Let threads of this process compute all."""
        self.begin(out, count)
        self.run(out)

    def parts(self, out: Path) -> None:
        """Start a process for each part, all at once, and finish."""
        self.begin(out)
        program = Path(sys.executable).with_name("tile-infer")
        line = [program, self.slide, "--model", self.network, "--out", out]
        options = ["--output", "logits", "--quiet", "--part"]
        jobs = [
            subprocess.Popen([str(word) for word in (*line, *options, f"{part}/{PARTS}")])
            for part in range(PARTS)
        ]
        codes = [job.wait() for job in jobs]
        if any(codes):
            raise RuntimeError("a part failed")
        finish(out)

    def cluster(self, out: Path, workers: int, kill_seconds: float | None = None) -> None:
        """Let a Dask cluster compute all; kill one of its workers now and then."""
        self.begin(out)
        with opened_cluster(workers) as client:
            if kill_seconds is None:
                self.run(out, client=client)
            else:
                with self._killing(client, kill_seconds):
                    self.run(out, client=client)

    def half_on_a_cluster(self, out: Path) -> None:
        """Stop a local run half way, and let a cluster go on."""
        self.begin(out)

        def stop(progress: Progress) -> None:
            if progress.blocks_done >= progress.blocks // 2:
                raise StopError

        with suppress(StopError):
            self.run(out, on_progress=stop)
        with opened_cluster(2) as client:
            self.run(out, client=client)

    @contextmanager
    def _killing(self, client: distributed.Client, seconds: float) -> Iterator[None]:
        ended, rng = threading.Event(), np.random.default_rng(SEED)

        def kill() -> None:
            while not ended.wait(seconds):
                # None is killed while it starts: on a slow machine none would ever run.
                processes = [each.process for each in client.cluster.workers.values()]
                pids = [each.pid for each in processes if each and each.status == Status.running]
                with suppress(ProcessLookupError, IndexError):
                    os.kill(pids[int(rng.integers(len(pids) or 1))], signal.SIGKILL)
                    self.killed += 1

        thread = threading.Thread(target=kill)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def chunks(mask: Path) -> dict[str, str]:
    """Return a hash of each chunk and record."""
    return {
        str(path.relative_to(mask)): sha256(path.read_bytes()).hexdigest()
        for path in mask.rglob("*")
        if path.is_file() and "c" in path.relative_to(mask).parts
    }


def main() -> int:
    """Run, compare, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=12288)
    parser.add_argument("--kill-seconds", type=float, default=3.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slide, network = folder / "slide.tif", folder / "network.onnx"
        write_slide(slide, shape=(options.side, options.side), seed=7)
        net = UNet(in_channels=3, classes=3, width=WIDTH).eval()
        export_onnx(net, network, in_channels=3, normalize="unit")

        def planned(tile: int) -> Ways:
            asked: dict[str, Any] = {"tile": (tile, tile), "backend": "onnx", "device": "cpu"}
            plan = plan_prediction(slide, network, workers=1, output="logits", **asked)
            return Ways(slide, network, plan)

        ways, other = planned(TILE_PX), planned(OTHER_TILE_PX)
        arms: dict[str, Callable[[Path], None]] = {
            "four threads": lambda out: ways.threads(out, 4),
            "four parts at once": ways.parts,
            "a cluster of 1 worker": lambda out: ways.cluster(out, 1),
            "a cluster of 2 workers": lambda out: ways.cluster(out, 2),
            "a cluster of 4 workers": lambda out: ways.cluster(out, 4),
            "a cluster of 4 workers, one killed again and again": lambda out: ways.cluster(
                out, 4, options.kill_seconds
            ),
            "half by one process, half by a cluster of 2 workers": ways.half_on_a_cluster,
            "control: tiles of another size": lambda out: other.threads(out, 1),
        }
        ways.threads(folder / "one.zarr", 1)
        wanted, found, right = chunks(folder / "one.zarr"), {}, True
        for number, (arm, run) in enumerate(arms.items()):
            out, begun = folder / f"{number}.zarr", perf_counter()
            run(out)
            made = chunks(out)
            differing = sum(made.get(key) != wanted.get(key) for key in made.keys() | wanted.keys())
            right &= (differing > 0) == arm.startswith("control")
            found[arm] = {"differing": differing, "seconds": round(perf_counter() - begun, 1)}
            print(arm, found[arm], flush=True)
    figures = {
        "image_px": [options.side, options.side],
        "blocks": ways.plan.grid.blocks,
        "tiles": ways.plan.grid.tiles,
        "chunks_and_records": len(wanted),
        "kill_seconds": options.kill_seconds,
        "workers_killed": ways.killed,
        "ways": found,
    }
    print(json.dumps(figures, indent=1))
    print(save("same_bytes", figures))
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
