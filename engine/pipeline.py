"""Run blocks on several threads, a bounded number at a time."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from ..tiler.errors import TileInferError, failing_as
from .block import Worker, infer_block
from .pool import first_of
from .stitcher.records import Record


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is."""

    blocks_done: int
    """Blocks finished, in this run or an earlier one."""
    blocks: int
    """Blocks in all."""
    pixels_done: int
    """Pixels of mask made in this run."""
    pixels: int
    """Pixels of mask that this run has to make."""
    seconds: float
    """Time since the first block was begun."""


def run_blocks(
    worker: Worker,
    blocks: Iterable[int],
    threads: int,
    on_record: Callable[[Record], None],
) -> None:
    """Run blocks until all are done or one fails.

    Each thread owns one block from reading to writing, so memory is bounded by the number of
    threads, and while the tiles of one block are on the device, the other threads read and write.
    After a failure or an interruption no block is begun, those in flight are finished, and the
    exception goes on. Threads that cannot be started, or that end, fail the run.

    Args:
        worker: What the threads share.
        blocks: Ids of the blocks.
        threads: Blocks in flight.
        on_record: Called in this thread for every finished block.

    Raises:
        TileInferError: Something failed.
    """
    todo, image = iter(blocks), worker.plan.image.name
    pool, pending = ThreadPoolExecutor(threads, thread_name_prefix="block"), set[Future[Record]]()
    try:
        while True:
            for block in islice(todo, threads - len(pending)):
                with failing_as(TileInferError, "beginning", image, f"block {block}"):
                    pending.add(pool.submit(infer_block, worker, block))
            if not pending:
                return
            with failing_as(TileInferError, "waiting for blocks of", image):
                done = first_of(pending, pool)
            pending -= done
            for future in done:
                on_record(future.result())
    finally:
        try:
            pool.shutdown(cancel_futures=True)
        except KeyboardInterrupt:  # what is in flight ends before the output is let go
            pool.shutdown()
            raise


class Clock:
    """Turns records into progress."""

    def __init__(self, blocks: int, done: int, pixels: int) -> None:
        self.blocks, self.blocks_done = blocks, done
        self.pixels, self.pixels_done = pixels, 0
        self.start = time.perf_counter()

    def tick(self, pixels: int) -> Progress:
        """Count a block of so many pixels."""
        self.blocks_done += 1
        self.pixels_done += pixels
        return self.now()

    def now(self) -> Progress:
        """Return the progress so far."""
        seconds = time.perf_counter() - self.start
        return Progress(self.blocks_done, self.blocks, self.pixels_done, self.pixels, seconds)
