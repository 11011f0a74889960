"""What runs on a Dask worker: a run is opened once in its process, and blocks are computed."""

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

from distributed import WorkerPlugin, get_worker
from zarr.abc.store import Store
from zarr.storage import LocalStore

from ..tiler.errors import ImageError, ModelError, OutputError, TileInferError
from .augmentation import prepare
from .backends import open_network
from .block import infer_block
from .conduct import Conduct
from .crew import Effort, Workplace
from .plan import Plan
from .settings import Settings
from .smaller import ShrinkingRunner
from .sources import SegmentedSource, open_source
from .stitcher.lock import lock_text
from .stitcher.mask import Mask
from .stitcher.records import Record
from .stitcher.store import stored_plan
from .url import Location
from .url_store import UrlStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A run as it is sent to workers: paths and settings, no pixels."""

    image: Any
    """Path of the image, or a Dask array; ``None`` for pixels that come with the blocks."""
    model: Any
    """Path of the network, or a module."""
    out: Location
    """Folder of the mask, or its URL."""
    lock: str
    """What the run's lock says, by which a worker knows the folder."""
    fingerprint: str
    """Of the plan that lies there."""
    settings: Settings
    """What was asked for."""
    conduct: Conduct
    """What to do where something is wrong."""


@dataclass(frozen=True, slots=True)
class Done:
    """A finished block, as a worker tells it."""

    record: Record
    """The block's figures."""
    opening: str
    """Names the process in which it was computed."""
    effort: Effort
    """What all blocks of that process took so far."""
    news: list[str]
    """What the user should know."""


@dataclass(frozen=True, slots=True)
class Means:
    """What a worker brings to a run."""

    version: str
    """Release of this package."""
    threads: int
    """Blocks that it computes at the same time."""
    memory_bytes: int | None
    """Its limit; ``None`` for none."""
    resources: dict[str, float]
    """What it declares."""


class BlockPlugin(WorkerPlugin):  # type: ignore[misc]  # distributed has no types
    """Keeps a run open on a worker, from its first block to the end of the run."""

    def __init__(self, name: str, order: Order) -> None:
        self.name, self.order = name, order

    def setup(self, worker: Any) -> None:
        """Begin nothing yet: this is called on the worker's event loop."""
        self._worker = worker
        self._opened = ExitStack()
        self._workplace: Workplace | None = None
        self._opening = str(uuid4())
        self._busy, self._closed = 0, False
        self._changed = threading.Condition()
        self._first = threading.Lock()

    async def teardown(self, worker: Any) -> None:
        """Close the run when the blocks in flight are finished."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._busy)
        self._opened.close()

    @contextmanager
    def _in_flight(self) -> Iterator[None]:
        with self._changed:
            if self._closed:
                raise TileInferError("the run has ended")
            self._busy += 1
        try:
            yield
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def compute(self, block: int, pixels: Any) -> Done:
        """Compute a block; what the run needs is opened before the first."""
        with self._in_flight():
            workplace = self.open(pixels)
            record = infer_block(workplace.worker, block)
            source, mask = workplace.worker.source, workplace.worker.mask
            assert mask is not None, "blocks are written"
            decoded = source.cache.decoded if isinstance(source, SegmentedSource) else 0
            effort = replace(
                workplace.effort(), segments_decoded=decoded, chunks_written=mask.chunks_written
            )
            return Done(record, self._opening, effort, workplace.run.news())

    def open(self, pixels: Any) -> Workplace:
        """Open image, network and mask, once.

        Args:
            pixels: The image, where it has no path.

        Raises:
            TileInferError: One of them is not there, or another one than the plan was made for.
        """
        with self._first:
            if self._workplace is None:
                with ExitStack() as opened:
                    self._workplace = self._open(opened, pixels)
                    self._opened = opened.pop_all()
            return self._workplace

    def _open(self, opened: ExitStack, pixels: Any) -> Workplace:
        order, settings = self.order, self.order.settings
        plan = _plan_of(order)
        image = pixels if order.image is None else order.image
        source = opened.enter_context(closing(open_source(image, **settings.of_image())))
        if source.facts.identity != plan.image.identity:
            raise ImageError(f"{plan.image.name} has other content there than where the run began")
        network = opened.enter_context(closing(open_network(order.model, **settings.of_network())))
        if network.facts.sha256 != plan.network.sha256:
            raise ModelError(
                f"{plan.network.name} has other content there than where the run began"
            )
        mask = Mask(_store_of(order), plan, alone=False)
        places = min(plan.workers, self._worker.state.nthreads)
        run = ShrinkingRunner(network, plan, prepare(network, plan))
        workplace = Workplace(plan, source, run, mask, order.conduct, places)
        return opened.enter_context(closing(workplace))

    def try_out(self) -> Means:
        """Open what can be opened before the first block; return what the worker brings."""
        if self.order.image is None:
            _plan_of(self.order)
        else:
            self.open(None)
        state, memory = self._worker.state, self._worker.memory_manager
        limit = memory.memory_limit
        return Means(
            version("tile-infer"), state.nthreads, limit or None, dict(state.total_resources)
        )


def _store_of(order: Order) -> Store:
    return LocalStore(order.out) if isinstance(order.out, Path) else UrlStore(order.out)


def _plan_of(order: Order) -> Plan:
    """Return the plan that lies in the output, which has to be the folder that the run writes."""
    store = _store_of(order)
    try:
        stored = stored_plan(store)
    except OutputError:
        stored = None
    if stored is None or lock_text(store) != order.lock:
        raise OutputError(f"{order.out} is not there, or is another folder")
    if isinstance(order.out, Path) and not os.access(order.out, os.W_OK | os.X_OK):
        raise OutputError(f"{order.out} cannot be written to")
    plan = Plan.from_dict(stored)
    if plan.fingerprint != order.fingerprint:
        raise OutputError(f"{order.out} holds another plan than where the run began")
    return plan


async def try_out(name: str, dask_worker: Any = None) -> Means:
    """Open the run on this worker, beside its event loop; return what it brings."""
    plugin: BlockPlugin = dask_worker.plugins[name]
    return await asyncio.to_thread(plugin.try_out)


def compute_block(name: str, block: int, pixels: Any) -> Done:
    """Compute a block on the worker that this is called on."""
    plugin: BlockPlugin = get_worker().plugins[name]
    return plugin.compute(block, pixels)
