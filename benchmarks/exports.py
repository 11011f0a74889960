"""Peak memory and processor time of the exports against the mask's size, and on pure noise.

Each export runs in a process of its own, which opens the finished mask first; what is counted is
the peak from then on, above what the process had (Linux only).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import zarr
from numpy.typing import NDArray

from results_file import save
from tile_infer.engine.networks.export import export_onnx

TILE_PX = 1024


def cells(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a tile of two kinds of discs, that touch and overlap, on nothing."""
    tile = np.zeros((TILE_PX, TILE_PX), np.uint8)
    y, x = np.indices(tile.shape)
    for _ in range(300):
        centre_y, centre_x = rng.integers(0, TILE_PX, 2)
        inside = np.hypot(y - centre_y, x - centre_x) < rng.integers(6, 18)
        tile[inside] = rng.choice([128, 255])
    return tile


def noise(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a tile whose pixels know nothing of each other."""
    return rng.choice(np.array([0, 128, 255], np.uint8), (TILE_PX, TILE_PX))


KINDS = {"cells": cells, "noise": noise}


def write_image(path: Path, kind: str, side: int) -> None:
    """Write a square image that repeats one tile, as a Zarr array."""
    tile = KINDS[kind](np.random.default_rng(0))
    image = zarr.create_array(path, shape=(side, side), chunks=tile.shape, dtype="uint8")
    for y in range(0, side, TILE_PX):
        for x in range(0, side, TILE_PX):
            image[y : y + TILE_PX, x : x + TILE_PX] = tile[: side - y, : side - x]


def write_network(path: Path) -> None:
    """Write a network that says 0, 1 and 2 for black, grey and white."""
    network = torch.nn.Conv2d(1, 3, 1)
    with torch.no_grad():
        network.weight[:] = torch.tensor([-4.0, 0.0, 4.0])[:, None, None, None]
        network.bias.copy_(torch.tensor([1.0, 0.0, -3.0]))  # type: ignore[union-attr]
    export_onnx(network, str(path), in_channels=1)


PREDICT = "import sys; from tile_infer import predict_large; predict_large(*sys.argv[1:4])"

EXPORT = """
import json, sys
from pathlib import Path
from time import process_time
from tile_infer import predict_large

def peak_bytes():
    (line,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

prediction = predict_large(*sys.argv[1:4])
Path("/proc/self/clear_refs").write_text("5")
before, begun = peak_bytes(), process_time()
prediction.export(sys.argv[4])
print(json.dumps({"cpu_seconds": round(process_time() - begun, 1),
                  "added_bytes": peak_bytes() - before,
                  "file_bytes": Path(sys.argv[4]).stat().st_size}))
"""


def main() -> None:
    """Measure each, print it and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--masks", nargs="+", default=["cells-5000", "cells-20000", "noise-1250", "noise-2500"]
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "three.onnx"
        write_network(model)
        for mask in parser.parse_args().masks:
            kind, side = mask.split("-")
            image, out = (Path(folder) / f"{mask}.{what}.zarr" for what in ("image", "mask"))
            write_image(image, kind, int(side))
            subprocess.run([sys.executable, "-c", PREDICT, image, model, out], check=True)
            for ending in (".ome.tif", ".tif", ".geojson"):
                path = Path(folder) / f"mask{ending}"
                done = subprocess.run(
                    [sys.executable, "-c", EXPORT, image, model, out, path],
                    capture_output=True,
                    text=True,
                    check=True,
                )
                row = {"mask": kind, "side_px": int(side), "format": ending}
                row |= json.loads(done.stdout)
                print(row, flush=True)
                rows.append(row)
                path.unlink()
    print(save("exports", {"rows": rows}))


if __name__ == "__main__":
    main()
