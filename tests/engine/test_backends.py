"""Every backend does the same around a network: one suite over all of them."""

import importlib.util
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from tile_infer.engine.backends import Network, open_network
from tile_infer.engine.backends import onnx as onnx_backend
from tile_infer.engine.backends.base import Backend, Execution, Recipe
from tile_infer.tiler.errors import DeviceError, ModelError, SettingError

Build = Callable[..., Network]

WEIGHTS: NDArray[np.float32] = np.random.default_rng(0).normal(size=(3, 2, 3, 3)).astype(np.float32)
CPU = Execution("cpu", threads=1)

# Looked for, not imported: its import reports itself to its makers.
needs_openvino = pytest.mark.skipif(
    not importlib.util.find_spec("openvino"), reason="openvino is not installed"
)


def write_onnx(
    path: Path,
    weights: NDArray[np.float32],
    ending: str = "none",
    size: int | None = None,
    batch: int | None = None,
) -> Path:
    """Write one valid convolution, then perhaps an activation, as ONNX."""
    nodes = [helper.make_node("Conv", ["image", "w"], ["logits"])]
    head, kind, rank = "logits", TensorProto.FLOAT, 4
    if ending == "sigmoid":
        nodes.append(helper.make_node("Sigmoid", [head], ["out"]))
    elif ending == "softmax":
        nodes.append(helper.make_node("Softmax", [head], ["out"], axis=1))
    elif ending == "argmax":
        nodes.append(helper.make_node("ArgMax", [head], ["out"], axis=1, keepdims=0))
        kind, rank = TensorProto.INT64, 3
    head = "logits" if ending == "none" else "out"
    graph = helper.make_graph(
        nodes,
        "net",
        [
            helper.make_tensor_value_info(
                "image", TensorProto.FLOAT, [batch, weights.shape[1], size, size]
            )
        ],
        [helper.make_tensor_value_info(head, kind, [None] * rank)],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


class Endings(nn.Module):
    def __init__(self, weights: NDArray[np.float32], ending: str) -> None:
        super().__init__()
        self.weights, self.ending = nn.Parameter(torch.from_numpy(weights)), ending

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = nn.functional.conv2d(image, self.weights)
        if self.ending == "sigmoid":
            return logits.sigmoid()
        if self.ending == "softmax":
            return logits.softmax(dim=1)
        return logits.argmax(dim=1) if self.ending == "argmax" else logits


@pytest.fixture(
    params=[
        "onnx",
        "onnx, bound",  # as on a GPU
        "onnx in torch",
        "torch",
        pytest.param("openvino", marks=needs_openvino),
    ]
)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "onnx, bound":
        bound = partial(onnx_backend.BoundOnnxRunner, device="cpu")
        monkeypatch.setattr(onnx_backend, "OnnxRunner", bound)
    return str(request.param)


@pytest.fixture
def cpu(library: str) -> Execution:
    backends: dict[str, Backend] = {
        "onnx": "onnx",
        "onnx, bound": "onnx",
        "onnx in torch": "torch",
        "torch": "torch",
        "openvino": "openvino",
    }
    return Execution("cpu", backend=backends[library])


@pytest.fixture
def build(library: str, tmp_path: Path) -> Build:
    def make(weights: NDArray[np.float32] = WEIGHTS, ending: str = "none") -> Network:
        if library == "torch":
            return open_network(Endings(weights, ending))
        return open_network(write_onnx(tmp_path / "net.onnx", weights, ending))

    return make


def recipe(**changes: object) -> Recipe:
    usual: dict[str, object] = {
        "dtype": "uint8",
        "channels": 2,
        "tile": (12, 16),
        "offset": (3.0, 5.0),
        "scale": (0.5, 0.25),
        "crop": (1, 2),
        "window": (8, 11),
        "ends_in": "none",
        "classes": 3,
        "activation": "softmax",
        "threshold": 0.5,
        "labels": True,
        "scores": "logits",
    }
    return Recipe(**{**usual, **changes})  # type: ignore[arg-type]


def tiles(dtype: str = "uint8") -> NDArray[np.generic]:
    return np.random.default_rng(1).integers(0, 200, (2, 12, 16, 2)).astype(dtype)


def expected_logits(raw: NDArray[np.generic], weights: NDArray[np.floating]) -> NDArray[np.float64]:
    """Do in NumPy and float64 what the recipe says."""
    image = (raw.astype(np.float64) - [3, 5]) * [0.5, 0.25]
    out = np.zeros((len(raw), weights.shape[0], 10, 14))
    for y in range(3):
        for x in range(3):
            part = image[:, y : y + 10, x : x + 14]
            out += np.einsum("byxc,kc->bkyx", part, weights[:, :, y, x].astype(np.float64))
    return out[:, :, 1:9, 2:13]


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "int32", "float32", "float64"]
)
def test_raw_pixels_of_any_type_become_labels_and_logits(
    build: Build, cpu: Execution, dtype: str
) -> None:
    raw = tiles(dtype)
    found = build().prepare(recipe(dtype=dtype), cpu)(raw)
    logits = expected_logits(raw, WEIGHTS)
    assert found.scores is not None
    np.testing.assert_allclose(found.scores, logits, atol=1e-5 * abs(logits).max())
    assert found.labels is not None
    assert found.labels.dtype == np.uint8
    np.testing.assert_array_equal(found.labels, logits.argmax(axis=1))


