"""Which library runs a network is chosen once, stored, and kept."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from torch import nn

from tile_infer import DeviceError, OutputError, plan_prediction, predict_large

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


def test_a_library_that_does_not_run_such_networks_is_refused(model: Path) -> None:
    with pytest.raises(DeviceError, match=r"backend=torch does not run an ONNX file; .*openvino$"):
        plan_prediction(IMAGE, model, backend="torch")
    with pytest.raises(DeviceError, match=r"backend=openvino .* a Torch module; use backend=torch"):
        plan_prediction(IMAGE, nn.Conv2d(2, 3, 3), backend="openvino")


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
