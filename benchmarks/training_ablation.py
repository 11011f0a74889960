"""What weight map and elastic deformation add: short trainings with and without each.

Networks of one width, on three seeds, tested through the engine on slides of seeds that nothing was
trained on or chosen by. Every run can be stopped; the same command continues.
"""

from dataclasses import replace
from typing import Any

from results_file import save
from tissue_slides import (
    MIN_SIZE_PX,
    PATCH_PX,
    RECIPE,
    TEST_SEEDS,
    TRAINING_SEEDS,
    measured,
    subject,
    training_images,
    validation_images,
)
from trainings import Budget, options, paired, run, summary, unfinished

ARMS = {
    "recipe": RECIPE,
    "no_weight_map": replace(RECIPE, weight_map=replace(RECIPE.weight_map, w0=0.0)),
    "no_elastic": replace(RECIPE, augmentation=replace(RECIPE.augmentation, elastic_px=0.0)),
}
COMPARED = ("dice", "dice_parted", "instance_f1")


def main() -> None:
    """Train what is missing, and write the table."""
    parser = options(main.__doc__, steps=1200, width=8)
    parser.add_argument("--arms", nargs="+", choices=[*ARMS], default=[*ARMS])
    asked = parser.parse_args()
    budget, folder = Budget(asked.minutes), asked.work / "ablation"
    images, validation = training_images(), validation_images()
    rows: dict[str, list[dict[str, Any]]] = {arm: [] for arm in asked.arms}
    missing = []
    for seed in asked.seeds:  # whole seeds first, so that a table can be made of what is there
        for arm in asked.arms:
            name = f"{arm}_{seed}"
            settings = budget.settings(ARMS[arm], asked, seed)
            found = run(name, folder, subject(asked.width), images, validation, settings, measured)
            if found:
                rows[arm].append({"arm": arm, "seed": seed, **found})
            else:
                missing.append(name)
    _save(asked.width, rows)
    if missing:
        unfinished(missing)


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
            arm: {key: paired(done["recipe"], done[arm], key) for key in COMPARED}
            for arm in done
            if arm != "recipe"
        }
    print(save("training_ablation", figures))


if __name__ == "__main__":
    main()
