"""An ONNX file reads no other file than weights beside it, and needs no library of its maker's."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tile_infer import predict_large
from tile_infer.engine.backends import onnx as onnx_network
from tile_infer.engine.backends import open_network
from tile_infer.engine.backends.base import Execution
from tile_infer.engine.backends.onnx_session import onnx_session
from tile_infer.tiler.errors import ModelError

WEIGHTS = np.array([[[[0.0]]], [[[1.0]]]], np.float32)
IMAGE = np.arange(40 * 60, dtype=np.uint8).reshape(40, 60)


def model(nodes: list[onnx.NodeProto] | None = None, **more: Any) -> onnx.ModelProto:
    """Return a network that says where a pixel is above a half."""
    nodes = nodes or [helper.make_node("Conv", ["image", "weights", "bias"], ["logits"])]
    bias = numpy_helper.from_array(np.array([0.5, 0], np.float32), "bias")
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, "y", "x"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2, "y", "x"])],
        [numpy_helper.from_array(WEIGHTS, "weights"), bias],
    )
    domains = {node.domain for node in nodes} | {each.domain for each in more.get("functions", ())}
    opsets = [helper.make_opsetid(name, 1) for name in sorted(domains - {""})]
    opsets.append(helper.make_opsetid("", 17))
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **more)


def keep_in(tensor: onnx.TensorProto, location: str) -> None:
    """Let a tensor's numbers lie in another file."""
    for field in ("raw_data", "float_data"):
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location


def with_weights_in(path: Path, location: str) -> Path:
    """Write a network whose weights are in another file."""
    network = model()
    keep_in(network.graph.initializer[0], location)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(network.SerializeToString())
    return path


