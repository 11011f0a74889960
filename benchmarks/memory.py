"""Peak memory and disk of a run against the image's size: a large image may need no more memory.

Two parts, each size in a process of its own. ``generated``: a Zarr array whose chunks are made when
they are read, up to 100,000 px a side, through a network of three 3 x 3 convolutions of 8 channels.
``jpeg``: a tiled JPEG TIFF on disk through the demo network. Disk is all that a run writes, watched
while it runs, temporary files included.

The aim, of ``generated``: the largest peak is 10 % above the smallest at most, and below 1 GB with
the network. For ``jpeg`` the last image's peak may be 10 % + 200 MB above the first one's.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from torch import nn

from balanced import balance
from generated_image import tile
from results_file import save
from tile_infer.engine.networks.export import export_onnx

TILE_PX = 256
WATCH_SECONDS = 1.0
FLAT = 1.1
LIMIT_BYTES = 10**9
JPEG_ALLOWED_BYTES = 200 * 10**6


def write_textured(path: Path, shape: tuple[int, int]) -> None:
    """Write an RGB image of ``(y, x)`` pixels as a JPEG TIFF, tile by tile."""
    rows, columns = (-(-side // TILE_PX) for side in shape)

    def tiles() -> Iterator[NDArray[np.uint8]]:
        for row in range(rows):
            for column in range(columns):
                yield tile(row, column, TILE_PX)

    tifffile.imwrite(
        path,
        tiles(),
        shape=(*shape, 3),
        dtype="uint8",
        tile=(TILE_PX, TILE_PX),
        photometric="rgb",
        compression="jpeg",
        compressionargs={"level": 85},
        bigtiff=True,
    )


def write_network(path: Path) -> None:
    """Write a small network of random weights that says both classes as often."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in pairwise((3, 8, 8, 2)):
        layers += [nn.Conv2d(before, after, 3), nn.ReLU()]
    network = nn.Sequential(*layers[:-1]).eval()
    balance(network, network[-1], tile(0, 0, TILE_PX))
    export_onnx(network, path, in_channels=3, normalize="unit")


RUN = """
import json, sys
from importlib.resources import files
from tile_infer import predict_large
image, model, out = sys.argv[1:]
if image.isdigit():
    from generated_image import generated
    image = generated(int(image))
model = model or str(files("tile_infer.engine.networks") / "demo.onnx")
prediction = predict_large(image, model, out)
print(json.dumps({k: prediction.report[k] for k in ("peak_rss_bytes", "seconds")} |
                 {"planned_bytes": prediction.plan.memory_bytes}))
"""


def written_bytes(folder: str) -> int:
    """Return the size of all files under a folder, which others write to meanwhile."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(path, name)).st_size  # noqa: PTH118, PTH116 - many
            except FileNotFoundError:
                continue
    return total


def measured(side: int, image: str, model: str) -> dict[str, Any]:
    """Return what a run in a fresh process took, where everything it writes is watched."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", RUN, image, model, f"{folder}/mask.zarr"]
        place = {"PYTHONPATH": str(Path(__file__).parent), "TMPDIR": folder}
        begun = perf_counter()
        run = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **place},
        )
        most_bytes = 0
        while True:
            try:
                said, complaint = run.communicate(timeout=WATCH_SECONDS)
                break
            except subprocess.TimeoutExpired:
                most_bytes = max(most_bytes, written_bytes(folder))
        wall = perf_counter() - begun
        if run.returncode:
            raise RuntimeError(complaint)
        kept_bytes = written_bytes(f"{folder}/mask.zarr")
        return {
            "side_px": side,
            "wall_seconds": round(wall, 1),
            **json.loads(said.splitlines()[-1]),
            "mask_bytes": kept_bytes,
            "largest_disk_bytes": max(most_bytes, written_bytes(folder)),
        }


def flat(peaks: list[int]) -> bool:
    """Say whether the largest peak is hardly above the smallest."""
    return max(peaks) <= FLAT * min(peaks)


def main() -> None:
    """Measure each size of both parts, print it and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="*", default=[2000, 8000, 32_000, 100_000])
    parser.add_argument("--jpeg-sides", type=int, nargs="*", default=[4000, 12_000, 24_000])
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network = folder / "small.onnx"
        write_network(network)
        if options.sides:
            rows = []
            for side in sorted(options.sides):
                rows.append(measured(side, str(side), str(network)))
                print(rows[-1], flush=True)
            peaks = [row["peak_rss_bytes"] for row in rows]
            flat_from = next(i for i in range(len(peaks)) if flat(peaks[i:]))
            figures["generated"] = {
                "network": "three 3 x 3 convolutions, 8 channels",
                "network_bytes": network.stat().st_size,
                "rows": rows,
                "largest_peak_over_smallest": round(max(peaks) / min(peaks), 3),
                "flat": flat(peaks),
                "flat_from_side_px": rows[flat_from]["side_px"],
                "below_1_gb": max(peaks) < LIMIT_BYTES,
            }
            figures["aim_met"] = all(figures["generated"][each] for each in ("flat", "below_1_gb"))
        rows = []
        for side in sorted(options.jpeg_sides):
            image = folder / f"{side}.tif"
            write_textured(image, (side, side))
            rows.append(measured(side, str(image), ""))
            print(rows[-1], flush=True)
            image.unlink()
        if rows:
            peaks = [row["peak_rss_bytes"] for row in rows]
            allowed = FLAT * peaks[0] + JPEG_ALLOWED_BYTES
            figures |= {
                "rows": rows,
                "allowed_bytes": int(allowed),
                "flat": peaks[-1] <= allowed,
            }
    print(f"{save('memory', figures)}: aim_met={figures.get('aim_met')}")


if __name__ == "__main__":
    main()
