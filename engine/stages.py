"""Where a run's time goes: the seconds of each stage of a block, summed over the threads."""

import threading
from collections.abc import Callable
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
