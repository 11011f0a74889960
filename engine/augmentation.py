"""Test-time augmentation: the mean of what a network says of a tile and of its mirror images."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..tiler.errors import SettingError
from ..tiler.geometry import Geometry
from ..tiler.grid import Grid
from ..tiler.turn import DIHEDRAL, FLIPS, Turn
from .backends.base import Network, Output, Recipe, Runner
from .decision import decide
from .plan import Plan

TURNS = {None: (Turn(),), "flips": FLIPS, "dihedral": DIHEDRAL}
"""Each way to turn a tile that a setting asks for."""


def turned_geometry(geometry: Geometry, tta: str | None) -> Geometry:
    """Return the geometry with halos that hold for every turn of a tile.

    Turned tiles share one phase as tiles do, so each turn is one pass over the whole turned image,
    mirror-extended to a whole number of tiles.

    Raises:
        SettingError: Tiles would have to be transposed and are not square.
    """
    if tta is None:
        return geometry
    return (geometry.square() if tta == "dihedral" else geometry).symmetric()


def turned_recipe(
    recipe: Recipe, geometry: Geometry, grid: Grid, turns: tuple[Turn, ...]
) -> Recipe:
    """Return what runs on the device for each turn: the probabilities of all that any turn keeps.

    Raises:
        SettingError: A turned tile has no output where it is wanted.
    """
    if turns == TURNS[None]:
        return recipe
    crops = [_crop(geometry, grid, turn) for turn in turns]
    first = np.min(crops, axis=0)
    window = np.max(crops, axis=0) + grid.window - first
    outputs = geometry.y.output(grid.y.tile), geometry.x.output(grid.x.tile)
    if (first < 0).any() or (first + window > outputs).any():
        raise SettingError(
            "turned tiles that are blended need an output in the middle of the tile; leave tta out"
        )
    return replace(
        recipe,
        crop=(int(first[0]), int(first[1])),
        window=(int(window[0]), int(window[1])),
        labels=False,
        scores="probabilities",
        scores_dtype="float32",
    )


def prepare(network: Network, plan: Plan) -> Runner:
    """Return the network on its device, run once for every turn of the plan.

    Raises:
        DeviceError: The device or precision cannot be had.
    """
    run = network.prepare(plan.recipe, plan.execution)
    return run if plan.turns == TURNS[None] else _TurnedRunner(run, plan)


class _TurnedRunner:
    """Gives the mean of the turned runs, in the place and size of what is kept of a tile."""

    def __init__(self, run: Runner, plan: Plan) -> None:
        self.run, self.recipe = run, plan.recipe
        self.window = plan.grid.window
        crops = [_crop(plan.probe.geometry, plan.grid, turn) for turn in plan.turns]
        (top, left) = plan.recipe.crop
        self.turns = [
            (turn, (y - top, x - left)) for turn, (y, x) in zip(plan.turns, crops, strict=True)
        ]

    def __call__(self, tiles: NDArray[np.generic]) -> Output:
        height, width = self.window
        total = np.zeros((len(tiles), self.recipe.classes, height, width), np.float32)
        for turn, (top, left) in self.turns:
            scores = self.run(np.ascontiguousarray(turn.apply(tiles, 1))).scores
            assert scores is not None, "turned tiles are asked for probabilities"
            kept = scores[:, :, top : top + height, left : left + width]
            total += turn.undo(kept, 2)
        total /= len(self.turns)
        return Output(decide(total, self.recipe), total)


def _crop(geometry: Geometry, grid: Grid, turn: Turn) -> tuple[int, int]:
    """Return the first output row and column of a turned tile's window."""
    y, x = (
        axis.crop_flipped(side.lead, side.window, side.tile) if flip else axis.crop(side.lead)
        for axis, side, flip in zip(
            (geometry.y, geometry.x), (grid.y, grid.x), (turn.flip_y, turn.flip_x), strict=True
        )
    )
    return y, x
