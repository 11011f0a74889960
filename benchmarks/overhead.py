"""What the engine adds to the network, reading and writing: its wall time over theirs alone.

The engine goes from a JPEG-tiled RGB slide on disk to the mask on disk with the paper's U-Net in
fp32, in a process of its own, and chooses library and tile itself. Alone (`alone.py`, which does
not import the package), the network runs noise in the best of a sweep over library, tile, batch and
threads, as long as the slide's mask would take in tiles of which whole periods are kept; to that
comes what decoding the slide and writing the mask cost on one core, over the cores. The runs
alternate; the ratio is the median over the rounds. First runs, which measure the network and keep
what they found for the next ones, are not among them, but stated.
"""

import argparse
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch

from alone import Library, Setup, decoded, opened, seconds_per_tile, setups, sweep, written
from engine_process import run_engine
from results_file import save
from slide_file import described
from tile_infer.engine.backends.device import cpu_cores
from tile_infer.engine.networks.export import export_onnx
from tile_infer.engine.networks.tissue import write_slide
from tile_infer.engine.networks.unet import UNet

AIM = 1.03
SIDES_PX = {16: 8192, 64: 3072}
"""Of the slide, by the channels of the network's first level."""
ROUNDS = {16: 11, 64: 5}
"""Likewise; those of the wide network take minutes, and differ less."""
PAPER_PX = 572
TILES_PX = (444, 700, 828, 1084, 1596, 2108)
LIBRARIES: tuple[Library, ...] = ("onnx", "openvino", "torch")
PERIOD_PX, LOST_PX = 16, 184
MOST_FIRST_RUNS = 4


def kept_px(tile: int) -> int:
    """Return the side of what an exact run keeps of a tile."""
    return (tile - LOST_PX) // PERIOD_PX * PERIOD_PX


def swept(folder: Path, cores: int, at_least: float) -> list[dict[str, Any]]:
    """Return all setups that were tried: first at the paper's size, then the best at the others."""
    first = setups(LIBRARIES, [PAPER_PX], [1, 4], cores)
    rows = sweep(folder, first, kept_px, at_least)
    best = setup_of(rows[0])
    others = [Setup(best.library, tile, 1, best.at_once, best.threads) for tile in TILES_PX]
    rows += sweep(folder, others, kept_px, at_least)
    return sorted(rows, key=lambda row: -row["mpx_per_second"])


def setup_of(row: dict[str, Any]) -> Setup:
    """Return the setup of a row."""
    return Setup(**{name: row[name] for name in Setup.__dataclass_fields__})


def engine(slide: Path, model: Path, out: Path) -> dict[str, Any]:
    """Segment as everybody would; what may run the network is imported before the clock starts."""
    return run_engine(slide, model, out, "onnxruntime", "openvino", device="cpu", verify=0)


def measured(folder: Path, width: int, rounds: int, side: int, at_least: float) -> dict[str, Any]:
    """Return the figures of one network."""
    cores = cpu_cores()
    slide, model, out = folder / "slide.tif", folder / "network.onnx", folder / "mask.zarr"
    write_slide(slide, shape=(side, side), seed=5)
    torch.manual_seed(0)
    unet = UNet(in_channels=3, classes=2, width=width).eval()
    export_onnx(unet, model, in_channels=3, normalize="unit")
    example = torch.zeros(1, 3, PAPER_PX, PAPER_PX)
    torch.jit.trace(unet, example).save(str(folder / "network.pt"))  # type: ignore[no-untyped-call]

    first: list[dict[str, Any]] = []
    while len(first) < 2 or (
        first[-1]["tile"] != first[-2]["tile"] and len(first) < MOST_FIRST_RUNS
    ):
        first.append(engine(slide, model, out))
    tried = swept(folder, cores, at_least)
    best = setup_of(tried[0])
    print(tried[0], flush=True)
    rows = []
    for _ in range(rounds):
        ran = engine(slide, model, out)
        wall, blocks = ran["seconds"], ran["blocks_seconds"]
        tiles = side**2 / kept_px(best.tile) ** 2
        alone = tiles * seconds_per_tile(best, opened(folder, best), wall / 2)
        decode, write = decoded(slide, 1), written(out, folder / "again.zarr", 1)
        shutil.rmtree(folder / "again.zarr")
        row = {
            "engine_seconds": wall,
            "network_alone_seconds": alone,
            "decode_core_seconds": decode,
            "write_core_seconds": write,
            "blocks_seconds": blocks,
            "ratio": wall / (alone + (decode + write) / cores),
            "ratio_of_blocks": blocks / (alone + (decode + write) / cores),
        }
        rows.append({key: round(value, 4) for key, value in row.items()})
        print(rows[-1], flush=True)
    ratio = median(row["ratio"] for row in rows)
    return {
        "width": width,
        "image": described(slide),
        **{key: ran[key] for key in ("backend", "tile", "redundancy", "stages")},
        "alone": asdict(best),
        "tried": tried,
        "first_runs": [{key: each[key] for key in ("seconds", "tile")} for each in first],
        "rows": rows,
        "median_ratio": round(ratio, 4),
        "median_ratio_of_blocks": round(median(row["ratio_of_blocks"] for row in rows), 4),
        "reaches": ratio <= AIM,
    }


def main() -> None:
    """Measure, print each round and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=list(SIDES_PX))
    parser.add_argument("--side", type=int, help="side of the slide in px [by the width]")
    parser.add_argument("--rounds", type=int, help="[by the width]")
    parser.add_argument("--at-least", type=float, default=4, help="seconds for each of the sweep")
    options = parser.parse_args()
    figures = []
    for width in options.widths:
        side = options.side or SIDES_PX.get(width, SIDES_PX[16])
        rounds = options.rounds or ROUNDS.get(width, ROUNDS[16])
        with tempfile.TemporaryDirectory() as name:
            figures.append(measured(Path(name), width, rounds, side, options.at_least))
    path = save("overhead", {"aim": AIM, "networks": figures})
    print(path, [(each["width"], each["median_ratio"]) for each in figures])


if __name__ == "__main__":
    main()
