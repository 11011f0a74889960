"""Pre- and post-processing of the Model Zoo, read from valid descriptions and held to NumPy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tile_infer import plan_prediction, predict_large
from tile_infer.engine.backends import open_network
from tile_infer.engine.backends.base import NetworkFacts
from tile_infer.engine.normalize import largest_input, resolve_normalization
from tile_infer.engine.settings import Settings
from tile_infer.engine.sources import open_source
from tile_infer.tiler.errors import ModelError

from .zoo_models import SIGMOID, ZSCORE, description, old_description, write_folder, write_network

Steps = list[dict[str, Any]]


def step(name: str, **kwargs: Any) -> dict[str, Any]:
    return {"id": name, "kwargs": kwargs}


def facts(folder: Path, before: Steps, channels: int = 2, **more: Any) -> NetworkFacts:
    folder.mkdir(exist_ok=True)
    weights = write_network(folder / "weights.onnx", channels=channels)
    said = description(weights, channels=channels, before=before, **more)
    return open_network(write_folder(folder, said)).facts


def image(channels: int = 2) -> NDArray[np.uint16]:
    pixels = np.random.default_rng(3).gamma(3, 200, (61, 47, channels))
    return (pixels * [1, 4][:channels] + [50, 7][:channels]).astype(np.uint16)


def normalized(found: NetworkFacts, pixels: NDArray[Any]) -> NDArray[np.float64]:
    source = open_source(pixels)
    channels = tuple(range(source.facts.channels))
    made = resolve_normalization(Settings(), found, source, 0, channels)
    assert made.mode == "described"
    assert "as bioimageio.yaml says" in made.note
    result = (pixels.astype(np.float64) - made.offset) * made.scale
    low, high = made.clip
    result = np.clip(result, -np.inf if low is None else low, np.inf if high is None else high)
    assert np.abs(result).max() <= largest_input(source, 0, channels, made) * (1 + 1e-12)
    return np.asarray(result)


def percentile(pixels: NDArray[Any], limits: list[float], axis: Any) -> NDArray[np.float64]:
    return np.asarray(np.percentile(pixels, limits, axis=axis, method="inverted_cdf"), np.float64)


def test_no_steps_leave_the_pixels_as_they_are(tmp_path: Path) -> None:
    assert np.array_equal(normalized(facts(tmp_path, []), image()), image())


@pytest.mark.parametrize(
    "axes", [None, ["y", "x"], ["batch", "y", "x"], ["channel", "y", "x"]], ids=str
)
def test_zero_mean_unit_variance_is_that_of_the_image(tmp_path: Path, axes: Any) -> None:
    kwargs = {} if axes is None else {"axes": axes}
    pixels = image().astype(np.float64)
    over = None if axes is None or "channel" in axes else (0, 1)
    expected = (pixels - pixels.mean(over)) / (pixels.std(over) + 1e-6)
    found = normalized(facts(tmp_path, [step("zero_mean_unit_variance", **kwargs)]), image())
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


def test_a_large_eps_counts(tmp_path: Path) -> None:
    pixels = image(1) / 65535
    steps = [step("zero_mean_unit_variance", axes=["y", "x"], eps=0.01)]
    expected = (pixels - pixels.mean()) / (pixels.std() + 0.01)
    found = normalized(facts(tmp_path, steps, 1), pixels)
    np.testing.assert_allclose(found, expected, rtol=1e-11)


@pytest.mark.parametrize("axes", [None, ["y", "x"]], ids=str)
@pytest.mark.parametrize("limits", [[0, 100], [5, 99.8]], ids=str)
def test_scale_range_is_that_of_the_images_percentiles(
    tmp_path: Path, axes: Any, limits: list[float]
) -> None:
    kwargs = {"min_percentile": limits[0], "max_percentile": limits[1]}
    pixels = image()
    low, high = percentile(pixels, limits, (0, 1) if axes else None)
    steps = [step("scale_range", **kwargs, **({"axes": axes} if axes else {}))]
    expected = (pixels - low) / (high - low + 1e-6)
    np.testing.assert_allclose(normalized(facts(tmp_path, steps), pixels), expected, rtol=1e-11)
    if limits == [0, 100] and axes:
        assert expected.min() == 0, "the smallest pixel becomes 0"


def test_scale_linear_and_fixed_statistics_are_constants(tmp_path: Path) -> None:
    steps = [
        step("scale_linear", axis="channel", gain=[2.0, 0.5], offset=[1.0, -3.0]),
        step("fixed_zero_mean_unit_variance", mean=10.0, std=4.0),
    ]
    expected = (image() * [2, 0.5] + [1, -3] - 10) / 4
    np.testing.assert_allclose(normalized(facts(tmp_path, steps), image()), expected, rtol=1e-12)


def test_a_scaling_before_and_after_a_statistic_and_a_clip_add_up(tmp_path: Path) -> None:
    steps = [
        step("scale_linear", gain=0.01, offset=5.0),
        step("scale_range", axes=["y", "x"], min_percentile=1.0, max_percentile=90.0),
        step("scale_linear", gain=2.0, offset=-1.0),
        step("clip", min=-1.0, max=1.5),
    ]
    pixels = image() * 0.01 + 5
    low, high = percentile(pixels, [1, 90], (0, 1))
    expected = np.clip((pixels - low) / (high - low + 1e-6) * 2 - 1, -1, 1.5)
    assert (expected == 1.5).any()
    said = facts(tmp_path, steps)
    np.testing.assert_allclose(normalized(said, image()), expected, rtol=1e-9, atol=1e-9)
    source = open_source(image())
    made = resolve_normalization(Settings(), said, source, 0, (0, 1))
    assert largest_input(source, 0, (0, 1), made) == 1.5, "nothing larger gets past the clip"


def test_a_type_that_the_pixels_have_already_is_no_step(tmp_path: Path) -> None:
    steps = [step("ensure_dtype", dtype="uint16"), ZSCORE, step("ensure_dtype", dtype="float32")]
    one, other = facts(tmp_path / "a", steps), facts(tmp_path / "b", [ZSCORE])
    assert np.array_equal(normalized(one, image()), normalized(other, image()))
    with pytest.raises(ModelError, match=r"wants uint16, as bioimageio\.yaml says, .* float64"):
        normalized(one, image() / 7)


UNSUPPORTED: list[tuple[Steps, str]] = [
    ([{"id": "sigmoid"}], "sigmoid"),
    ([step("softmax", axis="channel")], "softmax"),
    ([step("binarize", threshold=0.5)], "binarize"),
    ([ZSCORE, step("ensure_dtype", dtype="uint8")], "ensure_dtype uint8"),
    ([step("clip", min=0.0, max=1.0), ZSCORE], "zero_mean_unit_variance after"),
    ([step("clip", max_percentile=99.0)], "clip at percentiles"),
    ([ZSCORE, step("scale_range")], "scale_range after"),
    ([step("zero_mean_unit_variance", axes=["x"])], "over x instead"),
    ([step("scale_linear", axis="channel", gain=[1.0, 2.0]), ZSCORE], "differs between channels"),
    ([step("clip", max=9.0), step("scale_linear", gain=2.0)], "scale_linear after clip"),
    ([step("scale_linear", axis="x", gain=[1.0, 2.0])], "along x"),
]


@pytest.mark.parametrize(("steps", "name"), UNSUPPORTED)
def test_a_step_that_cannot_be_followed_is_named_and_an_option_replaces_it(
    tmp_path: Path, steps: Steps, name: str
) -> None:
    found, pixels = facts(tmp_path, steps), image()
    with pytest.raises(ModelError, match=name) as caught:
        plan_prediction(pixels, tmp_path / "bioimageio.yaml")
    assert "as bioimageio.yaml says, is not supported; use normalize" in str(caught.value)
    made = resolve_normalization(Settings(normalize="unit"), found, open_source(pixels), 0, (0, 1))
    assert made.mode == "unit"


def test_steps_for_other_channels_than_are_given_are_refused(tmp_path: Path) -> None:
    steps = [step("fixed_zero_mean_unit_variance", axis="channel", mean=[1.0, 2.0], std=[1.0, 1.0])]
    with pytest.raises(ModelError, match=r"for 2 channels.*given 1"):
        normalized(facts(tmp_path, steps), image(1))


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_clipped_pixels_reach_the_network_and_nan_is_not_made_a_number(
    tmp_path: Path, backend: str
) -> None:
    import onnx
    import torch
    from onnx import TensorProto, helper

    from tile_infer.engine.backends.base import Execution, Recipe

    model: Any = torch.nn.Identity()
    if backend == "onnx":
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, "y", "x"])
            for name in ("a", "b")
        ]
        graph = helper.make_graph(
            [helper.make_node("Identity", ["a"], ["b"])], "g", *map(list, zip(ends, strict=True))
        )
        model = tmp_path / "net.onnx"
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
            model,
        )
    recipe = Recipe(
        dtype="float32",
        channels=1,
        tile=(1, 4),
        offset=(1.0,),
        scale=(2.0,),
        crop=(0, 0),
        window=(1, 4),
        ends_in="none",
        classes=1,
        activation="none",
        threshold=0.5,
        labels=True,
        scores="logits",
        clip=(-1.0, 3.0),
    )
    pixels = np.array([-7, 1.25, 9, np.nan], np.float32).reshape(1, 1, 4, 1)
    output = open_network(model).prepare(recipe, Execution("cpu"))(pixels)
    assert output.scores is not None
    assert output.labels is not None
    assert output.scores.ravel()[:3].tolist() == [-1, 0.5, 3]
    assert output.labels.ravel().tolist() == [0, 0, 1, 255]


BINARIZE = step("binarize", threshold=0.3)


@pytest.mark.parametrize(
    ("after", "activation", "threshold", "left_out"),
    [
        ([], None, None, ""),
        ([SIGMOID], "sigmoid", None, ""),
        ([SIGMOID, step("ensure_dtype", dtype="float32")], "sigmoid", None, ""),
        ([SIGMOID, BINARIZE], "sigmoid", 0.3, ""),
        ([BINARIZE], "none", 0.3, ""),
        ([step("binarize", threshold=0.0)], "sigmoid", 0.5, ""),
        ([step("binarize", threshold=-2.0)], "sigmoid", 1 / (1 + np.exp(2)), ""),
        ([step("binarize", threshold=127.0)], None, None, "binarize"),
        ([step("scale_linear", gain=2.0), SIGMOID], None, None, "scale_linear, sigmoid"),
        ([SIGMOID, step("clip", min=0.0)], "sigmoid", None, "clip"),
    ],
)
def test_post_processing_is_activation_and_threshold_and_the_rest_is_said(
    tmp_path: Path, after: Steps, activation: str | None, threshold: float | None, left_out: str
) -> None:
    found = facts(tmp_path, [], 1, after=after)
    assert found.activation == activation
    assert (found.threshold is None) == (threshold is None)
    assert (found.threshold or 0) == pytest.approx(threshold or 0, rel=1e-12)
    assert len(found.doubts) == bool(left_out)
    assert all(doubt.endswith(f"does last: {left_out}") for doubt in found.doubts)


def test_a_threshold_of_raw_outputs_is_met_exactly(tmp_path: Path) -> None:
    pixels = image(1)[:, :, 0] / 999
    weights = write_network(tmp_path / "weights.onnx")
    logits = predict_large(pixels, write_network(tmp_path / "bare.onnx"), output="logits").logits
    assert logits is not None
    for limit in (0.0, -0.7, 0.4):
        said = description(weights, after=[step("binarize", threshold=limit)])
        mask = np.asarray(predict_large(pixels, write_folder(tmp_path, said)))
        expected = np.asarray(logits)[0] > np.float32(limit)
        assert 0 < expected.mean() < 1
        assert (mask != expected).sum() <= 1, "one pixel may lie on the limit"


def test_a_sigmoid_of_each_of_several_channels_is_warned_about(tmp_path: Path) -> None:
    weights = write_network(tmp_path / "weights.onnx", classes=2)
    names = ("inside", "border")
    path = write_folder(tmp_path, description(weights, classes=names, after=[SIGMOID]))
    plan = plan_prediction(image(1)[:, :, 0], path)
    assert plan.class_names == names
    assert "several may hold at once" in plan.warnings[0]
    assert "classes inside, border (as bioimageio.yaml says)" in plan.notes


def test_format_0_4_says_the_same_as_0_5(tmp_path: Path) -> None:
    new = facts(tmp_path / "new", [ZSCORE], 1, after=[SIGMOID])
    folder = tmp_path / "old"
    folder.mkdir()
    said = old_description(write_network(folder / "weights.onnx"))
    old = open_network(write_folder(folder, said)).facts
    assert old.preprocessing == new.preprocessing
    assert old.declared == new.declared
    assert old.activation == new.activation == "sigmoid"


def test_format_0_4_with_a_fixed_output_and_a_halo_is_understood(tmp_path: Path) -> None:
    weights = write_network(tmp_path / "weights.onnx", size=32)
    said = old_description(weights)
    said["inputs"][0]["shape"] = said["outputs"][0]["shape"] = [1, 1, 32, 32]
    said["inputs"][0]["preprocessing"][0]["kwargs"] = {
        "mode": "fixed",
        "axes": "yx",
        "mean": [100.0],
        "std": [20.0],
    }
    found = open_network(write_folder(tmp_path, json.loads(json.dumps(said)))).facts
    assert found.declared is not None
    assert (found.declared.y.size, found.declared.y.offset) == (32, 0)
    expected = (image(1) - 100.0) / 20
    np.testing.assert_allclose(normalized(found, image(1)), expected, rtol=1e-12)
