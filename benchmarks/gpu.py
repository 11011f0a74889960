"""A GPU, or several: what the engine makes of them, next to what the network alone does on one.

From a JPEG-tiled slide on disk to the mask on disk: a network that costs nothing (a threshold),
a U-Net of 16 channels and the paper's of 64, in every precision, by Torch. Next to each the best of
a sweep of the network alone (`alone_torch.py`, which does not import the package), the share of the
card's own bf16 matrix rate, and the labels that differ from those of fp32 on the same card. Where
the machine has several, each run is repeated on the first two, the first three, and so on.

With ``--device cpu --small`` the same code runs anywhere, to try it.
"""

import argparse
import json
import sys
import tempfile
from itertools import product
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import zarr

from balanced import balance
from engine_process import run_engine
from fresh_process import output
from results_file import save
from slide_file import described
from tile_infer.engine.backends.device import cuda_devices, device_list, device_text
from tile_infer.engine.backends.device_facts import device_memory, device_name
from tile_infer.engine.networks.repeated_slide import write_repeated_slide
from tile_infer.engine.networks.tissue import tissue
from tile_infer.engine.networks.unet import UNet

AIM_OF_NETWORK, AIM_MPX_PER_SECOND, STRETCH_MPX_PER_SECOND = 0.95, 150, 300
POSSIBLE_MPX_PER_SECOND = 538
"""What an H200's matrix rate allows the paper's network, at 0.735 million multiply-adds a pixel."""
WIDTHS = (16, 64)
PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
SIDE_PX = {"threshold": 40960, 16: 20480, 64: 20480}
HERE = Path(__file__).parent


class Threshold(torch.nn.Module):
    """A network that costs nothing: red, less a half."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits ``(batch, 1, y, x)``."""
        return images[:, :1] - 0.5


def write_network(path: Path, width: int | None) -> None:
    """Write a U-Net of random weights that says both classes as often, or the threshold."""
    torch.manual_seed(0)
    network: torch.nn.Module = Threshold()
    if width is not None:
        unet = UNet(in_channels=3, classes=2, width=width).eval()
        balance(unet, unet.head, tissue((572, 572), 12).image)
        network = unet
    traced: Any = torch.jit.trace(network, torch.zeros(1, 3, 572, 604))  # type: ignore[no-untyped-call]
    traced.save(str(path))


def engine(
    slide: Path, model: Path, out: Path, side: int, device: str, **options: Any
) -> dict[str, Any]:
    """Segment in a process of its own; return its figures."""
    found = run_engine(slide, model, out, "torch", device=device, trust_model=True, **options)
    assert not found.pop("tiles_remembered"), "a textured slide has no tile of one colour"
    tiles, window = found.pop("tiles"), found.pop("window")
    return {
        **found,
        "mpx_per_second": side**2 / found["seconds"] / 1e6,
        "blocks_mpx_per_second": side**2 / found["blocks_seconds"] / 1e6,
        "to_device_bytes_per_px": tiles * prod(found["tile"]) * 3 / side**2,
        "from_device_bytes_per_px": tiles * prod(window) / side**2,
    }


def differing(one: Path, other: Path) -> float:
    """Return the share of labels that two masks do not have in common."""
    first, second = (zarr.open_array(each / "0", mode="r") for each in (one, other))
    rows = range(0, first.shape[0], 4096)
    wrong = sum(np.count_nonzero(first[y : y + 4096] != second[y : y + 4096]) for y in rows)
    return float(wrong / (first.shape[0] * first.shape[1]))


