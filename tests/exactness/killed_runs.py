"""Run a slow prediction in children, kill each with SIGKILL, and let the last one finish.

Called with a folder and the number of kills. Children are forked, so that 20 of them do not import
everything 20 times.
"""

import importlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tile_infer import predict_large

IMAGE_SHAPE = (24, 120_000)
TILE = (32, 320)


SECONDS = [0.0]
"""Time a tile takes. Not on the network, of whose hash it would be part."""


class Slow(nn.Module):
    """Two convolutions that take their time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(SECONDS[0])
        logits: Tensor = self.layers(x)
        return logits


def start(folder: Path, name: str, seconds: float, devices: int = 1) -> int:
    """Return the process id of a child that runs the prediction, on the CPU named so often."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        torch.set_num_threads(1)
        SECONDS[0] = seconds
        image: Any = np.load(folder / "image.npy")
        predict_large(
            image,
            Slow(),
            folder / name,
            tile=TILE,
            workers=2,
            output="probabilities",
            device=",".join(["cpu"] * devices),
        )
        code = 0
    finally:
        os._exit(code)


def chunks(folder: Path) -> int:
    """Return how many chunks of the mask are there."""
    found = folder / "parts.zarr/0/c/0"
    return sum("." not in path.name for path in found.iterdir()) if found.is_dir() else 0


def finish(child: int) -> None:
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"a run ended with {os.waitstatus_to_exitcode(status)}")


def main(folder: Path, wanted: int) -> None:
    importlib.import_module("torch._dynamo")  # Torch does so when it traces a network: two seconds
    rng = np.random.default_rng(0)
    np.save(folder / "image.npy", rng.integers(0, 256, IMAGE_SHAPE, dtype=np.uint8))
    finish(start(folder, "whole.zarr", 0))
    total = sum("." not in path.name for path in (folder / "whole.zarr/0/c/0").iterdir())
    kills = 0
    while kills < wanted:
        child = start(folder, "parts.zarr", 0.002, devices=1 + kills % 2)
        # A little further each time, and then at any moment of what a block does.
        threshold = max(1, (kills + 1) * total // (wanted + 4))
        while chunks(folder) < threshold:
            if os.waitpid(child, os.WNOHANG)[0]:
                sys.exit("a run ended before it was killed")
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            sys.exit("a run ended before it was killed")
        if not 0 < chunks(folder) < total:
            sys.exit(f"killed at {chunks(folder)} of {total} chunks")
        kills += 1
    finish(start(folder, "parts.zarr", 0))
    sys.stdout.write(f"kills {kills}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