@pytest.mark.parametrize("ending", ["sigmoid", "softmax", "argmax"])
def test_a_final_activation_is_cut_off(build: Build, cpu: Execution, ending: str) -> None:
    network = build(ending=ending)
    image = np.random.default_rng(2).normal(size=(1, 2, 9, 9)).astype(np.float32)
    logits = network.logits(image)
    np.testing.assert_allclose(logits, build().logits(image), rtol=1e-6)
    assert network.facts.ends_in == ending
    raw = tiles()
    found = network.prepare(recipe(ends_in=ending), cpu)(raw)
    assert found.scores is not None
    np.testing.assert_allclose(found.scores, expected_logits(raw, WEIGHTS), atol=1e-2, rtol=1e-5)


@pytest.mark.parametrize(("activation", "total"), [("softmax", 1.0), ("sigmoid", None)])
def test_probabilities_are_those_of_the_activation(
    build: Build, cpu: Execution, activation: str, total: float | None
) -> None:
    raw = tiles()
    wanted = recipe(activation=activation, scores="probabilities", scores_dtype="float16")
    found = build().prepare(wanted, cpu)(raw).scores
    assert found is not None
    assert found.dtype == np.float16
    logits = torch.from_numpy(expected_logits(raw, WEIGHTS))
    expected = logits.softmax(dim=1) if activation == "softmax" else logits.sigmoid()
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-3)
    if total:
        np.testing.assert_allclose(found.sum(axis=1, dtype=np.float64), total, atol=2e-3)


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_one_channel_is_compared_with_the_threshold(
    build: Build, cpu: Execution, threshold: float
) -> None:
    raw = tiles()
    weights = WEIGHTS[:1] / 30
    wanted = recipe(classes=1, activation="sigmoid", threshold=threshold, scores=None)
    found = build(weights).prepare(wanted, cpu)(raw).labels
    probability = 1 / (1 + np.exp(-expected_logits(raw, weights)[:, 0]))
    assert found is not None
    np.testing.assert_array_equal(found, probability > threshold)
    assert 0.02 < found.mean() < 0.98


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_become_the_label_not_computed(
    build: Build, cpu: Execution, broken: float
) -> None:
    raw = tiles("float32")
    raw[1, 6, 7, 0] = broken
    found = build().prepare(recipe(dtype="float32", scores=None), cpu)(raw).labels
    assert found is not None
    assert (found[0] != 255).all()
    rows, columns = np.nonzero(found[1] == 255)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (3, 5, 3, 5)
    assert len(rows) == 9


