"""Tiles of one size and all that follows from it: recipe, batch, workers, memory, work."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil, prod

from ..tiler.errors import SettingError
from ..tiler.geometry import Geometry
from .backends.base import Backend, Execution, NetworkFacts, Recipe
from .backends.device import device_kind
from .settings import Settings
from .sizing import LARGEST_TENSOR, choose_batch, device_budget, fit_memory, host_budget, threads_of
from .tiling import Tiling
from .work import Work

USUAL_CORE_PX = 512
"""Core on a CPU where nothing is measured and no larger one saves much work."""

COST_OF_SIDE = 1 / 6
"""Power of a tile's side by which it is held to be slower on a CPU: one of twice the side has to
save a ninth of the work, for it needs memory, and leaves the cache if the network is narrow."""

COST_OF_BYTE = 30
"""Multiply-adds in whose time a CPU gets a new byte of memory: each worker's first tile touches as
many as the layers' results take. Half a second for a GB, where a core does 60 billion a second."""

_AS_LITTLE = 1.002
"""On a GPU no larger core is taken where it does not save as much: memory and blocks grow."""


@dataclass(frozen=True, slots=True)
class Layout:
    """An image in tiles of one size, and how they are run."""

    tiling: Tiling
    """Where they lie, with their blocks."""
    recipe: Recipe
    """What runs on the device."""
    execution: Execution
    """Where, and by how many at the same time."""
    batch: int
    """Tiles per run."""
    runs: int
    """Tiles that are run, each turn of one counted."""
    tile_work: float
    """Multiply-adds of one run of a tile."""
    tile_bytes: int
    """Size of all layers' results for one tile."""
    redundancy: float
    """Work of all of them over that of one whole pass."""
    memory_bytes: int
    """Host memory expected at most."""

    @property
    def at_once(self) -> int:
        """Tiles that are run at the same time on each device."""
        return self.execution.workers * self.batch

    @property
    def rounds(self) -> int:
        """How often so many are run: the last time, some of those who run them have nothing."""
        return ceil(self.runs / self.at_once)

    def by(self, backend: Backend) -> "Layout":
        """Return the layout run by another library."""
        return replace(self, execution=replace(self.execution, backend=backend))


def plan_layouts(
    tilings: Sequence[Tiling],
    recipe_of: Callable[[Tiling], Recipe],
    turns: int,
    work: Work,
    network: NetworkFacts,
    execution: Execution,
    devices: Sequence[str],
    settings: Settings,
) -> list[Layout]:
    """Return the layouts that fit the memory, the smallest tile first; at least one.

    Args:
        tilings: One for each size of a tile, the smallest first.
        recipe_of: What runs on the device for each.
        turns: How often a tile is run.
        work: Of the network's layers.
        network: What it says of itself.
        execution: Where it runs; workers and threads are chosen here.
        devices: Which run it, that one among them.
        settings: Their ``memory``, ``device_memory``, ``batch_size`` and ``workers`` count.

    Raises:
        SettingError: Not even the smallest tile can be run in the memory there is.
    """
    kind = device_kind(execution.device)
    device_bytes = device_budget(devices, settings)
    host_bytes = host_budget(settings)
    fitting: list[Layout] = []
    tight: list[Layout] = []
    refusal: SettingError | None = None
    for tiling in tilings:
        recipe = recipe_of(tiling)
        tile_bytes = work.bytes(recipe.tile)
        if kind != "cpu" and execution.precision in ("bf16", "fp16"):
            tile_bytes //= 2
        largest = work.largest(recipe.tile)
        batch, at_once = choose_batch(
            network, execution, tile_bytes, largest, device_bytes, settings
        )
        try:
            grid, workers, memory_bytes = fit_memory(
                tiling.grid, recipe, tile_bytes, batch, at_once, devices, settings
            )
        except SettingError as error:
            refusal = refusal or error
            continue
        layout = Layout(
            replace(tiling, grid=grid),
            recipe,
            replace(execution, workers=workers, threads=threads_of(workers, kind)),
            batch,
            turns * grid.tiles,
            work.of_tile(grid),
            tile_bytes,
            turns * work.redundancy(grid, lost_px(tiling.geometry)),
            memory_bytes,
        )
        on_device = 0 if kind == "cpu" else layout.at_once * tile_bytes
        fits = memory_bytes <= host_bytes and on_device <= device_bytes
        fits &= kind == "cpu" or batch * largest <= LARGEST_TENSOR
        (fitting if fits else tight).append(layout)
    if refusal and not fitting and not tight:
        raise refusal
    return fitting or tight[:1]


def usual_layout(layouts: Sequence[Layout]) -> Layout:
    """Return the layout to take where nothing was measured, by work alone.

    On a GPU the least work. On a CPU the largest core up to ``USUAL_CORE_PX``, or one beyond it
    that saves more than its size costs and keeps as many workers busy.

    Args:
        layouts: Those that fit the memory, the smallest tile first.
    """
    if layouts[0].execution.device != "cpu":
        least = min(layout.redundancy for layout in layouts)
        return next(each for each in layouts if each.redundancy <= _AS_LITTLE * least)
    small = sum(_core_px(layout) <= USUAL_CORE_PX for layout in layouts)
    larger = layouts[max(0, small - 1) :]
    busy = [each for each in larger if each.execution.workers >= larger[0].execution.workers]

    def cost(layout: Layout) -> float:
        idle = layout.rounds * layout.at_once / layout.runs
        first = COST_OF_BYTE * layout.tile_bytes / (layout.rounds * layout.tile_work)
        side = float(prod(layout.recipe.tile) ** (COST_OF_SIDE / 2))
        return layout.redundancy * idle * (1 + first) * side

    return min(busy, key=cost)


def _core_px(layout: Layout) -> int:
    grid = layout.tiling.grid
    return max(grid.y.stride, grid.x.stride)


def lost_px(geometry: Geometry) -> tuple[int, int]:
    """Return the pixels of a tile without output, whole ones of the image."""
    y, x = (axis.lost // axis.scale.up for axis in (geometry.y, geometry.x))
    return y, x
