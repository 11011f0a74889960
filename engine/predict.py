"""The main job: an image and a network in, a mask out."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import Any

from zarr.abc.store import Store
from zarr.storage import LocalStore, MemoryStore

from ..tiler.errors import (
    OutputError,
    TileInferError,
    TileInferWarning,
    first_line,
)
from .augmentation import prepare
from .backends import Network, open_network
from .backends.base import Runner
from .backends.metadata import differing
from .block import Worker
from .channels import choose_channels
from .conduct import Conduct
from .constant_tiles import RememberingRunner
from .halving import memory_of
from .levels import choose_level
from .limits import check_limits, check_memory_asked, check_room_left
from .naming import mask_name
from .pipeline import Clock, Progress, run_blocks
from .plan import Plan
from .prediction import Prediction, build_report
from .ready import make_ready
from .settings import Settings, typed
from .smaller import ShrinkingRunner
from .sources import SegmentedSource, Source, open_source
from .stages import Stopwatch
from .stitcher.lock import one_writer
from .stitcher.mask import Mask
from .stitcher.records import Record
from .stitcher.store import claim, clear, open_store, place, stored_plan

log = logging.getLogger(__name__)

DEFAULT = Conduct()


def predict(
    image: Any,
    model: Any,
    out: str | os.PathLike[str] | Store | None,
    settings: Settings,
    conduct: Conduct = DEFAULT,
    *,
    on_plan: Callable[[Plan], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Prediction:
    """Segment an image; see ``predict_large`` for the arguments."""
    begun = perf_counter()
    with ExitStack() as opened:
        source = opened.enter_context(closing(open_source(image, **settings.of_image())))
        network = opened.enter_context(closing(open_network(model, **settings.of_network())))
        default = _default_out(image, settings.mask_of(network.facts.name))
        store = open_store(default if out is None else out)
        _keep_apart(image, store)
        opened.enter_context(one_writer(store, conduct.break_lock))
        plan, run = _settle(store, source, network, settings, conduct.overwrite)
        if run:  # this call has claimed the output
            opened.enter_context(_given_up_if_empty(store, plan))
        for note in plan.notes:
            log.info("%s", note)
        for warning in plan.warnings:
            warnings.warn(warning, TileInferWarning, stacklevel=3)
        if on_plan:
            on_plan(plan)
        mask, records = _opened(store, plan)
        left = (block for block in range(plan.grid.blocks) if block not in records)
        todo = plan.strips.order(plan.grid, left)
        if records:
            check_room_left(plan, store, len(todo))
        stopwatch, remembering = Stopwatch(), None
        if todo:
            if isinstance(source, SegmentedSource):
                source.cache.max_bytes = plan.strips.kept_bytes
                source.expect(plan.level, (plan.grid.region(plan.grid.block_box(n)) for n in todo))
            # Nothing else keeps what was prepared: it is given up where memory runs out.
            run = shrinking = ShrinkingRunner(network, plan, run or prepare(network, plan))
            remembering = RememberingRunner(shrinking)
            device = opened.enter_context(ThreadPoolExecutor(plan.workers, "device"))
            worker = Worker(plan, source, remembering, mask, device, conduct, stopwatch)
            sizes = {block: plan.grid.block_box(block).shape for block in todo}
            clock = Clock(plan.grid.blocks, len(records), sum(h * w for h, w in sizes.values()))
            if on_progress:
                on_progress(clock.now())

            def keep(record: Any) -> None:
                records[record.block] = record
                for text in shrinking.news():
                    warnings.warn(text, TileInferWarning, stacklevel=5)
                height, width = sizes[record.block]
                progress = clock.tick(height * width)
                if on_progress:
                    on_progress(progress)

            run_blocks(worker, todo, plan.workers + 1, keep)
            if shrinking.most is not None:
                short = f"{memory_of(plan.execution.device)} ran out"
                now = f"ran {shrinking.most} tiles at once instead of {plan.batch}"
                warnings.warn(f"{short}: {now}", TileInferWarning, stacklevel=3)
        if todo or not mask.finished:
            missing = plan.grid.blocks - len(mask.done())
            if missing:
                raise OutputError(
                    f"{place(store)}: {missing} blocks that were written are gone; run again"
                )
            with _writing(store):
                mask.finish()
            if not mask.finished:
                raise OutputError(f"{place(store)}: chunks that were written are gone; run again")
        report = build_report(
            plan,
            place(store),
            records.values(),
            mask.unread().values(),
            mask.changed(),
            perf_counter() - begun,
            len(todo),
            stopwatch.seconds,
            _counts(remembering, source, mask),
        )
        return Prediction(mask.levels[0], mask.group, plan, report)


def _counts(run: RememberingRunner | None, source: Source, mask: Mask) -> dict[str, int | None]:
    """Return what this run has done; ``None`` where the source does not count."""
    return {
        "tiles_run": run.ran if run else 0,
        "tiles_remembered": run.remembered if run else 0,
        "segments_decoded": source.cache.decoded if isinstance(source, SegmentedSource) else None,
        "chunks_written": mask.chunks_written,
    }


def _default_out(image: Any, name: str) -> Path | MemoryStore:
    """Return ``slide.unet.zarr`` beside ``slide.tif``; memory for an image that is no file."""
    if isinstance(image, str | os.PathLike):
        path = Path(image).absolute() if not Path(image).name else Path(image)
        return path.with_name(mask_name(path, name))
    return MemoryStore()


def _keep_apart(image: Any, store: Store) -> None:
    """Refuse an output that would overwrite its own image."""
    there = getattr(image, "store", None)  # of a Zarr array or group
    if there is not None and there == store:
        raise OutputError("the output is the store of the image; choose another place with out")
    place_of_image = there.root if isinstance(there, LocalStore) else image
    if not isinstance(place_of_image, str | os.PathLike) or not isinstance(store, LocalStore):
        return
    path, root = Path(place_of_image).resolve(), Path(store.root).resolve()
    if path == root or root in path.parents or path in root.parents:
        raise OutputError(f"{root} and the image {path} overlap; choose another place with out")


def _opened(store: Store, plan: Plan) -> tuple[Mask, dict[int, Record]]:
    """Return the mask, begun or continued, and the records of what is done."""
    try:
        with _writing(store):
            mask = Mask(store, plan)
            return mask, mask.done(decoded=not mask.finished)
    except TileInferError:
        raise
    except Exception as error:  # zarr and its codecs raise types of their own
        raise OutputError(
            f"{place(store)} is damaged ({first_line(error)}); use overwrite to start again"
        ) from error


@contextmanager
def _given_up_if_empty(store: Store, plan: Plan) -> Iterator[None]:
    """Delete a new output that failed before a block was done: other settings may do."""
    try:
        yield
    except Exception:
        with suppress(Exception):  # what went wrong first is told
            if not Mask(store, plan).done():
                clear(store)
        raise


@contextmanager
def _writing(store: Store) -> Iterator[None]:
    """Tell in one line that the mask cannot be written."""
    try:
        yield
    except TileInferError:
        raise
    except OSError as error:
        cause = error.strerror or first_line(error)
        raise OutputError(f"{place(store)} cannot be written: {cause}") from error


def _settle(
    store: Store, source: Source, network: Network, settings: Settings, overwrite: bool
) -> tuple[Plan, Runner | None]:
    """Return the plan that the output is made by, and the network if it was prepared for that.

    A new plan claims the output only when the network is ready to run it, and an old mask is
    deleted only when it has run a tile: what cannot run changes nothing.
    """
    stored = stored_plan(store, damaged_ok=overwrite)
    run = None
    if stored is None or overwrite:
        check_memory_asked(settings)
        plan, run = make_ready(source, network, settings, tried=stored is not None)
        check_limits(plan, store, settings)
        if stored is not None:
            clear(store)
        stored = claim(store, plan.to_dict())
        if Plan.from_dict(stored) != plan:
            run = None  # another process was first
    plan = Plan.from_dict(stored)
    differing = _differences(plan, source, network, settings)
    if differing:
        raise OutputError(
            f"{place(store)} was begun with other settings ({'; '.join(differing)}); "
            "use overwrite to start again, or another place with out"
        )
    dropped = _dropped(plan, settings)
    if dropped:
        kept = f"{place(store)} was begun with {', '.join(dropped)} and is kept so"
        warnings.warn(f"{kept}; use overwrite to do without", TileInferWarning, stacklevel=4)
    return plan, run


def _differences(plan: Plan, source: Source, network: Network, settings: Settings) -> list[str]:
    """Return how a stored plan differs from what is asked for now."""
    found = []
    same_plane = all(
        getattr(settings, name) in (None, getattr(plan.settings, name))
        for name in settings.of_image()
    )
    if same_plane and plan.image.identity != source.facts.identity:
        found.append(f"image: {plan.image.name} with other content or size")
    if plan.network.sha256 != network.facts.sha256:
        found.append(f"model: {plan.network.name} with other content")
    found += [
        f"model: {plan.network.name} with other metadata ({name})"
        for name in differing(plan.network, network.facts)
    ]
    if plan.network.head != network.facts.head:
        found.append(f"head: {plan.network.head} then, {network.facts.head} now")
    if settings.level is not None or settings.mpp is not None:
        level = choose_level(plan.image, plan.network, settings).level
        if level != plan.level:
            found.append(f"level: {plan.level} then, {level} now")
    if settings.channels is not None:
        choose_channels(source, network, settings)  # those that are not there are told as such
    for name, value in settings.given().items():
        before = getattr(plan.settings, name)
        if name not in _WITHOUT_EFFECT and not _same_setting(name, value, before):
            then = "not given" if before is None else typed(before)
            found.append(f"{name}: {then} then, {typed(value)} now")
    return found


def _dropped(plan: Plan, settings: Settings) -> list[str]:
    """Return what a stored plan was asked for that is not asked for now."""
    now = settings.given()
    harmless = _HARMLESS | ({"tile"} if plan.exact else set())
    names = [name for name in plan.asked if name not in now and name not in harmless]
    return [f"{name}={getattr(plan.settings, name)}" for name in names]


_WITHOUT_EFFECT = {"memory", "device_memory", "max_output", "head", "level", "mpp", "trust_model"}
"""Settings of which the plan holds what became of them, or that nothing of the mask depends on."""

_HARMLESS = _WITHOUT_EFFECT | {"device", "backend", "workers", "batch_size", "output", "compile"}
"""Settings that may be left out the second time: the mask's labels are the same."""


def _same_setting(name: str, value: object, before: object) -> bool:
    if name == "axes":
        return str(value).upper() == str(before).upper()
    if value == "fast":  # like auto: the first run has resolved it
        return True
    if name == "device":  # the first run has resolved cuda to cuda:0
        return before == ("cuda:0" if value == "cuda" else value)
    return value == before