def test_many_classes_have_wider_labels_and_the_same_meaning(build: Build, cpu: Execution) -> None:
    weights = np.random.default_rng(3).normal(size=(300, 2, 3, 3)).astype(np.float32)
    raw = tiles()
    found = build(weights).prepare(recipe(classes=300, scores=None), cpu)(raw).labels
    assert found is not None
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, expected_logits(raw, weights).argmax(axis=1))


def test_work_is_counted_in_multiply_adds(build: Build) -> None:
    (layer,) = build().layers(2, (12, 16))
    assert (layer.height, layer.width) == (10, 14)
    assert layer.multiply_adds == 10 * 14 * 3 * 2 * 9
    assert layer.bytes == 10 * 14 * 3 * 4


def test_work_of_an_up_convolution_is_counted_from_its_input() -> None:
    network = open_network(nn.ConvTranspose2d(4, 3, 2, stride=2))
    (layer,) = network.layers(4, (5, 7))
    assert layer.multiply_adds == 5 * 7 * 4 * 3 * 4
    assert (layer.height, layer.width) == (10, 14)


def test_the_two_backends_agree_on_work_and_facts(tmp_path: Path) -> None:
    onnx_network = open_network(write_onnx(tmp_path / "a.onnx", WEIGHTS))
    torch_network = open_network(nn.Conv2d(2, 3, 3))
    assert onnx_network.layers(2, (20, 30)) == torch_network.layers(2, (20, 30))
    assert onnx_network.facts.channels == torch_network.facts.channels == 2


def test_tf32_on_a_cpu_is_refused(build: Build, cpu: Execution) -> None:
    with pytest.raises(DeviceError, match="use fp32"):
        build().prepare(recipe(), replace(cpu, precision="tf32"))


def test_half_precision_is_near_single_precision(build: Build, cpu: Execution) -> None:
    if cpu.backend == "openvino":
        pytest.skip("OpenVINO has bf16 instead: backends/test_openvino.py")
    raw = tiles()
    found = build(WEIGHTS / 30).prepare(recipe(), replace(cpu, precision="fp16"))(raw).scores
    assert found is not None
    logits = expected_logits(raw, WEIGHTS / 30)
    error = abs(found - logits).max()
    assert error < 1e-2 * abs(logits).max()
    assert error > 1e-6 * abs(logits).max(), "fp16 gave what fp32 gives: it was not used"


def test_a_gpu_that_is_not_there_is_no_silent_cpu(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    network = open_network(write_onnx(tmp_path / "a.onnx", WEIGHTS))
    with pytest.raises(DeviceError, match="cannot be had from ONNX Runtime"):
        network.prepare(recipe(), Execution("cuda:0"))


def test_a_module_is_left_in_its_training_mode() -> None:
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Dropout())
    module[1].eval()
    network = open_network(module)
    during = [part.training for part in module.modules()]
    network.close()
    assert during == [False, False, False]
    assert [part.training for part in module.modules()] == [True, True, False]


def test_several_outputs_need_a_choice() -> None:
    class Two(nn.Module):
        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return image, image * 2

    image = np.ones((1, 1, 4, 4), np.float32)
    with pytest.raises(ModelError, match="2 outputs; choose one with head"):
        open_network(Two()).logits(image)
    assert open_network(Two(), "1").logits(image).max() == 2
    with pytest.raises(ModelError, match="head=2"):
        open_network(Two(), "2").logits(image)
    with pytest.raises(ModelError, match="head=1 is not possible: the module returns 1 output"):
        open_network(nn.Identity(), "1").logits(image)
    assert open_network(nn.Identity(), "0").logits(image).max() == 1


