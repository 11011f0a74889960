"""Decoded pieces of an image, kept for the neighbouring block."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

CACHE_BYTES = 64 * 1024 * 1024
"""Decoded segments kept per image, unless said otherwise."""


class SegmentCache:
    """A store of the segments used last, bounded in bytes; safe to share between threads.

    The newest segment stays even if it alone exceeds the bound: a strip that holds the whole
    image would otherwise be decoded again for every block.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.decoded = 0
        """Segments decoded so far, i.e. not found in the cache."""
        self.held_bytes = 0
        """Size of the segments that are kept now."""
        self._segments: OrderedDict[Hashable, NDArray[np.generic]] = OrderedDict()
        self._pending: dict[Hashable, Future[NDArray[np.generic]]] = {}
        self._lock = threading.Lock()

    def get(
        self,
        key: Hashable,
        decode: Callable[[], NDArray[np.generic]],
        is_last: Callable[[], bool] = lambda: False,
    ) -> NDArray[np.generic]:
        """Return the segment ``key``, decoded by ``decode`` outside the lock if it is not there.

        Args:
            key: Which segment.
            decode: Called once, however many threads miss the segment at the same time.
            is_last: Called once, inside the lock: whether nobody will ask for it again.
        """
        with self._lock:
            last = is_last()
            found = self._segments.get(key)
            if found is not None:
                self._segments.move_to_end(key)
                if last:
                    self._drop(key)
                return found
            pending = self._pending.get(key)
            if pending is None:
                begun = self._pending[key] = Future()
        if pending is not None:
            segment = pending.result()
            with self._lock:
                if last and key in self._segments:
                    self._drop(key)
            return segment
        try:
            segment = decode()
            with self._lock:
                self.decoded += 1
                if not last:
                    self.held_bytes += segment.nbytes
                    self._segments[key] = segment
                while self.held_bytes > self.max_bytes and len(self._segments) > 1:
                    self._drop(next(iter(self._segments)))
                del self._pending[key]
        except BaseException as error:  # whatever it is, nobody waits for ever
            with self._lock:
                self._pending.pop(key, None)
            begun.set_exception(error)
            raise
        begun.set_result(segment)
        return segment

    def _drop(self, key: Hashable) -> None:
        self.held_bytes -= self._segments.pop(key).nbytes
