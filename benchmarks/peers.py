"""What people would use instead of this package: time, memory, work, and labels that differ.

Everybody segments the same JPEG-tiled TIFF with the same U-Net, from the file to labels on disk,
each run in a process of its own, each peer in an environment of its own in ``build/peers``. Labels
are compared with those of one pass over the whole mirrored image, which has to fit in memory.

Two tables. ``same_backend``: everybody runs the same TorchScript in fp32, one tile at a time, on as
many threads. ``as_shipped``: each with its own defaults, this package with its fastest backend.
Seconds go from the file to the labels, for this package with what it measures of the network (a
``next image`` with the same network finds that measured); the start of the interpreter with its
imports is stated apart.

pip finds the CPU's Torch only where it is told of it; otherwise each environment is several GB.
"""

import argparse
import shutil
import sys
import venv
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from balanced import balance
from fresh_process import SCRIPTS, NotRunError, labels_of, output, run_script
from results_file import save
from slide_file import described
from tile_infer.engine.backends.device import cpu_cores
from tile_infer.engine.networks.export import export_onnx
from tile_infer.engine.networks.tissue import tissue, write_slide
from tile_infer.engine.networks.unet import UNet

WORK = Path(__file__).parent.parent / "build" / "peers"

COMMON = ("torch==2.13.0", "numpy==2.4.6", "tifffile==2026.3.3", "imagecodecs==2026.3.6")
ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "plain": COMMON,
    "monai": (*COMMON, "monai==1.6.1", "zarr==3.1.6"),
    "torchio": (*COMMON, "torchio==1.2.1"),
    "nnunet": (*COMMON, "nnunetv2==2.8.1"),
    # It wants an older Torch than the others run. What it imports is listed whole.
    "tiatoolbox": ("--no-deps", "-r", str(SCRIPTS / "tiatoolbox.txt")),
}
"""What pip installs for each."""
OURS = "tile-infer"
"""Its environment is the one that this script runs in."""

SLIDE_SEED = 11
DEMO_WIDTH = 16
Padding = Literal["same", "valid"]
SIZES: dict[Padding, tuple[str, ...]] = {
    "same": ("--tile=512",),
    "valid": ("--tile=572", "--core=388"),
}


@dataclass(frozen=True)
class Arm:
    """One row of a table."""

    name: str
    environment: str
    script: str
    padding: Padding = "same"
    options: tuple[str, ...] = ()
    ending: str = "pt"
    """Of the network's file."""


def tables(fastest: str) -> dict[str, list[Arm]]:
    """Return who is compared; ``fastest`` is the ending of the network's file for this package."""
    one = ("--batch=1",)
    return {
        "same_backend": [
            Arm("tile-infer", OURS, "ours"),
            Arm("loop of 512", "plain", "loop"),
            Arm("MONAI, overlap 0.25", "monai", "monai_sliding", options=(*one, "--overlap=0.25")),
            Arm("MONAI, overlap 0.5", "monai", "monai_sliding", options=(*one, "--overlap=0.5")),
            Arm("MONAI, patches in Zarr", "monai", "monai_patches", options=one),
            Arm("TIAToolbox", "tiatoolbox", "tia", options=one),
            Arm("nnU-Net, step 0.5", "nnunet", "nnunet"),
            Arm("TorchIO", "torchio", "torchio_grid", options=one),
            Arm(
                "TorchIO, overlap 0.25", "torchio", "torchio_grid", options=(*one, "--overlap=0.25")
            ),
            Arm("tile-infer", OURS, "ours", "valid"),
            Arm("tile-infer, 572 px", OURS, "ours", "valid", options=("--fixed",)),
            Arm("loop of 388", "plain", "loop", "valid"),
            Arm("TIAToolbox", "tiatoolbox", "tia", "valid", options=one),
        ],
        "as_shipped": [
            *_ours_as_shipped("same", fastest),
            Arm("loop of 512", "plain", "loop"),
            Arm("MONAI", "monai", "monai_sliding"),
            Arm("MONAI, patches in Zarr", "monai", "monai_patches"),
            Arm("TIAToolbox", "tiatoolbox", "tia"),
            Arm("nnU-Net", "nnunet", "nnunet", options=("--mirrored",)),
            Arm("TorchIO", "torchio", "torchio_grid"),
            *_ours_as_shipped("valid", fastest),
            Arm("loop of 388", "plain", "loop", "valid"),
            Arm("TIAToolbox", "tiatoolbox", "tia", "valid"),
        ],
    }


def _ours_as_shipped(padding: Padding, fastest: str) -> list[Arm]:
    named: dict[str, tuple[str, ...]] = {
        "tile-infer": (),
        "tile-infer, next image": ("--kept",),
        "tile-infer, precision fast": ("--precision=fast",),
    }
    return [Arm(name, OURS, "ours", padding, options, fastest) for name, options in named.items()]


def python_of(environment: str) -> Path:
    """Return the interpreter of an environment, which is made if it is not there."""
    if environment == OURS:
        return Path(sys.executable)
    folder, wanted = WORK / environment, "\n".join(ENVIRONMENTS[environment])
    done, python = folder / "installed.txt", folder / "bin" / "python"
    if not done.exists() or done.read_text() != wanted:
        print(f"installing {environment}", flush=True)
        venv.create(folder, clear=True, with_pip=True)
        output([python, "-m", "pip", "install", "--quiet", *ENVIRONMENTS[environment]])
        done.write_text(wanted)
    return python


