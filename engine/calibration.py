"""Measure which library runs a network fastest on this machine."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..tiler.errors import DeviceError, MissingExtraError, ModelError
from .backends.base import Backend, Execution, Recipe, Runner

WORTH_TILES = 100
"""Of fewer tiles, none are spent on measuring."""

_RUNS = 3
"""After one that warms up; the fastest counts, for all else that runs only ever adds time."""

_CLEARLY = 0.95
"""Another library than the usual one is taken where it needs less than this share of the time."""

NAMES: dict[Backend, str] = {"onnx": "ONNX Runtime", "openvino": "OpenVINO", "torch": "Torch"}
"""Of the libraries, for messages."""


log = logging.getLogger(__name__)


class Calibration(NamedTuple):
    """What was measured."""

    execution: Execution
    """The one to take."""
    note: str
    """What to say of it; empty where there was no choice."""


def calibrate(
    prepare: Callable[[Recipe, Execution], Runner],
    recipe: Recipe,
    batch: int,
    candidates: Sequence[Execution],
    clock: Callable[[], float] = perf_counter,
) -> Calibration:
    """Run tiles of noise with each candidate, one after the other, and return the fastest.

    As many tiles run at the same time as when an image is segmented, and never two candidates, so
    memory stays within the plan.

    Args:
        prepare: Returns the network on its device.
        recipe: What runs there.
        batch: Tiles per run.
        candidates: The usual one first; others that are not installed or cannot run the network
            are passed over.
        clock: Seconds.
    """
    tiles = noise_tiles(recipe, batch)
    seconds: dict[int, float] = {}
    for number, candidate in enumerate(candidates):
        try:
            opened = partial(prepare, recipe, candidate)
            seconds[number] = _seconds(opened, tiles, candidate.workers, clock)
        except (DeviceError, MissingExtraError, ModelError):
            if number == 0:
                return Calibration(candidate, "")  # the run itself will say what is wrong
    best = min(seconds, key=lambda number: seconds[number])
    if seconds[best] > _CLEARLY * seconds[0]:
        best = 0
    if len(seconds) == 1:
        return Calibration(candidates[0], "")
    log.info(
        "measured: %s a tile",
        ", ".join(
            f"{NAMES[candidates[number].backend]} {1000 * taken:.3g} ms"
            for number, taken in sorted(seconds.items())
        ),
    )
    # No figure in what is stored: two runs that choose alike are to be alike.
    name = NAMES[candidates[best].backend]
    return Calibration(candidates[best], f"run by {name}, the fastest library that is installed")


def noise_tiles(recipe: Recipe, batch: int) -> NDArray[np.generic]:
    """Return raw pixels ``(batch, y, x, channel)`` of every value there is."""
    random = np.random.default_rng(0)
    shape, dtype = (batch, *recipe.tile, recipe.channels), np.dtype(recipe.dtype)
    if dtype.kind == "f":
        return random.random(shape).astype(dtype)
    most = 1 if dtype.kind == "b" else int(np.iinfo(dtype).max)
    return random.integers(0, most, shape, np.uint64, endpoint=True).astype(dtype)


def _seconds(
    prepare: Callable[[], Runner],
    tiles: NDArray[np.generic],
    workers: int,
    clock: Callable[[], float],
) -> float:
    """Return the time per tile; the runner is gone when the next one is prepared."""
    run, times = prepare(), []
    with ThreadPoolExecutor(workers) as pool:
        for _ in range(1 + _RUNS):
            begun = clock()
            list(pool.map(run, [tiles] * workers))
            times.append((clock() - begun) / (workers * len(tiles)))
    return min(times[1:])
