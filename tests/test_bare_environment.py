"""The core imports and segments with ONNX where the optional libraries are not installed."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import tifffile
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

WITHOUT = """
import sys

absent = {
    *("torch", "dask", "distributed", "openvino", "onnxscript"),
    *("openslide", "bioimageio", "ruyaml", "pydantic", "scipy", "PIL"),
}


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Absent())
"""

SEGMENT = """
import numpy, tile_infer

image, model, out = sys.argv[1:]
tile_infer.inspect_network(model)
found = tile_infer.predict_large(image, model, out, workers=1)
assert numpy.array_equal(tile_infer.predict_large(numpy.load(image + ".npy"), model), found)
assert not absent & set(sys.modules), absent & set(sys.modules)
numpy.save(out + ".npy", found)
"""


def run(code: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-W", "error", "-c", WITHOUT + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def write_difference(path: Path) -> None:
    """Write a network whose class 1 wins where a pixel is brighter than the one to its left."""
    weights = np.zeros((2, 1, 1, 3), np.float32)
    weights[:, 0, 0] = [[1, 0, 0], [0, 1, 0]]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weights"], ["logits"])],
        "difference",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, "y", "x"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2, "y", "x_out"])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)


@pytest.fixture
def image(tmp_path: Path) -> NDArray[np.uint8]:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 700), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "image.tif", pixels, tile=(64, 64), compression="zlib")
    np.save(tmp_path / "image.tif.npy", pixels)
    return pixels


def test_the_core_segments_without_the_optional_libraries(
    tmp_path: Path, image: NDArray[np.uint8]
) -> None:
    model, out = tmp_path / "difference.onnx", tmp_path / "mask.zarr"
    write_difference(model)
    done = run(SEGMENT, tmp_path / "image.tif", model, out)
    assert done.returncode == 0, done.stderr
    left = np.pad(image, ((0, 0), (1, 0)), mode="reflect")[:, :-1]
    assert np.array_equal(np.load(f"{out}.npy"), image > left)


@pytest.mark.parametrize("name", ["torch", "dask", "openvino", "bioimageio", "scipy", "PIL"])
def test_the_libraries_are_absent_there(name: str) -> None:
    done = run(f"import {name}")
    assert done.returncode == 1
    assert f"No module named '{name}'" in done.stderr


def test_what_needs_a_library_says_how_to_install_it(tmp_path: Path) -> None:
    export = "from tile_infer.engine.networks.export import export_onnx\n"
    done = run(f"{export}export_onnx(None, 'n.onnx', in_channels=1)")
    assert "pip install torch" in done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "tokens", [["train", "a", "b", "--network", "unet", "--out", "n.onnx"], ["score", "a", "b"]]
)
def test_training_and_objects_name_their_extra(tokens: list[str]) -> None:
    done = run(f"from tile_infer.cli.main import main\nsys.exit(main({tokens}))")
    assert done.returncode == 1
    assert "pip install " in done.stderr.strip().splitlines()[-1]


def test_pixels_are_scored_without_scipy(tmp_path: Path, image: NDArray[np.uint8]) -> None:
    path = str(tmp_path / "image.tif")
    tokens = ["score", path, path, "--truth", "binary", "--no-objects"]
    done = run(f"from tile_infer.cli.main import main\nsys.exit(main({tokens}))")
    assert done.returncode == 0, done.stderr
    assert "1.0000" in done.stdout


def test_a_description_of_the_model_zoo_names_the_library(tmp_path: Path) -> None:
    (tmp_path / "bioimageio.yaml").write_text('{"weights": {"onnx": {"source": "net.onnx"}}}')
    inspect = "import tile_infer; tile_infer.inspect_network(sys.argv[1])"
    done = run(inspect, tmp_path / "bioimageio.yaml")
    assert done.returncode == 1
    assert "pip install bioimageio.spec" in done.stderr.strip().splitlines()[-1]


def test_weights_run_without_the_description_beside_them_and_it_is_said(
    tmp_path: Path, image: NDArray[np.uint8]
) -> None:
    write_difference(tmp_path / "net.onnx")
    (tmp_path / "bioimageio.yaml").write_text('{"weights": {"onnx": {"source": "net.onnx"}}}')
    plan = """
import tile_infer
plan = tile_infer.plan_prediction(sys.argv[1], sys.argv[2])
print(plan.warnings[0])
"""
    done = run(plan, tmp_path / "image.tif", tmp_path / "net.onnx")
    assert done.returncode == 0, done.stderr
    assert "bioimageio.yaml describes" in done.stdout
    assert "was not read" in done.stdout
    assert "pip install bioimageio.spec" in done.stdout
    (tmp_path / "bioimageio.yaml").write_text("another.onnx")
    done = run(plan, tmp_path / "image.tif", tmp_path / "net.onnx")
    assert "IndexError" in done.stderr, "nothing is to be warned of"
