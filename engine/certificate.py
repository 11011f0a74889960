"""Compute parts of a mask again in other tiles, and say how far the answers agree."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..tiler.box import Box
from ..tiler.errors import ImageError, OutOfMemoryError, TileInferError, cause_of, failing_as
from ..tiler.grid import Grid
from ..tiler.partition import other_axis
from .augmentation import turned_geometry, turned_recipe
from .backends.base import Network, Recipe
from .block import Worker, infer_box, read_box
from .conduct import VERIFIED, Conduct
from .halving import is_out_of_memory
from .nodata import leave_out
from .plan import Plan
from .rooms import Rooms
from .smaller import ShrinkingRunner
from .sources import Source
from .stitcher.mask import Mask

SPARE = 0.02
"""Share of a run's tiles that may be run again, unless asked for, to compare scores as well."""

_TIES = {"logits": 2e-5, "probabilities": 2e-4}
"""Labels may differ where the best two scores differ by less, as a share of the largest: twice what
is promised of a logit, and what that makes of a probability."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """How far a mask agrees with what other tiles give."""

    tile: tuple[int, int]
    """Height and width of the other tiles in pixels."""
    core: tuple[int, int]
    """Distance of the other tiles in pixels of the mask."""
    precision: str
    """Arithmetic of the other tiles."""
    seed: int
    """What their places were drawn by."""
    places: int
    """How many were computed."""
    pixels: int
    """Pixels of the mask that were compared."""
    labels_differing: int
    """How many of them have another label."""
    largest_gap: float
    """Largest difference of the best two scores where labels differ, or to the threshold."""
    scores: Literal["logits", "probabilities"]
    """What a pixel's label is decided by."""
    largest_score: float
    """Largest score, without its sign."""
    scores_compared: int
    """Pixels whose scores were compared with those of the run's own tiles."""
    largest_difference: float | None
    """Largest difference there; ``None`` where none were compared."""

    @property
    def ties_alone(self) -> bool:
        """Whether labels differ only where two scores are equal but for rounding."""
        return self.largest_gap <= _TIES[self.scores] * self.largest_score

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        sizes = {"tile": list(self.tile), "core": list(self.core)}
        return {**plain, **sizes, "ties_alone": self.ties_alone}


def certify(
    plan: Plan,
    source: Source,
    network: Network,
    mask: Mask,
    conduct: Conduct,
    seed: int | None = None,
    rooms: Rooms | None = None,
) -> Certificate | None:
    """Compute tiles drawn at random again, in another partition and in fp32, and compare.

    Args:
        plan: What the mask was made by.
        source: The image.
        network: The network.
        mask: The finished mask.
        conduct: How much is compared (``verify``), and what becomes of pixels that cannot be read.
        seed: What places are drawn by; by default the plan, so that a run that was continued has
            the certificate of one that was not.
        rooms: What is shared with other images: each tile counts as a block of the run.

    Returns:
        What came of it; ``None`` where the network allows no other tiles.

    Raises:
        TileInferError: Image or network fail; the text says that it happened here.
        Stopped: Nothing may be computed any more.
    """
    rooms = rooms or Rooms()
    other = other_partition(plan)
    if other is None:
        return None
    share = VERIFIED if conduct.verify is None else conduct.verify
    seed = int(plan.fingerprint[:8], 16) if seed is None else seed
    cells = _drawn(plan.grid, other.grid, share, seed)
    spare = int(SPARE * plan.grid.tiles) if conduct.verify is None else len(cells)
    stored = mask.scores if plan.settings.output == "logits" else None
    comparison = _Comparison(other.recipe)
    with ExitStack() as opened:
        opened.enter_context(_told(mask))
        again = opened.enter_context(_opened(other, source, network, conduct, rooms))
        before = None
        if stored is None and spare:
            own = _with_scores(plan)
            before = opened.enter_context(_opened(own, source, network, conduct, rooms))
        for number, cell in enumerate(cells):
            with rooms.blocks.seat(Fraction(1, plan.blocks_in_flight)):
                labels, scores = _computed(again, cell)
                comparison.labels(labels, scores, np.asarray(mask.levels[0][cell.slices]))
                if stored is not None:
                    comparison.scores(scores, np.asarray(stored[(slice(None), *cell.slices)]))
                elif before is not None and number < spare:
                    part = _of_one_tile(plan.grid, cell)
                    here = part.shift(-cell.y.start, -cell.x.start).slices
                    comparison.scores(scores[(slice(None), *here)], _computed(before, part)[1])
    return comparison.certificate(other, seed, len(cells))


def doubt(certificate: Certificate, plan: Plan) -> str:
    """Return what to warn of; nothing where labels agree as the plan promises."""
    if not plan.exact or plan.execution.precision != "fp32" or certificate.ties_alone:
        return ""
    return (
        f"{certificate.labels_differing} of {certificate.pixels} labels are others in tiles of "
        f"{certificate.tile[0]} x {certificate.tile[1]} px, and not by rounding: the mask is not "
        "that of one whole pass; start again with overwrite, if need be with a larger halo"
    )


