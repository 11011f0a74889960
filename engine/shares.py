"""What each of several workers of a run has to do, and the memory it needs for that."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from .part import Part
from .plan import Plan
from .sizing import BASE_BYTES, block_bytes
from .sources.segment_cache import CACHE_BYTES


@dataclass(frozen=True, slots=True)
class Share:
    """What falls to one worker."""

    workers: int
    """How many share the run."""
    blocks: int
    """Blocks that this one computes; where they are given out one by one, about as many."""
    memory_bytes: int
    """Host memory that it needs at most: a process all of its own, a device beside the others."""
    kind: Literal["process", "device"] = "process"
    """What a worker is."""


def share_of_part(plan: Plan, part: Part) -> Share:
    """Return what falls to a part: it runs as a whole run does."""
    return Share(part.count, len(part.blocks(plan)), plan.memory_bytes)


def share_of_workers(plan: Plan, threads: Iterable[int]) -> Share:
    """Return what falls to the largest of several processes.

    Args:
        plan: The plan.
        threads: Blocks that each worker computes at the same time; one at least.
    """
    threads = list(threads)
    blocks = -(-plan.grid.blocks * max(threads) // sum(threads))
    return Share(len(threads), blocks, worker_bytes(plan, max(threads)))


def share_of_devices(plan: Plan) -> Share | None:
    """Return what falls to each of the plan's devices; ``None`` where there is one."""
    count = len(plan.devices)
    if count == 1:
        return None
    blocks = -(-plan.grid.blocks // count)
    block = block_bytes(plan.grid, plan.recipe, plan.batch)
    memory_bytes = _networks_bytes(plan) // count + min(plan.workers + 1, blocks) * block
    return Share(count, blocks, memory_bytes, "device")


def worker_bytes(plan: Plan, threads: int) -> int:
    """Return the memory of a process that computes so many blocks at the same time, on one device.

    A plan counts its own workers, each with a network, and one block more than they are.
    """
    block = block_bytes(plan.grid, plan.recipe, plan.batch)
    networks, running = _networks_bytes(plan) // len(plan.devices), min(threads, plan.workers)
    return _common_bytes(plan) + networks * running // plan.workers + threads * block


def run_bytes(plan: Plan, devices: int) -> int:
    """Return the memory of a run on another number of devices than the plan was made for."""
    count = len(plan.devices)
    if devices == count:
        return plan.memory_bytes
    block = block_bytes(plan.grid, plan.recipe, plan.batch)
    blocks = min(devices * (plan.workers + 1), plan.grid.blocks)
    return _common_bytes(plan) + _networks_bytes(plan) * devices // count + blocks * block


def _common_bytes(plan: Plan) -> int:
    """Return the memory that every process needs, whatever it computes."""
    return BASE_BYTES + plan.strips.kept_bytes - CACHE_BYTES


def _networks_bytes(plan: Plan) -> int:
    """Return the memory that a plan counts for the networks of all its devices."""
    blocks = min(plan.blocks_in_flight, plan.grid.blocks)
    planned = blocks * block_bytes(plan.grid, plan.recipe, plan.batch)
    return max(0, plan.memory_bytes - _common_bytes(plan) - planned)
