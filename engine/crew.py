"""Who computes the blocks of a run: threads of this process, or the workers of a cluster."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Protocol

from .backends import Network
from .block import Worker
from .conduct import Conduct
from .constant_tiles import RememberingRunner
from .pipeline import run_blocks
from .plan import Plan
from .settings import Settings
from .shares import Share
from .smaller import ShrinkingRunner
from .sources import SegmentedSource, Source
from .stages import Stage, Stopwatch
from .stitcher.mask import Mask
from .stitcher.records import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A run that is opened: all that is needed to compute its blocks, here or elsewhere."""

    image: Any
    """The image as it was given."""
    model: Any
    """The network as it was given."""
    settings: Settings
    """What was asked for."""
    conduct: Conduct
    """What to do where something is wrong."""
    plan: Plan
    """What to do."""
    source: Source
    """The image, opened."""
    network: Network
    """The network, opened."""
    run: ShrinkingRunner
    """The network on its device."""
    mask: Mask
    """Where the result goes."""


@dataclass(frozen=True, slots=True)
class Effort:
    """What the blocks of a run took."""

    stages: Mapping[Stage, float] = field(default_factory=lambda: Stopwatch().seconds)
    """Seconds spent in each stage, summed over threads and processes."""
    tiles_run: int = 0
    """Tiles that were run, with those that only fill a batch."""
    tiles_remembered: int = 0
    """Tiles that did not have to be run."""
    most_at_once: int | None = None
    """Tiles run at once where memory was too short for the batch that was planned."""
    segments_decoded: int = 0
    """Of the image, by other processes than the run's own."""
    chunks_written: int = 0
    """By other processes than the run's own."""

    def __add__(self, other: "Effort") -> "Effort":
        most = [each for each in (self.most_at_once, other.most_at_once) if each is not None]
        return Effort(
            {stage: spent + other.stages[stage] for stage, spent in self.stages.items()},
            self.tiles_run + other.tiles_run,
            self.tiles_remembered + other.tiles_remembered,
            min(most, default=None),
            self.segments_decoded + other.segments_decoded,
            self.chunks_written + other.chunks_written,
        )

    def counts(self, source: Source | None, mask: Mask) -> dict[str, int | None]:
        """Return what a run has done, for its report; ``None`` where the source does not count."""
        decoded = source.cache.decoded if isinstance(source, SegmentedSource) else None
        return {
            "tiles_run": self.tiles_run,
            "tiles_remembered": self.tiles_remembered,
            "segments_decoded": None if decoded is None else decoded + self.segments_decoded,
            "chunks_written": mask.chunks_written + self.chunks_written,
        }


class Crew(Protocol):
    """Computes blocks."""

    elsewhere: bool
    """Whether other processes do, which see the output only if it is a folder."""

    def share(self, plan: Plan) -> Share | None:
        """Return what falls to each of several processes; ``None`` for this one alone."""
        ...

    def compute(
        self,
        job: Job,
        blocks: Sequence[int],
        on_record: Callable[[Record], None],
        on_news: Callable[[str], None],
    ) -> Effort:
        """Compute blocks until all are done or one fails.

        After a failure or an interruption no block is begun, those in flight are finished, and the
        exception goes on.

        Args:
            job: What is opened.
            blocks: Ids of the blocks, in the order in which they are computed.
            on_record: Called in this thread for every finished block.
            on_news: Called in this thread with what the user should know.
        """
        ...


class Workplace:
    """A worker with a device of its own, and what it has taken so far."""

    def __init__(
        self,
        plan: Plan,
        source: Source,
        run: ShrinkingRunner,
        mask: Mask,
        conduct: Conduct,
        places: int,
    ) -> None:
        """Equip a worker.

        Args:
            plan: What to do.
            source: The image.
            run: The network on its device.
            mask: Where the result goes.
            conduct: What to do where something is wrong.
            places: Batches on the device at the same time.
        """
        if isinstance(source, SegmentedSource):
            source.cache.max_bytes = plan.strips.kept_bytes
        self.run = run
        self._remembering = RememberingRunner(run)
        self._device = ThreadPoolExecutor(places, "device")
        self._stopwatch = Stopwatch()
        self.worker = Worker(
            plan, source, self._remembering, mask, self._device, conduct, self._stopwatch
        )

    def effort(self) -> Effort:
        """Return what the blocks have taken, but for what source and mask count themselves."""
        return Effort(
            dict(self._stopwatch.seconds),
            self._remembering.ran,
            self._remembering.remembered,
            self.run.most,
        )

    def close(self) -> None:
        """Release the device."""
        self._device.shutdown()


class Threads:
    """Computes blocks by threads of this process: as many as the plan says, and one that reads."""

    elsewhere = False

    def share(self, plan: Plan) -> None:
        """Return that all falls to this process."""

    def compute(
        self,
        job: Job,
        blocks: Sequence[int],
        on_record: Callable[[Record], None],
        on_news: Callable[[str], None],
    ) -> Effort:
        """Compute blocks; see `Crew.compute`."""
        plan, source = job.plan, job.source

        def keep(record: Record) -> None:
            for news in job.run.news():
                on_news(news)
            on_record(record)

        workplace = Workplace(plan, source, job.run, job.mask, job.conduct, plan.workers)
        if isinstance(source, SegmentedSource):
            source.expect(plan.level, (plan.grid.region(plan.grid.block_box(n)) for n in blocks))
        with closing(workplace):
            run_blocks(workplace.worker, blocks, plan.workers + 1, keep)
        return workplace.effort()
