"""Decide how an image will be segmented: every automatic choice is made here, once."""

from contextlib import closing
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from ..tiler.axis import AxisGrid, exact_grid, overlapping_grid
from ..tiler.errors import ModelError, SettingError
from ..tiler.geometry import AxisGeometry, Geometry
from ..tiler.grid import Grid
from ..tiler.window import WINDOWS
from .augmentation import TURNS, turned_geometry, turned_recipe
from .backends import open_network
from .backends.base import Activation, Execution, Network, NetworkFacts, Recipe, Scores
from .backends.device import cpu_cores, resolve_device
from .contradictions import check_declared
from .inspection import inspect
from .levels import choose_level, with_pixel_size
from .nodata import choose_nodata
from .normalize import Normalization, largest_input, resolve_normalization
from .plan import Plan
from .probe import Probe
from .said import said_notes
from .settings import Settings
from .sizing import choose_batch, fit_memory
from .sources import Source, open_source
from .verdict import through, without_effect
from .work import measure_work

CORE_LIMIT_PX = {"cpu": 512, "cuda": 2048}
"""Largest core of a network that takes several sizes: larger tiles repeat less, but on a CPU they
leave the cache."""

_CONSTANTS = ("given", "described")
"""Normalisations that no option names."""

BLENDED_PX = 512
"""Output of a blended tile of a network that takes several sizes: of larger ones too many reach
into two blocks, and are run for both."""


def plan_image(image: Any, model: Any, settings: Settings) -> Plan:
    """Open an image and a network, decide how the one will be segmented by the other, close them.

    Raises:
        TileInferError: As ``make_plan``, and where one of them cannot be opened.
    """
    with (
        closing(open_source(image, **settings.of_image())) as source,
        closing(
            open_network(model, settings.head, trust_model=bool(settings.trust_model))
        ) as network,
    ):
        return make_plan(source, network, settings)


