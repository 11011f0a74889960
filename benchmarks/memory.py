"""Peak memory of a run against the image's size: a large image may not need more than a small one.

Each size runs in a process of its own, from a tiled JPEG TIFF on disk to the mask on disk, with the
demo network. The large image's peak may be 10 % + 200 MB above the small one's.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
import tifffile
from numpy.typing import NDArray

from results_file import save

TILE_PX = 256


def write_textured(path: Path, side: int) -> None:
    """Write a square RGB image of noise over slow waves, tile by tile."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 60, (8, TILE_PX, TILE_PX, 3), np.uint8)

    def tiles() -> Iterator[NDArray[np.uint8]]:
        count = -(-side // TILE_PX)
        for row in range(count):
            for column in range(count):
                level = 90 + 60 * np.sin(row / 3) * np.cos(column / 5)
                yield noise[(row + 3 * column) % 8] + np.uint8(level)

    tifffile.imwrite(
        path,
        tiles(),
        shape=(side, side, 3),
        dtype="uint8",
        tile=(TILE_PX, TILE_PX),
        photometric="rgb",
        compression="jpeg",
        compressionargs={"level": 85},
        bigtiff=True,
    )


RUN = """
import json, resource, sys
from importlib.resources import files
from tile_infer import predict_large
image, out = sys.argv[1:]
model = str(files("tile_infer.engine.networks") / "demo.onnx")
prediction = predict_large(image, model, out)
print(json.dumps({k: prediction.report[k] for k in ("peak_rss_bytes", "seconds")} |
                 {"planned_bytes": prediction.plan.memory_bytes}))
"""


def main() -> None:
    """Measure each size, print it and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[4000, 12000, 24000])
    sides = parser.parse_args().sides
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for side in sides:
            image, out = Path(folder) / f"{side}.tif", Path(folder) / f"{side}.zarr"
            write_textured(image, side)
            begun = perf_counter()
            done = subprocess.run(
                [sys.executable, "-c", RUN, image, out], capture_output=True, text=True, check=True
            )
            row = {"side_px": side, "wall_seconds": round(perf_counter() - begun, 1)}
            row |= json.loads(done.stdout)
            print(row, flush=True)
            rows.append(row)
            image.unlink()
    small, large = rows[0]["peak_rss_bytes"], rows[-1]["peak_rss_bytes"]
    allowed = small * 1.1 + 200e6
    figures = {"rows": rows, "allowed_bytes": int(allowed), "flat": large <= allowed}
    print(f"{save('memory', figures)}: flat={figures['flat']}")


if __name__ == "__main__":
    main()