def test_onnx_outputs_are_chosen_by_name_or_index(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "two.onnx", WEIGHTS)
    model = onnx.load(path)
    model.graph.node.append(helper.make_node("Neg", ["logits"], ["negative"]))
    model.graph.output.append(
        helper.make_tensor_value_info("negative", TensorProto.FLOAT, [None] * 4)
    )
    onnx.save(model, path)
    image = np.ones((1, 2, 5, 5), np.float32)
    with pytest.raises(SettingError, match=r"2 outputs \(0: logits, 1: negative\)"):
        open_network(path)
    first, second = (open_network(path, head).logits(image) for head in ("0", "negative"))
    np.testing.assert_array_equal(first, -second)
    with pytest.raises(SettingError, match="no output 'third'"):
        open_network(path, "third")


def test_a_fixed_batch_is_kept(tmp_path: Path) -> None:
    network = open_network(write_onnx(tmp_path / "b.onnx", WEIGHTS, batch=1, size=12))
    assert network.facts.batch == 1
    assert network.facts.fixed == (12, 12)
    assert network.logits(np.ones((3, 2, 12, 12), np.float32)).shape == (3, 3, 10, 10)


def test_what_is_no_network_is_refused_in_one_line(tmp_path: Path) -> None:
    text = tmp_path / "text.onnx"
    text.write_text("not a network")
    two = tmp_path / "two.onnx"
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["c"])],
        "net",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 8, 8]) for name in "ab"],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [1, 1, 8, 8])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), two)
    vector = tmp_path / "vector.onnx"
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["a"], ["c"])],
        "net",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, [1, 1, 8, 8])],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [1, 64])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), vector)
    cases = {
        tmp_path / "missing.onnx": "does not exist",
        text: "is no network of a kind that is known",
        two: r"has 2 inputs \(a, b\)",
        vector: "has 2 axes, so it is not a map",
    }
    for path, message in cases.items():
        with pytest.raises(ModelError, match=message) as caught:
            open_network(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=r"model is a int; give the path of an \.onnx file"):
        open_network(3)


