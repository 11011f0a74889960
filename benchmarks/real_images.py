"""Large and real images: their masks against the network alone, and memory against a small crop.

A COG of 18000 x 36000 px, a crop of 4000 x 4000 px of it, a photograph of 6976 x 5074 px and a
slide at every level, each from the file to the mask on disk in a process of its own. The networks
are U-Nets of the paper: the demo network for the slide, random ones of 4 channels for the others.
In five places of each mask the network runs alone on one 572-px tile read by another library;
labels may differ only where its two best logits are within rounding. The COG's peak memory may be
10 % + 200 MB above that of its crop, and no run's above its plan. The COG's nodata value is a pixel
like any other here, so that every label can be compared.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from time import perf_counter
from typing import Any

import imagecodecs
import numpy as np
import onnxruntime
import tifffile
import torch
import zarr
from numpy.typing import NDArray

from data_folder import DATA
from results_file import save
from tile_infer.engine.networks.export import export_onnx
from tile_infer.engine.networks.unet import UNet

WORLD, PHOTOGRAPH = DATA / "large/cog_world.tif", DATA / "large/osd_6976x5074.jpg"
SLIDE = DATA / "slides/CMU-1-Small-Region.svs"
CROP_PX, CROP_AT = 4000, (4096, 18432)
TILE_PX, MARGIN_PX, PERIOD_PX = 572, 92, 16
ROUNDING = 1e-5
"""Of the largest logit; two logits may each be off by it."""

Pixels = NDArray[np.uint8]

# The kernel's own mark of this program's peak: that of getrusage begins with the parent's.
RUN = """
import json, re, sys
from pathlib import Path
from tile_infer import predict_large
image, model, out, level = sys.argv[1:]
prediction = predict_large(image, model, out, level=int(level), device="cpu", nodata="none")
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(json.dumps({k: prediction.report[k] for k in ("seconds", "classes")} |
                 {"peak_rss_bytes": int(peak[1]) * 1024,
                  "planned_bytes": prediction.plan.memory_bytes, "exact": prediction.plan.exact}))
"""


@dataclass(frozen=True, slots=True)
class Case:
    """An image, the network that suits it, and another way to read it."""

    name: str
    image: Path
    model: Path
    level: int
    pixels: Callable[[], Pixels]
    """All pixels ``(y, x, channel)``, read without the engine."""


def of_tiff(path: Path, level: int = 0) -> Callable[[], Pixels]:
    """Return what reads a level of a TIFF."""

    def read() -> Pixels:
        pixels: Pixels = tifffile.imread(path, series=0, level=level)
        return pixels if pixels.ndim == 3 else pixels[..., None]

    return read


def run(case: Case, out: Path) -> dict[str, Any]:
    """Segment an image in a process of its own and check its mask."""
    begun = perf_counter()
    given = [str(case.image), str(case.model), str(out), str(case.level)]
    done = subprocess.run([sys.executable, "-c", RUN, *given], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{case.name}: {done.stderr}")
    found = json.loads(done.stdout)
    shares = {kind["name"]: round(kind["share"], 4) for kind in found.pop("classes")}
    mask: Any = zarr.open_group(out, mode="r")["0"]
    row = {"image": case.name, "level": case.level, "size_px": list(mask.shape)}
    row |= found | {"wall_seconds": round(perf_counter() - begun, 1), "shares": shares}
    return row | compare(mask, case)


def compare(mask: Any, case: Case) -> dict[str, int]:
    """Return how many labels differ from those of the network alone, in five places."""
    pixels = case.pixels()
    if pixels.shape[:2] != mask.shape:
        raise SystemExit(f"{case.name}: the mask is {mask.shape}, the image {pixels.shape}")
    session = onnxruntime.InferenceSession(case.model, providers=["CPUExecutionProvider"])
    first = -(-MARGIN_PX // PERIOD_PX) * PERIOD_PX  # a mask's pixel 0 begins a period
    last = [(n - TILE_PX + MARGIN_PX) // PERIOD_PX * PERIOD_PX for n in mask.shape]
    middle = [n // 2 // PERIOD_PX * PERIOD_PX for n in last]
    corners = [(top, left) for top in (first, last[0]) for left in (first, last[1])]
    checked = differing = clearly = 0
    for top, left in [*corners, (middle[0], middle[1])]:
        y, x = top - MARGIN_PX, left - MARGIN_PX
        tile = pixels[y : y + TILE_PX, x : x + TILE_PX].transpose(2, 0, 1)[None]
        logits = session.run(None, {"image": tile.astype(np.float32) / 255})[0][0]
        height, width = logits.shape[1:]
        wrong = mask[top : top + height, left : left + width] != logits.argmax(0)
        best = np.sort(logits, axis=0)
        clear = best[-1] - best[-2] > 2 * ROUNDING * np.abs(logits).max()
        checked += wrong.size
        differing += int(wrong.sum())
        clearly += int((wrong & clear).sum())
    return {
        "labels_checked": checked,
        "labels_differing": differing,
        "labels_differing_beyond_rounding": clearly,
    }


def cases(folder: Path) -> list[Case]:
    """Write the networks and the crop, and return what to run."""
    random = {}
    for channels in (1, 3):
        torch.manual_seed(channels)
        random[channels] = folder / f"unet{channels}.onnx"
        export_onnx(
            UNet(in_channels=channels, classes=2, width=4),
            random[channels],
            in_channels=channels,
            normalize="unit",
        )
    y, x = CROP_AT
    cropped = of_tiff(WORLD)()[y : y + CROP_PX, x : x + CROP_PX, 0]
    crop = folder / "crop.tif"
    tifffile.imwrite(crop, cropped, tile=(512, 512), compression="zlib")
    demo = Path(str(files("tile_infer.engine.networks") / "demo.onnx"))
    with tifffile.TiffFile(SLIDE) as tiff:
        levels = len(tiff.series[0].levels)
    return [
        Case("crop of cog_world.tif", crop, random[1], 0, of_tiff(crop)),
        Case(WORLD.name, WORLD, random[1], 0, of_tiff(WORLD)),
        Case(
            PHOTOGRAPH.name,
            PHOTOGRAPH,
            random[3],
            0,
            lambda: np.asarray(imagecodecs.jpeg_decode(PHOTOGRAPH.read_bytes())),
        ),
        *(Case(SLIDE.name, SLIDE, demo, level, of_tiff(SLIDE, level)) for level in range(levels)),
    ]


def main() -> int:
    """Run all, print and save."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    absent = [path.name for path in (WORLD, PHOTOGRAPH, SLIDE) if not path.exists()]
    if absent:
        print(f"the data folder lacks {', '.join(absent)}; set TILE_INFER_TEST_DATA to it")
        return 1
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for number, case in enumerate(cases(Path(name))):
            rows.append(run(case, Path(name) / f"{number}.zarr"))
            print(rows[-1], flush=True)
    small, large = rows[0]["peak_rss_bytes"], rows[1]["peak_rss_bytes"]
    allowed = int(small * 1.1 + 200e6)
    figures = {
        "rows": rows,
        "allowed_bytes": allowed,
        "flat": large <= allowed,
        "within_plan": all(row["peak_rss_bytes"] <= row["planned_bytes"] for row in rows),
        "right": all(row["labels_differing_beyond_rounding"] == 0 for row in rows),
    }
    print(f"{save('real_images', figures)}: { {k: figures[k] for k in list(figures)[1:]} }")
    return 0 if figures["flat"] and figures["right"] and figures["within_plan"] else 1


if __name__ == "__main__":
    sys.exit(main())
