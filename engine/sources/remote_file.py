"""A file behind a URL, of which parts are asked for; from any number of threads."""

import errno
import io
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import BinaryIO
from urllib.parse import unquote

from ..remote import RequestError, attempts, open_remote, told
from ..url import Url
from .positional_file import Item, Result

_SIDE_BY_SIDE = 16
"""Requests under way for one rectangle: each takes long, and costs neither end much."""

_VIEW_BYTES = 1 << 18
"""Asked for at once by those who look around in a file, where its directories lie."""


class RemoteFile:
    """A file of a server or object of a store; what `PositionalFile` is for a path."""

    def __init__(self, url: Url) -> None:
        """Ask for a byte of the file, and so for its length.

        Raises:
            FileNotFoundError: There is no such file.
            RequestError: The request failed.
            MissingExtraError: obstore is not installed.
        """
        self._store = open_remote(url.parent)  # tells whether obstore is there
        import obstore

        self.url = url
        # obstore encodes names itself.
        self._key = unquote(url.name) if url.is_read_only else url.name
        self.size_bytes = 0
        """Length of the file."""
        try:
            with told(url):
                found = obstore.get(self._store, self._key, options={"range": (0, 1)})
                self.size_bytes = int(found.meta["size"])
        except RequestError as error:
            if error.errno != errno.ENOTSUP and "416" not in str(error):
                raise
            with told(url):  # an empty file has no first byte
                if int(obstore.head(self._store, self._key)["size"]):
                    raise

    def read(self, start: int, size_bytes: int) -> bytes:
        """Return the bytes from ``start`` on, fewer where the file ends before.

        Raises:
            RequestError: The request failed.
        """
        import obstore

        size_bytes = min(size_bytes, max(0, self.size_bytes - start))
        if size_bytes <= 0:
            return b""
        for attempt in attempts():
            with attempt, told(self.url):
                part = obstore.get_range(self._store, self._key, start=start, length=size_bytes)
                return bytes(part)
        raise AssertionError("the last attempt raises")

    def each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Return what a function that reads gives for each item, several at a time."""
        with ThreadPoolExecutor(_SIDE_BY_SIDE, "requests") as threads:
            begun = [threads.submit(function, item) for item in items]
            try:
                return [each.result() for each in begun]
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    @contextmanager
    def view(self) -> Iterator[BinaryIO]:
        """Open the file as one with a position, for small reads here and there.

        Raises:
            RequestError: A request failed, whatever was made of that inside.
        """
        view = _View(self)
        try:
            yield io.BufferedReader(view, _VIEW_BYTES)
        finally:
            if view.failure is not None:
                raise view.failure

    def close(self) -> None:
        """Do nothing: no connection is held."""


class _View(io.RawIOBase):
    """A remote file with a position."""

    def __init__(self, file: RemoteFile) -> None:
        super().__init__()
        self._file, self._at = file, 0
        self.failure: RequestError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size_bytes}
        self._at = max(0, origin[whence] + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: "bytearray | memoryview[int]") -> int:  # type: ignore[override]
        try:
            piece = self._file.read(self._at, len(buffer))
        except RequestError as error:
            self.failure = error
            raise
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)
