"""Damaged images and networks through the command line: a result or one clear line, soon, in 2 GB.

Small TIFFs of many kinds, and those of the folder of odd files where there is one, are damaged at
random and where it hurts (entries of directories, codecs' own headers, segments that inflate to
gigabytes); small networks likewise. Each runs in a process of its own. A run fails if it crashes,
takes more than 20 s or 2 GB, or ends in anything but a result or one line of an error that is
raised on purpose. The seed, the kind of file and the number of a run make it again: ``--only``.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a process that forks has one thread

import argparse
import collections
import importlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import tifffile

import fuzz_network
import fuzz_tiff
from data_folder import DATA
from fuzz_network_files import CHANNELS, write_networks
from fuzz_tiff_files import write_tiffs
from guarded import HUNG_SECONDS, MOST_RESIDENT_BYTES, Outcome, run_all
from odd_files import asked_for
from results_file import save
from returning_network import write_returning_network

SEED = 20240229
SOUND = "none"
"""Damage of a file that is run as it is: all those that are made here must give a result."""
LARGEST_BYTES = 1 << 20
"""Odd files above this are left out: most of their bytes are pixels."""

_NEEDED_LATER = (
    *("imagecodecs", "onnxruntime", "onnx.version_converter", "onnx.shape_inference"),
    *("tile_infer.engine.backends.onnx", "tile_infer.engine.backends.openvino"),
)
"""Modules that a child would have to import."""


@dataclass(slots=True)
class Case:
    """A damaged file and the command it is given to."""

    number: int
    kind: str
    """Of damage."""
    source: str
    """The file that was damaged."""
    line: list[str]


def image_cases(
    files: list[Path], numbers: Iterable[int], seed: int | None, scratch: Path
) -> list[Callable[[], Case]]:
    """Return what makes images, one file at a time, damaged unless ``seed`` is ``None``."""
    networks = {n: write_returning_network(scratch / f"in{n}.onnx", n) for n in (1, 3)}

    def make(number: int) -> Case:
        rng = np.random.default_rng((seed or 0, 1, number))
        source = files[number % len(files)]
        data, kind = source.read_bytes(), SOUND
        if seed is not None:
            data, kind = fuzz_tiff.damaged(data, rng)
        path = scratch / f"image-{number}{source.suffix}"
        path.write_bytes(data)
        channels = 1 + 2 * int(rng.integers(2))
        line = [str(path), "--model", str(networks[channels]), *_common(scratch, f"i{number}")]
        line += ["--normalize", "zscore" if rng.integers(8) == 0 else "none"]
        if channels == 1:
            line += ["--channels", "0"]
        return Case(number, kind, source.name, line)

    return [lambda number=number: make(number) for number in numbers]  # type: ignore[misc]


def network_cases(
    files: list[Path], numbers: Iterable[int], seed: int | None, scratch: Path
) -> list[Callable[[], Case]]:
    """Return what makes networks, one file at a time, damaged unless ``seed`` is ``None``."""
    image = scratch / "image.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (150, 170, CHANNELS), np.uint8)
    tifffile.imwrite(image, pixels, photometric="rgb")

    def make(number: int) -> Case:
        rng = np.random.default_rng((seed or 0, 2, number))
        source = files[number % len(files)]
        data, kind = source.read_bytes(), SOUND
        if seed is not None:
            data, kind = fuzz_network.damaged(data, rng)
        path = source.with_name(f"damaged-{number}.onnx")  # beside its weights
        path.write_bytes(data)
        line = [str(image), "--model", str(path), *_common(scratch, f"n{number}")]
        return Case(number, kind, source.name, line)

    return [lambda number=number: make(number) for number in numbers]  # type: ignore[misc]


def _common(scratch: Path, name: str) -> list[str]:
    return ["--out", str(scratch / f"{name}.zarr"), "--quiet", "--device", "cpu"]


def sweep(makers: list[Callable[[], Case]], scratch: Path) -> list[tuple[Case, Outcome]]:
    """Run all cases, each in a process of its own; delete its files."""
    cases: list[Case] = []

    def begin(maker: Callable[[], Case]) -> list[str]:
        cases.append(maker())
        return cases[-1].line

    found: dict[int, Outcome] = {}
    commands = [lambda maker=maker: begin(maker) for maker in makers]
    for number, outcome in run_all(commands, scratch, more=asked_for):
        found[number] = outcome
        case = cases[number]
        shutil.rmtree(case.line[case.line.index("--out") + 1], ignore_errors=True)
        for path in map(Path, (case.line[0], case.line[2])):
            if path.stem.startswith(("image-", "damaged-")):
                path.unlink(missing_ok=True)
        if outcome.is_bad:
            print(
                f"{case.number} {case.source} {case.kind}: {outcome}", file=sys.stderr, flush=True
            )
    return [(case, found[number]) for number, case in enumerate(cases)]


def summary(runs: list[tuple[Case, Outcome]]) -> dict[str, Any]:
    """Return counts by outcome and by kind of damage, and what failed."""
    by_kind: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for case, outcome in runs:
        by_kind[case.kind][outcome.kind] += 1
    return {
        "runs": len(runs),
        "outcomes": dict(collections.Counter(outcome.kind for _, outcome in runs)),
        "by_damage": {kind: dict(by_kind[kind]) for kind in sorted(by_kind)},
        "different_files": len({case.source for case, _ in runs}),
        "longest_seconds": round(max((outcome.seconds for _, outcome in runs), default=0), 1),
        "peak_resident_mb": max((outcome.resident_bytes for _, outcome in runs), default=0) >> 20,
        "failed": {
            f"{case.number}, {case.source}, {case.kind}": f"{outcome.kind}: {outcome.text[:300]}"
            for case, outcome in runs
            if outcome.is_bad
        },
    }


def main() -> int:
    """Damage, run, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000, help="damaged images")
    parser.add_argument("--networks", type=int, default=500, help="damaged networks")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of runs; nothing is saved")
    parser.add_argument("--result", default="fuzz", help="name of the file of figures")
    options = parser.parse_args()
    os.nice(19)
    for name in _NEEDED_LATER:
        importlib.import_module(name)
    figures: dict[str, Any] = {"seed": options.seed}
    figures["limits"] = {"seconds": HUNG_SECONDS, "resident_mb": MOST_RESIDENT_BYTES >> 20}
    begun = perf_counter()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        os.environ["TILE_INFER_CACHE"] = str(scratch / "cache")
        odd = [path for path in (DATA / "odd_tiff").rglob("*") if path.is_file()]
        made = {"images": write_tiffs(scratch / "tiffs")}
        made["networks"] = write_networks(scratch / "networks")
        small = sorted(path for path in odd if path.stat().st_size <= LARGEST_BYTES)
        for part, files, count, make in (
            ("images", made["images"] + small, options.files, image_cases),
            ("networks", made["networks"], options.networks, network_cases),
        ):
            numbers = [n for n in range(count) if options.only is None or n in options.only]
            runs = sweep(make(files, numbers, options.seed, scratch), scratch)
            figures[part] = summary(runs)
            if options.only is not None:
                print(*(f"{case}: {outcome}" for case, outcome in runs), sep="\n")
                continue
            sound = [n for n in range(len(made[part])) if n < count]
            for case, outcome in sweep(make(files, sound, None, scratch), scratch):
                if outcome.kind != "done":
                    figures[part]["failed"][f"{case.source}, undamaged"] = outcome.text[:300]
            figures[part]["undamaged_runs"] = len(sound)
    figures["seconds"] = round(perf_counter() - begun, 1)
    if options.only is None:
        print({key: figures["images"][key] for key in ("outcomes", "longest_seconds")})
        print({key: figures["networks"][key] for key in ("outcomes", "longest_seconds")})
        print(save(options.result, figures))
    return 1 if figures["images"]["failed"] or figures["networks"]["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
