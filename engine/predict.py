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
    TileInferError,
    TileInferWarning,
    first_line,
)
from .augmentation import prepare
from .backends import Network, open_network
from .backends.base import Runner
from .certificate import certify, doubt
from .computing import Effort, compute_blocks
from .conduct import Conduct
from .differences import differences, dropped
from .limits import check_limits, check_memory_asked, check_room_left
from .naming import mask_name
from .pipeline import Progress
from .plan import Plan
from .prediction import Prediction, build_report
from .ready import make_ready
from .settings import Settings
from .smaller import ShrinkingRunner
from .sources import SegmentedSource, Source, open_source
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
        effort = Effort()
        if todo:
            # Nothing else keeps what was prepared: it is given up where memory runs out.
            run = ShrinkingRunner(network, plan, run or prepare(network, plan))
            effort = compute_blocks(plan, source, run, mask, todo, records, conduct, on_progress)
        del run  # with what it holds of the device
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
        decoded = source.cache.decoded if isinstance(source, SegmentedSource) else None
        if conduct.verify or (conduct.verify is None and not mask.certified):
            certificate = certify(plan, source, network, mask, conduct)
            mask.certify(certificate.to_dict() if certificate else None)
            if certificate and doubt(certificate, plan):
                warnings.warn(doubt(certificate, plan), TileInferWarning, stacklevel=3)
        counts = {
            "tiles_run": effort.tiles_run,
            "tiles_remembered": effort.tiles_remembered,
            "segments_decoded": decoded,
            "chunks_written": mask.chunks_written,
        }
        report = build_report(
            plan,
            place(store),
            records.values(),
            mask.unread().values(),
            mask.changed(),
            perf_counter() - begun,
            len(todo),
            effort.stages,
            counts,
            mask.certificate,
        )
        return Prediction(mask.levels[0], mask.group, plan, report)


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
    return plan, run
