"""What every peer's script does alike: its options, its clock and the line that it prints."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Job:
    """What a script is asked to do."""

    image: Path
    """A tiled JPEG TIFF, RGB."""
    network: Path
    """TorchScript, from RGB in [0, 1] to logits; for this package also ONNX."""
    out: Path
    """Where labels go, without an ending."""
    threads: int
    tile: int
    """Side of what the network is given, in pixels."""
    core: int
    """Side of what it gives for that: less than ``tile`` for valid convolutions."""
    overlap: float | None
    """Share of a tile; ``None`` for the peer's default."""
    batch: int | None
    """Tiles per run of the network; ``None`` for the peer's default."""
    mirrored: bool
    """Whether to average over mirror images, where that is the peer's default."""
    fixed: bool
    """Whether this package, too, takes tiles of that size; by itself it chooses one."""
    backend: Literal["onnx", "openvino"] | None
    """Who runs an ONNX file; ``None`` for what this package would choose."""
    precision: Literal["fp32", "tf32", "bf16", "fp16", "fast"] | None
    """That of this package, ``None`` for its default; everybody else computes in fp32."""
    kept: bool
    """Whether this package may use what it has measured of the network before."""
    gaps: bool
    """Whether one whole pass also writes how far the two best logits differ."""


@dataclass(frozen=True)
class Done:
    """What a script has done."""

    labels: Path
    """Where the labels are: ``.npy``, or Zarr."""
    input_px: int
    """Pixels that the network was given."""
    array: str = ""
    """Name of the labels inside a Zarr group."""


def run(segment: Callable[[Job], Done], *packages: str) -> None:
    """Do what the command line asks for, and print how long it took and how much it needed."""
    started = _age_seconds()
    job = _job()
    if "torch" in sys.modules:  # this package needs it for TorchScript only
        sys.modules["torch"].set_num_threads(job.threads)
    begun = time.perf_counter()
    done = segment(job)
    figures = {
        "seconds": time.perf_counter() - begun,
        "start_seconds": started,
        "peak_bytes": _peak_bytes(),
        "versions": {name: version(name) for name in (*packages, "torch")},
    }
    print(json.dumps({**asdict(done), **figures}, default=str))


def _job() -> Job:
    parser = argparse.ArgumentParser()
    for name in ("--image", "--network", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--core", type=int)
    parser.add_argument("--overlap", type=float)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--mirrored", action="store_true")
    parser.add_argument("--fixed", action="store_true")
    parser.add_argument("--backend")
    parser.add_argument("--precision")
    parser.add_argument("--kept", action="store_true")
    parser.add_argument("--gaps", action="store_true")
    options = parser.parse_args()
    options.core = options.core or options.tile
    return Job(**vars(options))


def _age_seconds() -> float:
    """Return how long this process has run: interpreter and imports, when called first."""
    after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    started = int(after_name[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started


def _peak_bytes() -> int:
    (line,) = (
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    )
    return int(line.split()[1]) * 1024