def unet(padding: Padding, width: int | None) -> UNet:
    """Return the U-Net of the demo, or one of random weights that says both classes as often."""
    torch.manual_seed(0)
    network = UNet(in_channels=3, classes=2, width=width or DEMO_WIDTH, padding=padding).eval()
    if width is None:
        demo = onnx.load(str(files("tile_infer.engine.networks") / "demo.onnx"))
        weights = {each.name: onnx.numpy_helper.to_array(each) for each in demo.graph.initializer}
        network.load_state_dict({name: torch.tensor(each) for name, each in weights.items()})
        return network
    side = 572 if padding == "valid" else 512
    balance(network, network.head, tissue((side, side), SLIDE_SEED + 1).image)
    return network


def write_networks(folder: Path, width: int | None) -> None:
    """Write the U-Net of either padding as TorchScript and ONNX."""
    for padding in SIZES:
        network = unet(padding, width)
        # Unequal, so that no step can take one axis for the other.
        example = torch.zeros(1, 3, network.smallest + 64, network.smallest + 96)
        torch.jit.trace(network, example).save(str(folder / f"{padding}.pt"))  # type: ignore[no-untyped-call]
        export_onnx(network, folder / f"{padding}.onnx", in_channels=3, normalize="unit")


def summary(arm: Arm, runs: list[dict[str, Any]], ours_px: int | None) -> dict[str, Any]:
    """Return the row of a table; where a run failed, what it said."""
    row: dict[str, Any] = {"name": arm.name, "padding": arm.padding, "options": list(arm.options)}
    failed = next((run["not_run"] for run in runs if "not_run" in run), None)
    if failed is not None:
        return {**row, "not_run": failed}
    first = runs[0]
    return {
        **row,
        "network": arm.ending,
        "written_as": Path(first["labels"]).suffix.removeprefix("."),
        "versions": first["versions"],
        "seconds": [round(run["seconds"], 2) for run in runs],
        "median_seconds": round(median(run["seconds"] for run in runs), 2),
        "median_start_seconds": round(median(run["start_seconds"] for run in runs), 2),
        "largest_peak_bytes": max(run["peak_bytes"] for run in runs),
        "labels_differing": first["labels_differing"],
        "input_px": first["input_px"],
        "input_px_over_ours": round(first["input_px"] / ours_px, 3) if ours_px else None,
    }


def main() -> None:
    """Install, run in rotating order, print each run and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=4096, help="side of the slide in px")
    parser.add_argument("--width", type=int, help="channels, for random weights [the demo's]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=cpu_cores())
    parser.add_argument("--peers", nargs="+", default=list(ENVIRONMENTS), choices=ENVIRONMENTS)
    parser.add_argument("--fastest", default="onnx", help="our network's file in as_shipped")
    parser.add_argument("--fresh", action="store_true", help="make the environments anew")
    options = parser.parse_args()
    if options.fresh:
        shutil.rmtree(WORK, ignore_errors=True)
    folder = WORK / "work"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    image = folder / "slide.tif"
    write_slide(image, (options.side, options.side), SLIDE_SEED)
    write_networks(folder, options.width)

    def once(arm: Arm, python: Path, out: str = "labels") -> dict[str, Any]:
        network = folder / f"{arm.padding}.{arm.ending}"
        sizes = (*SIZES[arm.padding], *arm.options)
        for written in folder.glob("labels*"):
            shutil.rmtree(written) if written.is_dir() else written.unlink()
        return run_script(python, arm.script, image, network, folder / out, options.threads, *sizes)

    plain = python_of("plain")
    whole: dict[Padding, NDArray[np.generic]] = {
        padding: labels_of(once(Arm("", "plain", "whole_pass", padding), plain, f"whole_{padding}"))
        for padding in SIZES
    }
    pythons: dict[str, Path | str] = {}
    for environment in (OURS, *options.peers):
        try:
            pythons[environment] = python_of(environment)
        except NotRunError as error:
            pythons[environment] = f"cannot be installed: {error}"
    arms = [
        (table, arm)
        for table, found in tables(options.fastest).items()
        for arm in found
        if arm.environment in pythons
    ]
    for _, arm in arms:
        if "--kept" in arm.options:  # what its last image left
            once(arm, python_of(arm.environment))
    runs: dict[tuple[str, Arm], list[dict[str, Any]]] = {key: [] for key in arms}
    for turn in range(options.rounds):
        start = turn % len(arms)
        for key in arms[start:] + arms[:start]:
            table, arm = key
            python = pythons[arm.environment]
            if any("not_run" in run for run in runs[key]):
                continue
            try:
                if isinstance(python, str):
                    raise NotRunError(python)
                found = once(arm, python)
                wrong = labels_of(found) != whole[arm.padding]
                found["labels_differing"] = float(np.mean(wrong))
            except NotRunError as error:
                found = {"not_run": str(error)}
            runs[key].append(found)
            shown = ("not_run", "seconds", "peak_bytes", "labels_differing")
            print(
                table, arm.name, arm.padding, {k: found[k] for k in shown if k in found}, flush=True
            )

    rows: dict[str, list[dict[str, Any]]] = {table: [] for table, _ in arms}
    for (table, arm), made in runs.items():
        ours = next(
            (
                found[0].get("input_px")
                for (of_table, other), found in runs.items()
                if (of_table, other.environment, other.padding) == (table, OURS, arm.padding)
            ),
            None,
        )
        rows[table].append(summary(arm, made, ours))
    figures = {
        "image": described(image),
        "width": options.width or "demo",
        "class_1": {padding: float(np.mean(labels == 1)) for padding, labels in whole.items()},
        "threads": options.threads,
        "rounds": options.rounds,
        **rows,
    }
    print(save("peers", figures))


if __name__ == "__main__":
    main()
