"""Where a run's time goes: the seconds of each stage of a block, summed over the threads."""

import threading
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Literal, get_args

Stage = Literal["reading", "waiting", "assembling", "network", "writing"]
"""Reading decodes and mirrors; waiting is for a place on the device; assembling cuts tiles and puts
their labels together; the network runs them; writing compresses and stores."""


class Stopwatch:
    """Adds up how long the threads of a run spend in each stage.

    Each moment between a thread's ``start`` and its last ``lap`` belongs to exactly one stage.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        """Take what tells the seconds."""
        self.seconds: dict[Stage, float] = dict.fromkeys(get_args(Stage), 0.0)
        """Seconds of each stage, summed over the threads."""
        self._clock = clock
        self._lock = threading.Lock()
        self._thread = threading.local()

    def start(self) -> None:
        """Begin this thread's first stage."""
        self._thread.since = self._clock()

    def lap(self, stage: Stage) -> None:
        """End this thread's ``stage`` and begin its next."""
        now = self._clock()
        with self._lock:
            self.seconds[stage] += now - getattr(self._thread, "since", now)
        self._thread.since = now


Bound = Literal["the network", "reading", "writing", "the engine"]
"""What a run would gain most from if it were faster."""


def shares(seconds: Mapping[Stage, float], threads: int, wall_seconds: float) -> dict[str, float]:
    """Return what part of the threads' time each stage took, and ``idle`` for the rest.

    Args:
        seconds: Of each stage, summed over the threads.
        threads: How many there were.
        wall_seconds: From the first block's begin to the last one's end.

    Returns:
        Shares that sum to 1. A thread is idle at the end, when no block is left, and between two
        blocks; all are where an image has fewer blocks than there are threads.
    """
    spent = sum(seconds.values())
    whole = max(threads * wall_seconds, spent)
    found = {str(stage): seconds[stage] / whole for stage in get_args(Stage)}
    return {**found, "idle": (whole - spent) / whole}


def bound_by(found: Mapping[str, float]) -> Bound:
    """Return what took most of the threads' time, waiting apart.

    Threads wait because the device is busy, so waiting has no cause of its own. There is one thread
    more than the device has places: while all of these are taken, only one thread is elsewhere, and
    neither reading nor writing can come first.

    >>> bound_by({"network": 0.6, "waiting": 0.3, "reading": 0.1})
    'the network'
    """
    parts: dict[Bound, tuple[str, ...]] = {
        "the network": ("network",),
        "reading": ("reading",),
        "writing": ("writing",),
        "the engine": ("assembling", "idle"),
    }
    return max(parts, key=lambda part: sum(found.get(stage, 0.0) for stage in parts[part]))
