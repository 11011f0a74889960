"""Compute the blocks that a mask still lacks, in this process."""

import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ..tiler.errors import TileInferWarning
from .block import Worker
from .conduct import Conduct
from .constant_tiles import RememberingRunner
from .halving import memory_of
from .pipeline import Clock, Progress, run_blocks
from .plan import Plan
from .smaller import ShrinkingRunner
from .sources import SegmentedSource, Source
from .stages import Stage, Stopwatch
from .stitcher.mask import Mask
from .stitcher.records import Record


@dataclass(frozen=True, slots=True)
class Effort:
    """What a run took and did."""

    stages: Mapping[Stage, float] = field(default_factory=lambda: Stopwatch().seconds)
    """Seconds spent in each stage, summed over the threads."""
    tiles_run: int = 0
    """Tiles that were run, with those that only fill a batch."""
    tiles_remembered: int = 0
    """Tiles that did not have to be run."""


def compute_blocks(
    plan: Plan,
    source: Source,
    run: ShrinkingRunner,
    mask: Mask,
    todo: list[int],
    records: dict[int, Record],
    conduct: Conduct,
    on_progress: Callable[[Progress], None] | None,
) -> Effort:
    """Compute blocks and write them, on as many threads as the plan says.

    Args:
        plan: The plan.
        source: The image.
        run: The network on its device.
        mask: Where the blocks go.
        todo: Which blocks, in this order.
        records: One for each block that is done; those of the others are added.
        conduct: What to do where something is wrong.
        on_progress: Called at the start and after every block.
    """
    stopwatch = Stopwatch()
    if isinstance(source, SegmentedSource):
        source.cache.max_bytes = plan.strips.kept_bytes
        source.expect(plan.level, (plan.grid.region(plan.grid.block_box(n)) for n in todo))
    remembering = RememberingRunner(run)
    sizes = {block: plan.grid.block_box(block).shape for block in todo}
    clock = Clock(plan.grid.blocks, len(records), sum(h * w for h, w in sizes.values()))
    if on_progress:
        on_progress(clock.now())

    def keep(record: Record) -> None:
        records[record.block] = record
        for text in run.news():
            warnings.warn(text, TileInferWarning, stacklevel=6)
        height, width = sizes[record.block]
        progress = clock.tick(height * width)
        if on_progress:
            on_progress(progress)

    with ThreadPoolExecutor(plan.workers, "device") as device:
        worker = Worker(plan, source, remembering, mask, device, conduct, stopwatch)
        run_blocks(worker, todo, plan.workers + 1, keep)
    if run.most is not None:
        short = f"{memory_of(plan.execution.device)} ran out"
        now = f"ran {run.most} tiles at once instead of {plan.batch}"
        warnings.warn(f"{short}: {now}", TileInferWarning, stacklevel=4)
    return Effort(stopwatch.seconds, remembering.ran, remembering.remembered)
