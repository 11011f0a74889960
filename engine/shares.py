"""What each of several processes that share a run has to do, and the memory it needs for that."""

from collections.abc import Iterable
from dataclasses import dataclass

from .part import Part
from .plan import Plan
from .sizing import BASE_BYTES, block_bytes
from .sources.segment_cache import CACHE_BYTES


@dataclass(frozen=True, slots=True)
class Share:
    """What falls to one process."""

    processes: int
    """How many share the run."""
    blocks: int
    """Blocks that this one computes; where they are given out one by one, about as many."""
    memory_bytes: int
    """Host memory that it needs at most."""


def share_of_part(plan: Plan, part: Part) -> Share:
    """Return what falls to a part: it runs as a whole run does."""
    return Share(part.count, len(part.blocks(plan)), plan.memory_bytes)


def share_of_workers(plan: Plan, threads: Iterable[int]) -> Share:
    """Return what falls to the largest of several workers.

    Args:
        plan: The plan.
        threads: Blocks that each worker computes at the same time; one at least.
    """
    threads = list(threads)
    blocks = -(-plan.grid.blocks * max(threads) // sum(threads))
    return Share(len(threads), blocks, worker_bytes(plan, max(threads)))


def worker_bytes(plan: Plan, threads: int) -> int:
    """Return the memory of a worker that computes so many blocks at the same time.

    A plan counts its own workers, each with a network, and one block more than they are.
    """
    block = block_bytes(plan.grid, plan.recipe, plan.batch)
    kept = plan.strips.kept_bytes - CACHE_BYTES
    planned = min(plan.workers + 1, plan.grid.blocks) * block
    networks = max(0, plan.memory_bytes - kept - BASE_BYTES - planned)
    running = min(threads, plan.workers)
    return BASE_BYTES + kept + networks * running // plan.workers + threads * block
