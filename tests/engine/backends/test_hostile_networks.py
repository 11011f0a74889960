"""ONNX files that lie are refused in one line, before they cost time or memory."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from tile_infer.engine import probe_bench
from tile_infer.engine.backends import onnx_footprint, open_network
from tile_infer.engine.memory import peak_rss_bytes
from tile_infer.tiler.errors import ModelError, OutOfMemoryError

LITTLE_BYTES = 200 << 20
Damage = Callable[[Any], None]


def convolution(size: int | str = "size", channels: int = 3) -> Any:
    """Make a network of one convolution and a Reshape to the shape that a constant states."""
    weight = np.ones((2, channels, 3, 3), np.float32)
    shape = np.array([0, 2, 0, 0], np.int64)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "weight"], ["map"], pads=[1, 1, 1, 1]),
            helper.make_node("Reshape", ["map", "shape"], ["logits"]),
        ],
        "convolution",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, channels, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2, size, size])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(shape, "shape")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def opened(path: Path, model: Any) -> NDArray[np.float32]:
    path.write_bytes(model.SerializeToString())
    with closing(open_network(path)) as network:
        return network.logits(np.ones((1, 3, 256, 256), np.float32))


def refusal(path: Path, model: Any) -> str:
    before = peak_rss_bytes()
    with pytest.raises(ModelError) as caught:
        opened(path, model)
    assert peak_rss_bytes() - before < LITTLE_BYTES
    text = str(caught.value)
    assert path.stem in text
    assert "\n" not in text
    return text


def test_sound_network_runs(tmp_path: Path) -> None:
    assert opened(tmp_path / "sound.onnx", convolution()).shape == (1, 2, 256, 256)


@pytest.mark.parametrize(
    ("kind", "dims", "why"),
    [
        (TensorProto.DOUBLE, [2, 3, 3, 3], "needs 432 bytes"),
        (TensorProto.FLOAT, [2, 3, 3, 1 << 40], "needs"),
        (TensorProto.FLOAT, [2, 3, 1, 1], "has 216"),
        (TensorProto.FLOAT, [2, 3, -3, -3], "negative"),
        (99, [2, 3, 3, 3], "none of onnx's"),
    ],
)
def test_constant_that_is_not_of_its_type_and_shape_is_refused(
    tmp_path: Path, kind: int, dims: list[int], why: str
) -> None:
    model = convolution()
    weight = model.graph.initializer[0]
    weight.data_type = kind
    weight.dims[:] = dims
    text = refusal(tmp_path / "lying.onnx", model)
    assert why in text.lower() or "raw_data size" in text


def test_constant_inside_a_node_is_checked_as_well(tmp_path: Path) -> None:
    model = convolution()
    shape = model.graph.initializer.pop()
    node = helper.make_node("Constant", [], ["shape"], value=shape)
    model.graph.node.insert(0, node)
    assert opened(tmp_path / "sound.onnx", model).shape == (1, 2, 256, 256)
    model.graph.node[0].attribute[0].t.dims[:] = [400]
    refusal(tmp_path / "lying.onnx", model)


def _transposed(model: Any) -> None:
    node = helper.make_node("Transpose", ["image"], ["turned"], perm=[0, 3, 1, 1 << 40])
    model.graph.node.insert(0, node)
    model.graph.node[1].input[0] = "turned"


def _kernel_of_text(model: Any) -> None:
    entry = model.graph.node[0].attribute.add(name="kernel_shape", s=b"3 3")
    entry.type = AttributeProto.STRING


@pytest.mark.parametrize(
    "damage",
    [
        lambda model: model.graph.output.pop(),
        lambda model: model.graph.ClearField("node"),
        _transposed,
        _kernel_of_text,
    ],
)
def test_broken_graph_is_refused_in_one_line(tmp_path: Path, damage: Damage) -> None:
    model = convolution()
    damage(model)
    refusal(tmp_path / "broken.onnx", model)


def test_graph_whose_node_needs_more_than_is_free_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_footprint, "available_bytes", lambda: 1 << 30)
    model = convolution()
    model.graph.node[0].attribute[0].ints[:] = [1 << 20, 1, 1 << 20, 1]
    text = refusal(tmp_path / "padded.onnx", model)
    assert "for Conv 'map' alone in a tile of 256 x 256 px, and 1.0 GB are free" in text


def test_fixed_size_that_does_not_fit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_footprint, "available_bytes", lambda: 1 << 30)
    assert "65536 x 65536 px" in refusal(tmp_path / "fixed.onnx", convolution(65_536))


def test_slice_of_a_length_below_0_does_not_end_the_process(tmp_path: Path) -> None:
    model = convolution()
    model.graph.node[0].attribute[0].ints[:] = [-200, -200, -200, -200]
    places = np.array([0], np.int64), np.array([5], np.int64), np.array([2], np.int64)
    for name, place in zip(("first", "stop", "axis"), places, strict=True):
        model.graph.initializer.append(numpy_helper.from_array(place, name))
    model.graph.node[1].CopyFrom(
        helper.make_node("Slice", ["map", "first", "stop", "axis"], ["logits"])
    )
    onnx_footprint.check_footprint(model, "image", (1, 3, 256, 256), "network")


def test_a_tile_that_fits_is_run_and_a_larger_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 3 and 2 channels of float32: 20 bytes a pixel.
    monkeypatch.setattr(onnx_footprint, "available_bytes", lambda: 20 * 300 * 300)
    path = tmp_path / "network.onnx"
    onnx.save(convolution(), path)
    with closing(open_network(path)) as network:
        assert network.logits(np.ones((1, 3, 300, 299), np.float32)).shape == (1, 2, 300, 299)
        with pytest.raises(OutOfMemoryError, match="300 x 301 px"):
            network.logits(np.ones((1, 3, 300, 301), np.float32))


def test_channels_that_cannot_be_measured_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_bench, "available_bytes", lambda: 1 << 30)
    with pytest.raises(OutOfMemoryError, match=r"a network of 1000 channels needs 11\.1 GB"):
        probe_bench.Bench(lambda tiles: tiles, 1000, 0)
