"""The demo network by the papers' recipe, on synthetic tissue with touching nuclei.

Tested through the engine on slides of seeds that nothing was trained on or chosen by. It can be
stopped; the same command continues, also to more steps: the network that comes along was trained
for `--steps 2000`, then on to `--steps 4000`. `--install` puts the one with the best validation
Dice where the demo finds it, and its curves beside the figures.
"""

import shutil
from functools import partial
from pathlib import Path

from results_file import RESULTS, save
from tile_infer.engine.networks.tissue import DEMO_SEED
from tissue_slides import (
    MIN_SIZE_PX,
    PATCH_PX,
    RECIPE,
    TEST_SEEDS,
    TRAINING_SEEDS,
    UNSEEN_SEEDS,
    VALIDATION_SEEDS,
    measured,
    subject,
    training_images,
    validation_images,
)
from trainings import Budget, options, run, summary, unfinished

INSTALLED = Path(__file__).parent.parent / "engine" / "networks" / "demo.onnx"


def main() -> None:
    """Train what is missing, and write the table."""
    parser = options(main.__doc__, steps=4000, width=16)
    parser.set_defaults(seeds=[1])
    parser.add_argument("--install", action="store_true", help="make it the demo's network")
    asked = parser.parse_args()
    assert DEMO_SEED not in (*TRAINING_SEEDS, *VALIDATION_SEEDS, *TEST_SEEDS, *UNSEEN_SEEDS)
    test = partial(measured, seeds=UNSEEN_SEEDS)
    budget, folder = Budget(asked.minutes), asked.work / "demo"
    images, validation = training_images(), validation_images()
    rows, missing = [], []
    for seed in asked.seeds:
        name = f"demo_{seed}"
        settings = budget.settings(RECIPE, asked, seed)
        found = run(name, folder, subject(asked.width), images, validation, settings, test)
        if found:
            rows.append({"seed": seed, **found})
        else:
            missing.append(name)
    if rows:
        figures = {
            "width": asked.width,
            "training_slides": len(TRAINING_SEEDS),
            "patch_px": PATCH_PX,
            "test_seeds": UNSEEN_SEEDS,
            "min_size_px": MIN_SIZE_PX,
            "recipe": rows[0]["recipe"],
            "rows": [{key: row[key] for key in row if key != "recipe"} for row in rows],
            "summary": {
                key: summary(rows, key)
                for key in ("dice", "dice_parted", "iou", "pixel_error", "instance_f1")
            },
        }
        print(save("training_demo", figures))
    if missing:
        unfinished(missing)
    if asked.install:
        best = max(rows, key=lambda row: float(row["validation_dice"]))
        shutil.copyfile(folder / f"{best['name']}.onnx", INSTALLED)
        for ending in ("csv", "png"):
            shutil.copyfile(
                folder / f"{best['name']}.{ending}", RESULTS / f"training_demo.{ending}"
            )
        print(f"installed {best['name']}")


if __name__ == "__main__":
    main()
