"""Which axis is which is told by the operators, else by the lengths, else nobody guesses."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tile_infer.engine.backends import open_network
from tile_infer.engine.backends.onnx_axes import backward, forward
from tile_infer.engine.backends.onnx_graph import read_graph
from tile_infer.tiler.errors import ModelError

Sizes = list[int | str | None]


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    image: Sizes,
    made: Sizes,
    kind: int = TensorProto.FLOAT,
    **constants: list[int] | list[float],
) -> Path:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", kind, image)],
        [helper.make_tensor_value_info("map", TensorProto.FLOAT, made)],
        [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def each_value_alone(path: Path, image: Sizes, made: Sizes) -> Path:
    """Write a network that works on each value alone, so that only lengths tell."""
    return save(path, [helper.make_node("Mul", ["image", "image"], ["map"])], image, made)


@pytest.mark.parametrize(
    ("image", "shape"),
    [
        ([1, 3, 64, 96], (1, 3, 64, 96)),
        ([1, 64, 96, 3], (1, 3, 64, 96)),
        (["n", "y", "x", 3], (None, 3, None, None)),
        (["n", None, None, 12], (None, 12, None, None)),
        (["n", 12, None, None], (None, 12, None, None)),
        ([1, None, None, None], (1, None, None, None)),
        ([1, None, 64, 64], (1, None, 64, 64)),
        ([2, 16, 64, 64], (2, 16, 64, 64)),
        ([2, 64, 64, 16], (2, 16, 64, 64)),
        ([3, 64, 96], (1, 3, 64, 96)),
        ([64, 96, 3], (1, 3, 64, 96)),
        (["n", 64, 96], (None, 1, 64, 96)),
        ([64, 96], (1, 1, 64, 96)),
    ],
)
def test_lengths_tell_where_operators_do_not(
    tmp_path: Path, image: Sizes, shape: tuple[int | None, ...]
) -> None:
    path = each_value_alone(tmp_path / "net.onnx", image, image)
    assert read_graph(path, None).shape == shape
    if None not in shape:
        tiles = np.random.default_rng(0).normal(size=shape).astype(np.float32)  # type: ignore[arg-type]
        np.testing.assert_array_equal(open_network(path).logits(tiles), tiles * tiles)


@pytest.mark.parametrize("image", [[1, 16, 64, 96], [1, 96, 64, 16], [16, 64, 96], [5], [1] * 5])
def test_nobody_guesses_which_axis_is_which(tmp_path: Path, image: Sizes) -> None:
    path = each_value_alone(tmp_path / "net.onnx", image, image)
    with pytest.raises(ModelError, match=r"export it from \(batch, channel, y, x\)") as caught:
        open_network(path)
    assert "\n" not in str(caught.value)


def test_operators_win_over_lengths(tmp_path: Path) -> None:
    """Four rows of 30 px with 64 channels look like four channels."""
    nodes = [helper.make_node("AveragePool", ["image"], ["map"], kernel_shape=[1, 1])]
    path = save(tmp_path / "net.onnx", nodes, [1, 64, 30, 4], [1, 64, 30, 4])
    assert read_graph(path, None).shape == (1, 64, 30, 4)


def test_a_matrix_product_is_over_the_channels(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["image", "w"], ["map"])]
    path = save(tmp_path / "net.onnx", nodes, [1, 6, 5, 5], [1, 6, 5, 7], w=weights)  # type: ignore[arg-type]
    network = open_network(path)
    tiles = np.random.default_rng(1).normal(size=(1, 5, 6, 5)).astype(np.float32)
    found = network.logits(tiles)
    np.testing.assert_allclose(found, np.einsum("bcyx,ck->bkyx", tiles, weights), rtol=1e-5)
    (layer,) = network.layers(5, (6, 5))
    assert (layer.height, layer.width, layer.bytes) == (6, 5, 4 * 6 * 5 * 7)
    assert layer.multiply_adds == 6 * 5 * 5 * 7


def test_a_matrix_product_over_a_row_is_not_over_the_channels(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(7, 7)).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", ["image"], ["same"], kernel_shape=[1, 1]),
        helper.make_node("MatMul", ["same", "w"], ["map"]),
    ]
    path = save(tmp_path / "net.onnx", nodes, [1, 3, 5, 7], [1, 3, 5, 7], w=weights)  # type: ignore[arg-type]
    tiles = np.random.default_rng(1).normal(size=(1, 3, 5, 7)).astype(np.float32)
    np.testing.assert_allclose(open_network(path).logits(tiles), tiles @ weights, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "before", "after", "attributes"),
    [
        ("Transpose", "bcyx", "byxc", {"perm": [0, 2, 3, 1]}),
        ("Transpose", "bcyx", "xycb", {}),
        ("Squeeze", "+cyx", "cyx", {"axes": [0]}),
        ("Unsqueeze", "cyx", "+cyx", {"axes": [0]}),
        ("ReduceMax", "b+yx", "byx", {"axes": [1], "keepdims": 0}),
        ("ReduceMax", "bcyx", "bcyx", {"axes": [1]}),
        ("ArgMax", "byx+", "byx", {"axis": -1, "keepdims": 0}),
        ("Sigmoid", "bcyx", "bcyx", {}),
    ],
)
def test_axes_are_followed_both_ways(
    kind: str, before: str, after: str, attributes: dict[str, int | list[int]]
) -> None:
    node = helper.make_node(kind, ["a"], ["b"], **attributes)
    assert forward(node, before, {}) == after
    assert backward(node, after, {}) == before


def test_axes_end_at_a_reshaping() -> None:
    node = helper.make_node("Reshape", ["a", "sizes"], ["b"])
    assert forward(node, "bcyx", {}) is None
    assert backward(node, "bcyx", {}) is None


@pytest.mark.parametrize(
    ("image", "made", "works"),
    [
        ([1, 3, 64, 64], [1, 64, 64], True),
        (["n", 3, 64, 64], ["n", 64, 64], True),
        ([1, 3, 64, 64], [3, 64, 64], True),
        ([1, 3, 64, 96], [64, 96], True),
        ([1, 3, 64, 64], [1, 64], False),
        (["n", 3, 64, 64], ["n", 64], False),
        (["n", 3, 64, 64], [], False),
    ],
)
def test_a_map_behind_a_reshaping_is_told_by_its_lengths(
    tmp_path: Path, image: Sizes, made: Sizes, works: bool
) -> None:
    nodes = [helper.make_node("Reshape", ["image", "sizes"], ["map"])]
    path = save(tmp_path / "net.onnx", nodes, image, made, sizes=[-1])
    if works:
        read_graph(path, None)
    else:
        with pytest.raises(ModelError, match="so it is not a map") as caught:
            read_graph(path, None)
        assert "\n" not in str(caught.value)


def test_an_input_that_is_no_number_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["image"], ["map"], to=TensorProto.FLOAT)]
    path = save(tmp_path / "net.onnx", nodes, [1, 1, 8, 8], [1, 1, 8, 8], TensorProto.STRING)
    with pytest.raises(ModelError, match="is STRING; export the network with a float32"):
        open_network(path)
