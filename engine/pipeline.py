"""Run blocks on several threads, a bounded number at a time."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction

from ..tiler.errors import TileInferError, failing_as
from .block import Worker, infer_block
from .pool import first_of, start_threads
from .rooms import Room
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
    workers: Sequence[Worker],
    blocks: Sequence[int],
    on_record: Callable[[Record], None],
    room: Room | None = None,
    on_last: Callable[[], None] | None = None,
) -> None:
    """Run blocks until all are done or one fails.

    Each thread owns one block from reading to writing, so memory is bounded by the number of
    threads, and while the tiles of one block are on the device, the other threads read and write.
    Whichever worker has done a block is given the next one.
    After a failure or an interruption no block is begun, those in flight are finished, and the
    exception goes on. Threads that cannot be started, or that end, fail the run.

    Args:
        workers: One for each block in flight: several threads share a worker that is there as
            often, and workers with devices of their own share the blocks.
        blocks: Ids of the blocks.
        on_record: Called in this thread for every finished block.
        room: What the blocks share with those of other images; a block waits for its part of it.
        on_last: Called in this thread when the last block was begun.

    Raises:
        TileInferError: Something failed.
        Stopped: No block may be begun any more.
    """
    begun, image = 0, workers[0].plan.image.name
    free, pending = deque(workers), dict[Future[Record], Worker]()
    pool = ThreadPoolExecutor(len(workers), thread_name_prefix="block")
    with (room or Room()).seats(Fraction(1, len(workers))) as seats:
        try:
            with failing_as(TileInferError, "beginning", image):
                start_threads(pool, len(workers))
            while begun < len(blocks) or pending:
                while begun < len(blocks) and free:
                    seats.take()
                    block = blocks[begun]
                    future = pool.submit(infer_block, free[0], block)
                    future.add_done_callback(lambda _: seats.give())
                    pending[future] = free.popleft()
                    begun += 1
                    if begun == len(blocks) and on_last:
                        on_last()
                with failing_as(TileInferError, "waiting for blocks of", image):
                    done = first_of(pending, pool)
                free.extend(pending.pop(future) for future in done)
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
