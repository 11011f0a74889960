"""What a model says of itself, inside its file or in a JSON beside it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tile_infer import predict_large
from tile_infer.engine.backends import open_network
from tile_infer.engine.backends.base import NetworkFacts
from tile_infer.engine.backends.metadata import Metadata, decode
from tile_infer.tiler.errors import ModelError, OutputError

from .zoo_models import write_network

EVERYTHING: dict[str, Any] = {
    "classes": ["background", "nucleus"],
    "colours": [[0, 0, 0], [255, 128, 1]],
    "normalize": "percentile",
    "percentiles": [2, 98],
    "activation": "sigmoid",
    "threshold": 0.25,
    "pixel_size": 0.5,
}


def facts(path: Path) -> NetworkFacts:
    network = open_network(path)
    network.close()
    return network.facts


def beside(model: Path, said: Any) -> Path:
    (model.parent / f"{model.stem}.tile_infer.json").write_text(json.dumps(said))
    return model


def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(2).integers(0, 256, (40, 50), dtype=np.uint8)


@pytest.mark.parametrize("inside", [True, False])
def test_metadata_is_read_from_the_file_and_from_a_json_beside_it(
    tmp_path: Path, inside: bool
) -> None:
    model = write_network(tmp_path / "net.onnx", metadata=EVERYTHING if inside else None)
    if not inside:
        beside(model, EVERYTHING)
    found = facts(model)
    assert found.class_names == ("background", "nucleus")
    assert found.class_colours == ((0, 0, 0), (255, 128, 1))
    assert (found.normalize, found.percentiles) == ("percentile", (2, 98))
    assert (found.activation, found.threshold) == ("sigmoid", 0.25)
    assert found.pixel_size == (0.5, 0.5)
    who = "the model" if inside else "net.tile_infer.json"
    assert {name for name, said_by in found.origins if said_by == who} == {
        *("class_names", "class_colours", "normalize", "percentiles"),
        *("activation", "threshold", "pixel_size"),
    }


def test_without_metadata_nothing_is_said_and_a_json_of_another_name_is_not_read(
    tmp_path: Path,
) -> None:
    model = write_network(tmp_path / "net.onnx")
    (tmp_path / "net.json").write_text('{"epochs": 3}')
    (tmp_path / "other.tile_infer.json").write_text('{"nonsense": 3}')
    assert facts(model).origins == ()


def test_both_places_add_up(tmp_path: Path) -> None:
    model = write_network(tmp_path / "net.onnx", metadata={"classes": ["a", "b"]})
    found = facts(beside(model, {"pixel_size": [0.5, 0.25], "classes": ["a", "b"]}))
    assert (found.class_names, found.pixel_size) == (("a", "b"), (0.5, 0.25))
    assert dict(found.origins) == {"class_names": "the model", "pixel_size": "net.tile_infer.json"}


@pytest.mark.parametrize(
    ("inside", "outside", "shown"),
    [
        ({"classes": ["a", "b"]}, {"classes": ["a", "c"]}, r'\["a","b"\] and \["a","c"\]'),
        ({"pixel_size": 1}, {"pixel_size": [1, 2]}, r"\[1\.0,1\.0\] and \[1\.0,2\.0\]"),
        ({"normalize": "unit"}, {"normalize": "zscore"}, "unit and zscore"),
        ({"normalize": "unit"}, {"mean": [0.5], "std": [1]}, r"unit and \[0\.5\]"),
    ],
)
def test_two_places_that_contradict_each_other_are_both_named(
    tmp_path: Path, inside: dict[str, Any], outside: dict[str, Any], shown: str
) -> None:
    model = beside(write_network(tmp_path / "net.onnx", metadata=inside), outside)
    with pytest.raises(ModelError, match=shown) as caught:
        open_network(model)
    assert "the model and net.tile_infer.json contradict" in str(caught.value)


@pytest.mark.parametrize("inside", [True, False])
def test_a_key_that_is_none_is_refused_with_the_list_of_those_there_are(
    tmp_path: Path, inside: bool
) -> None:
    said = {"clases": ["a", "b"]}
    model = write_network(tmp_path / "net.onnx", metadata=said if inside else None)
    if not inside:
        beside(model, said)
    with pytest.raises(ModelError) as caught:
        open_network(model)
    text = str(caught.value)
    assert "'clases' is no key" in text
    assert all(key in text for key in (*EVERYTHING, "mean", "std"))
    assert "\n" not in text


WRONG: list[tuple[Any, str]] = [
    ([], "object"),
    ({"classes": "ab"}, "classes"),
    ({"colours": [[0, 0, 256]]}, "<= 255"),
    ({"colours": [[0, 0]]}, "length 3"),
    ({"classes": ["a", "b"], "colours": [[0, 0, 0]]}, "2 classes have 1 colours"),
    ({"normalize": "minmax"}, "none, unit, zscore, percentile, imagenet"),
    ({"normalize": "unit", "percentiles": [1, 99]}, "percentiles need"),
    ({"normalize": "percentile", "percentiles": [99, 1]}, "smaller first"),
    ({"mean": [0.5]}, "go together"),
    ({"mean": [0.5], "std": [0.5, 1]}, "one number per channel"),
    ({"mean": [], "std": []}, "one number per channel"),
    ({"mean": [0.5], "std": [0]}, "> 0"),
    ({"mean": [0.5], "std": [1], "normalize": "unit"}, "replace normalize"),
    ({"activation": "relu"}, "relu"),
    ({"threshold": 1}, "between 0 and 1"),
    ({"pixel_size": 0}, "above 0"),
    ({"pixel_size": [1, -1]}, "above 0"),
    ({"pixel_size": [1, 1, 1]}, "length 2"),
]


@pytest.mark.parametrize(("said", "why"), WRONG)
def test_metadata_that_makes_no_sense_is_refused_in_one_line(said: Any, why: str) -> None:
    with pytest.raises(ModelError, match=why) as caught:
        decode(json.dumps(said), "net.tile_infer.json")
    assert str(caught.value).startswith("net.tile_infer.json cannot be understood")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"", b"null"])
def test_a_damaged_json_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    model = write_network(tmp_path / "net.onnx")
    (tmp_path / "net.tile_infer.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"net\.tile_infer\.json cannot be understood"):
        open_network(model)


def test_what_is_written_is_read_again() -> None:
    said = decode(json.dumps(EVERYTHING), "x")
    assert decode(said.encode(), "x") == said
    assert Metadata(classes=("a", "b")).encode() == '{"classes":["a","b"]}'


def test_many_refusals_leave_the_interpreter_alive() -> None:
    code = """
