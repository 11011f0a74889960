"""What the engine adds to the network: its wall time over that of the network alone.

Both run the same number of 572-px tiles of a 16-channel U-Net of the paper on the CPU, in fp32,
with ONNX Runtime. The engine goes from a JPEG-tiled RGB slide on disk to the mask on disk, its
probe and plan included. The network alone runs noise tiles, in the better of two ways to use the
cores. The runs alternate; the ratio is the median over the rounds.
"""

import argparse
import shutil
import statistics
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime
import torch

from results_file import save
from tile_infer import predict_large
from tile_infer.engine.backends.device import cpu_cores
from tile_infer.engine.networks.export import export_onnx
from tile_infer.engine.networks.tissue import write_slide
from tile_infer.engine.networks.unet import UNet

TILE_PX = 572
CORE_PX = 384


def session(model: Path, threads: int) -> Any:
    """Return a plain ONNX Runtime session on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def network_alone(model: Path, tiles: int, at_once: int, threads: int) -> float:
    """Return the seconds that ``tiles`` runs take, ``at_once`` side by side."""
    run = session(model, threads)
    tile = np.random.default_rng(0).random((1, 3, TILE_PX, TILE_PX), np.float32)
    run.run(None, {"image": tile})
    begun = perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(lambda _: len(run.run(None, {"image": tile})), range(tiles)))
    return perf_counter() - begun


def engine(slide: Path, model: Path, out: Path) -> tuple[float, float, int]:
    """Return the seconds from call to return, those spent on blocks, and the tiles run."""
    moments = []
    shutil.rmtree(out, ignore_errors=True)
    begun = perf_counter()
    prediction = predict_large(
        slide, model, out, device="cpu", on_progress=lambda _: moments.append(perf_counter())
    )
    return perf_counter() - begun, moments[-1] - moments[0], prediction.plan.grid.tiles


def main() -> None:
    """Measure, print each round and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=16, help="channels of the first level")
    parser.add_argument("--side", type=int, default=21 * CORE_PX, help="side of the slide in px")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    cores = cpu_cores()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slide, model, out = folder / "slide.tif", folder / "unet.onnx", folder / "mask.zarr"
        write_slide(slide, shape=(options.side, options.side), seed=5)
        torch.manual_seed(0)
        unet = UNet(in_channels=3, classes=2, width=options.width)
        export_onnx(unet, model, in_channels=3, size=(TILE_PX, TILE_PX))
        for _ in range(options.rounds):
            wall, blocks, tiles = engine(slide, model, out)
            split = network_alone(model, tiles, cores, 1)
            whole = network_alone(model, tiles, 1, cores)
            alone = min(split, whole)
            row = {
                "tiles": tiles,
                "engine_seconds": wall,
                "blocks_seconds": blocks,
                "network_one_thread_each_seconds": split,
                "network_all_threads_seconds": whole,
                "ratio": wall / alone,
                "ratio_of_blocks": blocks / alone,
            }
            rows.append({key: round(value, 3) for key, value in row.items()})
            print(rows[-1], flush=True)
    ratio = statistics.median(row["ratio"] for row in rows)
    figures = {
        "width": options.width,
        "side_px": options.side,
        "jpeg": "tiled, quality and subsampling as written by tissue.write_slide",
        "rows": rows,
        "median_ratio": ratio,
        "median_ratio_of_blocks": statistics.median(row["ratio_of_blocks"] for row in rows),
    }
    print(f"{save('overhead', figures)}: ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
