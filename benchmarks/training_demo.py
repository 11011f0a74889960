"""The demo network by the papers' recipe, on synthetic tissue with touching nuclei, and ablations.

Trains with and without the weight map, and with and without elastic deformation, on three seeds;
tests each file through the engine on slides of seeds that nothing was trained on or chosen by.
Every run can be stopped; the same command continues. `--install` puts the network with the best
validation Dice of the whole recipe where the demo finds it.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from results_file import save
from tile_infer import predict_large
from tile_infer.engine.backends.metadata import Metadata
from tile_infer.engine.exports.whole_file import whole_file
from tile_infer.engine.matching import Matching
from tile_infer.engine.measures import confusion_of, counts_of, pixel_error
from tile_infer.engine.networks.tissue import DEMO_SEED, tissue
from tile_infer.engine.networks.tissue_nuclei import nuclei
from tile_infer.engine.training.augmentation import Augmentation
from tile_infer.engine.training.images import Labelled
from tile_infer.engine.training.objects import truth_of
from tile_infer.engine.training.settings import TrainingSettings
from tile_infer.engine.training.trainer import Subject
from tile_infer.engine.training.weight_map import WeightMap
from tile_infer.tiler.box import Box
from trainings import WORK, Budget, options, paired, run, summary, unfinished

TRAINING_SEEDS = tuple(range(100, 124))
VALIDATION_SEEDS = (7001, 7003)
TEST_SEEDS = (7002, 7004, 7005)
"""Seen once per network, at the end; the slide of ``tissue.DEMO_SEED`` is never seen."""

CLASSES = ("background", "nucleus")
PATCH_PX = 1024
MIN_SIZE_PX = 30
"""Smaller objects are slivers of nuclei behind others; they do not count."""

WHOLE = TrainingSettings(
    optimizer="adam",
    rate=3e-3,
    warm_up=100,
    tile=572,
    weight_map=WeightMap(balance=0.25),
    # As in slides: a little colour, no more contrast than scanners differ by.
    augmentation=Augmentation(contrast=0.15, brightness=0.1, colour=0.05),
)
ARMS = {
    "recipe": WHOLE,
    "no_weight_map": replace(WHOLE, weight_map=replace(WHOLE.weight_map, w0=0.0)),
    "gaps_only": replace(WHOLE, weight_map=replace(WHOLE.weight_map, inside=False)),
    "no_elastic": replace(WHOLE, augmentation=replace(WHOLE.augmentation, elastic_px=0.0)),
}
COMPARED = ("dice", "instance_f1")


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


def test(model: Path) -> dict[str, Any]:
    """Return the figures of a file over all test slides together, run by the engine."""
    confusion = np.zeros((2, 2), np.int64)
    found = []
    for seed in TEST_SEEDS:
        pixels, objects = slide(seed)
        mask = np.asarray(predict_large(pixels, model)).astype(np.int64)
        # Every nucleus whole: the truth for pixels has no gaps.
        confusion += confusion_of(mask, (objects > 0).astype(np.int64), 2)
        matching = Matching(PATCH_PX, instances=True, min_size=MIN_SIZE_PX, iou=0.5)
        matching.add(Box.of(0, PATCH_PX, 0, PATCH_PX), mask, objects.astype(np.int64))
        found.append(matching.counts()[1])
    true = sum(each.true_positives for each in found)
    wrong = sum(each.false_positives + each.false_negatives for each in found)
    return {
        "dice": counts_of(confusion, 1).dice,
        "iou": counts_of(confusion, 1).iou,
        "pixel_error": pixel_error(confusion),
        "instance_f1": 2 * true / (2 * true + wrong),
        "nuclei": sum(each.true_positives + each.false_negatives for each in found),
    }


def main() -> None:
    """Train what is missing, and write the table."""
    parser = options(main.__doc__, steps=1400, width=8)
    parser.add_argument("--arms", nargs="+", choices=[*ARMS], default=[*ARMS])
    parser.add_argument("--install", action="store_true", help="make it the demo's network")
    asked = parser.parse_args()
    assert DEMO_SEED not in (*TRAINING_SEEDS, *VALIDATION_SEEDS, *TEST_SEEDS)
    budget, folder = Budget(asked.minutes), asked.work / "demo"
    quality = np.random.default_rng(0).integers(75, 96, len(TRAINING_SEEDS)).tolist()
    images = [labelled(*each) for each in zip(TRAINING_SEEDS, quality, strict=True)]
    validation = [labelled(seed) for seed in VALIDATION_SEEDS]
    network = {"in_channels": 3, "classes": 2, "width": asked.width}
    subject = Subject("unet", network, CLASSES, Metadata(classes=CLASSES, normalize="unit"))
    rows: dict[str, list[dict[str, Any]]] = {arm: [] for arm in asked.arms}
    missing = []
    for seed in asked.seeds:  # whole seeds first, so that a table can be made of what is there
        for arm in asked.arms:
            name, found = f"{arm}_{seed}", None
            if budget.left > 0:
                settings = replace(
                    ARMS[arm],
                    steps=asked.steps,
                    seed=seed,
                    minutes=budget.left,
                    threads=asked.threads,
                    device=asked.device,
                )
                found = run(name, folder, subject, images, validation, settings, test)
            if found:
                rows[arm].append({"arm": arm, "seed": seed, **found})
            else:
                missing.append(name)
    _save(asked.width, rows)
    if missing:
        unfinished(missing)
    if asked.install:
        best = max(rows["recipe"], key=lambda row: float(row["validation_dice"]))
        package = Path(__file__).parent.parent / "engine" / "networks"
        shutil.copyfile(folder / f"{best['name']}.onnx", package / "demo.onnx")
        shutil.copyfile(folder / f"{best['name']}.csv", package / "demo_training.csv")
        print(f"installed {best['name']}")


def _save(width: int, rows: dict[str, list[dict[str, Any]]]) -> None:
    done = {arm: found for arm, found in rows.items() if found}
    figures: dict[str, Any] = {
        "width": width,
        "training_slides": len(TRAINING_SEEDS),
        "patch_px": PATCH_PX,
        "test_seeds": TEST_SEEDS,
        "min_size_px": MIN_SIZE_PX,
        "rows": [
            {key: row[key] for key in row if key != "recipe"} for arm in done for row in done[arm]
        ],
        "summary": {arm: {key: summary(done[arm], key) for key in COMPARED} for arm in done},
    }
    if "recipe" in done:
        figures["recipe"] = done["recipe"][0]["recipe"]
        figures["recipe_minus"] = {
            arm: [paired(done["recipe"], done[arm], key) for key in COMPARED]
            for arm in done
            if arm != "recipe"
        }
    print(save("training_demo", figures))


if __name__ == "__main__":
    main()
