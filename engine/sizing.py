"""Batch, blocks and workers that fit the memory."""

from math import prod

import numpy as np

from ..tiler.axis import AxisGrid
from ..tiler.errors import SettingError
from ..tiler.grid import Grid
from .backends.base import NetworkFacts, Recipe
from .backends.device import cpu_cores
from .memory import available_bytes, human
from .settings import Settings

BLOCK_CHUNKS = {"cpu": (2,), "cuda": (4, 2)}
"""Chunks along the side of a block, where the image has blocks enough for all workers: a larger
block decodes fewer pixels twice and makes its own pyramid levels, but every thread holds one."""

BASE_BYTES = 400 << 20
"""The interpreter, the libraries and small things."""

LARGEST_BATCH = 16
"""Tiles per run on a GPU; more bring nothing once it is busy."""

DEVICE_BYTES = 8 << 30
"""GPU memory that is counted on where none is stated."""


def choose_batch(network: NetworkFacts, device: str, tile_bytes: int, settings: Settings) -> int:
    """Return the tiles per run.

    Args:
        network: A file may fix the batch.
        device: Kind of device; on a CPU one tile at a time was the fastest everywhere.
        tile_bytes: Size of all layers' results for one tile.
        settings: Their ``batch_size`` and ``device_memory`` count.

    Raises:
        SettingError: Another batch is asked for than the file fixes.
    """
    if network.batch is not None:
        if settings.batch_size not in (None, network.batch):
            raise SettingError(
                f"batch_size={settings.batch_size} is not possible: the file fixes {network.batch}"
            )
        return network.batch
    if settings.batch_size is not None:
        return settings.batch_size
    if device == "cpu":
        return 1
    budget = settings.device_memory or DEVICE_BYTES
    return int(np.clip(budget // max(1, tile_bytes), 1, LARGEST_BATCH))


def fit_memory(
    grid: Grid,
    recipe: Recipe,
    tile_bytes: int,
    batch: int,
    device: str,
    settings: Settings,
    *,
    alone: bool = False,
) -> tuple[Grid, int, int]:
    """Choose blocks and workers.

    Args:
        grid: Its blocks are of one chunk.
        recipe: What runs on the device.
        tile_bytes: Size of all layers' results for one tile.
        batch: Tiles per run.
        device: Kind of device.
        settings: Their ``memory`` and ``workers`` count.
        alone: Whether the network is for one thread at a time.

    Returns:
        The grid with its blocks, the workers, and the bytes of host memory expected at most.

    Raises:
        SettingError: Even one worker with the smallest blocks needs more than there is.
    """
    free = available_bytes()
    budget, limit = settings.memory or free // 2, settings.memory or free
    network_bytes = batch * tile_bytes if device == "cpu" else 0
    at_once = 2 if device != "cpu" else 1 if alone else cpu_cores()
    most = settings.workers or min(at_once, grid.blocks)

    def needed(grid: Grid, workers: int) -> int:
        blocks = (workers + 1) * _block_bytes(grid, recipe, batch)
        return BASE_BYTES + workers * network_bytes + blocks

    fewest = settings.workers or 1
    workers = next((n for n in range(most, fewest, -1) if needed(grid, n) <= budget), fewest)
    if needed(grid, workers) > limit:
        raise SettingError(
            f"the run needs {human(needed(grid, workers))} of memory and may use {human(limit)}; "
            "use a smaller tile or batch, fewer workers, or more memory"
        )
    # Blended tiles that reach into two blocks are run for both: there, large blocks come first.
    fewest_blocks = workers if grid.blended else 4 * workers
    for side in BLOCK_CHUNKS[device]:
        larger = grid.with_blocks((min(side, _chunks(grid.y)), min(side, _chunks(grid.x))))
        if larger.blocks >= fewest_blocks and needed(larger, workers) <= budget:
            return larger, workers, needed(larger, workers)
    return grid, workers, needed(grid, workers)


def _chunks(axis: AxisGrid) -> int:
    return -(-axis.mask_length // axis.chunk)


def _block_bytes(grid: Grid, recipe: Recipe, batch: int) -> int:
    """Return what one block holds: its region as stored, in order and mirrored, and the rest."""
    pixel = recipe.channels * np.dtype(recipe.dtype).itemsize
    fed = prod(axis.scale.image_px(axis.block) + axis.tile for axis in (grid.y, grid.x)) * pixel
    scores = prod(grid.block) * recipe.classes * (4 if recipe.scores else 0)
    labels = 2 * prod(grid.block) * np.dtype(recipe.label_dtype).itemsize
    return 3 * fed + batch * prod(grid.tile) * pixel + labels + 2 * scores