def measured(
    folder: Path, width: int | None, side: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Return the figures of one network."""
    slide, model = folder / f"{side}.tif", folder / f"{width}.pt"
    if not slide.exists():
        write_repeated_slide(slide, (side, side), seed=11)
    write_network(model, width)
    found: dict[str, Any] = {"width": width or "threshold", "image": described(slide)}
    if width is not None:
        sweep = [sys.executable, HERE / "alone_torch.py", "--network", model]
        sweep += ["--device", options.device, "--precisions", *options.precisions]
        if options.small:
            sweep += ["--tiles", 700, "--batches", 1, "--plain", "--at-least", 0.1]
        found["alone"] = json.loads(output(sweep).splitlines()[-1])
        print(found["alone"]["rows"][0], flush=True)
    reference = folder / "fp32.zarr"
    rows = []
    compiled_too = (False, True) if options.compile else (False,)
    for precision, compiled, device in product(
        options.precisions, compiled_too, (options.device, *options.shared)
    ):
        way = {"precision": precision, "compiled": compiled, "devices": len(device_list(device))}
        first = way == {"precision": "fp32", "compiled": False, "devices": 1}
        out = reference if first else folder / "mask.zarr"
        try:
            ran = [
                engine(
                    slide, model, out, side, device, precision=precision, compile=compiled or None
                )
                for _ in range(options.rounds)
            ]
        except Exception as error:
            rows.append({**way, "failed": str(error)})
            print(rows[-1], flush=True)
            continue
        row = {
            **ran[-1],
            **way,
            "mpx_per_second": median(each["mpx_per_second"] for each in ran),
            "blocks_mpx_per_second": median(each["blocks_mpx_per_second"] for each in ran),
            "first_seconds": ran[0]["seconds"],
            "labels_differing_from_fp32": differing(out, reference),
        }
        if width is not None:
            row |= _shares(row, found["alone"], options.multiply_adds[width])
        rows.append(row)
        print({key: row[key] for key in (*way, "mpx_per_second")}, flush=True)
    return {**found, "engine": rows}


def _shares(row: dict[str, Any], alone: dict[str, Any], per_px: float) -> dict[str, float]:
    """Return a device's rate over that of the network alone, and over what the card could do."""
    same = [each for each in alone["rows"] if each["precision"] == row["precision"]]
    rate = row["blocks_mpx_per_second"] / row["devices"]
    return {
        "over_network_alone": round(rate / same[0]["mpx_per_second"], 4) if same else 0.0,
        "of_bf16_matrix_rate": round(
            rate * 1e6 * per_px / alone["bf16_multiply_adds_per_second"], 4
        ),
    }


def multiply_adds_per_px(width: int) -> float:
    """Return what a U-Net needs for a pixel of mask, layer by layer, borders left out."""
    total, before, depth = 0.0, 3, 4
    for level in range(depth + 1):
        channels = width << level
        down = 9 * (before * channels + channels**2)
        # From twice the channels, at a quarter of the pixels, four pixels from each.
        up = 2 * channels**2 + 9 * (2 * channels**2 + channels**2) if level < depth else 0
        total += (down + up) / 4**level
        before = channels
    return total + 2 * width


def several_gpus() -> list[str]:
    """Return this machine's first two GPUs, its first three, and so on, each by one name."""
    gpus = [f"cuda:{number}" for number in range(cuda_devices())]
    return [device_text(gpus[:count]) for count in range(2, len(gpus) + 1)]


def main() -> None:
    """Measure, print each run and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda:0", help="one, measured alone [cuda:0]")
    parser.add_argument(
        "--shared", nargs="*", default=several_gpus(), help="such as cuda:0,1 [all from two on]"
    )
    parser.add_argument("--widths", type=int, nargs="+", default=list(WIDTHS))
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--side", type=int, help="side of the slide in px [by the network]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="compiled as well")
    parser.add_argument("--small", action="store_true", help="to try the script: nothing is saved")
    options = parser.parse_args()
    options.multiply_adds = {width: multiply_adds_per_px(width) for width in options.widths}
    figures = []
    with tempfile.TemporaryDirectory() as name:
        for width in (None, *options.widths):
            side = options.side or SIDE_PX.get(width or "threshold", SIDE_PX[64])
            figures.append(measured(Path(name), width, side, options))
    memory = device_memory(options.device)
    result = {
        "aims": {
            "over_network_alone": AIM_OF_NETWORK,
            "paper_bf16_mpx_per_second": AIM_MPX_PER_SECOND,
            "stretch_mpx_per_second": STRETCH_MPX_PER_SECOND,
            "possible_mpx_per_second": POSSIBLE_MPX_PER_SECOND,
        },
        "device": options.device,
        "name": device_name(options.device),
        "memory_bytes": None if memory is None else memory.total,
        "multiply_adds_per_px": options.multiply_adds,
        "networks": figures,
    }
    print(json.dumps(result) if options.small else save("gpu", result))


if __name__ == "__main__":
    main()
