"""Who computes the blocks of a run: threads of this process, or the workers of a cluster."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from functools import partial
from typing import Any, Protocol

from ..tiler.errors import ModelError, first_line
from .backends import Network, open_network
from .block import Worker
from .conduct import Conduct
from .constant_tiles import RememberingRunner
from .pipeline import run_blocks
from .plan import Plan
from .rooms import Rooms
from .settings import Settings
from .shares import Share, share_of_devices
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
    """The network on the first device."""
    mask: Mask
    """Where the result goes."""
    rooms: Rooms
    """What is shared with other images."""


@dataclass(frozen=True, slots=True)
class DeviceEffort:
    """What one device has seen to."""

    device: str
    """``cpu`` or ``cuda:N``."""
    tiles: int
    """Tiles of its blocks, run or remembered."""
    most_at_once: int | None
    """Tiles it ran at once, where its memory was too short for the batch that was planned."""


@dataclass(frozen=True, slots=True)
class Effort:
    """What the blocks of a run took."""

    stages: Mapping[Stage, float] = field(default_factory=lambda: Stopwatch().seconds)
    """Seconds spent in each stage, summed over threads and processes."""
    tiles_run: int = 0
    """Tiles that were run, with those that only fill a batch."""
    tiles_remembered: int = 0
    """Tiles that did not have to be run."""
    devices: tuple[DeviceEffort, ...] = ()
    """What each device has seen to."""
    segments_decoded: int = 0
    """Of the image, by other processes than the run's own."""
    chunks_written: int = 0
    """By other processes than the run's own."""

    def __add__(self, other: "Effort") -> "Effort":
        return Effort(
            {stage: spent + other.stages[stage] for stage, spent in self.stages.items()},
            self.tiles_run + other.tiles_run,
            self.tiles_remembered + other.tiles_remembered,
            self.devices + other.devices,
            self.segments_decoded + other.segments_decoded,
            self.chunks_written + other.chunks_written,
        )

    def counts(self, source: Source | None, mask: Mask) -> dict[str, Any]:
        """Return what a run has done, for its report; ``None`` where the source does not count."""
        decoded = source.cache.decoded if isinstance(source, SegmentedSource) else None
        return {
            "tiles_run": self.tiles_run,
            "tiles_remembered": self.tiles_remembered,
            "devices": [asdict(each) for each in self.devices],
            "segments_decoded": None if decoded is None else decoded + self.segments_decoded,
            "chunks_written": mask.chunks_written + self.chunks_written,
        }


class Crew(Protocol):
    """Computes blocks."""

    elsewhere: bool
    """Whether other processes do, which see the output only if it is a folder."""
    rooms: Rooms | None
    """What is shared with other images; ``None`` where there are none."""

    def share(self, plan: Plan) -> Share | None:
        """Return what falls to each of several workers; ``None`` where there is one alone."""
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
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Equip a worker.

        Args:
            plan: What to do.
            source: The image.
            run: The network on its device.
            mask: Where the result goes.
            conduct: What to do where something is wrong.
            places: Batches on the device at the same time.
            turn: What each of them waits for, and holds while it is run.
        """
        if isinstance(source, SegmentedSource):
            source.cache.max_bytes = plan.strips.kept_bytes
        self.run = run
        self._remembering = RememberingRunner(run)
        self._device = ThreadPoolExecutor(places, "device")
        self._stopwatch = Stopwatch()
        self.worker = Worker(
            plan, source, self._remembering, mask, self._device, conduct, self._stopwatch, turn=turn
        )

    def effort(self) -> Effort:
        """Return what the blocks have taken, but for what source and mask count themselves."""
        device = self.worker.plan.execution.device
        ran, remembered = self._remembering.ran, self._remembering.remembered
        here = DeviceEffort(device, ran + remembered, self.run.most)
        return Effort(dict(self._stopwatch.seconds), ran, remembered, (here,))

    def close(self) -> None:
        """Release the device."""
        self._device.shutdown()


class Threads:
    """Computes blocks by threads of this process.

    Each of the plan's devices has as many as the plan says, and one that reads; a network of its
    own; and the next block whenever it has done one.
    """

    elsewhere = False

    def __init__(
        self, rooms: Rooms | None = None, on_last: Callable[[], None] | None = None
    ) -> None:
        """Compute the blocks of one image, or of any number that share nothing.

        Args:
            rooms: What is shared with other images.
            on_last: Called when the last block was begun, if there is any.
        """
        self.rooms, self._on_last = rooms, on_last

    def share(self, plan: Plan) -> Share | None:
        """Return what falls to each of several devices."""
        return share_of_devices(plan)

    def compute(
        self,
        job: Job,
        blocks: Sequence[int],
        on_record: Callable[[Record], None],
        on_news: Callable[[str], None],
    ) -> Effort:
        """Compute blocks; see `Crew.compute`."""
        plan, source = job.plan, job.source
        if isinstance(source, SegmentedSource):
            source.expect(plan.level, (plan.grid.region(plan.grid.block_box(n)) for n in blocks))
        devices = plan.devices[: len(blocks)]
        turn = partial(job.rooms.device.seat, Fraction(1, plan.workers * len(devices)))
        workplaces: list[Workplace] = []

        def keep(record: Record) -> None:
            for each in workplaces:
                for news in each.run.news():
                    on_news(news)
            on_record(record)

        with ExitStack() as opened:
            for device in devices:
                here = plan.on([device])
                run = opened.enter_context(_network_on(here, job)) if workplaces else job.run
                each = Workplace(here, source, run, job.mask, job.conduct, plan.workers, turn)
                workplaces.append(opened.enter_context(closing(each)))
            workers = [each.worker for each in workplaces] * (plan.workers + 1)
            run_blocks(workers, blocks, keep, job.rooms.blocks, self._on_last)
            return sum((each.effort() for each in workplaces), Effort())


@contextmanager
def _network_on(plan: Plan, job: Job) -> Iterator[ShrinkingRunner]:
    """Open a run's network once more, for a plan's device: Torch moves a module to one.

    It is made ready with its first tile, while the devices before it run theirs.

    Raises:
        ModelError: It is an object that cannot be copied, or a file that has changed.
    """
    model = job.model
    in_memory = not isinstance(model, str | os.PathLike)
    if in_memory:
        try:
            model = deepcopy(model).cpu()  # of a module that lies on the first device by now
        except Exception as error:  # whatever an object's own code raises
            raise ModelError(
                f"a {type(model).__name__} cannot be copied for {plan.execution.device} "
                f"({first_line(error)}); use one device, or save it to a file and give its path"
            ) from error
    with closing(open_network(model, **job.settings.of_network())) as network:
        if not in_memory and network.facts.sha256 != plan.network.sha256:
            raise ModelError(f"{plan.network.name} has changed since the run began; run again")
        yield ShrinkingRunner(network, plan)
