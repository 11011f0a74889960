"""What a model says of its output is followed, the user wins, and what is false is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tile_infer import plan_prediction, predict_large
from tile_infer.engine.networks.export import export_onnx
from tile_infer.tiler.errors import ModelError, SettingError

from .backends.zoo_models import write_network

IMAGE = np.random.default_rng(0).integers(0, 255, (30, 40)).astype(np.uint8)


def probabilities(model: Path, **options: Any) -> NDArray[np.floating]:
    found = predict_large(IMAGE, model, output="probabilities", **options).probabilities
    assert found is not None
    return np.asarray(found, np.float32)


def test_the_activation_of_the_model_is_followed_and_the_user_wins(tmp_path: Path) -> None:
    bare = write_network(tmp_path / "bare.onnx", classes=2)
    said = write_network(tmp_path / "said.onnx", classes=2, metadata={"activation": "sigmoid"})
    softmax, sigmoid = (probabilities(bare, activation=name) for name in ("softmax", "sigmoid"))
    assert np.abs(softmax.sum(0) - 1).max() < 2e-3 < np.abs(sigmoid.sum(0) - 1).max()
    assert np.array_equal(probabilities(bare), softmax)
    assert np.array_equal(probabilities(said), sigmoid)
    assert np.array_equal(probabilities(said, activation="softmax"), softmax)
    note = "sigmoid turns the output into probabilities (as the model says)"
    assert note in plan_prediction(IMAGE, said).notes
    assert note not in plan_prediction(IMAGE, said, activation="softmax").notes


@pytest.mark.parametrize(
    ("network", "said", "why"),
    [
        ({"ending": "Sigmoid"}, {"activation": "softmax"}, "ends in a sigmoid, but.*softmax"),
        (
            {"ending": "Softmax", "classes": 2},
            {"activation": "sigmoid"},
            "ends in a softmax, but.*sigmoid",
        ),
        ({}, {"activation": "softmax"}, "whose softmax is 1 everywhere"),
        ({"classes": 3}, {"threshold": 0.5}, "no meaning for 3 classes"),
        ({"classes": 3}, {"classes": ["a", "b"]}, "2 names of classes, as .* says"),
        ({}, {"colours": [[0, 0, 0]] * 3}, "3 colours, as the model says.*2 classes"),
    ],
)
def test_what_the_graph_contradicts_is_an_error(
    tmp_path: Path, network: dict[str, Any], said: dict[str, Any], why: str
) -> None:
    model = write_network(tmp_path / "net.onnx", metadata=said, **network)
    with pytest.raises(ModelError, match=why):
        plan_prediction(IMAGE, model)


@pytest.mark.parametrize("said", ["sigmoid", "none"])
def test_an_activation_that_is_in_the_graph_already_may_be_said(tmp_path: Path, said: str) -> None:
    model = write_network(tmp_path / "net.onnx", ending="Sigmoid", metadata={"activation": said})
    bare = write_network(tmp_path / "bare.onnx", ending="Sigmoid")
    assert np.array_equal(probabilities(model), probabilities(bare))


def test_a_false_activation_can_be_overruled(tmp_path: Path) -> None:
    model = write_network(
        tmp_path / "net.onnx", ending="Sigmoid", metadata={"activation": "softmax"}
    )
    assert plan_prediction(IMAGE, model, activation="sigmoid").recipe.activation == "sigmoid"


def test_percentiles_of_the_model_replace_the_usual(tmp_path: Path) -> None:
    said = {"normalize": "percentile", "percentiles": [0, 100]}
    plan = plan_prediction(IMAGE, write_network(tmp_path / "net.onnx", metadata=said))
    assert plan.recipe.offset == (float(IMAGE.min()),)
    assert plan.recipe.scale == (1 / (float(IMAGE.max()) - float(IMAGE.min())),)
    assert plan.notes[0] == "percentiles 0 and 100 to 0 and 1 (as the model says)"
    usual = plan_prediction(IMAGE, write_network(tmp_path / "bare.onnx"), normalize="percentile")
    assert usual.recipe.scale != plan.recipe.scale


def test_all_that_an_export_is_told_is_read_again(tmp_path: Path) -> None:
    model = tmp_path / "net.onnx"
    export_onnx(
        torch.nn.Conv2d(1, 2, 3),
        model,
        in_channels=1,
        classes=["a", "b"],
        colours=[(0, 0, 0), (9, 8, 7)],
        mean=[0.5],
        std=[0.25],
        activation="sigmoid",
        pixel_size=(0.5, 0.25),
    )
    network = plan_prediction(IMAGE, model).network
    assert network.class_names == ("a", "b")
    assert network.class_colours == ((0, 0, 0), (9, 8, 7))
    assert (network.mean, network.std) == ((0.5,), (0.25,))
    assert (network.activation, network.pixel_size) == ("sigmoid", (0.5, 0.25))


def test_an_export_with_metadata_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match='"mean" and "std" go together'):
        export_onnx(torch.nn.Conv2d(1, 2, 3), tmp_path / "net.onnx", in_channels=1, mean=[0.5])
    with pytest.raises(SettingError, match="<= 255"):
        export_onnx(
            torch.nn.Conv2d(1, 2, 3),
            tmp_path / "net.onnx",
            in_channels=1,
            colours=[(0, 0, 256)] * 2,
        )
    assert not (tmp_path / "net.onnx").exists()
