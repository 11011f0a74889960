"""Compute the blocks that a mask still lacks."""

import warnings
from collections.abc import Callable, Sequence

from ..tiler.errors import TileInferWarning
from .crew import Crew, Effort, Job
from .halving import memory_of
from .pipeline import Clock, Progress
from .stitcher.records import Record, Records


def compute_blocks(
    job: Job,
    crew: Crew,
    todo: Sequence[int],
    records: Records,
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

    def pixels(block: int) -> int:
        height, width = plan.grid.block_box(block).shape
        return height * width

    blocks = len(records) + len(todo)
    clock = Clock(blocks, len(records), sum(map(pixels, todo)))
    if on_progress:
        on_progress(clock.now())

    def keep(record: Record) -> None:
        records.add(record)
        progress = clock.tick(pixels(record.block))
        if on_progress:
            on_progress(progress)

    def tell(news: str) -> None:
        warnings.warn(news, TileInferWarning, stacklevel=8)

    effort = crew.compute(job, todo, keep, tell)
    for each in effort.devices:
        if each.most_at_once is not None:
            now = f"ran {each.most_at_once} tiles at once instead of {plan.batch}"
            short = f"{memory_of(each.device)} ran out"
            warnings.warn(f"{short}: {now}", TileInferWarning, stacklevel=4)
    return effort
