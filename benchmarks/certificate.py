"""What the certificate costs that every run ends with: runs with and without it, in turns.

From a JPEG-tiled slide to the mask on disk, each in a process of its own, by the fastest library.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from engine_process import run_engine
from results_file import save
from slide_file import described
from tile_infer.engine.conduct import VERIFIED
from tile_infer.engine.networks.export import export_onnx
from tile_infer.engine.networks.tissue import write_slide
from tile_infer.engine.networks.unet import UNet

SIDES_PX = (2048, 4096, 8192)
WIDTH = 16


def measured(folder: Path, side: int, model: Path, rounds: int) -> dict[str, Any]:
    """Return the figures of one size."""
    slide = folder / "slide.tif"
    write_slide(slide, shape=(side, side), seed=5)

    def once(verify: float | None) -> float:
        out = folder / "mask.zarr"
        ran = run_engine(slide, model, out, "onnxruntime", "openvino", device="cpu", verify=verify)
        return float(ran["seconds"])

    once(None)  # files, rates of this network
    rows = []
    for turn in range(rounds):
        arms = {"with": None, "without": 0.0}
        order = list(arms) if turn % 2 else list(reversed(arms))
        seconds = {arm: once(arms[arm]) for arm in order}
        rows.append(
            {
                "with_seconds": round(seconds["with"], 3),
                "without_seconds": round(seconds["without"], 3),
                "ratio": round(seconds["with"] / seconds["without"], 4),
            }
        )
        print(side, rows[-1], flush=True)
    return {
        "image": described(slide),
        "rows": rows,
        "median_ratio": round(median(row["ratio"] for row in rows), 4),
        "median_seconds": round(
            median(row["with_seconds"] - row["without_seconds"] for row in rows), 3
        ),
    }


def main() -> None:
    """Measure each size, print each round and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES_PX)
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = folder / "network.onnx"
        export_onnx(
            UNet(in_channels=3, classes=2, width=WIDTH).eval(),
            model,
            in_channels=3,
            normalize="unit",
        )
        sizes = [measured(folder, side, model, options.rounds) for side in options.sides]
    print(save("certificate", {"share": VERIFIED, "width": WIDTH, "sizes": sizes}))


if __name__ == "__main__":
    main()
