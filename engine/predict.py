"""The main job: an image and a network in, a mask out."""

import logging
import os
import warnings
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Semaphore
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.storage import MemoryStore

from ..tiler.errors import OutputError, SettingError, TileInferWarning
from .backends import Network, open_network
from .block import Worker
from .memory import available_bytes, human
from .pipeline import Clock, Progress, run_blocks
from .plan import Plan
from .planning import make_plan
from .prediction import Prediction, build_report
from .probe import Probe, probe
from .settings import Settings
from .sources import Source, open_source
from .stitcher.mask import Mask
from .stitcher.store import claim, clear, open_store, place, stored_plan

log = logging.getLogger(__name__)


def inspect(network: Network, settings: Settings, channels: int | None = None) -> Probe:
    """Measure a network's geometry.

    Args:
        network: The network.
        settings: Their ``tolerance`` and ``halo`` count.
        channels: Input channels, for a network that does not say.
    """
    facts, rim = network.facts, settings.halo or 0

    def logits(tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        found = network.logits(tiles)
        if (
            rim and found.ndim == 4
        ):  # whatever stands in a halo that the user states is not looked at
            inside = np.zeros_like(found)
            inside[:, :, rim:-rim, rim:-rim] = found[:, :, rim:-rim, rim:-rim]
            return inside
        return found

    return probe(logits, facts.channels or channels or 1, facts.fixed, tolerance=settings.tolerance)


def plan_for(source: Source, network: Network, settings: Settings) -> Plan:
    """Measure the network and decide how the image will be segmented."""
    channels = len(settings.channels) if settings.channels else source.facts.channels
    return make_plan(source, network, inspect(network, settings, channels), settings)


def predict(
    image: Any,
    model: Any,
    out: str | os.PathLike[str] | Store | None,
    settings: Settings,
    *,
    overwrite: bool = False,
    on_plan: Callable[[Plan], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Prediction:
    """Segment an image; see ``predict_large`` for the arguments."""
    begun = perf_counter()
    with ExitStack() as opened:
        source = opened.enter_context(closing(open_source(image)))
        network = opened.enter_context(closing(open_network(model, settings.head)))
        store = open_store(_default_out(image, network) if out is None else out)
        plan = _claimed_plan(store, source, network, settings, overwrite)
        if isinstance(store, MemoryStore):
            _check_memory(plan, settings)
        for note in plan.notes:
            log.info("%s", note)
        for warning in plan.warnings:
            warnings.warn(warning, TileInferWarning, stacklevel=3)
        if on_plan:
            on_plan(plan)
        mask = Mask(store, plan)
        records = mask.done()
        todo = [block for block in range(plan.grid.blocks) if block not in records]
        if todo:
            worker = Worker(
                plan,
                source,
                network.prepare(plan.recipe, plan.execution),
                mask,
                Semaphore(plan.workers),
            )
            sizes = {block: plan.grid.block_box(block).shape for block in todo}
            clock = Clock(plan.grid.blocks, len(records), sum(h * w for h, w in sizes.values()))
            if on_progress:
                on_progress(clock.now())

            def keep(record: Any) -> None:
                records[record.block] = record
                height, width = sizes[record.block]
                progress = clock.tick(height * width)
                if on_progress:
                    on_progress(progress)

            run_blocks(worker, todo, plan.workers + 1, keep)
        if not mask.finished:
            missing = plan.grid.blocks - len(mask.done())
            if missing:
                raise OutputError(
                    f"{place(store)}: {missing} blocks that were written are gone; run again"
                )
            mask.finish()
        report = build_report(
            plan, place(store), records.values(), perf_counter() - begun, len(todo)
        )
        return Prediction(mask.levels[0], mask.group, plan, report)


def _default_out(image: Any, network: Network) -> Path | MemoryStore:
    """Return ``slide.unet.zarr`` beside ``slide.tif``; memory for an image that is no file."""
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        return path.with_name(f"{path.name.partition('.')[0]}.{network.facts.name}.zarr")
    return MemoryStore()


def _claimed_plan(
    store: Store, source: Source, network: Network, settings: Settings, overwrite: bool
) -> Plan:
    """Return the plan stored with the output; make and store one where there is none."""
    stored = stored_plan(store)
    if stored is not None and overwrite:
        clear(store)
        stored = None
    if stored is None:
        stored = claim(store, plan_for(source, network, settings).to_dict())
    plan = Plan.from_dict(stored)
    differing = _differences(plan, source, network, settings)
    if differing:
        raise OutputError(
            f"{place(store)} was begun with other settings ({'; '.join(differing)}); "
            "use overwrite to start again, or another place with out"
        )
    return plan


def _differences(plan: Plan, source: Source, network: Network, settings: Settings) -> list[str]:
    """Return how a stored plan differs from what is asked for now."""
    found = []
    if plan.image.identity != source.facts.identity:
        found.append(f"image: {plan.image.name} with other content or size")
    if plan.network.sha256 != network.facts.sha256:
        found.append(f"model: {plan.network.name} with other content")
    for name, value in settings.given().items():
        before = getattr(plan.settings, name)
        if not _same_setting(name, value, before):
            found.append(f"{name}: {before} then, {value} now")
    return found


def _same_setting(name: str, value: object, before: object) -> bool:
    if name == "device":  # the first run has resolved cuda to cuda:0
        return before == ("cuda:0" if value == "cuda" else value)
    if name == "head" and isinstance(value, str) and value.isdigit():
        return True  # the model's hash is compared, and an index is resolved to the name in it
    return value == before


def _check_memory(plan: Plan, settings: Settings) -> None:
    limit = settings.memory or available_bytes()
    needed = plan.memory_bytes + plan.output_bytes
    if needed > limit:
        raise SettingError(
            f"the result and the run need {human(needed)} of memory and may use {human(limit)}; "
            "give out=PATH to write the mask to disk"
        )
