"""The main job: an image and a network in, a mask out."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import Any

from zarr.abc.store import Store
from zarr.storage import LocalStore, MemoryStore

from ..tiler.errors import (
    OutputError,
    SettingError,
    TileInferError,
    TileInferWarning,
    failing_as,
    first_line,
)
from .backends import Network, open_network
from .backends.base import Runner
from .certificate import certify, doubt
from .computing import compute_blocks
from .conduct import Conduct
from .crew import Crew, Effort, Job, Threads
from .devices import on_devices_now
from .differences import differences, dropped
from .limits import check_limits, check_memory_asked, check_room_left
from .naming import mask_name
from .part import Part
from .pipeline import Progress
from .plan import Plan
from .prediction import Prediction, build_report
from .ready import make_ready
from .rooms import Rooms, side_by_side
from .settings import Settings
from .smaller import ShrinkingRunner
from .sources import Source, open_source
from .stitcher.lock import one_beginner, one_writer
from .stitcher.mask import Mask
from .stitcher.records import Records
from .stitcher.store import claim, clear, open_store, place, stored_plan
from .stitcher.zarr_thread import settle_zarr, start_zarr
from .url import Location, Url, located
from .url_store import UrlStore

log = logging.getLogger(__name__)

DEFAULT = Conduct()
THREADS = Threads()


def predict(
    image: Any,
    model: Any,
    out: str | os.PathLike[str] | Url | Store | None,
    settings: Settings,
    conduct: Conduct = DEFAULT,
    *,
    network: Network | None = None,
    part: Part | None = None,
    crew: Crew = THREADS,
    on_plan: Callable[[Plan], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Prediction:
    """Segment an image, or compute a part of its mask.

    Args:
        image: As for ``predict_large``.
        model: As for ``predict_large``.
        out: As for ``predict_large``.
        settings: What is asked for.
        conduct: What to do where something is wrong.
        network: The model, where it is open already; it stays so, for the next image.
        part: What to compute of the mask, which is left unfinished; ``None`` for all.
        crew: Who computes the blocks.
        on_plan: As for ``predict_large``.
        on_progress: As for ``predict_large``.

    Raises:
        TileInferError: As ``predict_large``.
        Stopped: The images that share the crew's rooms are to end.
    """
    begun, rooms = perf_counter(), crew.rooms or Rooms()
    with failing_as(TileInferError, "starting", "zarr's thread"):
        start_zarr()
    with ExitStack() as opened:
        source = opened.enter_context(closing(open_source(image, **settings.of_image())))
        if network is None:
            network = opened.enter_context(closing(open_network(model, **settings.of_network())))
        if out is None:
            out = _default_out(image, settings.mask_of(network.facts.name))
        store = open_store(out)
        _keep_apart(image, store)
        _check_shared(store, conduct, part, crew)
        opened.enter_context(one_writer(store, conduct.break_lock, part))
        using = opened.enter_context(ExitStack())
        using.enter_context(rooms.network.seat())
        with ExitStack() as beginning:
            if part is not None:
                beginning.enter_context(one_beginner(store, conduct.break_lock))
            with rooms.planning():
                plan, run = _settle(store, source, network, settings, conduct.overwrite)
            if side_by_side(plan.execution):
                using.close()
            if run and part is None:  # this call has claimed the output
                opened.enter_context(_given_up_if_empty(store, plan))
            for note in plan.notes:
                log.info("%s", note)
            for warning in plan.warnings:
                warnings.warn(warning, TileInferWarning, stacklevel=3)
            if on_plan:
                on_plan(plan)
            mask, records = opened_mask(store, plan, part)
        mine = range(plan.grid.blocks) if part is None else part.blocks(plan)
        todo = plan.strips.order(plan.grid, (block for block in mine if block not in records))
        if records:
            check_room_left(plan, store, len(todo))
        effort = Effort()
        if todo:
            # Nothing else keeps what was prepared: it is given up where memory runs out.
            run = ShrinkingRunner(network, plan, run)
            job = Job(
                image=image,
                model=model,
                settings=settings,
                conduct=conduct,
                plan=plan,
                source=source,
                network=network,
                run=run,
                mask=mask,
                rooms=rooms,
            )
            effort = compute_blocks(job, crew, todo, records, on_progress)
            del job
        del run  # with what it holds of the device
        with failing_as(OutputError, "finishing", mask.place):
            if part is None:
                mask.finish()
            unread = mask.unread(None if part is None else mine)
        counts = effort.counts(source, mask)
        if part is None and (conduct.verify or (conduct.verify is None and not mask.certified)):
            certificate = certify(plan, source, network, mask, conduct, rooms=rooms)
            with failing_as(OutputError, "writing the certificate to", mask.place):
                mask.certify(certificate.to_dict() if certificate else None)
            if certificate and doubt(certificate, plan):
                warnings.warn(doubt(certificate, plan), TileInferWarning, stacklevel=3)
        report = build_report(
            plan,
            mask.place,
            records,
            unread.values(),
            mask.changed(),
            perf_counter() - begun,
            len(todo),
            effort.stages,
            counts,
            mask.certificate,
        )
        return Prediction(mask.levels[0], mask.group, plan, report)


def _default_out(image: Any, name: str) -> Location | MemoryStore:
    """Return ``slide.unet.zarr`` beside ``slide.tif``; memory for an image that is no file.

    Raises:
        SettingError: The image is at a server that takes no files.
    """
    if not isinstance(image, str | os.PathLike | Url):
        return MemoryStore()
    place_of_image = located(image)
    if isinstance(place_of_image, Url):
        if place_of_image.is_read_only:
            raise SettingError(
                f"nothing can be written beside {place_of_image}; give out=PATH, or a place at "
                "s3:// or gs://"
            )
        return place_of_image.with_name(mask_name(place_of_image, name))
    path = place_of_image if place_of_image.name else place_of_image.absolute()
    return path.with_name(mask_name(path, name))


def _keep_apart(image: Any, store: Store) -> None:
    """Refuse an output that would overwrite its own image."""
    there = getattr(image, "store", None)  # of a Zarr array or group
    if there is not None and there == store:
        raise OutputError("the output is the store of the image; choose another place with out")
    place_of_image = there.root if isinstance(there, LocalStore) else image
    if isinstance(store, UrlStore):
        url = there.url if isinstance(there, UrlStore) else place_of_image
        url = located(url) if isinstance(url, str | Url) else None
        if isinstance(url, Url) and (url.holds(store.url) or store.url.holds(url)):
            raise OutputError(f"{store.url} and the image {url} overlap; use another out=URL")
    if not isinstance(place_of_image, str | os.PathLike) or not isinstance(store, LocalStore):
        return
    path, root = Path(place_of_image).resolve(), Path(store.root).resolve()
    if path == root or root in path.parents or path in root.parents:
        raise OutputError(f"{root} and the image {path} overlap; choose another place with out")


def _check_shared(store: Store, conduct: Conduct, part: Part | None, crew: Crew) -> None:
    """Refuse to share a run with processes that could not add to its output, or would lose it."""
    if part is None and not crew.elsewhere:
        return
    if not isinstance(store, LocalStore | UrlStore):
        raise SettingError(
            f"{place(store)} is not seen by the other processes; give out=PATH, a folder that is"
        )
    if part is None:
        return
    if crew.elsewhere:
        raise SettingError(
            f"part={part} and a cluster contradict: each shares out the blocks; give one of them"
        )
    if conduct.overwrite:
        raise SettingError(
            "part and overwrite contradict: a part would delete what the others made; "
            f"delete {place(store)} first"
        )


def opened_mask(store: Store, plan: Plan, part: Part | None = None) -> tuple[Mask, Records]:
    """Return the mask, begun or continued, and the records of what is done of it, or of a part."""
    with failing_as(OutputError, "opening", place(store)):
        try:
            mask = Mask(store, plan, alone=part is None)
            mine = None if part is None else part.blocks(plan)
            return mask, mask.done(mine, decoded=not mask.finished)
        except (TileInferError, OSError, MemoryError, RuntimeError):  # of the machine
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
        with suppress(Exception, SystemExit):  # what went wrong first is told
            settle_zarr()
            if not Mask(store, plan).begun:
                clear(store)
        raise


def _settle(
    store: Store, source: Source, network: Network, settings: Settings, overwrite: bool
) -> tuple[Plan, Runner | None]:
    """Return the plan that the output is made by, and the network if it was prepared for that.

    A new plan claims the output only when the network is ready to run it, and an old mask is
    deleted only when it has run a tile: what cannot run changes nothing.
    """
    with failing_as(OutputError, "opening", place(store)):
        stored = stored_plan(store, damaged_ok=overwrite)
    run = None
    if stored is None or overwrite:
        check_memory_asked(settings)
        with failing_as(TileInferError, "planning", source.facts.name):
            plan, run = make_ready(source, network, settings, tried=stored is not None)
            check_limits(plan, store, settings)
        with failing_as(OutputError, "writing the plan to", place(store)):
            if stored is not None:
                clear(store)
            stored = claim(store, plan.to_dict())
        if Plan.from_dict(stored) != plan:
            run = None  # another process was first
    plan = Plan.from_dict(stored)
    different = differences(plan, source, network, settings)
    if different:
        raise OutputError(
            f"{place(store)} was begun with other settings ({'; '.join(different)}); "
            "use overwrite to start again, or another place with out"
        )
    missing = dropped(plan, settings)
    if missing:
        kept = f"{place(store)} was begun with {', '.join(missing)} and is kept so"
        warnings.warn(f"{kept}; use overwrite to do without", TileInferWarning, stacklevel=4)
    if run is not None:
        return plan, run
    now = on_devices_now(plan, settings)
    if now.memory_bytes > plan.memory_bytes:
        check_limits(now, None, settings)
    return now, None
