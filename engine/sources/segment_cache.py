"""Decoded pieces of an image, kept for the neighbouring block."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np
from numpy.typing import NDArray


class SegmentCache:
    """A store of the segments used last, bounded in bytes; safe to share between threads.

    The newest segment stays even if it alone exceeds the bound: a strip that holds the whole
    image would otherwise be decoded again for every block.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.decoded = 0
        """Segments decoded so far, i.e. not found in the cache."""
        self._bytes = 0
        self._segments: OrderedDict[Hashable, NDArray[np.generic]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, decode: Callable[[], NDArray[np.generic]]) -> NDArray[np.generic]:
        """Return the segment ``key``, decoded by ``decode`` outside the lock if it is not there.

        Two threads that miss the same segment both decode it: waiting would cost more.
        """
        with self._lock:
            if key in self._segments:
                self._segments.move_to_end(key)
                return self._segments[key]
        segment = decode()
        with self._lock:
            self.decoded += 1
            if key not in self._segments:
                self._segments[key] = segment
                self._bytes += segment.nbytes
            while self._bytes > self.max_bytes and len(self._segments) > 1:
                self._bytes -= self._segments.popitem(last=False)[1].nbytes
        return segment