import gc
from tile_infer.engine.backends.metadata import decode
for _ in range(2000):
    try:
        decode("[]", "x")
    except ValueError:
        pass
gc.collect()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_the_threshold_of_the_model_moves_the_mask_and_the_user_wins(tmp_path: Path) -> None:
    bare = write_network(tmp_path / "bare.onnx")
    said = write_network(tmp_path / "said.onnx", metadata={"threshold": 0.25})
    low, middle = (np.asarray(predict_large(pixels(), bare, threshold=t)) for t in (0.25, 0.5))
    assert (low != middle).any()
    assert np.array_equal(np.asarray(predict_large(pixels(), said)), low)
    assert np.array_equal(np.asarray(predict_large(pixels(), said, threshold=0.5)), middle)


def test_a_mask_begun_with_other_metadata_is_not_continued(tmp_path: Path) -> None:
    model = beside(write_network(tmp_path / "net.onnx"), {"threshold": 0.25})
    predict_large(pixels(), model, tmp_path / "mask.zarr")
    predict_large(pixels(), model, tmp_path / "mask.zarr")
    beside(model, {"threshold": 0.75})
    with pytest.raises(OutputError, match=r"net with other metadata \(threshold\)"):
        predict_large(pixels(), model, tmp_path / "mask.zarr")


def test_colours_go_into_the_masks_attributes_and_its_polygons(tmp_path: Path) -> None:
    model = write_network(tmp_path / "net.onnx", metadata=EVERYTHING)
    found = predict_large(pixels(), model, tmp_path / "mask.zarr")
    attributes: Any = found.group.attrs["tile_infer"]
    assert attributes["colours"] == EVERYTHING["colours"]
    found.export(tmp_path / "mask.geojson")
    shapes = json.loads((tmp_path / "mask.geojson").read_text())["features"]
    assert {tuple(s["properties"]["classification"]["color"]) for s in shapes} == {(255, 128, 1)}
    bare = predict_large(pixels(), write_network(tmp_path / "bare.onnx"), tmp_path / "bare.zarr")
    bare_attributes: Any = bare.group.attrs["tile_infer"]
    assert "colours" not in bare_attributes
