"""Blocks read and write on threads of their own; tiles of any block run wherever there is room."""

import threading
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError
from time import sleep
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn
from zarr.storage import MemoryStore

from tile_infer import ModelError, Plan, TileInferError, plan_prediction
from tile_infer.engine import pipeline
from tile_infer.engine.backends.base import Output
from tile_infer.engine.block import Worker
from tile_infer.engine.pipeline import run_blocks
from tile_infer.engine.sources import open_source
from tile_infer.engine.stitcher.mask import Mask
from tile_infer.engine.stitcher.records import Record
from tile_infer.engine.stitcher.store import claim


def run(plan: Plan, image: Any, runner: Any, threads: int) -> list[Record]:
    """Run a plan with so many tiles at once."""
    store, records = MemoryStore(), list[Record]()
    claim(store, plan.to_dict())
    with ThreadPoolExecutor(threads) as device:
        worker = Worker(plan, open_source(image), runner, Mask(store, plan), device)
        run_blocks([worker] * (threads + 1), range(plan.grid.blocks), records.append)
    return records


def one_block(tiles: int = 4) -> tuple[Plan, NDArray[np.uint8]]:
    """Return a plan of so many tiles in one block, and its image."""
    image, side = np.zeros((200, 200), np.uint8), 4 + round(200 / tiles**0.5)
    plan = plan_prediction(image, nn.Conv2d(1, 2, 5), tile=(side, side))
    assert (plan.grid.blocks, plan.grid.tiles) == (1, tiles)
    return plan, image


class Together:
    """A network whose runs wait for each other, two by two."""

    def __init__(self, plan: Plan, patience: float) -> None:
        self.plan, self.both = plan, Barrier(2, timeout=patience)

    def __call__(self, tiles: NDArray[np.generic]) -> Output:
        self.both.wait()
        return Output(np.ones((len(tiles), *self.plan.grid.window), np.uint8), None)


def test_the_tiles_of_one_block_run_side_by_side() -> None:
    plan, image = one_block()
    (record,) = run(plan, image, Together(plan, patience=60), threads=2)
    assert record.pixels == (0, 200 * 200)


def test_with_one_thread_none_runs_beside_another() -> None:
    plan, image = one_block()
    with pytest.raises(ModelError) as failed:
        run(plan, image, Together(plan, patience=0.2), threads=1)
    assert isinstance(failed.value.__cause__, BrokenBarrierError)


def test_after_a_failure_the_blocks_other_tiles_are_not_run() -> None:
    plan, image = one_block(tiles=100)
    begun = []

    def fail(tiles: NDArray[np.generic]) -> Output:
        begun.append(tiles)
        if len(begun) > 1:
            sleep(0.1)  # while the failure of the first is noticed
        raise ValueError("no")

    with pytest.raises(ModelError, match=r"block 0 .*: no"):
        run(plan, image, fail, threads=1)
    assert len(begun) < plan.grid.tiles


def test_an_exit_in_the_network_fails_the_run_like_any_error() -> None:
    plan, image = one_block()

    def leave(tiles: NDArray[np.generic]) -> Output:
        raise SystemExit(0)

    with pytest.raises(
        ModelError, match=r"^running conv2d on array, block 0 .*: SystemExit in a thread$"
    ):
        run(plan, image, leave, threads=2)


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (lambda n, side: Output(None, None), "gave no map of shape"),
        (lambda n, side: Output(np.zeros((n - 1, *side), np.uint8), None), "gave a map of shape"),
        (lambda n, side: Output(np.zeros((n, 1, *side), np.uint8), None), "gave a map of shape"),
        (lambda n, side: Output(np.zeros((n, side[0] - 1, side[1]), np.uint8), None), "kept of"),
    ],
)
def test_a_map_that_is_none_of_the_tiles_fails_the_run(output: Any, told: str) -> None:
    plan, image = one_block()
    with pytest.raises(
        ModelError, match=rf"{told} .*\(running block 0 \(pixels 0:200, 0:200\) on cpu\)"
    ):
        run(plan, image, lambda tiles: output(len(tiles), plan.grid.window), threads=1)


def test_threads_that_cannot_be_started_fail_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, image = one_block()

    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refused)
        with pytest.raises(TileInferError, match="beginning array: can't start new"):
            run(plan, image, Together(plan, patience=60), threads=2)


def test_no_block_goes_on_after_an_interruption_while_threads_are_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan, image = one_block()
    begun, start = threading.Event(), threading.Thread.start
    ended = list[bool]()

    def slow(worker: Worker, block: int) -> Record:
        begun.set()
        sleep(0.5)
        ended.append(True)
        raise ValueError("nobody asks for it")

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        if thread.name.startswith("block"):
            begun.wait(0.2)
            raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "infer_block", slow)
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(plan, image, Together(plan, patience=60), threads=1)
    assert begun.is_set() == bool(ended)
