"""Which library runs a network is chosen once, stored, and kept."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import zarr
from onnx import TensorProto, helper
from torch import nn

from tile_infer import (
    DeviceError,
    ModelError,
    OutputError,
    TileInferWarning,
    plan_prediction,
    predict_large,
)
from tile_infer.engine import runtime
from tile_infer.engine.backends import open_network
from tile_infer.engine.backends.base import Execution
from tile_infer.engine.backends.onnx import OnnxNetwork
from tile_infer.engine.backends.onnx_torch import OnnxInTorch
from tile_infer.engine.backends.torch_graph import NoGraphError
from tile_infer.engine.backends.torch_layers import LAYERS
from tile_infer.engine.backends.torch_operators import Operator
from tile_infer.engine.networks.export import export_onnx
from tile_infer.engine.networks.tissue import tissue
from tile_infer.engine.networks.unet import UNet
from tile_infer.engine.settings import Settings

from .test_backends import WEIGHTS, needs_openvino, write_onnx

IMAGE = np.random.default_rng(0).integers(0, 255, (90, 80, 2), dtype=np.uint8)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_onnx(tmp_path / "net.onnx", WEIGHTS)


@pytest.mark.parametrize("backend", [None, "auto"])
def test_a_network_is_run_by_its_own_framework_unless_asked(model: Path, backend: Any) -> None:
    for network, expected in ((model, "onnx"), (nn.Conv2d(2, 3, 3), "torch")):
        plan = plan_prediction(IMAGE, network, backend=backend)
        assert plan.execution.backend == plan.settings.backend == expected
        assert plan.summary()["backend"] == expected


def test_openvino_runs_on_the_cpu_whatever_else_is_there(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tile_infer.engine.backends.device.cuda_devices", lambda: 1)
    assert plan_prediction(IMAGE, model).execution.device == "cuda:0"
    plan = plan_prediction(IMAGE, model, backend="openvino")
    assert (plan.execution.device, plan.execution.backend) == ("cpu", "openvino")


def test_a_library_that_does_not_run_such_networks_is_refused() -> None:
    with pytest.raises(DeviceError, match=r"backend=openvino .* a Torch module; use backend=torch"):
        plan_prediction(IMAGE, nn.Conv2d(2, 3, 3), backend="openvino")


def test_on_a_gpu_an_onnx_file_is_run_by_torch_where_onnx_runtime_cannot(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        runtime, "resolve_devices", {"auto": ("cuda:0",), "cpu": ("cpu",)}.__getitem__
    )

    def tried(network: Path | nn.Module, **given: Any) -> list[tuple[Any, Any]]:
        with closing(open_network(network)) as opened:
            found = list(runtime.attempts(opened.facts, Settings(**given)))
        return [(each.backend, each.device) for each in found]

    assert tried(model) == [(None, None), ("torch", None), (None, "cpu")]
    assert tried(model, backend="onnx") == [("onnx", None), ("onnx", "cpu")]
    assert tried(model, precision="bf16") == [(None, None), (None, "cpu")]  # Torch's from the first
    assert tried(model, backend="openvino") == [("openvino", None)]
    assert tried(model, device="cpu") == [(None, "cpu")]
    assert tried(nn.Conv2d(2, 3, 3)) == [(None, None), (None, "cpu")]


def test_what_is_run_instead_is_said(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where CUDA's libraries are missing, for ONNX Runtime alone or for both."""
    missing = ["onnx"]
    found = {"auto": ("cuda:0",), "cuda": ("cuda:0",), "cpu": ("cpu",)}
    monkeypatch.setattr(runtime, "resolve_devices", found.__getitem__)

    def on_the_cpu(prepare: Any) -> Any:
        def prepared(network: Any, recipe: Any, execution: Execution) -> Any:
            if execution.backend in missing and execution.device != "cpu":
                raise DeviceError(f"{execution.backend} has no CUDA")
            return prepare(network, recipe, replace(execution, device="cpu"))

        return prepared

    for kind in (OnnxNetwork, OnnxInTorch):
        monkeypatch.setattr(kind, "prepare", on_the_cpu(kind.prepare))
    with pytest.warns(TileInferWarning, match="running by Torch: onnx has no CUDA"):
        prediction = predict_large(IMAGE, model)
    assert prediction.plan.execution.backend == "torch"
    assert prediction.plan.execution.device == "cuda:0"
    missing.append("torch")
    with pytest.warns(TileInferWarning, match="running on the CPU: torch has no CUDA"):
        prediction = predict_large(IMAGE, model)
    assert (prediction.plan.execution.backend, prediction.report["device"]) == ("onnx", "cpu")
    with pytest.raises(DeviceError, match="onnx has no CUDA"):
        predict_large(IMAGE, model, device="cuda")


