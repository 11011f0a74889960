"""The U-Net paper's own task: membranes in electron microscopy, four networks, and pruned UNet++.

Learns from slices 0 to 19 of the folder `em_isbi2012`, chooses its weights by slices 20 to 23, and
tests each file through the engine on slices 24 to 29, which nothing else looks at. Every run can be
stopped; the same command continues.
"""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from data_folder import DATA
from results_file import save
from tile_infer import predict_large
from tile_infer.engine.backends.metadata import Metadata
from tile_infer.engine.measures import confusion_of, counts_of, pixel_error
from tile_infer.engine.networks.checkpoint import load_checkpoint
from tile_infer.engine.networks.export import export_onnx
from tile_infer.engine.networks.nested import NestedUNet
from tile_infer.engine.training.augmentation import Augmentation
from tile_infer.engine.training.images import Labelled
from tile_infer.engine.training.objects import truth_of
from tile_infer.engine.training.settings import TrainingSettings
from tile_infer.engine.training.trainer import Subject
from tile_infer.engine.training.weight_map import WeightMap
from trainings import (
    Budget,
    options,
    paired,
    run,
    seconds_per_megapixel,
    summary,
    unfinished,
)

TRAINING, VALIDATION, TEST = range(20), range(20, 24), range(24, 30)
CLASSES = ("membrane", "cell")
SETTINGS = TrainingSettings(
    optimizer="adam",
    rate=1e-3,
    warm_up=100,
    tile=384,
    loss="hybrid",
    weight_map=WeightMap(balance=0.5),
    augmentation=Augmentation(contrast=0.2, brightness=0.2, colour=0.0),
)
WIDER = 35 / 32
"""Channels of the wide U-Net to those of the others, in the UNet++ papers."""

NESTED = ("unetp", "unetpp")
"""Those whose heads can be had alone, by pruning."""

COMPARED = ("iou_membrane", "iou_cell", "pixel_error")
TIMED_PX = 512


