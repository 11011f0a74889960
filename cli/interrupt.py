"""Ctrl-C and SIGTERM: both end a run where it can be continued."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# `timeout`, a terminal and `make` may each pass on the same wish.
_SAME_WISH_SECONDS = 1.0
_STOPPING = b"\nstopping when the work in hand is done; once more stops at once\n"


class Interrupted(KeyboardInterrupt):
    """The user, or the system, wants the run to end."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.exit_code = 128 + number
        """What a shell expects of a process that a signal ended: 130 or 143."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn the first signal into ``Interrupted``; let a second one end the process at once.

    Ending at once is safe: a chunk is complete or not there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    first: float | None = None

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if first is not None:
            if monotonic() - first > _SAME_WISH_SECONDS:
                os._exit(128 + number)
            return
        first = monotonic()
        os.write(2, _STOPPING)
        raise Interrupted(number)

    before: dict[signal.Signals, Any] = {}
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` and `&` leave it
            before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
