"""A trained network and real images that nobody made for these tests."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tifffile
import torch
from numpy.typing import NDArray

from tile_infer import plan_prediction, predict_large

from .run_plan import run_plan
from .seeded_networks import export, seeded
from .whole_pass import Shape, assert_whole_pass, clear_pixels, label_of, whole_pass

DATA = Path(
    os.environ.get(
        "TILE_INFER_TEST_DATA", str(Path(__file__).resolve().parents[2] / "../shared/data")
    )
)
NUCLEI = DATA / "models/bioimageio_unet2d_nuclei_broad"
EDGE = 48
"""Pixels from the border within which the published output felt zero padding."""

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no test data in {DATA}")


def freed(path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the network at any size: nothing but the declared sizes of its ends is fixed."""
    model = onnx.load(path)
    for end in (model.graph.input[0], model.graph.output[0]):
        for axis, name in zip(end.type.tensor_type.shape.dim[2:], "yx", strict=True):
            axis.dim_param = name
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda pixels: torch.from_numpy(session.run(None, {name: pixels.numpy()})[0])


def zscore(image: NDArray[np.generic]) -> NDArray[np.float64]:
    values = image.astype(np.float64)
    return np.asarray((values - values.mean()) / values.std())


def test_the_nuclei_network_equals_its_whole_pass_and_its_published_output() -> None:
    image: NDArray[np.float32] = np.load(NUCLEI / "test_input.npy")[0, 0]
    found = predict_large(image, NUCLEI / "weights.onnx", normalize="zscore", output="logits")
    assert found.plan.exact
    assert found.plan.grid.tiles > 1
    assert found.logits is not None
    logits = np.asarray(found.logits)
    network = freed(NUCLEI / "weights.onnx")
    reference = whole_pass(network, zscore(image)[:, :, None], Shape(0, 8, 8, 64))
    assert_whole_pass(logits, found, reference)
    assert 0.05 < np.asarray(found).mean() < 0.95

    published = np.load(NUCLEI / "test_output.npy")[0, 0]
    error = np.abs(1 / (1 + np.exp(-logits[0].astype(np.float64))) - published)
    assert error[EDGE:-EDGE, EDGE:-EDGE].max() <= 1e-5
    assert error.max() > 1e-3, "at the edge, mirrored and zero-padded images are to differ"


def test_nuclei_are_found(tmp_path: Path) -> None:
    image, out = DATA / "nuclei/img2d.tif", tmp_path / "mask.zarr"
    found = predict_large(image, NUCLEI / "weights.onnx", out, normalize="zscore")
    mask = np.asarray(found) == 1
    truth = tifffile.imread(DATA / "nuclei/mask2d.tif") > 0
    assert (mask & truth).sum() / (mask | truth).sum() >= 0.75


def test_a_slide_has_the_same_labels_whatever_the_blocks(tmp_path: Path) -> None:
    module = seeded(4, 0, classes=3, seed=6)
    model = export(module, tmp_path / "572.onnx", 1, (572, 572))
    slide = DATA / "slides/CMU-1-Small-Region.svs"
    plan = plan_prediction(slide, model, channels=(1,), workers=2)
    larger = replace(plan, grid=plan.grid.with_blocks((3, 2)))
    assert plan.grid.blocks > larger.grid.blocks > 1
    one = np.asarray(run_plan(plan, slide, model).levels[0][:])
    other = np.asarray(run_plan(larger, slide, model).levels[0][:])
    assert np.array_equal(one, other)
    # A strip along the top, of which the rows that its own lower border reaches are left out.
    strip = tifffile.imread(slide)[:400, :, 1:2].astype(np.float32) / np.float32(255)
    reference = whole_pass(module, strip, module.shape)[:, :300]
    clear = clear_pixels(reference)
    assert clear.mean() > 0.99
    assert np.array_equal(one[:300][clear], label_of(reference)[clear])
    assert np.bincount(one.ravel(), minlength=3).min() > 0.001 * one.size