@pytest.fixture
def no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test fail where a session is made."""

    def refuse(*_: object) -> None:
        raise AssertionError("a session was made")

    monkeypatch.setattr(onnx_network, "onnx_session", refuse)


def refused(path: Path, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        open_network(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backend", ["onnx", "openvino", "torch"])
def test_weights_beside_the_file_are_read_from_any_folder_and_by_every_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: Any
) -> None:
    path = with_weights_in(tmp_path / "network" / "network.onnx", "parts/weights.bin")
    (path.parent / "parts").mkdir()
    (path.parent / "parts" / "weights.bin").write_bytes(WEIGHTS.tobytes())
    # What has that name where we are is not what is meant.
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "weights.bin").write_bytes((-WEIGHTS).tobytes())
    monkeypatch.chdir(tmp_path)
    mask = np.asarray(predict_large(IMAGE, Path("network/network.onnx"), backend=backend))
    np.testing.assert_array_equal(mask, IMAGE > 127)


@pytest.mark.usefixtures("no_session")
@pytest.mark.parametrize(
    "location",
    ["../secret.bin", "parts/../../secret.bin", "{root}/secret.bin", "link.bin", "up/secret.bin"],
)
def test_weights_elsewhere_are_refused_before_a_session_is_made(
    tmp_path: Path, location: str
) -> None:
    location = location.format(root=tmp_path)
    path = with_weights_in(tmp_path / "network" / "network.onnx", location)
    (path.parent / "parts").mkdir()
    (path.parent / "link.bin").symlink_to("../secret.bin")
    (path.parent / "up").symlink_to("..")
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    refused(path, "which are not in its folder; only files beside it are read: copy them there")
    # The same weights, where they may be.
    (path.parent / "weights.bin").write_bytes(WEIGHTS.tobytes())
    open_network(with_weights_in(path, "weights.bin"))


@pytest.mark.usefixtures("no_session")
@pytest.mark.parametrize("location", ["missing.bin", "", ".", "pipe", "a\0b", "x" * 9000])
def test_weights_that_are_no_file_are_refused(tmp_path: Path, location: str) -> None:
    os.mkfifo(tmp_path / "pipe")  # which nobody writes to: reading it would not end
    path = with_weights_in(tmp_path / "network.onnx", location)
    refused(path, "which is missing|which are not in its folder")


@pytest.mark.usefixtures("no_session")
@pytest.mark.parametrize("where", ["constant", "branch", "function", "sparse"])
def test_no_tensor_of_a_graph_is_read_from_elsewhere(tmp_path: Path, where: str) -> None:
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    tensor = numpy_helper.from_array(WEIGHTS, "hidden")
    keep_in(tensor, "../secret.bin")
    node = onnx.NodeProto(op_type="Constant", output=["hidden"])
    node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(tensor)
    network = model()
    if where == "constant":
        network.graph.node.insert(0, node)
    elif where == "branch":
        branch = network.graph.node.add(op_type="If", input=["image"], output=["chosen"])
        graph = branch.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g
        graph.node.add().CopyFrom(node)
    elif where == "function":
        network.functions.add(name="F", domain="own").node.add().CopyFrom(node)
    else:
        sparse = network.graph.sparse_initializer.add()
        sparse.values.CopyFrom(tensor)
    path = tmp_path / "network" / "network.onnx"
    path.parent.mkdir()
    path.write_bytes(network.SerializeToString())
    refused(path, "which are not in its folder")


@pytest.mark.usefixtures("no_session")
def test_a_custom_operator_is_refused_by_name(tmp_path: Path) -> None:
    custom = helper.make_node("Secret", ["image"], ["logits"], domain="com.somebody")
    path = tmp_path / "network.onnx"
    onnx.save(model([custom]), path)
    refused(path, r"needs the operator com\.somebody\.Secret, .* custom operators are not run")
    # Inside a branch and a function as well.
    outer = helper.make_node("If", ["image"], ["logits"])
    branch = outer.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH)
    branch.g.node.add().CopyFrom(custom)
    onnx.save(model([outer]), path)
    refused(path, r"com\.somebody\.Secret")
    network = model()
    network.functions.add(name="F", domain="own").node.add().CopyFrom(custom)
    onnx.save(network, path)
    refused(path, r"com\.somebody\.Secret")


def test_an_operator_that_is_unknown_in_a_known_domain_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    onnx.save(model([helper.make_node("Secret", ["image"], ["logits"])]), path)
    refused(path, "No Op registered for Secret")
    onnx.save(
        model([helper.make_node("Secret", ["image"], ["logits"], domain="com.microsoft")]), path
    )
    with pytest.raises(ModelError, match=r"com\.microsoft:Secret.* is not a registered"):
        predict_large(IMAGE, path)


def test_operators_of_onnx_runtime_and_functions_in_the_file_are_run(tmp_path: Path) -> None:
    conv = helper.make_node("Conv", ["image", "weights", "bias"], ["local"])
    gelu = helper.make_node("QuickGelu", ["local"], ["logits"], domain="com.microsoft")
    path = tmp_path / "network.onnx"
    onnx.save(model([conv, gelu]), path)
    predict_large(IMAGE, path)
    twice = helper.make_function(
        "own", "Twice", ["x"], ["y"], [helper.make_node("Add", ["x", "x"], ["y"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    used = helper.make_node("Twice", ["local"], ["logits"], domain="own")
    onnx.save(model([conv, used], functions=[twice]), path)
    np.testing.assert_array_equal(np.asarray(predict_large(IMAGE, path)), IMAGE > 127)


def test_onnx_runtime_prints_no_names(capfd: pytest.CaptureFixture[str]) -> None:
    added = helper.make_node("Add", ["image", "few"], ["logits"], name="\x1b[2Jgone")
    network = model([added])
    few = numpy_helper.from_array(np.zeros((1, 1, 7, 7), np.float32), "few")
    network.graph.initializer.append(few)
    session = onnx_session(network, Execution("cpu"))
    with pytest.raises(Exception, match="gone"):
        session.run(None, {"image": np.zeros((1, 1, 5, 5), np.float32)})
    assert "gone" not in "".join(capfd.readouterr())
    options = onnxruntime.SessionOptions()  # as it is by default
    content = network.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    with pytest.raises(Exception, match="gone"):
        session.run(None, {"image": np.zeros((1, 1, 5, 5), np.float32)})
    assert "gone" in "".join(capfd.readouterr())
