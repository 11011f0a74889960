"""Compute the blocks that a mask still lacks."""

import warnings
from collections.abc import Callable, Sequence

from ..tiler.errors import TileInferWarning
from .crew import Crew, Effort, Job
from .halving import memory_of
from .pipeline import Clock, Progress
from .stitcher.records import Record


def compute_blocks(
    job: Job,
    crew: Crew,
    todo: Sequence[int],
    records: dict[int, Record],
    on_progress: Callable[[Progress], None] | None,
) -> Effort:
    """Compute blocks and write them.

    Args:
        job: What is opened.
        crew: Who computes them.
        todo: Which blocks, in this order.
        records: One for each block that is done; those of the others are added.
        on_progress: Called at the start and after every block.
    """
    plan = job.plan
    sizes = {block: plan.grid.block_box(block).shape for block in todo}
    blocks = len(records) + len(todo)
    clock = Clock(blocks, len(records), sum(height * width for height, width in sizes.values()))
    if on_progress:
        on_progress(clock.now())

    def keep(record: Record) -> None:
        records[record.block] = record
        height, width = sizes[record.block]
        progress = clock.tick(height * width)
        if on_progress:
            on_progress(progress)

    def tell(news: str) -> None:
        warnings.warn(news, TileInferWarning, stacklevel=8)

    effort = crew.compute(job, todo, keep, tell)
    if effort.most_at_once is not None:
        short = f"{memory_of(plan.execution.device)} ran out"
        now = f"ran {effort.most_at_once} tiles at once instead of {plan.batch}"
        warnings.warn(f"{short}: {now}", TileInferWarning, stacklevel=4)
    return effort
