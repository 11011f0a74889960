"""Threads of a pool: all are waited for in the end, and what they can no longer give is told."""

from collections.abc import Collection
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from threading import Barrier
from typing import TypeVar

T = TypeVar("T")

_LOOK_SECONDS = 1.0
"""How often somebody who waits looks whether the threads are still there."""


def start_threads(pool: Executor, count: int) -> None:
    """Start all threads of a new pool, before there is work.

    One that was being started when an interruption came would not be known to the pool, nor waited
    for in the end.
    """
    met = Barrier(count)
    try:
        waiting = [pool.submit(met.wait) for _ in range(count)]
    except BaseException:
        met.abort()
        raise
    for each in waiting:
        each.result()


def first_of(futures: Collection[Future[T]], pool: Executor) -> set[Future[T]]:
    """Wait for a result; return the futures that are done.

    Args:
        futures: What was submitted; one at least.
        pool: To whom.

    Raises:
        RuntimeError: A thread of the pool has ended, and with it perhaps the result.
    """
    while not (done := wait(futures, _LOOK_SECONDS, FIRST_COMPLETED).done):
        # A pool neither replaces a thread that has ended nor fails what was submitted to it.
        if not all(thread.is_alive() for thread in list(getattr(pool, "_threads", ()))):
            raise RuntimeError("a thread has ended before its work was done")
    return done


def result_of(future: Future[T]) -> T:
    """Return a result that is there.

    Raises:
        RuntimeError: What was run would have ended its thread, by ``SystemExit`` or the like.
        Exception: It failed.
    """
    error = future.exception()
    if error is None or isinstance(error, Exception):
        return future.result()
    raise RuntimeError(f"{type(error).__name__} in a thread") from error
