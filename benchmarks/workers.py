"""Two workers of one thread each on a Dask cluster, against one process of two threads.

From a JPEG-tiled slide to the mask on disk, in turns; the time is that from the first block to the
last, so that neither the opening of a cluster nor the measuring of the network counts.
"""

import argparse
import os
import shutil
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from results_file import save
from scaling import opened_cluster
from tile_infer import predict_large
from tile_infer.engine.networks.export import export_onnx
from tile_infer.engine.networks.tissue import write_slide
from tile_infer.engine.networks.unet import UNet

WIDTH = 16


def main() -> None:
    """Measure in turns, print each round and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=6144)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name, opened_cluster(2) as client:
        folder = Path(name)
        os.environ["TILE_INFER_CACHE"] = str(folder / "cache")
        slide, network, out = folder / "slide.tif", folder / "net.onnx", folder / "mask.zarr"
        write_slide(slide, shape=(options.side, options.side), seed=5)
        net = UNet(in_channels=3, classes=2, width=WIDTH).eval()
        export_onnx(net, network, in_channels=3, normalize="unit")

        def seconds(shared: Any) -> float:
            shutil.rmtree(out, ignore_errors=True)
            moments: list[float] = []
            predict_large(
                slide,
                network,
                out,
                workers=2,
                device="cpu",
                backend="onnx",
                verify=0,
                client=shared,
                on_progress=lambda _: moments.append(perf_counter()),
            )
            return moments[-1] - moments[0]

        for shared in (client, None):
            seconds(shared)  # files, rates of this network
        for turn in range(options.rounds):
            arms = {"two_workers": client, "one_process": None}
            found = {
                arm: seconds(arms[arm]) for arm in (arms if turn % 2 else list(reversed(arms)))
            }
            ratio = found["two_workers"] / found["one_process"]
            rows.append({**{arm: round(found[arm], 2) for arm in arms}, "ratio": round(ratio, 4)})
            print(rows[-1], flush=True)
    figures = {
        "image_px": [options.side, options.side],
        "width": WIDTH,
        "rows": rows,
        "median_ratio": round(median(row["ratio"] for row in rows), 4),
    }
    print(save("workers", figures))


if __name__ == "__main__":
    main()
