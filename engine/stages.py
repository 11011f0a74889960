"""Where a run's time goes: the seconds of each stage of a block, summed over the threads."""

import threading
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Literal, get_args

Stage = Literal["reading", "waiting", "assembling", "network", "writing"]
"""Reading decodes and mirrors; waiting is for the device; assembling cuts tiles and puts labels
together; the network runs the tiles; writing compresses and stores."""


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

_BOUNDS: dict[str, Bound] = {
    "network": "the network",
    "reading": "reading",
    "writing": "writing",
    "assembling": "the engine",
}

_BUSY = 0.9
"""Of its places in all the time: a device that is taken so far bounds the run."""


def shares(seconds: Mapping[Stage, float]) -> dict[str, float]:
    """Return what part of the work each stage took, of seconds summed over the threads.

    >>> shares({"reading": 1, "waiting": 9, "assembling": 1, "network": 6, "writing": 2})
    {'reading': 0.1, 'assembling': 0.1, 'network': 0.6, 'writing': 0.2}
    """
    work = {str(stage): spent for stage, spent in seconds.items() if stage != "waiting"}
    return {stage: spent / sum(work.values()) for stage, spent in work.items()}


def device_busy(seconds: Mapping[Stage, float], workers: int, wall_seconds: float) -> float:
    """Return the part of the time in which the devices' places were taken, 0 to 1.

    Args:
        seconds: Of each stage, summed over the threads.
        workers: Places on all devices.
        wall_seconds: From the first block's begin to the last one's end.
    """
    return min(1.0, seconds["network"] / (workers * wall_seconds))


def bound_by(found: Mapping[str, float], busy: float) -> Bound:
    """Return what bounds a run: a device that is busy, or else what took most of the work.

    >>> bound_by({"network": 0.3, "reading": 0.7}, busy=0.97)
    'the network'
    >>> bound_by({"network": 0.3, "reading": 0.7}, busy=0.5)
    'reading'
    """
    return "the network" if busy >= _BUSY else _BOUNDS[max(found, key=lambda stage: found[stage])]