def other_partition(plan: Plan) -> Plan | None:
    """Return how the same mask is computed in fp32 in other tiles; ``None`` where there are none.

    A block is what is kept of one tile.
    """
    geometry, grid, shape = (
        turned_geometry(plan.probe.geometry, plan.settings.tta),
        plan.grid,
        plan.shape,
    )
    if plan.settings.tta == "dihedral":  # a tile that is transposed is square
        shape = (min(shape), min(shape))
    y, x = (
        other_axis(axis, of_axis, length, exact=plan.exact)
        for axis, of_axis, length in zip(
            (grid.y, grid.x), (geometry.y, geometry.x), shape, strict=True
        )
    )
    if y is None and x is None:
        return None
    grid = Grid(
        y or replace(grid.y, chunk=grid.y.core, block=grid.y.core),
        x or replace(grid.x, chunk=grid.x.core, block=grid.x.core),
    )
    crop = geometry.y.crop(grid.y.lead), geometry.x.crop(grid.x.lead)
    recipe = replace(plan.recipe, tile=grid.tile, window=grid.window, crop=crop)
    recipe = turned_recipe(recipe, geometry, grid, plan.turns)
    execution = replace(plan.execution, precision="fp32")
    return _with_scores(replace(plan, grid=grid, recipe=recipe, execution=execution))


def _with_scores(plan: Plan) -> Plan:
    """Return how single tiles are computed with their scores in full, by the whole device."""
    recipe, execution = plan.recipe, plan.execution
    if recipe.labels:
        recipe = replace(recipe, scores="logits", scores_dtype="float32")
    threads = execution.threads * execution.workers
    execution = replace(execution, form="module", threads=threads, workers=1)
    return replace(plan, recipe=recipe, execution=execution, batch=plan.network.batch or 1)


def _drawn(grid: Grid, other: Grid, share: float, seed: int) -> list[Box]:
    """Return a share of the other tiles' cores, one at least, without one twice."""
    wanted = max(1, round(share * other.blocks))
    count = min(other.blocks, 4 * wanted + 16)
    cells = [other.block_box(n) for n in random.Random(seed).sample(range(other.blocks), count)]
    if wanted < other.blocks and grid.tile == other.tile:
        # A tile of the same size in the same place would be compared with itself.
        cells.sort(
            key=lambda cell: all(
                side.start % core == 0 for side, core in zip(cell, grid.core, strict=True)
            )
        )
    return cells[:wanted]


def _of_one_tile(grid: Grid, cell: Box) -> Box:
    """Return the part of a cell that one of the run's tiles gives; blended ones take several."""
    if grid.blended:
        return cell
    sides = []
    for side, core in zip(cell, grid.core, strict=True):
        first = (side.start + side.stop) // 2 // core * core
        sides.append(side.clip(first, first + core))
    return Box(*sides)


@contextmanager
def _opened(
    plan: Plan, source: Source, network: Network, conduct: Conduct, rooms: Rooms
) -> Iterator[Worker]:
    with ThreadPoolExecutor(1, "device") as device:
        run, turn = ShrinkingRunner(network, plan), rooms.device.seat
        yield Worker(plan, source, run, None, device, conduct, turn=turn)


@contextmanager
def _told(mask: Mask) -> Iterator[None]:
    """Tell in one line that what failed was not the mask."""
    text = f"{mask.place} is complete, but could not be verified"
    try:
        yield
    except TileInferError as error:
        raise type(error)(f"{text}: {error}") from error
    except Exception as error:
        kind = OutOfMemoryError if is_out_of_memory(error) else TileInferError
        raise kind(f"{text}: {cause_of(error)}") from error


def _computed(worker: Worker, box: Box) -> tuple[NDArray[np.generic], NDArray[np.floating]]:
    """Return the labels ``(y, x)`` and scores ``(class, y, x)`` of a part of the mask."""
    with failing_as(ImageError, "reading", worker.plan.image.name):
        pixels, empty, _ = read_box(worker, box)
    labels, scores = infer_box(worker, box, pixels, "float32")
    assert scores is not None
    leave_out(empty, labels, scores, worker.plan.recipe)
    return labels, scores


class _Comparison:
    """What was found so far."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.pixels = self.differing = self.compared = 0
        self.gap = self.largest = self.difference = 0.0

    def labels(
        self,
        labels: NDArray[np.generic],
        scores: NDArray[np.floating],
        stored: NDArray[np.generic],
    ) -> None:
        """Compare labels ``(y, x)``, which scores ``(class, y, x)`` gave, with the mask's."""
        wrong = labels != stored
        self.pixels += wrong.size
        self.differing += int(np.count_nonzero(wrong))
        self.largest = max(self.largest, _largest(scores))
        self.gap = max(self.gap, _largest(self._gaps(scores[:, wrong]), broken=np.inf))

    def _gaps(self, scores: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return by how much scores ``(class, pixel)`` speak for the label they give."""
        recipe = self.recipe
        if recipe.classes > 1:
            second, first = np.partition(scores, -2, axis=0)[-2:]
            return np.asarray(first - second)
        limit = recipe.logit_threshold if recipe.scores == "logits" else recipe.threshold
        return np.asarray(scores[0] - limit)

    def scores(self, scores: NDArray[np.floating], before: NDArray[np.floating]) -> None:
        """Compare scores ``(class, y, x)`` with those of the run's own tiles."""
        self.compared += scores[0].size
        self.difference = max(self.difference, _largest(scores - before))

    def certificate(self, other: Plan, seed: int, places: int) -> Certificate:
        """Return what was found."""
        assert self.recipe.scores
        return Certificate(
            tile=other.grid.tile,
            core=other.grid.core,
            precision=other.execution.precision,
            seed=seed,
            places=places,
            pixels=self.pixels,
            labels_differing=self.differing,
            largest_gap=min(
                self.gap, 2 * self.largest
            ),  # without a number it is as large as can be
            scores=self.recipe.scores,
            largest_score=self.largest,
            scores_compared=self.compared,
            largest_difference=self.difference if self.compared else None,
        )


def _largest(values: NDArray[np.floating], broken: float = 0.0) -> float:
    """Return the largest value without its sign; NaN and infinity count as ``broken``."""
    sizes = np.where(np.isfinite(values), np.abs(values), broken)
    return float(sizes.max(initial=0.0))
