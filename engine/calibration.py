"""Measure which library and which tile segment an image fastest on this machine."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from math import log2
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .backends.base import Backend, Execution, Recipe, Runner
from .layout import COST_OF_SIDE, Layout
from .rooms import alone

WORTH_TILES = 50
"""For each that runs at the same time: of less work than so many of the smallest tiles, nothing is
spent on measuring."""

_FEWEST_RUNS, _MOST_RUNS, _LONG_SECONDS = 2, 4, 0.5
"""Runs of a tile after the first, which touches new memory; fewer where they take long together.
The fastest counts, for all else that runs only ever adds time."""

_SHARE = 0.15
"""Of the time that the image will take, no larger tile is measured beyond it: what was measured is
kept for the next."""

_MOST_SECONDS = 30.0
"""Nor beyond this."""

_OTHER_LIBRARY, _OTHER_TILE = 0.95, 0.98
"""Another library or tile is taken where it needs less than this share of the usual one's time."""

_SLOWER = 1.05
"""Larger tiles are tried until one needs so many times as long as the best so far."""

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
    ladder: Sequence[Layout],
    layouts: Sequence[Layout],
    usual: Layout,
    others: Sequence[Backend],
    rates: dict[str, float],
    clock: Callable[[], float] = perf_counter,
) -> Calibration:
    """Run tiles of noise and return the layout that takes the least time for the image.

    First each library runs the smallest tile of a ladder, then the fastest of them larger and
    larger ones while that saves time. The tiles of the image lie between those of the ladder, and
    are held to do as much work in a second as the nearest that was measured. As many tiles run at
    the same time as when an image is segmented, and never two candidates.

    Args:
        prepare: Returns the network on its device.
        ladder: What is measured: layouts that are the same for every image, so that rates can be
            kept, the smallest tile first.
        layouts: Those of the image that fit the memory.
        usual: The one to take unless another is clearly faster.
        others: Libraries besides the usual one; those that are not installed or cannot run the
            network are passed over.
        rates: Seconds per tile that are known already; what is measured is added.
        clock: Seconds.
    """
    meter = _Meter(prepare, rates, clock)
    first = ladder[0].by(usual.execution.backend)
    if not meter.measure(first):
        return Calibration(usual, ())  # the run itself will say what is wrong
    rivals = [other for each in others if meter.measure(other := first.by(each))]
    best = min(rivals, key=meter.pace, default=first)
    if meter.pace(best) > _OTHER_LIBRARY * meter.pace(first):
        best = first
    library = best.execution.backend
    measured = [best]

    def seconds(layout: Layout) -> float:
        tiles = (layout.rounds + 1) * layout.at_once  # the first ones touch new memory
        return tiles * layout.tile_work * meter.pace_of(layout, measured)

    def whole(rung: Layout) -> float:
        return rung.redundancy * meter.pace(rung)

    allowed = min(_MOST_SECONDS, _SHARE * seconds(usual))
    for rung in ladder[1:]:
        rung = rung.by(library)
        too_large = _side(measured[-1]) > max(map(_side, layouts))
        if too_large or meter.spent + meter.cost(rung, measured) > allowed:
            break
        if not meter.measure(rung):
            break
        best_before = min(map(whole, measured))
        measured.append(rung)
        if whole(rung) > _SLOWER * best_before:
            break
    busy = [each for each in layouts if each.execution.workers >= usual.execution.workers]
    chosen = min(busy, key=seconds)
    if seconds(chosen) > _OTHER_TILE * seconds(usual):
        chosen = usual
    known = ", ".join(f"{each} {rate:.3g} s" for each, rate in rates.items())
    log.info("a tile takes: %s; the image %.3g s", known, seconds(chosen))
    # No figure in what is stored: two runs that choose alike are to be alike.
    notes = []
    if rivals:
        notes.append(f"run by {NAMES[library]}, the fastest library that is installed")
    if chosen.recipe.tile != usual.recipe.tile:
        height, width = chosen.recipe.tile
        notes.append(f"tiles of {height} x {width} px, measured to be the fastest")
    memory_bytes = max(chosen.memory_bytes, meter.memory_bytes)
    return Calibration(replace(chosen.by(library), memory_bytes=memory_bytes), tuple(notes))


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
    memory_bytes: int = field(default=0, init=False)
    """Host memory that what was measured needed at most."""

    def measure(self, layout: Layout) -> bool:
        """Say whether a layout's rate is known, now that it was run if it was not."""
        key = name(layout)
        if key in self.rates:
            return True
        with alone():
            begun = self.clock()
            try:
                self.rates[key] = self._rate(layout)
            except Exception as error:  # out of memory has a type of its own in each library
                log.info("not measured: %s: %s", key, error)
                return False
            finally:
                self.spent += self.clock() - begun
                self.memory_bytes = max(self.memory_bytes, layout.memory_bytes)
        return True

    def pace(self, layout: Layout) -> float:
        """Return the seconds per multiply-add of a layout that was measured."""
        return self.rates[name(layout)] / layout.tile_work

    def pace_of(self, layout: Layout, measured: Sequence[Layout]) -> float:
        """Return the same of any, from the nearest that was.

        A larger one is on a CPU held to be slower as it was from rung to rung.
        """
        nearest = min(measured, key=lambda each: abs(log2(_side(each) / _side(layout))))
        beyond = max(1.0, _side(layout) / _side(measured[-1]))
        slower: float = beyond ** self._cost_of_side(measured)
        return self.pace(nearest) * slower

    def _cost_of_side(self, measured: Sequence[Layout]) -> float:
        """Return the power of its side by which a larger tile is slower, 0 to ``COST_OF_SIDE``."""
        first, last = measured[0], measured[-1]
        if last.execution.device != "cpu":
            return 0.0
        if first is last:
            return COST_OF_SIDE
        power = log2(self.pace(last) / self.pace(first)) / log2(_side(last) / _side(first))
        return min(max(power, 0.0), COST_OF_SIDE)

    def cost(self, layout: Layout, measured: Sequence[Layout]) -> float:
        """Return about what it takes to measure a layout."""
        if name(layout) in self.rates:
            return 0.0
        once = layout.at_once * layout.tile_work * self.pace_of(layout, measured)
        return once + max(_FEWEST_RUNS * once, min(_MOST_RUNS * once, _LONG_SECONDS + once))

    def _rate(self, layout: Layout) -> float:
        """Return the time per tile; the runner is gone when the next one is prepared."""
        times: list[float] = []
        run = self.prepare(layout.recipe, layout.execution)
        tiles, workers = noise_tiles(layout.recipe, layout.batch), layout.execution.workers
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(run, [tiles] * workers))
            while len(times) < _FEWEST_RUNS or (
                len(times) < _MOST_RUNS and sum(times) < _LONG_SECONDS
            ):
                begun = self.clock()
                list(pool.map(run, [tiles] * workers))
                times.append(self.clock() - begun)
        return min(times) / layout.at_once


def _side(layout: Layout) -> float:
    return float(np.sqrt(np.prod(layout.recipe.tile, dtype=float)))


def noise_tiles(recipe: Recipe, batch: int) -> NDArray[np.generic]:
    """Return raw pixels ``(batch, y, x, channel)`` of every value there is."""
    random = np.random.default_rng(0)
    shape, dtype = (batch, *recipe.tile, recipe.channels), np.dtype(recipe.dtype)
    if dtype.kind == "f":
        return random.random(shape, np.float32).astype(dtype, copy=False)
    most = 1 if dtype.kind == "b" else int(np.iinfo(dtype).max)
    return random.integers(0, most, shape, dtype.type, endpoint=True)
