"""The engine against one pass over the whole image: time, memory and labels, up to half of RAM.

Both go from the same JPEG-tiled slide to labels on disk with the same network (the valid U-Net of
the paper, 16 channels), the same library in fp32 and the same cores, each run in a process of its
own. The whole pass gives the whole mirrored image to one call of the library, which has to hold
every layer of it; the engine's time includes what it measures of the network. Sizes grow to what a
whole pass may hold: its memory per pixel is measured on two small images. Runs alternate; a ratio
is the median over the rounds.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fresh_process import labels_of, run_script
from peers import SIZES, SLIDE_SEED, unet
from results_file import save
from slide_file import described
from tile_infer.engine.backends.device import cpu_cores
from tile_infer.engine.networks.export import export_onnx
from tile_infer.engine.networks.tissue import write_slide

PILOT_SIDES = (1024, 2048)
SHARES = (1 / 8, 1 / 4, 1 / 2, 1)
"""Of the largest image, in pixels."""
ROUND_PX = 128
AIM = 0.8
ROUNDING = 2e-5
"""Labels may differ where the best two logits differ by less, of the largest logit: twice what the
engine promises of each logit."""
ARMS = {"engine": "ours", "whole": "whole_session"}


def largest_side(peaks: dict[int, int], limit_bytes: int) -> int:
    """Return the largest image that stays under a limit, as two smaller ones foretell."""
    (small, small_bytes), (large, large_bytes) = sorted(peaks.items())
    bytes_per_px = (large_bytes - small_bytes) / (large**2 - small**2)
    fixed_bytes = small_bytes - bytes_per_px * small**2
    side = ((limit_bytes - fixed_bytes) / bytes_per_px) ** 0.5
    return int(side) // ROUND_PX * ROUND_PX


def compared(engine: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """Return how many labels differ, and the largest difference of the best two logits there."""
    wrong = labels_of(engine) != labels_of(whole)
    gaps: NDArray[np.float32] = np.load(Path(whole["labels"]).with_suffix(".gaps.npy"))
    largest = float(gaps[wrong].max(initial=0))
    return {
        "labels_differing": int(wrong.sum()),
        "largest_gap_of_logits_there": largest,
        "differ_only_in_ties": largest <= ROUNDING,
        "class_1": float(np.mean(labels_of(whole) == 1)),
    }


def main() -> None:
    """Find the sizes, run both arms in turns, print each round and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=("onnx", "openvino"), default="onnx")
    parser.add_argument("--width", type=int, default=16, help="channels of the first level")
    parser.add_argument("--sides", type=int, nargs="+", help="[up to half of RAM]")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    threads = cpu_cores()
    ram_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network = folder / "valid.onnx"
        export_onnx(unet("valid", options.width), network, in_channels=3, normalize="unit")

        def once(arm: str, image: Path, *more: str) -> dict[str, Any]:
            shutil.rmtree(folder / f"{arm}.zarr", ignore_errors=True)
            asked = (*SIZES["valid"], f"--backend={options.backend}", *more)
            python, script = Path(sys.executable), ARMS[arm]
            # The engine's address space says nothing of what it holds.
            limit = ram_bytes * 3 // 4 if arm == "whole" else None
            out = folder / arm
            return run_script(
                python, script, image, network, out, threads, *asked, limit_bytes=limit
            )

        def slide(side: int) -> Path:
            path = folder / f"{side}.tif"
            if not path.exists():
                write_slide(path, (side, side), SLIDE_SEED)
            return path

        pilots = {side: once("whole", slide(side))["peak_bytes"] for side in PILOT_SIDES}
        largest = largest_side(pilots, ram_bytes // 2)
        sides = options.sides or [
            int(largest * share**0.5) // ROUND_PX * ROUND_PX for share in SHARES
        ]
        if max(sides) > largest:
            parser.error(f"a whole pass of more than {largest} px takes more than half of RAM")
        rows = []
        for side in sides:
            image = slide(side)
            runs: list[dict[str, dict[str, Any]]] = []
            for turn in range(options.rounds):
                order = sorted(ARMS, reverse=bool(turn % 2))
                runs.append({arm: once(arm, image) for arm in order})
                seconds = {arm: round(found["seconds"], 2) for arm, found in runs[-1].items()}
                print(side, seconds, flush=True)
            ratios = [found["engine"]["seconds"] / found["whole"]["seconds"] for found in runs]
            row: dict[str, Any] = {
                "side_px": side,
                "image": described(image),
                "median_ratio": round(median(ratios), 3),
                "ratios": [round(ratio, 3) for ratio in ratios],
            }
            for arm in ARMS:
                row[f"{arm}_seconds"] = [round(found[arm]["seconds"], 3) for found in runs]
                row[f"{arm}_peak_bytes"] = max(found[arm]["peak_bytes"] for found in runs)
            row |= compared(runs[-1]["engine"], once("whole", image, "--gaps"))
            print({key: row[key] for key in row if key not in ("image", "ratios")}, flush=True)
            rows.append(row)
            image.unlink()
    figures = {
        "backend": options.backend,
        "precision": "fp32",
        "width": options.width,
        "threads": threads,
        "ram_bytes": ram_bytes,
        "pilot_peak_bytes": pilots,
        "largest_side_px_in_half_of_ram": largest,
        "aim": AIM,
        "aim_met": all(row["median_ratio"] <= AIM for row in rows),
        "aim_met_at_sides_px": [row["side_px"] for row in rows if row["median_ratio"] <= AIM],
        "exact": all(row["differ_only_in_ties"] for row in rows),
        "rows": rows,
    }
    name = "whole" if options.backend == "onnx" else f"whole_{options.backend}"
    print(f"{save(name, figures)}: aim_met={figures['aim_met']}")


if __name__ == "__main__":
    main()
