"""Blocks computed by the workers of a Dask cluster, which schedules them."""

import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from importlib.metadata import version
from itertools import count, islice
from pathlib import Path
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any
from uuid import uuid4

import distributed
import zarr
from distributed.protocol.pickle import dumps
from zarr.storage import LocalStore

from ..tiler.errors import (
    ImageError,
    ModelError,
    SettingError,
    TileInferError,
    first_line,
)
from .cluster_worker import BlockPlugin, Done, Means, Order, compute_block, try_out
from .crew import Effort, Job
from .memory import human
from .plan import Plan
from .rooms import Rooms
from .shares import Share, share_of_workers, worker_bytes
from .sources.array import is_array, is_dask
from .stitcher.lock import lock_text
from .stitcher.records import Record
from .stitcher.store import remove_cut_files
from .url import Location, Url, located
from .url_store import UrlStore

_AHEAD = 3
"""Blocks submitted for each thread of the cluster: one is computed, the next wait at hand."""

_FEWEST = 16
"""Blocks submitted at least: a cluster that grows with its work sees that there is some."""

_AGAIN = 4
"""How often a block is submitted again that the scheduler gave up: each time after the loss of four
workers, unless it is configured otherwise."""

_FAILED = ("error", "cancelled")
"""What futures are whose blocks are not computed again."""

_LOST = ("lost", "pending")
"""What a future is that was finished, once its result is lost with the worker that held it."""

_FETCH_SECONDS = 30.0
"""For the results of some blocks: one that is lost while it is fetched would be waited for."""

_LOOK_SECONDS = 2.0
"""Between two looks at how large the cluster is."""

_ALONE_SECONDS = 60.0
"""Between two looks that find no worker, while no block ends, before the user is told of it."""


