"""Batch, blocks and workers that fit the memory."""

from collections.abc import Sequence
from math import prod

import numpy as np

from ..tiler.axis import CHUNK_PX, AxisGrid
from ..tiler.errors import SettingError
from ..tiler.grid import Grid
from .backends.base import Execution, NetworkFacts, Recipe
from .backends.device import cpu_cores, device_kind
from .backends.device_facts import device_memory, free_what_is_kept
from .memory import available_bytes, human
from .settings import Settings

BLOCK_CHUNKS = {"cpu": (2,), "cuda": (4, 2)}
"""Chunks along the side of a block, where the image has blocks enough for all workers: a larger
block decodes fewer pixels twice and makes its own pyramid levels, but every thread holds one."""

BASE_BYTES = 400 << 20
"""The interpreter, the libraries and small things."""

LARGEST_BATCH = 16
"""Tiles per run on a GPU; more bring nothing once it is busy."""

SMALL_WORK = 16
"""Where so many tiles fit a GPU at once, they are small work there, and cutting and copying them is
what takes time."""

LARGEST_TENSOR = 1 << 30
"""Numbers in a layer's result on a GPU, all tiles of a batch: CUDA's libraries count to 2^31, and
what is put beside it may double them."""

DEVICE_BYTES = 8 << 30
"""GPU memory that is counted on where neither a setting nor the driver states any."""

_DEVICE_SHARE = 0.8
"""Of the GPU memory that is free: weights and the libraries' work space need some as well."""


def host_budget(settings: Settings) -> int:
    """Return the bytes of host memory that a run should keep to."""
    return settings.memory or available_bytes() // 2


def device_budget(devices: Sequence[str], settings: Settings) -> int:
    """Return the bytes of memory that the layers' results may take on each GPU; 0 on a CPU."""
    return min(_budget(each, settings) // devices.count(each) for each in devices)


def _budget(device: str, settings: Settings) -> int:
    if device == "cpu":
        return 0
    if settings.device_memory:
        return settings.device_memory
    free_what_is_kept()  # of an image before, or of larger tiles that did not fit
    memory = device_memory(device)
    return DEVICE_BYTES if memory is None else int(_DEVICE_SHARE * memory.free)


def threads_of(workers: int, device: str) -> int:
    """Return the CPU threads that one run of the network uses."""
    return max(1, cpu_cores() // workers) if device == "cpu" else 1


def choose_batch(
    network: NetworkFacts,
    execution: Execution,
    tile_bytes: int,
    largest: int,
    device_bytes: int,
    settings: Settings,
) -> tuple[int, int]:
    """Return the tiles per run, and the runs at the same time that are worth it.

    Args:
        network: A file may fix the batch.
        execution: Where it runs; on a CPU one tile per run was the fastest everywhere.
        tile_bytes: Size of all layers' results for one tile.
        largest: Numbers in the largest of them.
        device_bytes: GPU memory for them; of tiles that fit only once, one is run at a time.
        settings: Their ``batch_size`` and ``workers`` count.

    Raises:
        SettingError: Another batch is asked for than the file fixes.
    """
    if network.batch is not None and settings.batch_size not in (None, network.batch):
        raise SettingError(
            f"batch_size={settings.batch_size} is not possible: the file fixes {network.batch}"
        )
    batch = network.batch or settings.batch_size
    if execution.device == "cpu":
        # A module as it is may keep something on itself while it runs.
        alone = execution.backend == "torch" and execution.form == "module"
        return batch or 1, 1 if alone else cpu_cores()
    fitting = device_bytes // max(1, tile_bytes)
    # Two, so that one copies while the other computes.
    at_once = next((n for n, fit in ((4, SMALL_WORK), (2, 2)) if fitting >= fit * (batch or 1)), 1)
    at_once = settings.workers or at_once
    most = min(LARGEST_BATCH, LARGEST_TENSOR // max(1, largest))
    return batch or max(1, min(fitting // at_once, most)), at_once


def fit_memory(
    grid: Grid,
    recipe: Recipe,
    tile_bytes: int,
    batch: int,
    at_once: int,
    devices: Sequence[str],
    settings: Settings,
) -> tuple[Grid, int, int]:
    """Choose blocks and workers.

    Args:
        grid: Its blocks are of one chunk.
        recipe: What runs on the device.
        tile_bytes: Size of all layers' results for one tile.
        batch: Tiles per run.
        at_once: Runs at the same time on each device, at most.
        devices: Where.
        settings: Their ``memory`` and ``workers`` count.

    Returns:
        The grid with its blocks, the workers of each device, and the bytes of host memory expected
        at most for all of them.

    Raises:
        SettingError: Even one worker with the smallest blocks needs more than there is.
    """
    budget, limit = host_budget(settings), settings.memory or available_bytes()
    kind, count = device_kind(devices[0]), len(devices)
    network_bytes = batch * tile_bytes if kind == "cpu" else 0
    most = settings.workers or min(at_once, -(-grid.tiles // batch))

    def needed(grid: Grid, workers: int) -> int:
        blocks = min(count * (workers + 1), grid.blocks) * block_bytes(grid, recipe, batch)
        return BASE_BYTES + count * workers * network_bytes + blocks

    fewest = settings.workers or 1
    workers = next((n for n in range(most, fewest, -1) if needed(grid, n) <= budget), fewest)
    if needed(grid, workers) > limit:
        raise SettingError(
            f"the run needs {human(needed(grid, workers))} of memory and may use {human(limit)}; "
            "use a smaller tile or batch, fewer workers or devices, or more memory"
        )
    # Blended tiles that reach into two blocks are run for both: there, large blocks come first.
    fewest_blocks = count * (workers if grid.blended else 4 * workers)
    for side in BLOCK_CHUNKS[kind]:
        larger = grid.with_blocks((_chunks(grid.y, side), _chunks(grid.x, side)))
        if larger.blocks >= fewest_blocks and needed(larger, workers) <= budget:
            return larger, workers, needed(larger, workers)
    return grid, workers, needed(grid, workers)


def _chunks(axis: AxisGrid, side: int) -> int:
    """Return the chunks along a block's side: fewer where they are large, or end the image."""
    most = max(1, side * CHUNK_PX // axis.chunk)
    return min(side, most, -(-axis.mask_length // axis.chunk))


def block_bytes(grid: Grid, recipe: Recipe, batch: int) -> int:
    """Return what one block holds: its region as stored, in order and mirrored, and the rest."""
    pixel = recipe.channels * np.dtype(recipe.dtype).itemsize
    fed = prod(axis.scale.image_px(axis.block) + axis.tile for axis in (grid.y, grid.x)) * pixel
    scores = prod(grid.block) * recipe.classes * (4 if recipe.scores else 0)
    labels = 2 * prod(grid.block) * np.dtype(recipe.label_dtype).itemsize
    return 3 * fed + batch * prod(grid.tile) * pixel + labels + 2 * scores
