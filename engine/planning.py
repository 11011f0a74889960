"""Decide how an image will be segmented: every automatic choice is made here, once."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

from .augmentation import TURNS, turned_recipe
from .backends import open_network
from .backends.base import Execution, Network, Recipe
from .backends.device import device_kind, device_text
from .backends.device_facts import unlike_devices
from .calibration import WORTH_TILES, calibrate, name
from .calibration_cache import rates_path, store_rates, stored_rates
from .channels import choose_channels
from .contradictions import check_declared
from .layout import Layout, plan_layouts, usual_layout
from .levels import choose_level, with_pixel_size
from .memory import available_bytes
from .nodata import choose_nodata
from .normalize import largest_input, resolve_normalization
from .plan import Plan
from .precision import fastest_precision, real_precision
from .probe_cache import inspect_once
from .recipe import build_recipe, class_names, output_bytes
from .rooms import alone
from .runtime import choose_form, choose_runtime, other_runtimes
from .said import said_notes
from .settings import Settings
from .sources import Source, open_source
from .sources.lengths import length_text
from .sources.segment_cache import CACHE_BYTES
from .strips import choose_strips
from .tiling import LARGE_PX, Tiling, choose_tilings
from .verdict import check_whole_numbers, why_not_exact, without_effect
from .work import measure_work

_CONSTANTS = ("given", "described")
"""Normalisations that no option names."""


def plan_image(image: Any, model: Any, settings: Settings) -> Plan:
    """Open an image and a network, decide how the one will be segmented by the other, close them.

    Raises:
        TileInferError: As ``make_plan``, and where one of them cannot be opened.
    """
    with (
        closing(open_source(image, **settings.of_image())) as source,
        closing(open_network(model, **settings.of_network())) as network,
    ):
        return make_plan(source, network, settings)


def make_plan(source: Source, network: Network, settings: Settings) -> Plan:
    """Measure the network and decide how an image will be segmented.

    Raises:
        ModelError: The network cannot be tiled.
        ImageError: The image's statistics are needed and cannot be had.
        SettingError: What is asked for does not fit the image, the network or the memory.
        DeviceError: The device cannot be had, or the library asked for does not run the network.
    """
    image = with_pixel_size(source.facts, settings.mpp_image)
    level, level_notes, level_warnings = choose_level(image, network.facts, settings)
    channels = choose_channels(source, network, settings)
    backend, devices = choose_runtime(network.facts, settings)
    kind = device_kind(devices[0])
    nodata, nodata_notes = choose_nodata(source.facts, settings.nodata)
    normalization = resolve_normalization(settings, network.facts, source, level, channels, nodata)
    largest = largest_input(source, level, channels, normalization, nodata)
    probe = inspect_once(network, settings, len(channels), largest)
    facts = network.facts  # a module's ending is seen while it is measured
    declared_notes = check_declared(facts, probe, sizes=settings.tile is None)
    shape = image.levels[level].shape
    smallest, *_ = choose_tilings(shape, probe, settings, kind)
    turns = TURNS[settings.tta]

    def recipe_of(tiling: Tiling) -> Recipe:
        grid, geometry = tiling.grid, tiling.geometry
        recipe = build_recipe(
            image.dtype, len(channels), grid, geometry, probe, facts, normalization, settings
        )
        return turned_recipe(recipe, geometry, grid, turns)

    work = measure_work(network, len(channels), probe.geometry)

    def laid_out(execution: Execution, shape: tuple[int, int]) -> list[Layout]:
        found = choose_tilings(shape, probe, settings, kind)
        return plan_layouts(found, recipe_of, len(turns), work, facts, execution, devices, settings)

    def settled(execution: Execution) -> tuple[Layout, tuple[str, ...]]:
        ladder = partial(laid_out, execution, (LARGE_PX, LARGE_PX))
        return _settled(network, laid_out(execution, shape), ladder, settings)

    execution = Execution(devices[0], real_precision(settings.precision), backend=backend)
    execution, why_not = choose_form(network, recipe_of(smallest), execution, settings)
    layout, calibration_notes = settled(execution)
    form, reason = network.form(layout.recipe, layout.execution)
    if form != execution.form:  # a tile of this size goes another way through the module
        why_not = reason
        layout, calibration_notes = settled(replace(execution, form=form))
    slow = form == "module" and why_not and not settings.compile
    tiling, recipe, execution = layout.tiling, layout.recipe, layout.execution
    grid = tiling.grid
    spare_bytes = (settings.memory or available_bytes()) - layout.memory_bytes
    in_flight = len(devices) * (execution.workers + 1)
    strips = choose_strips(grid, image, level, in_flight, spare_bytes)
    as_asked = settings.halo is None and settings.tolerance is None
    exact = tiling.fits and tiling.blend is None and as_asked and not probe.whole_numbers
    plan = Plan(
        image=image,
        level=level,
        channels=channels,
        network=facts,
        probe=probe,
        exact=exact,
        grid=grid,
        blend=tiling.blend if grid.blended else None,
        turns=turns,
        normalize=normalization.mode,
        recipe=recipe,
        execution=execution,
        batch=layout.batch,
        class_names=class_names(facts, probe),
        redundancy=layout.redundancy,
        memory_bytes=layout.memory_bytes + strips.kept_bytes - CACHE_BYTES,
        strips=strips,
        output_bytes=output_bytes(grid, recipe, settings),
        nodata=nodata,
        # Whom a run trusts is not handed on with its plan, which somebody else may have written.
        settings=replace(settings, trust_model=None).resolved(
            device=device_text(devices),
            backend=execution.backend,
            axes=source.facts.axes,
            precision=execution.precision,
            level=None if settings.mpp is not None else level,
            channels=channels,
            nodata="none" if nodata is None else nodata,
            normalize=None if normalization.mode in _CONSTANTS else normalization.mode,
            activation=recipe.activation,
            threshold=recipe.threshold,
            output=settings.output or "labels",
            head=facts.head,
            tile=grid.tile,
            batch_size=layout.batch,
            workers=execution.workers,
            blend=tiling.blend,
            overlap=0.5 if tiling.blend else None,
        ),
        asked=tuple(settings.given()),
        notes=(
            normalization.note,
            *calibration_notes,
            *unlike_devices(devices),
            *level_notes,
            *nodata_notes,
            *([f"the module is run as it is, one block at a time: {why_not}"] if slow else []),
            *tiling.notes,
            *said_notes(facts, settings),
            *declared_notes,
            *without_effect(facts, probe),
            *_other_notes(source, network, channels, recipe, settings),
        ),
        warnings=(
            *level_warnings,
            *([] if settings.nodata is not None else image.doubts),
            *tiling.warnings,
            *([f"not compiled: {why_not}"] if settings.compile and why_not else []),
            *facts.doubts,
            *([] if tiling.fits else [why_not_exact(facts, probe, tiling.blend)]),
            *([check_whole_numbers(facts, probe)] if probe.whole_numbers else []),
            *([normalization.warning] if normalization.warning else []),
        ),
    )
    if settings.precision != "fast":
        return plan
    with alone():
        return fastest_precision(plan, source, network)


def _settled(
    network: Network,
    layouts: list[Layout],
    ladder_of: Callable[[], list[Layout]],
    settings: Settings,
) -> tuple[Layout, tuple[str, ...]]:
    """Return the layout to take, measured where that pays, and what to say of it."""
    usual = usual_layout(layouts)
    others = other_runtimes(network.facts, usual.execution, settings)
    if len(layouts) == 1 and not others:
        return usual, ()
    ladder, path = ladder_of(), rates_path(network.facts, usual)
    worth = usual.runs * usual.tile_work >= WORTH_TILES * usual.at_once * ladder[0].tile_work
    rates = stored_rates(path)
    known = dict(rates)
    if not worth and name(ladder[0].by(usual.execution.backend)) not in known:
        return usual, ()
    found = calibrate(network.prepare, ladder, layouts, usual, others, rates)
    if rates != known:
        store_rates(path, rates)
    return found


def _other_notes(
    source: Source,
    network: Network,
    channels: tuple[int, ...],
    recipe: Recipe,
    settings: Settings,
) -> list[str]:
    notes = []
    stated = source.facts.levels[0].pixel_size
    if settings.mpp_image is not None and stated is not None:
        notes.append(
            f"pixels of {length_text(settings.mpp_image)} at level 0 as asked, not of "
            f"{stated[0]:g} x {stated[1]:g} {source.facts.unit} as {source.facts.name} says"
        )
    if settings.channels is None and len(channels) < source.facts.channels:
        notes.append("the alpha channel was left out")
    if recipe.activation == "none" and "none" not in (
        settings.activation,
        network.facts.activation,
    ):
        notes.append("the network's output lies between 0 and 1: taken for probabilities")
    return notes