class Cluster:
    """Computes blocks on a Dask cluster; see `Crew`.

    Workers open image, network and mask themselves, once. To them go the numbers of blocks, a few
    at a time, and from them come the blocks' figures: no pixel passes through the scheduler. A
    block of a worker that is lost is computed by another one.
    """

    elsewhere = True
    rooms: Rooms | None = None

    def __init__(
        self, client: Any, resources: Mapping[str, float] | None = None, *, grows: bool = True
    ) -> None:
        """Use a cluster.

        Args:
            client: ``distributed.Client``, which stays open.
            resources: What a block takes of the resources that workers declare; ``None`` is one
                ``GPU`` for a run on GPUs, where a worker declares any, and else nothing.
            grows: Whether workers may come by themselves. A run waits for them where none is left;
                else it ends.
        """
        self.client, self.resources, self.grows = client, resources, grows

    def share(self, plan: Plan) -> Share | None:
        """Return what falls to each worker, as far as there are any by now."""
        with _answering():
            threads = self.client.nthreads()
        return share_of_workers(plan, threads.values()) if threads else None

    def compute(
        self,
        job: Job,
        blocks: Sequence[int],
        on_record: Callable[[Record], None],
        on_news: Callable[[str], None],
    ) -> Effort:
        """Compute blocks; see `Crew.compute`.

        Raises:
            TileInferError: A worker cannot see image, network or output, or has too little memory;
                a block fails; or the cluster is lost.
        """
        efforts: dict[str, Effort] = {}
        order, pixels = self._order(job)
        with (
            self._opened_on_workers(job.plan, order) as (name, resources),
            closing(self._blocks(name, blocks, pixels, resources, on_news)) as finished,
        ):
            for done in finished:
                efforts[done.opening] = _later(efforts.get(done.opening), done.effort)
                for news in done.news:
                    on_news(news)
                on_record(done.record)
        remove_cut_files(job.mask.store)  # of workers that were lost
        return sum(efforts.values(), Effort())

    @contextmanager
    def _opened_on_workers(
        self, plan: Plan, order: Order
    ) -> Iterator[tuple[str, Mapping[str, float]]]:
        """Have every worker open the run, those that come later too; close it in the end."""
        client, name = self.client, f"tile-infer-{uuid4()}"
        try:
            with _answering():
                try:
                    client.register_plugin(BlockPlugin(name, order), name=name)
                except ImportError as error:
                    raise TileInferError(
                        f"a Dask worker cannot load tile-infer ({first_line(error)}); install it "
                        "with its extras wherever the scheduler and the workers run"
                    ) from error
                means = self._tried_out(name)
            resources = self._resources(plan, means)
            _check_means(plan, means, resources)
            yield name, resources
        finally:
            with suppress(Exception):  # what went wrong first is told
                client.unregister_worker_plugin(name)

    def _order(self, job: Job) -> tuple[Order, Any]:
        """Return what workers are sent, and where they find the pixels of an image without path."""
        store = job.mask.store
        assert isinstance(store, LocalStore | UrlStore), "workers see the output"
        lock = lock_text(store)
        assert lock is not None, "the run holds its output"
        image, model = (
            _for_workers(each) if isinstance(each, str | os.PathLike | Url) else each
            for each in (job.image, job.model)
        )
        pixels = None
        if _holds_pixels(image):  # they go to a worker straight, and from there to the others
            with _answering():
                pixels, image = self.client.scatter(image, direct=True, hash=False), None
        order = Order(
            image=image,
            model=model,
            out=store.url if isinstance(store, UrlStore) else Path(store.root).absolute(),
            lock=lock,
            fingerprint=job.plan.fingerprint,
            settings=job.settings,
            conduct=job.conduct,
        )
        for what, kind in ((image, ImageError), (model, ModelError)):
            try:
                dumps(what)
            except Exception as error:  # whatever an object's own code raises
                raise kind(
                    f"a {type(what).__name__} cannot be sent to workers ({first_line(error)}); "
                    "save it to a file that they see, and give its path"
                ) from error
        return order, pixels

    def _tried_out(self, name: str) -> dict[str, Means]:
        """Have every worker open the run, and return what each brings.

        Raises:
            TileInferError: One of them cannot.
        """
        answers: dict[str, Any] = self.client.run(try_out, name, on_error="return")
        failed = {each: why for each, why in answers.items() if isinstance(why, Exception)}
        if failed:
            worker, why = next(iter(failed.items()))
            kind = type(why) if isinstance(why, TileInferError) else TileInferError
            raise kind(
                f"{len(failed)} of {len(answers)} Dask workers cannot take part: {first_line(why)} "
                f"(on {worker}); image, network and output have to be where every worker sees them "
                "under the same path"
            ) from why
        return answers

    def _resources(self, plan: Plan, means: Mapping[str, Means]) -> Mapping[str, float]:
        if self.resources is not None:
            return self.resources
        declared = any("GPU" in each.resources for each in means.values())
        return {"GPU": 1} if declared and plan.execution.device != "cpu" else {}

    def _blocks(
        self,
        name: str,
        blocks: Sequence[int],
        pixels: Any,
        resources: Mapping[str, float],
        on_news: Callable[[str], None],
    ) -> Generator[Done, None, None]:
        """Yield finished blocks, a bounded number of which is submitted at any time."""
        client, todo, again, numbers = self.client, iter(blocks), Counter[int](), count()
        crowd = _Crowd(client, resources, self.grows, on_news)
        flying, landed = dict[Any, int](), SimpleQueue[Any]()

        def submit(blocks: Iterable[int]) -> None:
            for block in blocks:
                future = client.submit(
                    compute_block,
                    name,
                    block,
                    pixels,
                    key=f"infer_block-{name}-{block}-{next(numbers)}",
                    resources=dict(resources) or None,
                    pure=False,
                )
                flying[future] = block
                future.add_done_callback(landed.put)

        try:
            with _answering():
                submit(islice(todo, crowd.window()))
                while flying:
                    ended = {future: flying.pop(future) for future in _soon(landed)}
                    crowd.mind(bool(ended))
                    for future, block in list(ended.items()):
                        given_up = again[block] < _AGAIN and _lost_its_workers(future)
                        if given_up or future.status in _LOST:
                            del ended[future]
                            again[block] += given_up
                            submit([block])
                    if all(future.status not in _FAILED for future in ended):
                        submit(islice(todo, max(0, crowd.window() - len(flying))))
                    try:
                        yield from _results(client, ended)
                    except TimeoutError:  # whose is lost, is known by now
                        flying |= ended
                        for future in ended:
                            landed.put(future)
        finally:
            if flying:
                with suppress(Exception):
                    client.cancel(list(flying))


def _results(client: Any, ended: Mapping[Any, int]) -> Iterator[Done]:
    """Yield what workers tell of blocks that ended, by their futures; fetched together.

    Raises:
        TimeoutError: It cannot be fetched, since a worker is lost that held some of it.
        TileInferError: A block failed; the others have been told.
    """
    good = [each for each in ended if each.status not in _FAILED]
    if good:
        gather = partial(client.gather, errors="skip")
        yield from client.sync(gather, good, callback_timeout=_FETCH_SECONDS)
    for future, block in ended.items():
        if future.status in _FAILED:
            _raise_why(future, block)


def _soon(queue: SimpleQueue[Any]) -> Iterator[Any]:
    """Yield what is in a queue; nothing where nothing comes into it for a while."""
    with suppress(Empty):
        yield queue.get(timeout=_LOOK_SECONDS)
        while True:
            yield queue.get_nowait()


def _lost_its_workers(future: Any) -> bool:
    """Say whether the scheduler gave a block up, after it was lost with one worker after another.

    It counts blocks that only waited at a worker as well: where workers come and go, that says
    little of a block.
    """
    return future.status == "error" and isinstance(future.exception(), distributed.KilledWorker)


def _for_workers(place: str | os.PathLike[str] | Url) -> Location:
    """Return where a worker finds what was named here."""
    found = located(place)
    return found if isinstance(found, Url) else found.absolute()


