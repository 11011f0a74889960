"""The demo network finds the nuclei of slides that it never saw."""

import json
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

import tile_infer.engine.networks
from tile_infer import predict_large
from tile_infer.engine.measures import confusion_of, counts_of
from tile_infer.engine.networks.tissue import DEMO_SEED, tissue
from tile_infer.tiler.box import Box

DEMO = Path(tile_infer.engine.networks.__file__).parent / "demo.onnx"
UNSEEN_SEED = 424_242
"""Of a slide that neither the training nor its benchmarks know."""


def dice(mask: NDArray[Any], truth: NDArray[np.uint8]) -> float:
    return counts_of(confusion_of(mask, truth, 2), 1).dice


@pytest.mark.parametrize(("seed", "least"), [(UNSEEN_SEED, 0.95), (DEMO_SEED, 0.94)])
def test_dice_on_an_unseen_slide(seed: int, least: float) -> None:
    made = tissue(Box.of(0, 1024, 0, 1024), seed)
    image = imagecodecs.jpeg_decode(imagecodecs.jpeg_encode(made.image, level=90))
    mask = np.asarray(predict_large(image, DEMO))
    assert dice(mask, made.labels) >= least
    # Moved by a nucleus' size the same labels must be wrong, or the measure says nothing.
    assert dice(np.roll(mask, 16, 0), made.labels) < 0.5


def test_the_file_is_small_and_states_its_classes() -> None:
    assert DEMO.stat().st_size < 8_000_000
    stated = {entry.key: entry.value for entry in onnx.load(DEMO).metadata_props}
    assert json.loads(stated["tile_infer"]) == {
        "classes": ["background", "nucleus"],
        "normalize": "unit",
    }


def test_seeds_of_training_choice_test_and_demo_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks"))
    import tissue_slides

    seeds = [
        *tissue_slides.TRAINING_SEEDS,
        *tissue_slides.VALIDATION_SEEDS,
        *tissue_slides.TEST_SEEDS,
        *tissue_slides.UNSEEN_SEEDS,
        DEMO_SEED,
        UNSEEN_SEED,
    ]
    assert len(set(seeds)) == len(seeds)
