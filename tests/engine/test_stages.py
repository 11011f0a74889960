"""Where a run's time goes, and what it says that it has done."""

from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Barrier
from typing import Any, get_args

import numpy as np
import pytest
import tifffile
import zarr
from torch import nn

from tile_infer import predict_large
from tile_infer.engine.stages import Stage, Stopwatch


class Hands:
    """A clock that shows what it is set to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_each_moment_belongs_to_the_stage_that_ends_after_it() -> None:
    clock = Hands()
    stopwatch = Stopwatch(clock)
    for stage, now in (("reading", 2.0), ("network", 7.0), ("writing", 8.0), ("network", 8.5)):
        if stage == "reading":
            stopwatch.start()
        clock.now = now
        stopwatch.lap(stage)  # type: ignore[arg-type]
    clock.now = 100.0
    stopwatch.start()  # what lies between two blocks belongs to none
    clock.now = 101.0
    stopwatch.lap("writing")
    expected = {"reading": 2.0, "network": 5.5, "writing": 2.0, "waiting": 0.0, "assembling": 0.0}
    assert stopwatch.seconds == expected


def test_threads_have_laps_of_their_own_and_one_sum() -> None:
    ticks = count()
    stopwatch, together = Stopwatch(lambda: float(next(ticks))), Barrier(2)

    def work() -> None:
        stopwatch.start()
        together.wait()
        for _ in range(5000):
            stopwatch.lap("network")
        together.wait()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work), pool.submit(work)]:
            done.result()
    # Each thread's laps cover its own ticks without a gap: nearly all of them are counted twice.
    assert stopwatch.seconds["network"] > next(ticks) - 1


def test_the_report_tells_each_stage(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (300, 400), np.uint8)
    report = predict_large(image, nn.Conv2d(1, 2, 5), tmp_path / "m.zarr", workers=1).report
    assert set(report["stages"]) == set(get_args(Stage))
    assert report["stages"]["network"] > 0
    # Two threads for blocks and one for tiles.
    assert 0 < sum(report["stages"].values()) <= 3 * report["seconds"]


@pytest.mark.parametrize("output", ["labels", "probabilities"])
def test_what_a_run_says_to_have_done_is_what_the_plan_and_the_store_show(
    tmp_path: Path, output: Any
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (1500, 1300), np.uint8)
    pixels[:, 700:] = 240
    tifffile.imwrite(tmp_path / "slide.tif", pixels, tile=(128, 128))
    out = tmp_path / "m.zarr"
    network = nn.Conv2d(1, 2, 5)

    def run() -> Any:
        return predict_large(tmp_path / "slide.tif", network, out, tile=(104, 104), output=output)

    done = run()
    counts = done.report["counts"]
    assert counts["tiles_run"] + counts["tiles_remembered"] == done.plan.grid.tiles
    assert counts["tiles_remembered"] > done.plan.grid.tiles / 4
    # Both threads decode a segment that both miss at once.
    assert 12 * 11 <= counts["segments_decoded"] <= 2 * 12 * 11
    arrays = [array for _, array in zarr.open_group(out).arrays()]
    files = [path for array in arrays for path in (out / array.path / "c").rglob("*")]
    assert counts["chunks_written"] == sum(path.is_file() for path in files)
    again = dict.fromkeys(
        ("tiles_run", "tiles_remembered", "segments_decoded", "chunks_written"), 0
    )
    assert run().report["counts"] == {**again, "devices": []}


def test_a_source_without_segments_does_not_count_them(tmp_path: Path) -> None:
    done = predict_large(np.ones((40, 50), np.uint8), nn.Conv2d(1, 2, 5), tmp_path / "m.zarr")
    assert done.report["counts"]["segments_decoded"] is None
