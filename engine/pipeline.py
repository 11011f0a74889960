"""Run blocks on several threads, a bounded number at a time."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice

from .block import Worker, infer_block
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
    exception goes on.

    Args:
        worker: What the threads share.
        blocks: Ids of the blocks.
        threads: Blocks in flight.
        on_record: Called in this thread for every finished block.
    """
    todo = iter(blocks)
    with ThreadPoolExecutor(threads, thread_name_prefix="block") as pool:
        pending: set[Future[Record]] = set()
        try:
            while True:
                free = threads - len(pending)
                pending |= {pool.submit(infer_block, worker, n) for n in islice(todo, free)}
                if not pending:
                    return
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    on_record(future.result())
        except BaseException:
            for future in pending:
                future.cancel()
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
