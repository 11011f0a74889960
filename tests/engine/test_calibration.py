"""What is fastest is measured where it pays, stored and kept; no test looks at a clock."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
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
from tile_infer.engine.tiling import LARGE_PX
from tile_infer.tiler.errors import MissingExtraError, ModelError

from .layouts import WORK, layouts
from .test_backends import WEIGHTS, write_onnx

SMALL = np.zeros((90, 80, 2), np.uint8)
CORES = (256, 512, 768, 1024, 1536, 2048)
LARGE = np.broadcast_to(np.uint8(0), (9000, 9000, 2))


class Machine:
    """A machine on which a run takes as long as it is told to, by its own clock."""

    def __init__(self, seconds: Callable[[str, int], float], **broken: Exception) -> None:
        self.seconds, self.broken, self.now = seconds, broken, 0.0
        self.ran: dict[tuple[str, int], int] = {}
        self.open: WeakSet[Runner] = WeakSet()
        self.lock = Lock()

    def prepare(self, recipe: Recipe, execution: Execution) -> Runner:
        assert not self.open, "the one before is still there"
        backend, side = execution.backend, recipe.tile[0]
        if backend in self.broken:
            raise self.broken[backend]

        def run(tiles: NDArray[np.generic]) -> Output:
            assert tiles.shape == (1, *recipe.tile, recipe.channels)
            assert tiles.dtype == recipe.dtype
            seconds = self.seconds(backend, side)
            with self.lock:  # several run at the same time
                self.now += seconds
                self.ran[backend, side] = self.ran.get((backend, side), 0) + 1
            return Output(None, None)

        self.open.add(run)
        return run

    def clock(self) -> float:
        return self.now

    def choose(
        self,
        among: list[Layout],
        cores: Sequence[int] = CORES,
        others: Any = ("openvino",),
        rates: dict[str, float] | None = None,
    ) -> Calibration:
        """Measure a ladder of cores for an image whose usual layout is the first of some."""
        known = {} if rates is None else rates
        ladder = layouts(LARGE_PX, cores=cores)
        return calibrate(self.prepare, ladder, among, among[0], others, known, self.clock)

    @property
    def tiles(self) -> list[int]:
        """Sides of the tiles that were run, in order."""
        return list(dict.fromkeys(side for _, side in self.ran))


def work(side: int) -> float:
    """Return the seconds for a tile on a machine that does the same work in any second."""
    return float(WORK.multiply_adds((side, side)) / WORK.multiply_adds((444, 444))) / 100


def by_area(factor: float = 1.0, second: float = 0.01) -> Callable[[str, int], float]:
    """Return a machine's time for a tile: OpenVINO needs ``factor`` times as long."""

    def seconds(backend: str, side: int) -> float:
        return second * (factor if backend == "openvino" else 1.0) * (side / 444) ** 2

    return seconds


@pytest.mark.parametrize(("factor", "expected"), [(0.5, "openvino"), (2.0, "onnx"), (0.99, "onnx")])
def test_the_fastest_library_is_taken_and_the_usual_one_where_it_is_as_good(
    factor: float, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tile_infer")
    machine = Machine(by_area(factor))
    found = machine.choose(layouts(20_000, cores=[512]), cores=[256])
    assert found.layout.execution.backend == expected
    # Once and four times more, two workers one each, one after the other here.
    assert machine.ran == {("onnx", 444): 10, ("openvino", 444): 10}
    assert "onnx 444x444 x1, 2 x 1 0.01 s" in caplog.text
    # What is stored must not differ from run to run.
    library = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}[expected]
    assert found.notes == (f"run by {library}, the fastest library that is installed",)


def test_the_tile_that_takes_least_time_for_the_image_is_taken() -> None:
    """A tile is the slower the larger it is, so that work saved and time lost are weighed."""
    steps = {444: 1.0, 700: 1.0, 956: 1.0, 1212: 1.0, 1724: 1.4, 2236: 1.4}
    machine = Machine(lambda _, side: steps[side] * work(side))
    among = layouts(100_000, cores=[512, 768, 1024, 1536, 2048])
    found = machine.choose(among)
    assert found.layout.recipe.tile == (1212, 1212)
    assert found.notes[-1] == "tiles of 1212 x 1212 px, measured to be the fastest"
    # It climbed no further than to the first that is slower.
    assert machine.tiles == [444, 700, 956, 1212, 1724]
    # The memory is that of the largest that was tried, which this run has held.
    assert found.layout.memory_bytes >= layouts(LARGE_PX, cores=[1536])[0].memory_bytes
    assert found.layout.memory_bytes > among[2].memory_bytes


