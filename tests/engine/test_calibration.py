"""What is fastest is measured where it pays, stored and kept; no test looks at a clock."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
import pytest
from numpy.typing import NDArray

from tile_infer import plan_prediction, predict_large
from tile_infer.engine import planning
from tile_infer.engine.backends.base import Execution, Output, Recipe, Runner
from tile_infer.engine.calibration import WORTH_TILES, Calibration, calibrate
from tile_infer.engine.layout import Layout
from tile_infer.tiler.errors import MissingExtraError, ModelError

from .layouts import layouts
from .test_backends import WEIGHTS, write_onnx

SMALL = np.zeros((90, 80, 2), np.uint8)
LARGE = np.broadcast_to(np.uint8(0), (9000, 9000, 2))


class Machine:
    """A machine on which a run takes as long as it is told to, by its own clock."""

    def __init__(self, seconds: Callable[[str, int], float], **broken: Exception) -> None:
        self.seconds, self.broken, self.now = seconds, broken, 0.0
        self.ran: dict[tuple[str, int], int] = {}
        self.open: WeakSet[Runner] = WeakSet()

    def prepare(self, recipe: Recipe, execution: Execution) -> Runner:
        assert not self.open, "the one before is still there"
        backend, side = execution.backend, recipe.tile[0]
        if backend in self.broken:
            raise self.broken[backend]

        def run(tiles: NDArray[np.generic]) -> Output:
            assert tiles.shape == (1, *recipe.tile, recipe.channels)
            assert tiles.dtype == recipe.dtype
            self.now += self.seconds(backend, side)
            self.ran[backend, side] = self.ran.get((backend, side), 0) + 1
            return Output(None, None)

        self.open.add(run)
        return run

    def clock(self) -> float:
        return self.now

    def choose(
        self,
        among: list[Layout],
        others: Any = ("openvino",),
        rates: dict[str, float] | None = None,
    ) -> Calibration:
        known = {} if rates is None else rates
        usual = next(each for each in among if each.recipe.tile == (700, 700))
        return calibrate(self.prepare, among, usual, others, known, self.clock)

    @property
    def tiles(self) -> list[int]:
        """Sides of the tiles that were run, in order."""
        return list(dict.fromkeys(side for _, side in self.ran))


def by_area(factor: float = 1.0) -> Callable[[str, int], float]:
    """Return a machine's time for a tile: OpenVINO needs ``factor`` times as long."""

    def seconds(backend: str, side: int) -> float:
        return (factor if backend == "openvino" else 1.0) * (side / 700) ** 2 / 99

    return seconds


@pytest.mark.parametrize(("factor", "expected"), [(0.5, "openvino"), (2.0, "onnx"), (0.99, "onnx")])
def test_the_fastest_library_is_taken_and_the_usual_one_where_it_is_as_good(
    factor: float, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tile_infer")
    machine = Machine(by_area(factor))
    found = machine.choose(layouts(20_000, cores=[512]))
    assert found.layout.execution.backend == expected
    # A tile to warm up, then three times two workers one each, one after the other here.
    assert machine.ran == {("onnx", 700): 7, ("openvino", 700): 7}
    assert f"onnx 700x700 x1, 2 x 1 {1600 / 99:.3g} s" in caplog.text
    # What is stored must not differ from run to run.
    library = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}[expected]
    assert found.notes == (f"run by {library}, the fastest library that is installed",)


def test_the_tile_that_takes_least_time_for_the_image_is_taken() -> None:
    """A tile is the slower the larger it is, so that work saved and time lost are weighed."""
    among = layouts(100_000, cores=[256, 512, 768, 1024, 1536, 2048])
    steps = {444: 1.0, 700: 1.0, 956: 1.0, 1212: 1.0, 1708: 1.4, 2236: 1.4}
    machine = Machine(lambda _, side: steps[side] * (side / 7000) ** 2)
    found = machine.choose(among)
    seconds = {
        each.recipe.tile[0]: each.runs * steps[each.recipe.tile[0]] * each.recipe.tile[0] ** 2
        for each in among
    }
    assert found.layout.recipe.tile[0] == min(seconds, key=lambda side: seconds[side]) == 1212
    assert found.notes[-1] == "tiles of 1212 x 1212 px, measured to be the fastest"
    assert found.layout.redundancy == among[3].redundancy
    # It is as slow as said, climbed no further, and had no reason to try smaller ones.
    assert machine.tiles == [700, 956, 1212, 1708]
    # The memory is that of the largest that was tried, which this run has held.
    assert found.layout.memory_bytes == among[4].memory_bytes > among[3].memory_bytes


def test_smaller_tiles_are_tried_where_larger_ones_are_slower() -> None:
    taken = {444: 0.01, 572: 0.01, 700: 0.02, 956: 0.06}
    machine = Machine(lambda _, side: taken[side])
    found = machine.choose(layouts(100_000, cores=[256, 384, 512, 768, 1024]), others=())
    assert machine.tiles == [700, 956, 572, 444]
    assert found.layout.recipe.tile == (572, 572)


def test_the_usual_tile_is_kept_where_another_is_hardly_faster() -> None:
    among = layouts(100_000, cores=[512, 768])
    level = among[0].runs / among[1].runs
    for share, expected in ((0.97, 700), (0.93, 956)):
        machine = Machine(lambda _, side, share=share: 1.0 if side == 700 else share * level)  # type: ignore[misc]
        found = machine.choose(among, others=())
        assert found.layout.recipe.tile[0] == expected
        assert len(found.notes) == (expected == 956)


