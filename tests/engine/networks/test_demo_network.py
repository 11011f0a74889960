"""The demo network finds the nuclei of a slide that it never saw."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

import tile_infer.engine.networks
from tile_infer.engine.networks import train_demo
from tile_infer.engine.networks.tissue import DEMO_SEED
from tile_infer.engine.networks.train_demo import dice, patch, whole_pass

DEMO = Path(tile_infer.engine.networks.__file__).parent / "demo.onnx"
UNSEEN_SEED = 424_242


@pytest.fixture(scope="module")
def network() -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(DEMO, options, providers=["CPUExecutionProvider"])

    def run(image: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(session.run(["logits"], {"image": image})[0])

    return run


@pytest.mark.parametrize("seed", [UNSEEN_SEED, DEMO_SEED])
def test_dice_on_an_unseen_slide_is_above_0_9(
    network: Callable[[NDArray[np.float32]], NDArray[np.float32]], seed: int
) -> None:
    image, truth = patch(seed, 0, 0, size=1024)
    labels = whole_pass(network, image)
    assert dice(labels, truth) >= 0.9
    # Moved by a nucleus' size the same labels must be wrong, or the measure says nothing.
    assert dice(np.roll(labels, 16, axis=0), truth) < 0.5


def test_the_file_is_small_and_states_its_classes() -> None:
    assert DEMO.stat().st_size < 3_000_000
    stated = {entry.key: entry.value for entry in onnx.load(DEMO).metadata_props}
    assert json.loads(stated["tile_infer"]) == {
        "classes": ["background", "nucleus"],
        "normalize": "unit",
    }


def test_seeds_of_training_choice_test_and_demo_differ() -> None:
    seeds = [
        *train_demo.TRAINING_SEEDS,
        train_demo.VALIDATION_SEED,
        train_demo.TEST_SEED,
        DEMO_SEED,
        UNSEEN_SEED,
    ]
    assert len(set(seeds)) == len(seeds)


def test_a_whole_pass_has_one_label_for_each_pixel_at_its_place() -> None:
    # Stands in for the network: loses 92 px and says where the image is bright.
    def bright(image: NDArray[np.float32]) -> NDArray[np.float32]:
        assert all((side - 188) % 16 == 0 for side in image.shape[2:])
        inner = image[:, :1, 92:-92, 92:-92]
        return np.concatenate([1 - inner, inner], axis=1)

    image = np.random.default_rng(0).integers(0, 256, (130, 145, 3), np.uint8)
    expected = (image[..., 0] > 127).astype(np.uint8)
    assert np.array_equal(whole_pass(bright, image), expected)


def test_dice_counts_overlap_twice() -> None:
    left, right = np.array([1, 1, 0, 0], np.uint8), np.array([0, 1, 1, 1], np.uint8)
    assert dice(left, right) == pytest.approx(2 * 1 / 5)
    assert dice(left, left) == 1.0
    assert dice(0 * left, 0 * right) == 1.0
