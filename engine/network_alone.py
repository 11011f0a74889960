"""How fast a network is with nothing around it: the bound for everything that runs it."""

import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from math import ceil
from time import perf_counter
from typing import Any

from .augmentation import prepare
from .backends import open_network
from .backends.base import Runner
from .calibration import noise_tiles
from .plan import Plan
from .settings import Settings

ROUNDS = 3
"""After one that warms up; the median counts."""

ROUND_SECONDS = 1.0
"""A round takes about as long at least."""


def network_alone(model: Any, plan: Plan, settings: Settings) -> float:
    """Return the tiles per second of a plan's network, fed noise that is in memory already.

    The same graph runs on the same device as in a run, in the same batches and as many at a time;
    on several devices one after the other, and their rates are added.

    Args:
        model: The network, as for ``predict_large``.
        plan: What it is run by.
        settings: How it is opened.
    """
    rate = 0.0
    for device in plan.devices:
        with closing(open_network(model, **settings.of_network())) as network:
            rate += tiles_per_second(prepare(network, plan.on([device])), plan)
    return rate


def tiles_per_second(run: Runner, plan: Plan, clock: Callable[[], float] = perf_counter) -> float:
    """Return the median of a few rounds, of a runner that is ready."""
    tiles = noise_tiles(plan.recipe, plan.batch)
    with ThreadPoolExecutor(plan.workers) as pool:

        def seconds(calls: int) -> float:
            begun = clock()
            for _ in pool.map(run, [tiles] * calls):
                pass
            return clock() - begun

        seconds(plan.workers)  # warms up
        at_once = seconds(plan.workers)
        calls = (
            plan.workers * max(1, ceil(ROUND_SECONDS / at_once)) if at_once > 0 else plan.workers
        )
        return calls * plan.batch / statistics.median(seconds(calls) for _ in range(ROUNDS))