def test_an_images_own_tiles_are_held_to_be_like_the_nearest_that_was_measured() -> None:
    """Other images are cut into other tiles: the rates hold for them as well."""
    steps = {444: 1.0, 700: 1.0, 956: 3.0}
    machine, rates = Machine(lambda _, side: steps[side] * work(side)), dict[str, float]()
    among = layouts(23_500, cores=[496, 760])
    assert [each.recipe.tile[0] for each in among] == [684, 924], "neither is on the ladder"
    assert machine.choose(among, rates=rates).layout.recipe.tile == (684, 684)
    assert machine.tiles == [444, 700, 956]
    other = Machine(machine.seconds)
    among = layouts(47_000, cores=[480, 700])
    assert other.choose(among, rates=rates).layout.recipe.tile == (668, 668)
    assert other.ran == {}


def test_the_usual_tile_is_kept_where_another_is_hardly_faster() -> None:
    among = layouts(100_000, cores=[512, 768])
    saved = among[1].redundancy / among[0].redundancy
    for share, expected in ((0.99, 700), (0.97, 956)):
        steps = {444: 2.0, 700: 1.0, 956: share / saved}
        machine = Machine(lambda _, side, steps=steps: steps[side] * work(side))  # type: ignore[misc]
        found = machine.choose(among, cores=[256, 512, 768], others=())
        assert found.layout.recipe.tile[0] == expected
        assert len(found.notes) == (expected == 956)


@pytest.mark.parametrize(("side", "second"), [(5_000, 0.5), (20_000, 1.0), (10_000, 0.01)])
def test_measuring_costs_a_seventh_of_the_run_and_half_a_minute_at_most(
    side: int, second: float
) -> None:
    among = layouts(side, cores=[512, 768, 1024, 1536, 2048])
    machine = Machine(lambda _, side: 100 * second * work(side))
    machine.choose(among, others=())
    first = machine.ran["onnx", 444] * second
    whole = among[0].runs * 100 * second * work(among[0].recipe.tile[0])
    # How long the image takes is at first a guess, from the smallest tile.
    assert machine.now <= max(first, min(30.0, 1.1 * 0.15 * whole))
    assert len(machine.tiles) < len(CORES)
    unbounded = Machine(by_area(second=1e-4))
    unbounded.choose(layouts(100_000, cores=[512, 768, 1024, 1536, 2048]), others=())
    assert len(unbounded.tiles) == len(CORES)


def test_what_is_known_costs_nothing_so_that_the_next_run_looks_further() -> None:
    among, rates = layouts(10_000, cores=[512, 1536, 2048]), dict[str, float]()
    machine = Machine(lambda _, side: 50 * work(side))
    machine.choose(among, others=(), rates=rates)
    again = Machine(machine.seconds)
    again.choose(among, others=(), rates=rates)
    assert machine.tiles[0] == 444
    assert again.tiles[0] > machine.tiles[-1]


@pytest.mark.parametrize("error", [MissingExtraError("not installed"), ModelError("unknown")])
def test_what_cannot_run_the_network_is_passed_over(error: Exception) -> None:
    among = layouts(20_000, cores=[512])
    found = Machine(by_area(), openvino=error).choose(among, cores=[256])
    assert (found.layout.execution.backend, found.notes) == ("onnx", ())
    assert Machine(by_area(0.1), onnx=error).choose(among) == Calibration(among[0], ())


def test_a_tile_that_does_not_fit_after_all_is_not_measured() -> None:
    def too_large(_: str, side: int) -> float:
        if side > 1000:
            raise RuntimeError("out of memory")
        return 0.1

    machine = Machine(too_large)
    machine.choose(layouts(100_000, cores=[512, 768, 1024]), others=())
    assert machine.tiles == [444, 700, 956]


def test_what_is_known_is_not_measured_again_and_gives_the_same_choice() -> None:
    among, rates = layouts(100_000, cores=[512, 768, 1024]), dict[str, float]()
    machine = Machine(by_area(0.5, second=1e-4))
    first = machine.choose(among, rates=rates)
    assert first.layout.recipe.tile[0] > 700
    again = Machine(by_area(99.0))
    found = again.choose(among, rates=rates)
    assert (found.layout.tiling, found.notes) == (first.layout.tiling, first.notes)
    assert again.ran == {}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_onnx(tmp_path / "net.onnx", WEIGHTS)


@pytest.fixture
def calibrated(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Let the second candidate be the fastest, and tell who was compared."""
    compared: list[list[str]] = []

    def instead(
        _: Any, ladder: Any, among: list[Layout], usual: Layout, others: Any, rates: Any
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
    assert len(json.loads(kept.read_text())) >= 2, "two libraries"
    kept.unlink()
    again = predict_large(image, model, tmp_path / "mask.zarr")
    assert again.plan == first.plan
    assert not kept.exists(), "nothing is measured for a mask that has a plan"