def save_graph(
    path: Path,
    nodes: list[onnx.NodeProto],
    rank: int = 4,
    constants: dict[str, NDArray[np.generic]] | None = None,
    opset: int = 17,
    size: int | None = None,
) -> Path:
    """Write a graph from ``image`` ``(batch, 2, y, x)`` to ``out``."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 2, size, size])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [None] * rank)],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


def behind(kind: str) -> list[onnx.NodeProto]:
    """Return an activation with something behind it that leaves its meaning alone."""
    make = helper.make_node
    return {
        "crop": [
            make("Sigmoid", ["logits"], ["p"]),
            make("Slice", ["p", "one", "three", "axes"], ["out"]),
        ],
        "clip": [make("Sigmoid", ["logits"], ["p"]), make("Clip", ["p"], ["out"])],
        "transposed": [
            make("Transpose", ["logits"], ["t"], perm=[0, 2, 3, 1]),
            make("Softmax", ["t"], ["p"], axis=-1),
            make("Transpose", ["p"], ["out"], perm=[0, 3, 1, 2]),
        ],
    }[kind]


@pytest.mark.parametrize(
    ("kind", "ending"), [("crop", "sigmoid"), ("clip", "sigmoid"), ("transposed", "softmax")]
)
def test_an_activation_is_found_behind_what_only_moves_values(
    tmp_path: Path, kind: str, ending: str
) -> None:
    constants: dict[str, NDArray[np.generic]] = {
        "w": WEIGHTS,
        "one": np.array([1, 1]),
        "three": np.array([3, 3]),
        "axes": np.array([2, 3]),
    }
    nodes = [helper.make_node("Conv", ["image", "w"], ["logits"]), *behind(kind)]
    network = open_network(save_graph(tmp_path / "a.onnx", nodes, constants=constants))
    image = np.random.default_rng(0).normal(size=(1, 2, 6, 6)).astype(np.float32)
    logits = open_network(write_onnx(tmp_path / "b.onnx", WEIGHTS)).logits(image)
    found = network.logits(image)
    assert network.facts.ends_in == ending
    np.testing.assert_array_equal(found, logits[:, :, 1:3, 1:3] if kind == "crop" else logits)


def test_a_softmax_over_another_axis_is_no_ending(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["out"], axis=3),
    ]
    network = open_network(save_graph(tmp_path / "a.onnx", nodes, constants={"w": WEIGHTS}))
    assert network.facts.ends_in == "none"

    class OverX(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image.softmax(dim=3)

    module = open_network(OverX())
    module.logits(np.ones((1, 2, 5, 5), np.float32))
    assert module.facts.ends_in == "none"


@pytest.mark.parametrize("opset", [9, 10])
def test_linear_resizing_of_old_files_keeps_its_coordinates(tmp_path: Path, opset: int) -> None:
    kind = "Upsample" if opset == 9 else "Resize"
    nodes = [helper.make_node(kind, ["image", "scales"], ["out"], mode="linear")]
    scales = np.array([1, 1, 2, 2], np.float32)
    path = save_graph(
        tmp_path / "old.onnx", nodes, constants={"scales": scales}, opset=opset, size=6
    )
    image = np.random.default_rng(0).normal(size=(1, 2, 6, 6)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (before,) = session.run(None, {"image": image})
    np.testing.assert_allclose(open_network(path).logits(image), before, rtol=1e-6)


def test_weights_beside_the_file_belong_to_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    hashes = []
    for weights in (WEIGHTS, WEIGHTS + 1):
        model = onnx.load(write_onnx(path, weights))
        onnx.save(model, path, save_as_external_data=True, location="net.data", size_threshold=0)
        hashes.append(open_network(path).facts.sha256)
        (tmp_path / "net.data").unlink()
    assert hashes[0] != hashes[1]


def test_plain_attributes_belong_to_a_modules_hash() -> None:
    class Gain(nn.Module):
        def __init__(self, gain: float) -> None:
            super().__init__()
            self.gain = gain

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image * self.gain

    one, other = Gain(1.0), Gain(-1.0)
    assert open_network(one).facts.sha256 != open_network(other).facts.sha256
    hashes = {open_network(one).facts.sha256 for _ in range(2)}
    one.eval()
    assert hashes == {open_network(one).facts.sha256}


@pytest.mark.parametrize("dtype", ["uint32", "int64", "float64"])
def test_wide_numbers_are_centred_before_they_are_rounded(
    build: Build, cpu: Execution, dtype: str
) -> None:
    raw = (tiles("int64").astype(np.int64) + 2_000_000_000).astype(dtype)
    wanted = recipe(dtype=dtype, offset=(2e9, 2e9), scale=(0.5, 0.5))
    found = build().prepare(wanted, cpu)(raw).scores
    narrow = build().prepare(recipe(offset=(0.0, 0.0), scale=(0.5, 0.5)), cpu)(tiles()).scores
    assert found is not None
    assert narrow is not None
    np.testing.assert_allclose(found, narrow, rtol=1e-5, atol=1e-4)


def test_a_module_whose_hooks_keep_things_on_it_is_run_once_at_a_time() -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(2, 3, 3, padding=1)
            self.first.register_forward_hook(self.keep)

        def keep(self, _: nn.Module, __: object, result: torch.Tensor) -> None:
            self.kept = result

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            self.first(image)
            time.sleep(0.001)  # lets other threads in
            return self.kept

    network = open_network(Skips())
    run = network.prepare(recipe(scores=None), CPU)
    batches = [tiles() // (n + 1) for n in range(8)]
    alone = [run(batch).labels for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = [found.labels for found in pool.map(run, batches * 4)]
    for index, labels in enumerate(together):
        np.testing.assert_array_equal(labels, alone[index % 8])
