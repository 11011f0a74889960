"""The figures of a bench, from runs whose times are made up; nothing here looks at a clock."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from torch import nn

from tile_infer import plan_prediction, predict_large
from tile_infer.engine import bench_inputs, throughput
from tile_infer.engine.backends import open_network
from tile_infer.engine.backends.base import Output
from tile_infer.engine.bench_inputs import slide_shape, write_paper_unet, write_sized_slide
from tile_infer.engine.inspection import inspect
from tile_infer.engine.network_alone import ROUNDS, network_alone, tiles_per_second
from tile_infer.engine.networks import registry, repeated_slide
from tile_infer.engine.networks.repeated_slide import write_repeated_slide
from tile_infer.engine.pipeline import Progress
from tile_infer.engine.planning import plan_image
from tile_infer.engine.prediction import Prediction
from tile_infer.engine.settings import Settings
from tile_infer.engine.stages import Stage, bound_by, device_busy, shares
from tile_infer.engine.throughput import Throughput, compared, measure_throughput
from tile_infer.tiler.errors import MissingExtraError, SettingError

from .test_backends import WEIGHTS, write_onnx

IMAGE = np.random.default_rng(0).integers(0, 255, (300, 400), np.uint8)


def seconds(**given: float) -> dict[Stage, float]:
    stages = ("reading", "waiting", "assembling", "network", "writing")
    return cast("dict[Stage, float]", dict.fromkeys(stages, 0.0) | given)


def test_shares_are_of_the_work_and_sum_to_one() -> None:
    found = shares(seconds(reading=1, waiting=200, assembling=0.5, network=8, writing=0.5))
    assert found == pytest.approx(
        {"reading": 0.1, "assembling": 0.05, "network": 0.8, "writing": 0.05}
    )
    assert sum(found.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("spent", "expected"),
    [
        ({"network": 10, "waiting": 4.5, "reading": 0.3, "writing": 0.2}, "the network"),
        # A GPU that has no room left, however many threads it takes to feed it.
        ({"network": 9.5, "reading": 30}, "the network"),
        ({"network": 4, "reading": 9, "writing": 2}, "reading"),
        ({"network": 4, "reading": 2, "writing": 9}, "writing"),
        ({"network": 4, "assembling": 9, "reading": 2}, "the engine"),
        # However long threads wait, it is for something else.
        ({"network": 4, "waiting": 11}, "the network"),
    ],
)
def test_what_bounds_a_run(spent: dict[str, float], expected: str) -> None:
    found = seconds(**spent)
    assert bound_by(shares(found), device_busy(found, workers=2, wall_seconds=5.0)) == expected


def test_another_stage_bounds_once_it_takes_longer() -> None:
    assert bound_by(shares(seconds(network=6.0, reading=5.9)), 0.5) == "the network"
    assert bound_by(shares(seconds(network=5.9, reading=6.0)), 0.5) == "reading"


def test_a_device_is_busy_by_its_places() -> None:
    assert device_busy(seconds(network=6, reading=50), 2, 4.0) == pytest.approx(0.75)
    assert device_busy(seconds(network=6), 1, 4.0) == 1, "clocks differ by little"


def finished(tmp_path: Path, tiles_run: int, remembered: int, spent: dict[Stage, float]) -> Any:
    done = predict_large(IMAGE, nn.Conv2d(1, 2, 5), tmp_path / "m.zarr", workers=2)
    counts = {"tiles_run": tiles_run, "tiles_remembered": remembered}
    report = {**done.report, "stages": spent, "counts": counts}
    return Prediction(done.mask, done.group, done.plan, report)


def figures(done: Prediction, took: float) -> Throughput:
    return compared(
        done,
        planning_seconds=5.0,
        seconds=took,
        network_tiles_per_second=12.0,
        rss_bytes=0,
        device_bytes=None,
    )


def test_figures_follow_from_the_run_and_the_network_alone(tmp_path: Path) -> None:
    done = finished(tmp_path, 30, 10, seconds(network=6, reading=3))
    found = figures(done, 4.0)
    assert found.megapixels_per_second == pytest.approx(0.12 / 4)
    assert found.tiles_per_second == pytest.approx(10)
    # 40 tiles make the mask, at 12 a second.
    assert found.network_megapixels_per_second == pytest.approx(0.12 * 12 / 40)
    # 30 were run, which the network alone does in 2.5 s.
    assert found.engine_over_network == pytest.approx(4 / 2.5)
    assert found.shares["network"] == pytest.approx(2 / 3)
    assert found.device_busy == pytest.approx(0.75), "two places, four seconds"
    assert found.bound_by == "the network"
    assert found.peak_rss_bytes is found.peak_device_bytes is None, "nobody says"
    assert (found.device, found.workers, found.tile) == ("cpu", 2, done.plan.grid.tile)
    slower = figures(done, 8.0)
    assert slower.engine_over_network == pytest.approx(8 / 2.5)
    assert slower.device_busy == pytest.approx(0.375)


def test_several_devices_have_more_places_and_the_rates_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = finished(tmp_path, 30, 10, seconds(network=6, reading=3))
    shared = Prediction(done.mask, done.group, done.plan.on(["cuda:0", "cuda:2"]), done.report)
    monkeypatch.setattr(throughput, "device_name", {"cuda:0": "A", "cuda:2": "B"}.__getitem__)
    found = figures(shared, 4.0)
    assert (found.device, found.name, found.workers) == ("cuda:0,2", "A, B", 2)
    assert found.device_busy == pytest.approx(0.375), "four places, four seconds"
    rates = iter([3.0, 4.0])
    asked: list[str] = []

    def prepare(network: Any, plan: Any) -> None:
        asked.append(plan.execution.device)

    monkeypatch.setattr("tile_infer.engine.network_alone.prepare", prepare)
    monkeypatch.setattr("tile_infer.engine.network_alone.tiles_per_second", lambda *_: next(rates))
    assert network_alone(nn.Conv2d(1, 2, 5), shared.plan, Settings()) == pytest.approx(7)
    assert asked == ["cuda:0", "cuda:2"]


def test_a_run_is_compared_with_the_network_before_and_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_onnx(tmp_path / "net.onnx", WEIGHTS)
    tifffile.imwrite(tmp_path / "slide.tif", np.stack([IMAGE, IMAGE]), photometric="minisblack")
    rates = iter([10.0, 20.0])
    plans: list[tuple[Any, int]] = []
    blocks: list[Progress] = []

    def alone(_: Path, plan: Any, settings: Any) -> float:
        plans.append((plan, len(blocks)))
        return next(rates)

    monkeypatch.setattr(throughput, "network_alone", alone)
    found = measure_throughput(
        tmp_path / "slide.tif", model, Settings(axes="CYX", workers=1), blocks.append
    )
    assert found.network_tiles_per_second == pytest.approx(15)
    assert [seen for _, seen in plans] == [0, len(blocks)]
    assert plans[0][0] == plans[1][0]
    assert 0 < found.seconds == blocks[-1].seconds
    assert found.planning_seconds > 0


class Machine:
    """A network whose runs take as long as they are told to, by its own clock."""

    def __init__(self, *taken: float) -> None:
        self.taken, self.now = list(taken), 0.0
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, tiles: NDArray[np.generic]) -> Output:
        self.shapes.append(tiles.shape)
        self.now += self.taken[min(len(self.shapes), len(self.taken)) - 1]
        return Output(None, None)


def test_the_network_alone_is_the_median_of_rounds_after_one_that_warms_up() -> None:
    plan = plan_prediction(IMAGE, nn.Conv2d(1, 2, 5), batch_size=3, workers=1)
    machine = Machine(99.0, 2.0, 2.0, 8.0, 4.0)
    assert tiles_per_second(machine, plan, lambda: machine.now) == pytest.approx(3 / 4)
    assert machine.shapes == [(3, *plan.grid.tile, 1)] * (2 + ROUNDS)


def test_a_fast_network_is_run_often_enough_to_be_timed() -> None:
    plan = plan_prediction(IMAGE, nn.Conv2d(1, 2, 5), workers=1)
    machine = Machine(1 / 64)
    assert tiles_per_second(machine, plan, lambda: machine.now) == pytest.approx(64)
    assert len(machine.shapes) == 2 + 64 * ROUNDS


@pytest.mark.parametrize(("rate", "side"), [(0.001, 2048), (30.0, 15360), (1e6, 20480)])
def test_a_slide_takes_half_a_minute_within_limits(rate: float, side: int) -> None:
    grid = plan_prediction(np.zeros((4096, 4096), np.uint8), nn.Conv2d(1, 2, 1)).grid
    assert grid.core == (512, 512)
    assert slide_shape(grid, rate) == (side, side)


def test_a_slide_repeats_its_patch_to_the_pixel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeated_slide, "PATCH_PX", 512)
    write_repeated_slide(tmp_path / "slide.tif", (700, 1300), seed=3)
    found = tifffile.imread(tmp_path / "slide.tif")
    assert found.shape == (700, 1300, 3)
    np.testing.assert_array_equal(found[512:], found[:188])
    np.testing.assert_array_equal(found[:, 512:1024], found[:, :512])
    assert (found[:512, :256] != found[:512, 256:512]).any()
    assert (found[:256] != found[256:512]).any()
    # No tile of it is of one colour, so that none would be remembered.
    assert all(found[y : y + 64, x : x + 64].std() > 1 for y in (0, 300) for x in (0, 400))
    assert [path.name for path in tmp_path.iterdir()] == ["slide.tif"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let slides be small and be made at once."""
    monkeypatch.setattr(repeated_slide, "PATCH_PX", 256)
    monkeypatch.setattr(bench_inputs, "PLANNED_PX", 700)
    monkeypatch.setattr(bench_inputs, "SMALLEST_PX", 500)
    monkeypatch.setattr(bench_inputs, "LARGEST_PX", 500)
    monkeypatch.setattr(bench_inputs, "network_alone", lambda *_: 1.0)


