"""Small networks of odd shapes that nobody made for these tests: each mask is a plain loop's."""

import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from tile_infer import ModelError, SettingError, inspect_network, predict_large

from .seeded_networks import textured
from .whole_pass import mirrored

DATA = Path(
    os.environ.get(
        "TILE_INFER_TEST_DATA", str(Path(__file__).resolve().parents[2] / "../shared/data")
    )
)
DUMMIES = DATA / "models/deepness_dummy"
TILE = 512
IMAGE = textured(601, 1103, channels=3, seed=5)

pytestmark = pytest.mark.skipif(not DUMMIES.is_dir(), reason=f"no test data in {DATA}")

ONE = [
    "dummy_regression_models_dummy_regression_model",
    "dummy_regression_models_dummy_regression_model_batched",
    "dummy_regression_models_one_output_sigmoid_bsx1x512x512",
    "dummy_regression_models_one_output_sigmoid_bsx512x512",
    "dummy_segmentation_models_different_output_size_512_to_484",
    "dummy_segmentation_models_dummy_model",
    "dummy_segmentation_models_one_output_sigmoid_bsx1x512x512",
    "dummy_segmentation_models_one_output_sigmoid_bsx512x512",
    "dummy_segmentation_models_one_output_softmax_bsx2x512x512",
    "one_output_sigmoid_red_detector",
]
TWO = [
    "dummy_regression_models_two_outputs_sigmoid_bsx1x512x512",
    "dummy_regression_models_two_outputs_sigmoid_bsx512x512",
    "dummy_segmentation_models_two_outputs_sigmoid_bsx1x512x512",
    "dummy_segmentation_models_two_outputs_sigmoid_bsx512x512",
    "dummy_segmentation_models_two_outputs_softmax_bsx2x512x512",
]
CASES = [(name, None) for name in ONE] + [(name, head) for name in TWO for head in ("0", "output2")]


def plain_loop(model: Path, output: int, image: NDArray[np.generic]) -> NDArray[np.float32]:
    """Run the file tile by tile on the mirrored image, at a stride of what it gives."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(tile: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = session.run(None, {name: tile.transpose(2, 0, 1)[None]})[
            output
        ]
        return found[0] if found.ndim == 4 else found

    core = run(np.zeros((TILE, TILE, 3), np.float32)).shape[-1]
    margin = (TILE - core) // 2
    height, width = image.shape[:2]
    rows, columns = -(-height // core) * core, -(-width // core) * core
    large = image.astype(np.float32) * np.float32(1 / 255)
    large = large.take(mirrored(height, margin, rows - height + margin), axis=0)
    large = large.take(mirrored(width, margin, columns - width + margin), axis=1)
    parts = [
        [run(large[y : y + TILE, x : x + TILE]) for x in range(0, columns, core)]
        for y in range(0, rows, core)
    ]
    return np.concatenate([np.concatenate(row, axis=2) for row in parts], axis=1)[
        :, :height, :width
    ]


@pytest.mark.parametrize(("name", "head"), CASES, ids=[f"{n}-{h}" for n, h in CASES])
def test_a_mask_is_that_of_a_plain_loop(name: str, head: str | None) -> None:
    model = DUMMIES / f"{name}.onnx"
    found = predict_large(IMAGE, model, head=head, workers=2, output="probabilities")
    assert found.plan.exact
    assert found.plan.grid.tiles > 4
    scores = plain_loop(model, 1 if head == "output2" else 0, IMAGE).astype(np.float64)
    assert found.probabilities is not None
    chances = np.asarray(found.probabilities)
    if "sigmoid" in name or "softmax" in name:  # the others end in logits
        np.testing.assert_allclose(chances, scores, atol=1e-3)
    assert chances.max() - chances.min() > 0.01
    if len(scores) == 1:
        threshold = 0 if scores.min() < 0 else 0.5  # the logits of one network have no sigmoid
        expected, clear = scores[0] > threshold, np.abs(scores[0] - threshold) > 1e-5
    else:
        second, best = np.sort(scores, axis=0)[-2:]
        expected, clear = scores.argmax(axis=0), best - second > 1e-5
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(np.asarray(found)[clear], expected[clear])


@pytest.mark.parametrize("name", TWO)
def test_two_outputs_need_a_choice(name: str) -> None:
    with pytest.raises(SettingError, match=r"2 outputs \(0: output, 1: output2\); choose with"):
        inspect_network(DUMMIES / f"{name}.onnx")


def test_a_network_that_recognises_is_refused_in_one_line() -> None:
    with pytest.raises(ModelError, match="so it is not a map") as caught:
        inspect_network(DUMMIES / "dummy_recognition_model.onnx")
    assert "\n" not in str(caught.value)


def test_every_dummy_is_looked_at() -> None:
    known = {*ONE, *TWO, "dummy_recognition_model", "dummy_superresolution_model"}
    assert {path.stem for path in DUMMIES.glob("*.onnx")} == known
