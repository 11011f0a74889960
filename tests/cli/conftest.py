"""Tiny networks and images, and the command line run in this process."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import tifffile
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tile_infer.cli.main import main

Pixels = NDArray[np.generic]


@dataclass(frozen=True)
class Ran:
    """What a command line gave."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]
Write = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in an empty folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*tokens: str | Path) -> Ran:
        capsys.readouterr()
        code = main([str(token) for token in tokens])
        return Ran(code, *capsys.readouterr())

    return call


@pytest.fixture
def image(tmp_path: Path) -> Write:
    """Write a TIFF; a grey ramp of 40 x 60 px unless pixels are given."""

    def write(name: str = "slide.tif", pixels: Pixels | None = None) -> Path:
        if pixels is None:
            pixels = np.arange(40 * 60).reshape(40, 60).astype(np.uint8)
        kind = "rgb" if pixels.ndim == 3 and pixels.shape[2] == 3 else "minisblack"
        tifffile.imwrite(tmp_path / name, pixels, photometric=kind, metadata=None)
        return tmp_path / name

    return write


@pytest.fixture
def bright(tmp_path: Path) -> Path:
    """A network that says 1 where a pixel in [0, 1] is above a half."""
    return write_network(tmp_path / "bright.onnx", [[[[0.0]]], [[[1.0]]]], (0.5, 0.0))


@pytest.fixture
def same_padded_mean(tmp_path: Path) -> Path:
    """A network that says whether the 3 x 3 neighbourhood is brighter than a half."""
    weights = np.stack([np.zeros((1, 3, 3)), np.full((1, 3, 3), 1 / 9)])
    return write_network(tmp_path / "mean.onnx", weights, (0.5, 0.0), pads=(1, 1, 1, 1))


@pytest.fixture
def never_a_number(tmp_path: Path) -> Path:
    """A network that returns a number for bright pixels and for noise, but not for black ones."""
    nodes = [
        helper.make_node("Conv", ["image", "weights", "bias"], ["local"]),
        helper.make_node("Mul", ["local", "local"], ["square"]),
        helper.make_node("Log", ["square"], ["logits"]),
    ]
    return _save(tmp_path / "nan.onnx", nodes, [[[[1.0]]], [[[2.0]]]], (0.0, 0.0))


@pytest.fixture
def whole_tile(tmp_path: Path) -> Path:
    """A network whose every pixel depends on the whole tile."""
    nodes = [
        helper.make_node("Conv", ["image", "weights", "bias"], ["local"]),
        helper.make_node("GlobalAveragePool", ["local"], ["everywhere"]),
        helper.make_node("Mul", ["local", "everywhere"], ["logits"]),
    ]
    return _save(tmp_path / "whole.onnx", nodes, [[[[1.0]]], [[[-1.0]]]], (0.0, 0.0))


@pytest.fixture
def halving(tmp_path: Path) -> Path:
    """A network that says, for each 2 x 2 pixels, whether their mean is above a half."""
    nodes = [
        helper.make_node("AveragePool", ["image"], ["mean"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["mean", "weights", "bias"], ["logits"]),
    ]
    return _save(tmp_path / "half.onnx", nodes, [[[[0.0]]], [[[1.0]]]], (0.5, 0.0))


@pytest.fixture
def doubling(tmp_path: Path) -> Path:
    """A network that says 2 x 2 times whether a pixel is above a half."""
    nodes = [
        helper.make_node("Conv", ["image", "weights", "bias"], ["deep"]),
        helper.make_node("DepthToSpace", ["deep"], ["logits"], blocksize=2),
    ]
    weights = [[[[0.0]]], [[[1.0]]]] * 4
    return _save(tmp_path / "double.onnx", nodes, weights, (0.5, 0.0) * 4, classes=2)


def write_network(
    path: Path, weights: object, bias: tuple[float, ...], pads: tuple[int, ...] = (0, 0, 0, 0)
) -> Path:
    """Write a network of one convolution."""
    node = helper.make_node("Conv", ["image", "weights", "bias"], ["logits"], pads=pads)
    return _save(path, [node], weights, bias)


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: object,
    bias: tuple[float, ...],
    classes: int | None = None,
) -> Path:
    values = np.asarray(weights, np.float32)
    graph = helper.make_graph(
        nodes,
        "network",
        [
            helper.make_tensor_value_info(
                "image", TensorProto.FLOAT, ["n", values.shape[1], "height", "width"]
            )
        ],
        [
            helper.make_tensor_value_info(
                "logits", TensorProto.FLOAT, ["n", classes or len(values), "rows", "columns"]
            )
        ],
        [
            numpy_helper.from_array(values, "weights"),
            numpy_helper.from_array(np.array(bias, np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path
