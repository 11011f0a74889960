"""Run a plan that a test has changed, block by block."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from zarr.storage import MemoryStore

from tile_infer import Plan
from tile_infer.engine.backends import open_network
from tile_infer.engine.block import Worker
from tile_infer.engine.pipeline import run_blocks
from tile_infer.engine.sources import open_source
from tile_infer.engine.stitcher.mask import Mask
from tile_infer.engine.stitcher.store import claim
from tile_infer.tiler.grid import Grid


def run_plan(plan: Plan, image: Any, model: Any, order: Iterable[int] | None = None) -> Mask:
    """Return the finished mask, in memory."""
    store = MemoryStore()
    claim(store, plan.to_dict())
    mask = Mask(store, plan)
    blocks = range(plan.grid.blocks) if order is None else [*order]
    with (
        closing(open_source(image)) as source,
        closing(open_network(model)) as network,
        ThreadPoolExecutor(plan.workers) as device,
    ):
        runner = network.prepare(plan.recipe, plan.execution)
        worker = Worker(plan, source, runner, mask, device)
        run_blocks([worker] * (plan.workers + 1), blocks, lambda record: None)
    mask.finish()
    return mask


def small_blocks(plan: Plan, cores: int = 1) -> Plan:
    """Return the plan with chunks of so many cores, each a block."""
    axes = [
        replace(axis, chunk=cores * axis.core, block=cores * axis.core)
        for axis in (plan.grid.y, plan.grid.x)
    ]
    return replace(plan, grid=Grid(*axes))


def chunks(mask: Mask) -> dict[str, bytes]:
    """Return the bytes of every chunk of a mask in memory."""
    assert isinstance(mask.store, MemoryStore)
    stored = mask.store._store_dict
    return {key: value.to_bytes() for key, value in stored.items() if "/c/" in key}


def tree(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
