"""Which library is fastest is measured where it pays, and stored; no test looks at a clock."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
import pytest
from numpy.typing import NDArray

from tile_infer import plan_prediction
from tile_infer.engine import planning
from tile_infer.engine.backends.base import Execution, Output, Recipe, Runner
from tile_infer.engine.calibration import WORTH_TILES, Calibration, calibrate
from tile_infer.tiler.errors import MissingExtraError, ModelError

from .test_backends import WEIGHTS, write_onnx

USUAL = Execution("cpu", workers=2)
OTHER = replace(USUAL, backend="openvino")
SMALL = np.zeros((90, 80, 2), np.uint8)
LARGE = np.broadcast_to(np.uint8(0), (9000, 9000, 2))


class Machine:
    """A machine on which a run takes as long as it is told to, by its own clock."""

    def __init__(self, **seconds: float | Exception) -> None:
        self.seconds, self.now, self.runs = seconds, 0.0, 0
        self.open: WeakSet[Runner] = WeakSet()

    def prepare(self, recipe: Recipe, execution: Execution) -> Runner:
        assert not self.open, "the one before is still there"
        taken = self.seconds[execution.backend]
        if isinstance(taken, Exception):
            raise taken

        def run(tiles: NDArray[np.generic]) -> Output:
            assert tiles.shape == (3, *recipe.tile, recipe.channels)
            self.now += taken
            self.runs += 1
            return Output(None, None)

        self.open.add(run)
        return run

    def clock(self) -> float:
        return self.now


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_onnx(tmp_path / "net.onnx", WEIGHTS)


@pytest.fixture
def recipe(model: Path) -> Recipe:
    return plan_prediction(SMALL, model).recipe


@pytest.mark.parametrize(
    ("onnx", "openvino", "expected"),
    [(3.0, 1.5, OTHER), (1.5, 3.0, USUAL), (3.0, 2.97, USUAL)],
)
def test_the_fastest_is_taken_and_the_usual_one_where_it_is_as_good(
    recipe: Recipe,
    onnx: float,
    openvino: float,
    expected: Execution,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "tile_infer")
    machine = Machine(onnx=onnx, openvino=openvino)
    found = calibrate(machine.prepare, recipe, 3, [USUAL, OTHER], machine.clock)
    assert found.execution == expected
    # Two workers run three tiles each, one after the other on this machine.
    times = {"ONNX Runtime": onnx * 1000 / 3, "OpenVINO": openvino * 1000 / 3}
    assert all(f"{name} {time:.3g} ms" in caplog.text for name, time in times.items())
    # What is stored must not differ from run to run.
    assert "ms" not in found.note
    assert machine.runs == 2 * 2 * 4


@pytest.mark.parametrize("error", [MissingExtraError("not installed"), ModelError("unknown")])
def test_what_cannot_run_the_network_is_passed_over(recipe: Recipe, error: Exception) -> None:
    machine = Machine(onnx=1.0, openvino=error)
    found = calibrate(machine.prepare, recipe, 3, [USUAL, OTHER], machine.clock)
    assert found == Calibration(USUAL, "")
    machine = Machine(onnx=error, openvino=1.0)
    found = calibrate(machine.prepare, recipe, 3, [USUAL, OTHER], machine.clock)
    assert found == Calibration(USUAL, "")


@pytest.fixture
def calibrated(monkeypatch: pytest.MonkeyPatch) -> list[list[Execution]]:
    """Let the second candidate be the fastest, and tell who was compared."""
    compared: list[list[Execution]] = []

    def instead(_: Any, __: Any, ___: Any, candidates: list[Execution]) -> Calibration:
        compared.append(candidates)
        return Calibration(candidates[1], "measured")

    monkeypatch.setattr(planning, "calibrate", instead)
    monkeypatch.setattr(planning, "WORTH_TILES", WORTH_TILES)
    return compared


def test_a_large_image_is_worth_measuring_and_the_plan_keeps_the_choice(
    model: Path, calibrated: list[list[Execution]]
) -> None:
    plan = plan_prediction(LARGE, model)
    assert plan.grid.tiles >= WORTH_TILES
    assert [[each.backend for each in some] for some in calibrated] == [["onnx", "openvino"]]
    assert plan.execution.backend == plan.settings.backend == "openvino"
    assert "measured" in plan.notes


def test_nothing_is_measured_where_there_is_no_choice(
    model: Path, calibrated: list[list[Execution]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plan_prediction(SMALL, model).execution.backend == "onnx"
    assert plan_prediction(LARGE, model, backend="onnx").execution.backend == "onnx"
    monkeypatch.setattr("tile_infer.engine.backends.device.cuda_devices", lambda: 1)
    assert plan_prediction(LARGE, model).execution.device == "cuda:0"
    assert calibrated == []
