"""Reading bytes at a position, from any number of threads."""

import os
import threading
import weakref
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class PositionalFile:
    """A file opened once; ``read`` moves no shared position."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb", buffering=0)
        self._lock = threading.Lock()
        self.size_bytes = os.fstat(self._file.fileno()).st_size
        """Length of the file."""
        # A source that is dropped without close() must not warn about its open file.
        self._closer = weakref.finalize(self, self._file.close)

    def read(self, start: int, size_bytes: int) -> bytes:
        """Return the bytes from ``start`` on, fewer where the file ends before.

        Raises:
            OSError: The file cannot be read.
            ValueError: The file was closed.
        """
        parts = []
        # No buffer is made for more than there is, whatever a damaged file says.
        size_bytes = min(size_bytes, max(0, self.size_bytes - start))
        while size_bytes > 0:
            part = self._read_once(start, size_bytes)
            if not part:
                break
            parts.append(part)
            start += len(part)
            size_bytes -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_once(self, start: int, size_bytes: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), size_bytes, start)
        with self._lock:  # Windows has no positional read
            self._file.seek(start)
            return self._file.read(size_bytes)

    def each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Return what a function that reads gives for each item."""
        return [function(item) for item in items]

    def view(self) -> AbstractContextManager[BinaryIO]:
        """Open the file once more, with a position of its own."""
        return self.path.open("rb")

    def close(self) -> None:
        """Close the file; reading afterwards raises ``ValueError``."""
        self._closer()
