"""What a network takes alone on a device, by Torch: the best of a sweep, in a process of its own.

Nothing of this package is imported: what it is compared with may not share its mistakes. Images lie
on the device before the clock starts. Prints one line of JSON.
"""

import argparse
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import torch

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
NUMBERS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
NUMBERS["fp16"] = torch.float16
MATRIX_SIDE = {"cuda": 8192, "cpu": 1024}


@dataclass(frozen=True)
class Setup:
    """One way to run a network."""

    tile: int
    """Side of its input in pixels."""
    batch: int
    precision: Precision
    channels_last: bool
    compiled: bool


class Device:
    """A device with its clock."""

    def __init__(self, name: str) -> None:
        self.device = torch.device(name)
        self.is_gpu = self.device.type == "cuda"

    def wait(self) -> None:
        """Wait until everything that was asked of it is done."""
        if self.is_gpu:
            torch.cuda.synchronize(self.device)

    def seconds(self, run: Callable[[], object], at_least: float) -> tuple[float, float]:
        """Return the time of the first run, and the mean of later ones."""
        begun = perf_counter()
        run()
        self.wait()
        first = perf_counter() - begun
        run()
        self.wait()
        runs, begun = 0, perf_counter()
        while perf_counter() - begun < at_least:
            run()
            runs += 1
            self.wait()
        return first, (perf_counter() - begun) / runs

    def peak_bytes(self) -> int | None:
        """Return the most memory that was in use; nothing on a CPU."""
        return torch.cuda.max_memory_allocated(self.device) if self.is_gpu else None


def matrix_rate(device: Device, at_least: float) -> float:
    """Return the multiply-adds per second of large products of matrices in bf16."""
    side = MATRIX_SIDE[device.device.type]
    one = torch.randn(side, side, device=device.device, dtype=torch.bfloat16)
    _, taken = device.seconds(lambda: one @ one, at_least)
    return side**3 / taken


def measured(network: Path, device: Device, setup: Setup, at_least: float) -> dict[str, Any]:
    """Return what one setup takes; where it fails, what it said."""
    number = NUMBERS[setup.precision]
    torch.backends.cudnn.benchmark = True
    allowed = setup.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed
    layout = torch.channels_last if setup.channels_last else torch.contiguous_format
    if device.is_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device.device)
    try:
        module: Any = torch.jit.load(str(network), device.device)  # type: ignore[no-untyped-call]
        module = module.eval().to(number)
        for each in module.parameters():
            if each.ndim == 4:
                each.data = each.data.contiguous(memory_format=layout)
        shape = (setup.batch, 3, setup.tile, setup.tile)
        images = torch.rand(shape, device=device.device, dtype=number)
        images = images.contiguous(memory_format=layout)
        with torch.inference_mode():
            if setup.compiled:
                # TorchScript is compiled as the graph of what it runs.
                from torch.fx.experimental.proxy_tensor import make_fx

                module = torch.compile(make_fx(module)(images))
            first, taken = device.seconds(lambda: module(images), at_least)
    except Exception as error:
        return {**asdict(setup), "failed": (str(error).splitlines() or [type(error).__name__])[0]}
    return {
        **asdict(setup),
        "seconds_per_tile": taken / setup.batch,
        "first_seconds": round(first, 3),
        "peak_device_bytes": device.peak_bytes(),
    }


def main() -> None:
    """Sweep over layout and compilation at the paper's size, then over tiles and batches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", type=Path, required=True, help="TorchScript")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--lost", type=int, default=184, help="px of a tile without output")
    parser.add_argument("--period", type=int, default=16)
    parser.add_argument("--paper-tile", type=int, default=572)
    parser.add_argument("--tiles", type=int, nargs="+", default=[1084, 2108, 3132, 4156])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--precisions", nargs="+", default=list(NUMBERS), choices=NUMBERS)
    parser.add_argument("--plain", action="store_true", help="compile nothing")
    parser.add_argument("--at-least", type=float, default=0.5, help="seconds for each")
    options = parser.parse_args()
    device = Device(options.device)

    def rate(row: dict[str, Any]) -> float:
        if "failed" in row:
            return 0.0
        kept = (row["tile"] - options.lost) // options.period * options.period
        return float(kept**2 / row["seconds_per_tile"])

    def tried(setups: Iterable[Setup]) -> list[dict[str, Any]]:
        return [measured(options.network, device, each, options.at_least) for each in setups]

    forms = (False,) if options.plain else (False, True)
    rows = []
    for precision in options.precisions:
        paper = Setup(options.paper_tile, max(options.batches), precision, False, False)
        found = tried(
            replace(paper, channels_last=last, compiled=compiled)
            for last, compiled in product((False, True), forms)
        )
        best = max(found, key=rate)
        way = Setup(**{name: best[name] for name in Setup.__dataclass_fields__})
        sizes = product(options.tiles, options.batches)
        found += tried(replace(way, tile=tile, batch=batch) for tile, batch in sizes)
        rows += [{**row, "mpx_per_second": round(rate(row) / 1e6, 3)} for row in found]
    print(
        json.dumps(
            {
                "bf16_multiply_adds_per_second": matrix_rate(device, options.at_least),
                "rows": sorted(rows, key=lambda row: -row["mpx_per_second"]),
            }
        )
    )


if __name__ == "__main__":
    main()
