"""Whose colours a class gets."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tile_infer import SettingError
from tile_infer.engine.exports.colours import Colour, class_colours
from tile_infer.engine.prediction import Prediction

from .finished_masks import finished, read_features

NAMES = ["none", "tumour", "stroma"]


def prediction(*colours: Colour) -> Prediction:
    made = finished(np.array([[0, 1, 2]], np.uint8), names=NAMES)
    network = replace(made.plan.network, class_colours=colours)
    return replace(made, plan=replace(made.plan, network=network))


def exported(path: Path) -> dict[str, Any]:
    classes = [feature["properties"]["classification"] for feature in read_features(path)]
    return {found["name"]: found.get("color") for found in classes}


def test_without_any_a_viewer_chooses(tmp_path: Path) -> None:
    prediction().export(tmp_path / "m.geojson")
    assert exported(tmp_path / "m.geojson") == {"tumour": None, "stroma": None}


def test_the_models_colours_are_the_default(tmp_path: Path) -> None:
    prediction((0, 0, 0), (1, 2, 3), (4, 5, 6)).export(tmp_path / "m.geojson")
    assert exported(tmp_path / "m.geojson") == {"tumour": [1, 2, 3], "stroma": [4, 5, 6]}


@pytest.mark.parametrize(
    "colours",
    [
        [(0, 0, 0), (9, 8, 7), (4, 5, 6)],
        np.array([[0, 0, 0], [9, 8, 7], [4, 5, 6]], np.uint8),
        {"tumour": (9, 8, 7)},
    ],
)
def test_the_users_win_and_a_dict_leaves_the_others(colours: Any, tmp_path: Path) -> None:
    made = prediction((0, 0, 0), (1, 2, 3), (4, 5, 6))
    made.export(tmp_path / "m.geojson", colours=colours, object_type="detection")
    assert exported(tmp_path / "m.geojson") == {"tumour": [9, 8, 7], "stroma": [4, 5, 6]}
    for feature in read_features(tmp_path / "m.geojson"):
        assert feature["properties"]["objectType"] == "detection"


def test_a_model_with_another_number_of_colours_than_classes_has_none() -> None:
    assert class_colours(prediction((1, 2, 3)).plan) == (None, None, None)


@pytest.mark.parametrize(
    ("colours", "text"),
    [
        ({"tumor": (1, 2, 3)}, "'tumor', which is not there; use some of none, tumour, stroma"),
        ([(1, 2, 3)], "1 colours for 3 classes"),
        ({"tumour": (1, 2, 256)}, "0 to 255; got .1, 2, 256."),
        ({"tumour": (1, 2)}, "0 to 255"),
        ({"tumour": "red"}, "0 to 255; got 'red'"),
        ({"tumour": (0.5, 0.5, 0.5)}, "0 to 255"),
    ],
)
def test_what_is_no_colour_or_no_class_is_refused(
    colours: Mapping[str, Any], text: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match=text):
        prediction().export(tmp_path / "m.geojson", colours=colours)
    assert list(tmp_path.iterdir()) == []


def test_another_kind_of_object_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"object_type=cell .*use annotation or detection"):
        prediction().export(tmp_path / "m.geojson", object_type="cell")  # type: ignore[arg-type]