def _raise_why(future: Any, block: int) -> None:
    """Tell why a block failed.

    Raises:
        TileInferError: Always.
    """
    try:
        future.result()
    except TileInferError:
        raise
    except distributed.KilledWorker as error:
        raise TileInferError(
            f"block {block} was given up: the workers that computed it were lost, one after the "
            "other, for want of memory perhaps; the same command continues"
        ) from error
    except distributed.CancelledError as error:
        raise TileInferError(
            "the Dask scheduler was lost, or the worker that was sent the image's pixels, or block "
            f"{block} was cancelled there; the same command continues"
        ) from error
    except Exception as error:
        raise TileInferError(
            f"block {block} failed on the cluster: {first_line(error)}; the same command continues"
        ) from error


def _holds_pixels(image: Any) -> bool:
    """Say whether an image is one in memory, and neither a path nor what Dask or Zarr reads."""
    if isinstance(image, zarr.Array | zarr.Group) or not is_array(image):
        return False
    return not is_dask(image) and not is_dask(getattr(image, "data", None))


class _Crowd:
    """The workers there are, which come and go."""

    def __init__(
        self,
        client: Any,
        resources: Mapping[str, float],
        grows: bool,
        on_news: Callable[[str], None],
    ) -> None:
        self._client, self._resources = client, resources
        self._grows, self._on_news = grows, on_news
        self._looked, self._threads = float("-inf"), 0
        self._idle = self._missed = 0

    def window(self) -> int:
        """Return how many blocks may be submitted at the same time."""
        if monotonic() - self._looked > _LOOK_SECONDS:
            self._looked, self._threads = monotonic(), sum(self._client.nthreads().values())
        return max(_FEWEST, _AHEAD * self._threads)

    def mind(self, ended: bool) -> None:
        """See whether anyone is at work, where no block has ended for long.

        Args:
            ended: Whether one has since the last call, which is a look's time ago if not.

        Raises:
            TileInferError: No worker is left that could take a block, and none will come.
        """
        if ended:
            self._idle = self._missed = 0
            return
        self._idle += 1
        if self._idle % round(_ALONE_SECONDS / _LOOK_SECONDS):
            return
        self._missed = 0 if self._able() else self._missed + 1
        if self._missed != 2:  # one that was lost just now may be back the next time
            return
        if not self._grows:
            raise TileInferError(
                "no Dask worker is left: all were lost, for want of memory perhaps; the same "
                "command continues"
            )
        which = f" with {_text_of(self._resources)}" if self._resources else ""
        self._on_news(
            f"no Dask worker{which} is there: waiting for one (Ctrl-C ends the run; the same "
            "command continues it)"
        )

    def _able(self) -> bool:
        workers = self._client.sync(self._client.scheduler.identity)["workers"].values()
        return any(
            each["status"] == "running" and _offers(each["resources"], self._resources)
            for each in workers
        )


def _text_of(resources: Mapping[str, float]) -> str:
    return " ".join(f"{name}={amount:g}" for name, amount in resources.items())


def _offers(declared: Mapping[str, float], resources: Mapping[str, float]) -> bool:
    """Say whether a worker has what a block takes."""
    return all(declared.get(name, 0) >= amount for name, amount in resources.items())


@contextmanager
def _answering() -> Iterator[None]:
    """Tell in one line that a scheduler does not answer."""
    try:
        yield
    except TileInferError:
        raise
    except OSError as error:  # Dask's own errors of connections and of time are of this kind
        raise TileInferError(
            f"the Dask cluster does not answer ({first_line(error)}); the same command continues"
        ) from error


def _later(one: Effort | None, other: Effort) -> Effort:
    """Return the later of two efforts of a process, which only grow."""
    if one is None:
        return other
    return max(one, other, key=lambda effort: effort.chunks_written)


def _check_means(plan: Plan, means: Mapping[str, Means], resources: Mapping[str, float]) -> None:
    """Refuse workers that could not do their share.

    Raises:
        TileInferError: One has another release of this package, or too little memory.
        SettingError: None declares the resources that a block takes.
    """
    ours = version("tile-infer")
    for worker, each in means.items():
        if each.version != ours:
            raise TileInferError(
                f"Dask worker {worker} has tile-infer {each.version}, and {ours} runs here; "
                "install the same everywhere"
            )
        needed = worker_bytes(plan, each.threads)
        if each.memory_bytes is not None and needed > each.memory_bytes:
            raise SettingError(
                f"Dask worker {worker} needs {human(needed)} of memory for {each.threads} blocks "
                f"at the same time and has {human(each.memory_bytes)}; use memory=N or a smaller "
                "tile=N, or start workers with more memory or fewer threads"
            )
    if means and not any(_offers(each.resources, resources) for each in means.values()):
        raise SettingError(
            f"no Dask worker declares {_text_of(resources)}, which a block takes; start workers "
            "with --resources"
        )