@pytest.mark.usefixtures("small")
def test_a_sized_slide_is_run_as_a_large_one_would_be(tmp_path: Path) -> None:
    model = write_onnx(tmp_path / "net.onnx", WEIGHTS)
    asked = Settings(device="cpu")
    settings = write_sized_slide(tmp_path / "slide.tif", model, asked)
    assert settings.level == 0
    assert settings.channels == (0, 1), "the network takes two of three"
    plan = plan_image(tmp_path / "slide.tif", model, settings)
    assert settings == replace(asked, level=0, channels=(0, 1), backend="onnx", tile=plan.grid.tile)
    large = plan_image(np.zeros((700, 700, 2), np.uint8), model, asked)
    assert (plan.grid.tile, plan.grid.core) == (large.grid.tile, large.grid.core)


@pytest.mark.usefixtures("small")
def test_a_network_of_more_channels_than_a_slide_has_needs_an_image(tmp_path: Path) -> None:
    weights = np.zeros((2, 4, 3, 3), np.float32)
    model = write_onnx(tmp_path / "net.onnx", weights)
    with pytest.raises(SettingError, match=r"net.onnx takes 4 channels .* has 3; name an image"):
        write_sized_slide(tmp_path / "slide.tif", model, Settings())
    assert not (tmp_path / "slide.tif").exists()


def test_the_papers_unet_is_built_alike_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def narrow(name: str, **options: Any) -> Any:
        asked.append(options)
        return registry.build(name, **options, width=2)

    monkeypatch.setattr(bench_inputs, "build", narrow)
    for name in ("a.onnx", "b.onnx"):
        write_paper_unet(tmp_path / name)
    assert asked[0] == {"in_channels": 3, "classes": 2}, "and all else is the paper's"
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    network = open_network(tmp_path / "a.onnx")
    geometry = inspect(network, Settings(), 3).geometry
    assert (geometry.y.lost, geometry.y.period) == (184, 16)


def test_without_torch_a_network_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match="pip install torch, or name a network"):
        write_paper_unet(tmp_path / "unet.onnx")
