"""Where one tile no longer fits the memory: the same tile in smaller ones."""

import threading
from dataclasses import replace
from itertools import product
from math import lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..tiler.axis import AxisGrid
from ..tiler.geometry import AxisGeometry
from ..tiler.grid import Grid
from .augmentation import prepare, turned_geometry, turned_recipe
from .backends.base import Network, Output, Runner
from .block import check_output
from .halving import HalvingRunner, is_out_of_memory, memory_of
from .plan import Plan

_PREPARING = threading.Lock()
"""Several devices prepare their networks one after the other: Torch traces one at a time."""


def smaller_plan(plan: Plan) -> Plan | None:
    """Return a plan by whose tiles those of an exact plan can be run in parts.

    Its core is half as large along each axis, or as near to half as the network's period and step
    allow, and its tile is smaller by as many pixels: a part lies in the tile a multiple of the
    period from its start, and so at the same phase. Blocks are not what it is for.

    Returns:
        The plan; ``None`` where the network takes no smaller tile, or where the labels would be
        others in it.
    """
    if not plan.exact:
        return None
    geometry = turned_geometry(plan.probe.geometry, plan.settings.tta)
    grid = Grid(_smaller(plan.grid.y, geometry.y), _smaller(plan.grid.x, geometry.x))
    if grid.tile == plan.grid.tile:
        return None
    recipe = replace(plan.recipe, tile=grid.tile, window=grid.window)
    return replace(plan, grid=grid, recipe=turned_recipe(recipe, geometry, grid, plan.turns))


def _smaller(axis: AxisGrid, geometry: AxisGeometry) -> AxisGrid:
    """Return an axis of smaller tiles, or the same where there are none."""
    if geometry.fixed:
        return axis
    grain = lcm(geometry.period, geometry.step)
    half = max(grain, axis.stride // 2 // grain * grain)
    cut = min(half, (axis.tile - geometry.size) // grain * grain)
    if not 0 < cut < axis.stride:
        return axis
    core = axis.core - axis.scale.mask_px(cut)
    return replace(axis, tile=axis.tile - cut, window=core, core=core, chunk=core, block=core)


class ShrinkingRunner:
    """Runs batches; where a tile alone does not fit the memory, it and all later ones in parts.

    While a network is made ready for smaller tiles nothing else is run, so that all memory is
    there for it.
    """

    def __init__(self, network: Network, plan: Plan, run: Runner | None = None) -> None:
        """Take the network, and the runner of a plan's own tiles, which nobody else should keep.

        Without that, it is made when the first tile is there.
        """
        self.plan = plan
        """With the tiles that are run now."""
        self._network, self._given = network, plan
        self._run = None if run is None else HalvingRunner(run, plan.network.batch or 1)
        self._change = threading.Condition()
        self._running, self._changing = 0, False
        self._news: list[str] = []

    @property
    def most(self) -> int | None:
        """Tiles that are run at once, since more did not fit."""
        return self._run.most if self._run else None

    def news(self) -> list[str]:
        """Return what is to be told since the last call."""
        with self._change:
            news, self._news = self._news, []
        return news

    def __call__(self, tiles: NDArray[np.generic]) -> Output:
        """Run raw pixels ``(batch, y, x, channel)``.

        Raises:
            Exception: What the runner raises, if not for want of memory, or for the smallest tile.
        """
        while True:
            with self._change:
                self._change.wait_for(lambda: not self._changing)
                self._running += 1
                plan = self.plan
            try:
                return self._in_parts(tiles)
            except Exception as error:
                if not is_out_of_memory(error) or smaller_plan(plan) is None:
                    raise
            finally:
                with self._change:
                    self._running -= 1
                    self._change.notify_all()
            # Only here is the error gone, and with it what it held of the memory.
            self._shrink(plan)

    def _shrink(self, plan: Plan) -> None:
        """Go on in tiles smaller than a plan's, unless another thread has seen to it."""
        with self._change:
            self._change.wait_for(lambda: not self._changing)
            smaller = smaller_plan(plan)
            if self.plan is not plan or smaller is None:
                return
            self._changing = True
            self._change.wait_for(lambda: self._running == 0)
            self._changing = False
            self.plan, self._run = smaller, None
            now, before = ("{} x {} px".format(*each.grid.tile) for each in (smaller, plan))
            self._news.append(
                f"{memory_of(plan.execution.device)} ran out: blocks from now on in tiles of {now} "
                f"instead of {before}"
            )
            self._change.notify_all()

    def _ready(self) -> HalvingRunner:
        with self._change:
            if self._run is None:
                with _PREPARING:
                    run = prepare(self._network, self.plan)
                self._run = HalvingRunner(run, self.plan.network.batch or 1)
            return self._run

    def _in_parts(self, tiles: NDArray[np.generic]) -> Output:
        run, given, grid = self._ready(), self._given.grid, self.plan.grid
        if grid.tile == given.tile:
            return run(tiles)
        labels: NDArray[Any] | None = None
        scores: NDArray[Any] | None = None
        at_once = len(tiles)
        for y, x in product(_starts(given.y, grid.y), _starts(given.x, grid.x)):
            top, left = grid.y.scale.image_px(y), grid.x.scale.image_px(x)
            part = tiles[:, top : top + grid.y.tile, left : left + grid.x.tile]
            found = run(np.ascontiguousarray(part))
            check_output(found, self.plan, len(tiles))
            place = (..., slice(y, y + grid.y.core), slice(x, x + grid.x.core))
            labels = _put(found.labels, place, labels, given.window)
            scores = _put(found.scores, place, scores, given.window)
            if found.less is not None:
                at_once = min(at_once, found.less[2])
        return Output(labels, scores, (*grid.tile, at_once))


def _starts(given: AxisGrid, smaller: AxisGrid) -> list[int]:
    """Return where parts begin that make up a core; the last two may overlap."""
    last = given.core - smaller.core
    return [*range(0, last, smaller.core), last]


def _put(
    found: NDArray[Any] | None, place: Any, into: NDArray[Any] | None, window: tuple[int, int]
) -> NDArray[Any] | None:
    """Return a whole window, made with its first part, with another part in its place."""
    if found is None:
        return None
    if into is None:
        into = np.empty((*found.shape[:-2], *window), found.dtype)
    into[place] = found
    return into