def test_an_onnx_file_run_by_torch_gives_the_same_mask(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path, pixels = tmp_path / "unet.onnx", tissue((700, 500), 3).image
    network = UNet(in_channels=3, classes=2, width=4).eval()
    with torch.no_grad():  # both classes as often
        tile = torch.from_numpy(pixels[:444, :444]).permute(2, 0, 1)[None] / 255
        background, nucleus = network(tile)[0]
        assert network.head.bias is not None
        network.head.bias[0] += (nucleus - background).median()
    export_onnx(network, path, in_channels=3, normalize="unit")
    by_onnx, by_torch = (
        predict_large(pixels, path, backend=backend, output="logits")
        for backend in ("onnx", "torch")
    )
    assert by_torch.plan.execution.form == "graph"
    assert by_onnx.logits is not None
    assert by_torch.logits is not None
    one, other = np.asarray(by_onnx.logits[:]), np.asarray(by_torch.logits[:])
    assert abs(one - other).max() < 1e-5 * abs(one).max()
    sure = abs(one[0] - one[1]) > 1e-5 * abs(one).max()
    labels = np.asarray(by_onnx)
    assert np.array_equal(labels[sure], np.asarray(by_torch)[sure])
    assert 0.05 < labels.mean() < 0.95


def test_a_network_that_torch_cannot_trace_is_run_one_tile_at_a_time(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tile_infer.engine.sizing.cpu_cores", lambda: 2)
    assert plan_prediction(IMAGE, model, backend="torch", tile=(40, 40)).workers == 2

    def refuse(*_: Any, **__: Any) -> None:
        raise NoGraphError("no graph")

    monkeypatch.setattr("tile_infer.engine.backends.torch.quicken", refuse)
    plan = plan_prediction(IMAGE, model, backend="torch", tile=(40, 40))
    assert (plan.execution.form, plan.workers) == ("module", 1)
    assert any("one block at a time: no graph" in note for note in plan.notes)


@pytest.mark.parametrize("takes", ["numbers", "bytes"])
def test_an_operator_that_torch_understands_otherwise_is_caught(
    model: Path, takes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if takes == "bytes":
        stored = onnx.load(model)
        stored.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
        stored.graph.node[0].input[0] = "numbers"
        cast = helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT)
        stored.graph.node.insert(0, cast)
        onnx.save(stored, model)
    plan_prediction(IMAGE, model, backend="torch")
    right = LAYERS["Conv"].run
    turned = Operator(lambda attributes, x, weight: right(attributes, x, weight.mT))
    monkeypatch.setitem(LAYERS, "Conv", turned)
    with pytest.raises(ModelError, match="other logits in Torch than in ONNX Runtime"):
        plan_prediction(IMAGE, model, backend="torch")


@needs_openvino
def test_a_mask_is_continued_by_the_library_that_began_it(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "mask.zarr"
    first = predict_large(IMAGE, model, out, backend="openvino")
    assert first.report["backend"] == "openvino"
    attributes: Any = zarr.open_group(out, mode="r").attrs["tile_infer"]
    assert attributes["backend"] == "openvino"
    with pytest.raises(OutputError, match="backend: openvino then, onnx now"):
        predict_large(IMAGE, model, out, backend="onnx")
    again = predict_large(IMAGE, model, out)
    assert again.plan == first.plan
    assert np.array_equal(predict_large(IMAGE, model), first)