@pytest.mark.parametrize(("side", "second"), [(5_000, 1.0), (20_000, 1.0), (10_000, 0.01)])
def test_measuring_costs_a_twentieth_of_the_run_and_half_a_minute_at_most(
    side: int, second: float
) -> None:
    among = layouts(side, cores=[512, 768, 1024, 1536, 2048])
    # The larger the tile the better, so that nothing but the budget ends it.
    machine = Machine(lambda _, side: second * (side / 700) ** 1.5)
    machine.choose(among, others=())
    first = machine.ran["onnx", 700] * second
    assert machine.now <= max(first, min(30.0, 0.05 * among[0].runs * second))
    assert len(machine.tiles) < len(among)
    unbounded = Machine(lambda _, side: second / 99 * (side / 700) ** 1.5)
    unbounded.choose(layouts(100_000, cores=[512, 768, 1024, 1536, 2048]), others=())
    assert len(unbounded.tiles) == len(among)


def test_what_is_known_costs_nothing_so_that_the_next_run_looks_further() -> None:
    among, rates = layouts(20_000, cores=[512, 768, 1024]), dict[str, float]()
    machine = Machine(lambda _, side: (side / 700) ** 1.5)
    machine.choose(among, others=(), rates=rates)
    assert machine.tiles == [700, 940]
    again = Machine(machine.seconds)
    assert again.choose(among, others=(), rates=rates).layout == among[-1]
    assert again.tiles == [1196]


@pytest.mark.parametrize("error", [MissingExtraError("not installed"), ModelError("unknown")])
def test_what_cannot_run_the_network_is_passed_over(error: Exception) -> None:
    among = layouts(20_000, cores=[512])
    found = Machine(by_area(), openvino=error).choose(among)
    assert found == Calibration(among[0], ())
    found = Machine(by_area(0.1), onnx=error).choose(among)
    assert found == Calibration(among[0], ())


def test_a_tile_that_does_not_fit_after_all_is_not_taken() -> None:
    def too_large(_: str, side: int) -> float:
        if side > 1000:
            raise RuntimeError("out of memory")
        return 1.0

    found = Machine(too_large).choose(layouts(100_000, cores=[512, 768, 1024]), others=())
    assert found.layout.recipe.tile == (956, 956)


def test_what_is_known_is_not_measured_again_and_gives_the_same_choice() -> None:
    among, rates = layouts(100_000, cores=[512, 768, 1024]), dict[str, float]()
    machine = Machine(by_area(0.5))
    first = machine.choose(among, rates=rates)
    assert first.layout.recipe.tile[0] > 700
    again = Machine(by_area(99.0))
    assert again.choose(among, rates=rates) == first
    assert again.ran == {}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_onnx(tmp_path / "net.onnx", WEIGHTS)


@pytest.fixture
def calibrated(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Let the second candidate be the fastest, and tell who was compared."""
    compared: list[list[str]] = []

    def instead(
        _: Any, among: list[Layout], usual: Layout, others: Any, rates: dict[str, float]
    ) -> Calibration:
        compared.append([usual.execution.backend, *others])
        rates["one"] = 1.0
        return Calibration(among[-1].by("openvino" if others else "onnx"), ("measured",))

    monkeypatch.setattr(planning, "calibrate", instead)
    monkeypatch.setattr(planning, "WORTH_TILES", WORTH_TILES)
    return compared


def test_a_large_image_is_worth_measuring_and_the_plan_keeps_the_choice(
    model: Path, calibrated: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILE_INFER_CACHE", str(tmp_path / "rates"))
    plan = plan_prediction(LARGE, model, workers=1)
    assert calibrated == [["onnx", "openvino"]]
    assert plan.execution.backend == plan.settings.backend == "openvino"
    assert plan.grid.tile == plan.settings.tile == plan.recipe.tile
    assert plan.grid.core[0] > 512
    assert "measured" in plan.notes
    assert len(list((tmp_path / "rates" / "rates").rglob("*.json"))) == 1


def test_nothing_is_measured_where_there_is_no_choice(
    model: Path, calibrated: list[list[str]]
) -> None:
    assert plan_prediction(SMALL, model).execution.backend == "onnx"
    assert plan_prediction(LARGE, model, backend="onnx", tile=(514, 514)).grid.tile == (514, 514)
    assert calibrated == []
    plan_prediction(LARGE, model, backend="onnx", workers=1)
    assert calibrated == [["onnx"]], "its tiles are"


def test_what_was_measured_is_kept_with_the_mask_and_changes_no_label(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.random.default_rng(0).integers(0, 255, (1500, 1300, 2), dtype=np.uint8)
    expected = np.asarray(predict_large(image, model))
    monkeypatch.setattr(planning, "WORTH_TILES", 1)
    monkeypatch.setenv("TILE_INFER_CACHE", str(tmp_path / "cache"))
    first = predict_large(image, model, tmp_path / "mask.zarr")
    assert np.array_equal(first, expected)
    (kept,) = (tmp_path / "cache" / "rates").iterdir()
    assert len(json.loads(kept.read_text())) >= 2
    kept.unlink()
    again = predict_large(image, model, tmp_path / "mask.zarr")
    assert again.plan == first.plan
    assert not kept.exists(), "nothing is measured for a mask that has a plan"