def make_plan(source: Source, network: Network, settings: Settings) -> Plan:
    """Measure the network and decide how an image will be segmented.

    Raises:
        ModelError: The network cannot be tiled.
        ImageError: The image's statistics are needed and cannot be had.
        SettingError: What is asked for does not fit the image, the network or the memory.
        DeviceError: The device cannot be had.
    """
    image = with_pixel_size(source.facts, settings.mpp_image)
    level, level_notes, level_warnings = choose_level(image, network.facts, settings)
    channels = _choose_channels(source, network, settings)
    device = resolve_device(settings.device or "auto")
    kind = device.partition(":")[0]
    nodata, nodata_notes = choose_nodata(source.facts, settings.nodata)
    normalization = resolve_normalization(settings, network.facts, source, level, channels, nodata)
    largest = largest_input(source, level, channels, normalization, nodata)
    probe = inspect(network, settings, len(channels), largest)
    facts = network.facts  # a module's ending is seen while it is measured
    geometry, notes, warnings = _crop_rules(probe, settings)
    notes += said_notes(facts, settings)
    notes += check_declared(facts, probe, sizes=settings.tile is None)
    warnings += facts.doubts
    if not probe.bounded and settings.tile:
        geometry = _with_smaller_tiles(geometry, settings.tile)
    if settings.channels is None and len(channels) < source.facts.channels:
        notes.append("the alpha channel was left out")
    fits = probe.bounded and _leaves_core(geometry)
    blend = settings.blend
    if blend is None and settings.halo is None and not fits:
        blend = "hann"
    if not fits:
        warnings.append(_why_not_exact(facts, probe, blend))
    notes.extend(without_effect(facts, probe))
    if probe.whole_numbers:
        warnings.append(_check_whole_numbers(facts, probe))
    turns = TURNS[settings.tta]
    geometry = turned_geometry(geometry, settings.tta)
    shape = source.facts.levels[level].shape
    grid = _grid(shape, geometry, settings, blend, CORE_LIMIT_PX[kind])
    recipe = _recipe(source, channels, grid, geometry, probe, facts, normalization, settings)
    recipe = turned_recipe(recipe, geometry, grid, turns)
    work = measure_work(network, len(channels), probe.geometry)
    tile_bytes = work.bytes(grid.tile)
    batch = choose_batch(facts, kind, tile_bytes, settings)
    grid, workers, memory_bytes = fit_memory(facts, grid, recipe, tile_bytes, batch, kind, settings)
    threads = max(1, cpu_cores() // workers) if kind == "cpu" else 1
    execution = Execution(device, settings.precision or "fp32", threads)
    exact = (
        fits
        and blend is None
        and settings.halo is None
        and settings.tolerance is None
        and not probe.whole_numbers
    )
    warnings.extend([normalization.warning] if normalization.warning else [])
    if recipe.activation == "none" and "none" not in (settings.activation, facts.activation):
        notes.append("the network's output lies between 0 and 1: taken for probabilities")
    return Plan(
        image=image,
        level=level,
        channels=channels,
        network=facts,
        probe=probe,
        exact=exact,
        grid=grid,
        blend=blend if grid.blended else None,
        turns=turns,
        normalize=normalization.mode,
        recipe=recipe,
        execution=execution,
        batch=batch,
        workers=workers,
        class_names=_class_names(facts, probe),
        redundancy=len(turns) * work.redundancy(grid, _lost_px(geometry)),
        memory_bytes=memory_bytes,
        output_bytes=_output_bytes(grid, recipe, settings),
        nodata=nodata,
        # Whom a run trusts is not handed on with its plan, which somebody else may have written.
        settings=replace(settings, trust_model=None).resolved(
            device=device,
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
            batch_size=batch,
            workers=workers,
            blend=blend,
            overlap=0.5 if blend else None,
        ),
        notes=(normalization.note, *level_notes, *nodata_notes, *notes),
        warnings=(*level_warnings, *warnings),
    )


def _choose_channels(source: Source, network: Network, settings: Settings) -> tuple[int, ...]:
    there, wanted = source.facts.channels, network.facts.channels
    channels = tuple(range(there)) if settings.channels is None else settings.channels
    if settings.channels is None and source.facts.alpha is not None and wanted == there - 1:
        channels = tuple(channel for channel in channels if channel != source.facts.alpha)
    if max(channels) >= there:
        raise SettingError(
            f"channels={list(channels)}: {source.facts.name} has channels 0 to {there - 1}"
        )
    if wanted is None or len(channels) == wanted or network.takes(len(channels)):
        return channels
    if settings.channels is not None:
        raise SettingError(
            f"channels={list(channels)} are {len(channels)}, but the network takes {wanted}"
        )
    raise SettingError(
        f"{source.facts.name} has {there} channels ({source.facts.axes}), the network "
        f"takes {wanted}; choose some, e.g. channels="
        + ",".join(str(min(n, there - 1)) for n in range(wanted))
    )


def _crop_rules(probe: Probe, settings: Settings) -> tuple[Geometry, list[str], list[str]]:
    """Return the geometry that the settings leave of the measured one, notes and warnings."""
    if settings.halo is not None:
        geometry = Geometry(
            *(
                replace(axis, halo_before=settings.halo, halo_after=settings.halo)
                for axis in (probe.geometry.y, probe.geometry.x)
            )
        )
        warning = (
            f"halo={settings.halo} px as asked, measured were "
            f"{probe.geometry.y.halo_before} + {probe.geometry.y.halo_after} px (y) and "
            f"{probe.geometry.x.halo_before} + {probe.geometry.x.halo_after} px (x): the mask is "
            "not certified to be that of one whole pass"
        )
        return geometry, [], [warning]
    if settings.tolerance is not None:
        note = f"logits may be off by {settings.tolerance:g} of the largest: the mask is not exact"
        return probe.geometry, [note], []
    return probe.geometry, [], []


def _with_smaller_tiles(geometry: Geometry, tile: tuple[int, int]) -> Geometry:
    """Let a network that cannot be tiled exactly take tiles below the smallest that was tried."""
    axes = [
        replace(axis, size=size)
        if size < axis.size and not axis.fixed and axis.output(size) > 0
        else axis
        for axis, size in zip((geometry.y, geometry.x), tile, strict=True)
    ]
    return Geometry(*axes)


def _lost_px(geometry: Geometry) -> tuple[int, int]:
    """Return the pixels of a tile without output, whole ones of the image."""
    y, x = (axis.lost // axis.scale.up for axis in (geometry.y, geometry.x))
    return y, x


def _leaves_core(geometry: Geometry) -> bool:
    """Say whether the halo leaves something of a fixed tile; a free one can be made larger."""
    axes = (geometry.y, geometry.x)
    return all(not axis.fixed or axis.core_of(axis.size) > 0 for axis in axes)


def _why_not_exact(network: NetworkFacts, probe: Probe, blend: str | None) -> str:
    causes = {
        "bounded": "its halo leaves no core in its tile",
        "does_not_fit": "it sees further than its tile reaches",
        "unbounded": "every pixel of a tile influences every other",
        "position_dependent": "its output depends on where in the tile a pixel lies",
    }
    blended = blend in WINDOWS
    return (
        f"{network.name} cannot be tiled exactly: {causes[probe.verdict]}"
        + through(network, probe)
        + " (two tiles disagree by "
        + f"{probe.disagreement:.2g} of the largest logit in their middle); "
        + ("overlapping tiles are blended" if blended else "there may be seams between tiles")
        + ", and the mask depends on the tile's size"
    )


def _check_whole_numbers(network: NetworkFacts, probe: Probe) -> str:
    """Return a warning about an output that was thresholded already; refuse one of labels."""
    if probe.lowest < 0 or probe.highest > 1:
        raise ModelError(
            f"{network.name} returns whole numbers from {probe.lowest:g} to {probe.highest:g}, "
            "which look like labels; let it return logits"
        )
    return (
        f"{network.name} returns zeros and ones only, so what it sees cannot be measured to the "
        "last pixel: the mask is not certified to be exact; let it return logits"
    )


def _grid(
    shape: tuple[int, int],
    geometry: Geometry,
    settings: Settings,
    blend: str | None,
    core_limit: int,
) -> Grid:
    def of(tile: tuple[int | None, int | None]) -> Grid:
        y, x = (
            _axis(length, axis, side, settings, blend, core_limit)
            for length, axis, side in zip(shape, (geometry.y, geometry.x), tile, strict=True)
        )
        return Grid(y, x)

    grid = of(settings.tile or (None, None))
    # A tile that is transposed has to be square, and so has what is kept of it.
    return of((max(grid.tile),) * 2) if settings.tta == "dihedral" else grid


def _axis(
    length: int,
    geometry: AxisGeometry,
    tile: int | None,
    settings: Settings,
    blend: str | None,
    core_limit: int,
) -> AxisGrid:
    if blend is None:
        return exact_grid(length, geometry, core_limit=core_limit, tile=tile)
    return overlapping_grid(
        length,
        geometry,
        overlap=0.5 if settings.overlap is None else settings.overlap,
        size_limit=BLENDED_PX,
        blended=blend != "none",
        tile=tile,
    )


def _recipe(
    source: Source,
    channels: tuple[int, ...],
    grid: Grid,
    geometry: Geometry,
    probe: Probe,
    network: NetworkFacts,
    normalization: Normalization,
    settings: Settings,
) -> Recipe:
    if probe.classes > 1 and settings.threshold is not None:
        raise SettingError(
            f"threshold={settings.threshold} has no meaning for {probe.classes} classes: the "
            "largest wins; leave it out"
        )
    activation = _choose_activation(network, probe, settings)
    scores: Scores | None = None
    if settings.output and settings.output != "labels":
        scores = settings.output
    if grid.blended and scores == "logits":
        raise SettingError(
            "blended tiles are averaged as probabilities: output=logits has no meaning"
        )
    return Recipe(
        dtype=source.facts.dtype,
        channels=len(channels),
        tile=grid.tile,
        offset=normalization.offset,
        scale=normalization.scale,
        crop=(geometry.y.crop(grid.y.lead), geometry.x.crop(grid.x.lead)),
        window=grid.window,
        ends_in=network.ends_in,
        classes=probe.classes,
        activation=activation,
        threshold=_choose_threshold(network, probe, settings),
        labels=not grid.blended,
        scores="probabilities" if grid.blended else scores,
        scores_dtype="float16" if scores == "probabilities" and not grid.blended else "float32",
        clip=normalization.clip,
    )


def _choose_activation(network: NetworkFacts, probe: Probe, settings: Settings) -> Activation:
    """Return what turns logits into probabilities; the file's own ending counts first."""
    asked, said = settings.activation or "auto", False
    if asked == "auto" and network.activation:
        asked, said = network.activation, True
    if network.ends_in == "sigmoid" or network.ends_in == "softmax":
        if asked not in ("auto", "none", network.ends_in):
            if said:
                raise ModelError(
                    f"{network.name} ends in a {network.ends_in}, but its activation is {asked}, "
                    f"{network.says('activation')}; correct the metadata, or use "
                    f"activation={network.ends_in}"
                )
            raise SettingError(
                f"activation={asked} is not possible: {network.name} ends in a {network.ends_in} "
                "already; leave it out"
            )
        return network.ends_in
    if asked == "softmax" and probe.classes == 1:
        if said:
            raise ModelError(
                f"{network.name} has one output channel, whose softmax is 1 everywhere, but its "
                f"activation is softmax, {network.says('activation')}; correct the metadata, or "
                "use activation=sigmoid"
            )
        raise SettingError("activation=softmax of one channel is 1 everywhere; use sigmoid")
    if asked != "auto":
        return asked
    if probe.lowest >= 0 and probe.highest <= 1:
        return "none"  # an activation that could not be seen in the graph
    return "softmax" if probe.classes > 1 else "sigmoid"


def _choose_threshold(network: NetworkFacts, probe: Probe, settings: Settings) -> float:
    if settings.threshold is not None:
        return settings.threshold
    if network.threshold is None:
        return 0.5
    if probe.classes > 1:
        raise ModelError(
            f"threshold={network.threshold:g} {network.says('threshold')} has no meaning for "
            f"{probe.classes} classes: the largest wins; correct the metadata"
        )
    return network.threshold


def _output_bytes(grid: Grid, recipe: Recipe, settings: Settings) -> int:
    stored = {"probabilities": 2, "logits": 4}.get(settings.output or "labels", 0)
    label = np.dtype(recipe.label_dtype).itemsize
    return prod(grid.shape) * (label + stored * recipe.classes)


def _class_names(network: NetworkFacts, probe: Probe) -> tuple[str, ...]:
    count = max(2, probe.classes)
    if len(network.class_colours) not in (0, count):
        raise ModelError(
            f"{network.name} has {len(network.class_colours)} colours, "
            f"{network.says('class_colours')}, but its output has {count} classes; correct the "
            "metadata"
        )
    if not network.class_names:
        return tuple(f"class {label}" for label in range(count))
    if len(network.class_names) != count:
        raise ModelError(
            f"{network.name} names {len(network.class_names)} classes in its metadata, but its "
            f"output has {count}; correct the metadata"
        )
    return network.class_names
