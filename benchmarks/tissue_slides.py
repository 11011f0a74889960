"""Synthetic slides with touching nuclei: what the demo network learns from and is measured on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from tile_infer import predict_large
from tile_infer.engine.backends.metadata import Metadata
from tile_infer.engine.exports.whole_file import whole_file
from tile_infer.engine.matching import Matching
from tile_infer.engine.measures import Counts, confusion_of, counts_of, pixel_error
from tile_infer.engine.networks.tissue import tissue
from tile_infer.engine.networks.tissue_nuclei import nuclei
from tile_infer.engine.training.augmentation import Augmentation
from tile_infer.engine.training.images import Labelled
from tile_infer.engine.training.objects import truth_of
from tile_infer.engine.training.settings import TrainingSettings
from tile_infer.engine.training.trainer import Subject
from tile_infer.engine.training.weight_map import WeightMap
from tile_infer.tiler.box import Box
from trainings import WORK

TRAINING_SEEDS = tuple(range(100, 124))
VALIDATION_SEEDS = (7001, 7003)
TEST_SEEDS = (7002, 7004, 7005)
"""Seen once per network, at the end."""

UNSEEN_SEEDS = (8001, 8002, 8003)
"""Not looked at before the demo network was finished; ``tissue.DEMO_SEED`` is never looked at."""

PATCH_PX = 1024
MIN_SIZE_PX = 30
"""Smaller objects are slivers of nuclei behind others; they do not count."""

RECIPE = TrainingSettings(
    optimizer="adam",
    rate=2e-3,
    warm_up=100,
    tile=572,
    loss="hybrid",
    # Nuclei are 5 px in radius: the paper's 5 px for sigma would take all of each for a rim.
    weight_map=WeightMap(w0=10.0, sigma_px=2.0, balance=0.0),
    # As in slides: a little colour, no more contrast than scanners differ by.
    augmentation=Augmentation(contrast=0.15, brightness=0.1, colour=0.05),
)

_CLASSES = ("background", "nucleus")


def subject(width: int) -> Subject:
    """Return the paper's U-Net for slides, of so many channels."""
    options = {"in_channels": 3, "classes": 2, "width": width}
    return Subject("unet", options, _CLASSES, Metadata(classes=_CLASSES, normalize="unit"))


def training_images() -> list[Labelled]:
    """Return what is learnt from, after JPEG of different qualities."""
    qualities = np.random.default_rng(0).integers(75, 96, len(TRAINING_SEEDS)).tolist()
    return [labelled(*each) for each in zip(TRAINING_SEEDS, qualities, strict=True)]


def validation_images() -> list[Labelled]:
    """Return what the best weights are chosen by."""
    return [labelled(seed) for seed in VALIDATION_SEEDS]


def slide(seed: int, quality: int = 90) -> tuple[NDArray[Any], NDArray[np.int32]]:
    """Return a part of a slide ``(y, x, 3)`` as a file gives it, after JPEG, and its nuclei.

    To make one takes seconds: it is kept for the next call.
    """
    kept = WORK / "slides" / f"{seed}_{quality}.npz"
    if kept.exists():
        with np.load(kept) as found:
            return found["image"], found["nuclei"]
    y, x = np.random.default_rng(seed).integers(-50_000, 50_000, 2).tolist()
    box = Box.of(y, y + PATCH_PX, x, x + PATCH_PX)
    coded = imagecodecs.jpeg_encode(tissue(box, seed).image, level=quality)
    image, objects = np.asarray(imagecodecs.jpeg_decode(coded)), nuclei(box, seed)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(kept) as file:
        np.savez_compressed(file, image=image, nuclei=objects)
    return image, objects


def labelled(seed: int, quality: int = 90) -> Labelled:
    """Return a part of a slide with its nuclei, parted where they touch."""
    pixels, objects = slide(seed, quality)
    truth = truth_of(objects, "instance")
    return Labelled(f"slide {seed}", pixels, truth, (0.0,) * 3, (1 / 255,) * 3)


def measured(model: Path, seeds: Sequence[int] = TEST_SEEDS) -> dict[str, Any]:
    """Return the figures of a file over slides of some seeds together, run by the engine."""
    whole, parted = np.zeros((2, 2), np.int64), np.zeros((2, 2), np.int64)
    objects = Counts(0, 0, 0)
    for seed in seeds:
        pixels, numbers = slide(seed)
        mask = np.asarray(predict_large(pixels, model)).astype(np.int64)
        whole += confusion_of(mask, (numbers > 0).astype(np.int64), 2)
        parted += confusion_of(mask, labelled(seed).truth.classes.astype(np.int64), 2)
        matching = Matching(PATCH_PX, instances=True, min_size=MIN_SIZE_PX, iou=0.5)
        matching.add(Box.of(0, PATCH_PX, 0, PATCH_PX), mask, numbers.astype(np.int64))
        objects += matching.counts()[1]
    return {
        "dice": counts_of(whole, 1).dice,
        "dice_parted": counts_of(parted, 1).dice,
        "iou": counts_of(whole, 1).iou,
        "pixel_error": pixel_error(whole),
        "instance_f1": objects.f(1),
        "nuclei": objects.true_positives + objects.false_negatives,
    }