def networks(width: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return name and options of each network; all are zero-padded, as in the UNet++ papers."""
    return {
        "unet": ("unet", {"width": width, "padding": "same"}),
        "wide_unet": ("unet_wide", {"width": round(width * WIDER)}),
        "unetp": ("unetp", {"width": width}),
        "unetpp": ("unetpp", {"width": width}),
    }


def picture(kind: str, number: int) -> NDArray[np.uint8]:
    """Return a slice, or its labels, ``(y, x)``."""
    path = DATA / "em_isbi2012" / f"train_{kind}" / f"{number}.png"
    return np.asarray(imagecodecs.png_decode(path.read_bytes()))


def labelled(number: int) -> Labelled:
    """Return a slice with its cells, which membranes part."""
    truth = truth_of(picture("label", number), "binary")
    pixels = picture("image", number)[..., None]
    return Labelled(f"slice {number}", pixels, truth, (127.5,), (1 / 127.5,))


def measured(model: Path) -> dict[str, Any]:
    """Return the figures of a file over all test slices together, run by the engine."""
    confusion = np.zeros((2, 2), np.int64)
    for number in TEST:
        mask = np.asarray(predict_large(picture("image", number), model)).astype(np.int64)
        confusion += confusion_of(mask, (picture("label", number) > 0).astype(np.uint8), 2)
    membrane, cell = (counts_of(confusion, label) for label in (0, 1))
    return {
        "iou_membrane": membrane.iou,
        "iou_cell": cell.iou,
        "dice_membrane": membrane.dice,
        "dice_cell": cell.dice,
        "pixel_error": pixel_error(confusion),
    }


def pruned(folder: Path, name: str, threads: int) -> list[dict[str, Any]]:
    """Return size, time and figures of L1 to L4 of one trained nested network."""
    checkpoint = load_checkpoint(folder / f"{name}.pt")
    network = checkpoint.build()
    assert isinstance(network, NestedUNet)
    parts = {f"L{level}": network.pruned(level) for level in range(1, network.depth + 1)}
    paths = {level: folder / f"{name}_{level}.onnx" for level in parts}
    for level, path in paths.items():
        export_onnx(parts[level], path, in_channels=1, **checkpoint.metadata.stated())
    times = seconds_per_megapixel([_session(path, threads) for path in paths.values()], 1, TIMED_PX)
    rows = []
    for (level, path), seconds in zip(paths.items(), times, strict=True):
        size = sum(part.numel() for part in parts[level].parameters())
        row = {"level": level, "parameters": size, "seconds_per_megapixel": seconds}
        rows.append({**row, **measured(path)})
        print(name, rows[-1], flush=True)
    return rows


def _session(path: Path, threads: int) -> Callable[[NDArray[np.float32]], Any]:
    asked = onnxruntime.SessionOptions()
    asked.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, asked, providers=["CPUExecutionProvider"])
    return lambda tile: session.run(None, {"image": tile})


def main() -> None:
    """Train what is missing, and write the tables."""
    parser = options(main.__doc__, steps=800, width=8)
    parser.add_argument("--networks", nargs="+", choices=[*networks(8)], default=[*networks(8)])
    asked = parser.parse_args()
    budget, folder = Budget(asked.minutes), asked.work / "isbi"
    images = [labelled(number) for number in TRAINING]
    validation = [labelled(number) for number in VALIDATION]
    stated = Metadata(classes=CLASSES, mean=(0.5,), std=(0.5,))
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in asked.networks}
    missing = []
    cut: dict[str, list[dict[str, Any]]] = {kind: [] for kind in NESTED}
    for seed in asked.seeds:
        for kind in asked.networks:
            registered, more = networks(asked.width)[kind]
            subject = Subject(registered, {"in_channels": 1, "classes": 2, **more}, CLASSES, stated)
            name = f"{kind}_{seed}"
            settings = budget.settings(SETTINGS, asked, seed)
            found = run(name, folder, subject, images, validation, settings, measured)
            if not found:
                missing.append(name)
                continue
            rows[kind].append({"seed": seed, **found})
            if kind in NESTED:
                parts = pruned(folder, name, asked.threads)
                cut[kind] += [{"seed": seed, **part} for part in parts]
    _save(asked, rows, cut)
    if missing:
        unfinished(missing)


def _save(
    asked: Namespace,
    rows: dict[str, list[dict[str, Any]]],
    cut: dict[str, list[dict[str, Any]]],
) -> None:
    for kind in NESTED:
        rows[f"{kind}_last_head"] = [part for part in cut[kind] if part["level"] == "L4"]
    done = {name: found for name, found in rows.items() if found}
    figures: dict[str, Any] = {
        "width": asked.width,
        "slices": {"training": [0, 19], "validation": [20, 23], "test": [24, 29]},
        "rows": [
            {"network": name, **{key: row[key] for key in row if key != "recipe"}}
            for name in done
            for row in done[name]
        ],
        "summary": {name: {key: summary(done[name], key) for key in COMPARED} for name in done},
    }
    if "unet" in done:
        figures["recipe"] = done["unet"][0]["recipe"]
        figures["minus_unet"] = {
            name: [paired(done[name], done["unet"], key) for key in COMPARED]
            for name in done
            if name != "unet"
        }
    print(save("training_isbi", figures))
    if cut["unetpp"]:
        levels = sorted({row["level"] for row in cut["unetpp"]})
        keys = ("seconds_per_megapixel", "dice_membrane", "dice_cell", *COMPARED)
        by_level = {}
        for level in levels:
            parts = [row for row in cut["unetpp"] if row["level"] == level]
            figures_of = {key: summary(parts, key) for key in keys}
            by_level[level] = {"parameters": parts[0]["parameters"], **figures_of}
        how = {"width": asked.width, "threads": asked.threads, "timed_px": TIMED_PX}
        print(save("training_pruned", {**how, "rows": cut["unetpp"], "summary": by_level}))


if __name__ == "__main__":
    main()
