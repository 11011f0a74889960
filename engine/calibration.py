"""Measure which library and which tile segment an image fastest on this machine."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .backends.base import Backend, Execution, Recipe, Runner
from .layout import Layout

WORTH_TILES = 80
"""For each that runs at the same time; of fewer tiles, none are spent on measuring."""

_RUNS = 3
"""After one that warms up, where the image is large; the fastest counts, for all else that runs
only ever adds time."""

_SHARE = 0.05
"""Of the time that the image will take, no tile is measured beyond it."""

_MOST_SECONDS = 30.0
"""Nor beyond this."""

_CLEARLY = 0.95
"""Another library or tile is taken where it needs less than this share of the usual one's time."""

NAMES: dict[Backend, str] = {"onnx": "ONNX Runtime", "openvino": "OpenVINO", "torch": "Torch"}
"""Of the libraries, for messages."""

log = logging.getLogger(__name__)


class Calibration(NamedTuple):
    """What was measured."""

    layout: Layout
    """The one to take."""
    notes: tuple[str, ...]
    """What to say of it; nothing where there was no choice."""


def calibrate(
    prepare: Callable[[Recipe, Execution], Runner],
    layouts: Sequence[Layout],
    usual: Layout,
    others: Sequence[Backend],
    rates: dict[str, float],
    clock: Callable[[], float] = perf_counter,
) -> Calibration:
    """Run tiles of noise and return the layout that takes the least time for the image.

    First each library runs the usual tile, then the fastest of them larger and larger tiles while
    that saves time, or smaller and smaller ones. As many tiles run at the same time as when an
    image is segmented, and never two candidates; the memory of the layout that is returned is that
    of the largest compared.

    Args:
        prepare: Returns the network on its device.
        layouts: Those that fit the memory, the smallest tile first.
        usual: The one to take unless another is clearly faster.
        others: Libraries besides the usual one; those that are not installed or cannot run the
            network are passed over.
        rates: Seconds per tile that are known already; what is measured is added.
        clock: Seconds.
    """
    meter = _Meter(prepare, rates, clock)
    seconds = meter.seconds(usual)
    if seconds is None:
        return Calibration(usual, ())  # the run itself will say what is wrong
    allowed = min(_MOST_SECONDS, _SHARE * seconds)
    found = {usual: seconds}

    def compare(layout: Layout) -> bool:
        """Say whether a layout could be measured."""
        taken = meter.seconds(layout)
        if taken is not None:
            found[layout] = taken
        return taken is not None

    def fastest(first: Layout) -> Layout:
        best = min(found, key=lambda each: found[each])
        return best if found[best] < _CLEARLY * found[first] else first

    compared = [compare(usual.by(backend)) for backend in others]
    first = last = fastest(usual)
    place = layouts.index(usual)
    for way in (layouts[place + 1 :], layouts[:place][::-1]):
        for layout in way:
            layout = layout.by(first.execution.backend)
            slower = found[last] * layout.redundancy / last.redundancy
            if meter.spent + meter.cost(layout, slower) > allowed or not compare(layout):
                break
            if found[layout] > found[last]:
                break
            last = layout
        if last is not first:  # larger tiles are faster, so smaller ones are not
            break
    best = fastest(first)
    log.info("measured: %s", ", ".join(f"{name(each)} {found[each]:.3g} s" for each in found))
    # No figure in what is stored: two runs that choose alike are to be alike.
    notes = []
    if any(compared):
        library = NAMES[best.execution.backend]
        notes.append(f"run by {library}, the fastest library that is installed")
    if best.recipe.tile != usual.recipe.tile:
        height, width = best.recipe.tile
        notes.append(f"tiles of {height} x {width} px, measured to be the fastest")
    return Calibration(
        replace(best, memory_bytes=max(each.memory_bytes for each in found)), tuple(notes)
    )


def name(layout: Layout) -> str:
    """Return what tells a layout from others of the same network on the same device."""
    execution, (height, width) = layout.execution, layout.recipe.tile
    return (
        f"{execution.backend} {height}x{width} x{layout.batch}, "
        f"{execution.workers} x {execution.threads}"
    )


@dataclass
class _Meter:
    """Measures layouts, and what that costs."""

    prepare: Callable[[Recipe, Execution], Runner]
    rates: dict[str, float]
    clock: Callable[[], float]
    spent: float = field(default=0.0, init=False)
    """Seconds."""

    def seconds(self, layout: Layout) -> float | None:
        """Return the time that the image takes; ``None`` where the tile cannot be run."""
        key, begun = name(layout), self.clock()
        if key not in self.rates:
            try:
                self.rates[key] = self._rate(layout)
            except Exception as error:  # out of memory has a type of its own in each library
                log.info("not measured: %s: %s", key, error)
                return None
            finally:
                self.spent += self.clock() - begun
        return layout.runs * self.rates[key]

    def cost(self, layout: Layout, seconds: float) -> float:
        """Return the time to measure a layout that takes ``seconds`` for the image."""
        if name(layout) in self.rates:
            return 0.0
        return seconds * (1 + _rounds(layout)) * layout.at_once / layout.runs

    def _rate(self, layout: Layout) -> float:
        """Return the time per tile; the runner is gone when the next one is prepared."""
        run, times = self.prepare(layout.recipe, layout.execution), []
        tiles, workers = noise_tiles(layout.recipe, layout.batch), layout.execution.workers
        run(tiles)  # warms up
        with ThreadPoolExecutor(workers) as pool:
            for _ in range(_rounds(layout)):
                begun = self.clock()
                list(pool.map(run, [tiles] * workers))
                times.append((self.clock() - begun) / layout.at_once)
        return min(times)


def _rounds(layout: Layout) -> int:
    """Return how often to run after the first time: in a large image more often."""
    return int(np.clip(layout.runs // (100 * layout.at_once), 1, _RUNS))


def noise_tiles(recipe: Recipe, batch: int) -> NDArray[np.generic]:
    """Return raw pixels ``(batch, y, x, channel)`` of every value there is."""
    random = np.random.default_rng(0)
    shape, dtype = (batch, *recipe.tile, recipe.channels), np.dtype(recipe.dtype)
    if dtype.kind == "f":
        return random.random(shape, np.float32).astype(dtype, copy=False)
    most = 1 if dtype.kind == "b" else int(np.iinfo(dtype).max)
    return random.integers(0, most, shape, dtype.type, endpoint=True)
