"""Locks of an output at a URL: objects that a store creates for one process alone."""

import os
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from uuid import getnode, uuid4

from zarr.buffer.cpu import Buffer
from zarr.core.sync import sync

from ...tiler.errors import OutputError
from ..remote import attempts, told
from ..url_store import UrlStore
from .holder import LOCK, holder_of, refusal

_PAUSE_SECONDS = 0.5
"""Between two attempts to get what another process holds."""

_MISSES = 20
"""How often a lock may have gone that was there when another one was to be written."""

_TAKEOVERS = 5
"""Attempts to get what a dead process holds; obstore makes none again of which it heard nothing."""

_held_here: set[str] = set()
"""What the locks say that this process holds."""


class ObjectLocks:
    """Locks as objects below one prefix; see `Locks`.

    Each names process, host, time, the machine since it was started, and itself. It is created only
    where there is none, and taken over only as long as it is the one that was looked at: of two
    that try at once, the store lets one. Whose it is, is read from what is there, so that an answer
    that is lost does no harm.
    """

    def __init__(self, store: UrlStore, folder: str) -> None:
        self._store, self._folder = store, folder
        self._held: dict[str, str] = {}

    def names(self) -> list[str]:
        """Return the names of the locks that are there."""

        async def inside() -> list[str]:  # without the records, which are many
            return [name async for name in self._store.list_dir(self._folder)]

        return sorted(name for name in sync(inside()) if name.startswith(LOCK))

    def take(self, name: str, break_lock: bool, seconds: float) -> None:
        """Hold a lock; see `Locks.take`."""
        text = _text()
        self._held[name] = text
        _held_here.add(text)
        try:
            self._wait(name, text, break_lock, time.monotonic() + seconds)
        except OutputError:
            self._forget(name)
            raise

    def _wait(self, name: str, text: str, break_lock: bool, deadline: float) -> None:
        takeovers = misses = 0
        while True:
            try:
                sync(self._store.set_if_not_exists(self._key(name), _bytes(text)))
            except FileNotFoundError as error:
                raise OSError("there is no such bucket") from error
            found, version = self._found(name)
            if found == text:
                return
            if found is None:  # released meanwhile
                misses += 1
                if misses > _MISSES:
                    raise OSError("the store does not show what is written to it")
                time.sleep(_PAUSE_SECONDS)
                continue
            over = _is_over(found) or (break_lock and not _lives_here(found))
            if over and takeovers < _TAKEOVERS:
                takeovers += 1
                self._replace(name, text, version)
            elif time.monotonic() > deadline:
                here = _lives_here(found)
                raise OutputError(refusal(str(self._store), name, holder_of(found), here=here))
            else:
                time.sleep(_PAUSE_SECONDS)

    def release(self, name: str) -> None:
        """Hold a lock no more; one that was taken over stays with who has it."""
        text = self._forget(name)
        if self._found(name)[0] == text:
            sync(self._store.delete(self._key(name)))

    def close(self) -> None:
        """Release all that is held."""
        for name in list(self._held):
            with suppress(OSError):  # it has to be broken later, as that of a process that died
                self.release(name)

    def _forget(self, name: str) -> str:
        text = self._held.pop(name)
        _held_here.discard(text)
        return text

    def _key(self, name: str) -> str:
        return f"{self._folder}/{name}"

    def _found(self, name: str) -> tuple[str | None, Any]:
        """Return what a lock says, and which of the objects of its name that is."""
        import obstore

        key = self._key(name)

        async def get() -> tuple[bytes, Any]:
            for attempt in attempts():
                with attempt, told(self._store.url, key):
                    found = await obstore.get_async(self._store.store, key)
                    return bytes(await found.bytes_async()), found.meta
            raise AssertionError("the last attempt raises")

        try:
            data, meta = sync(get())  # of obstore's own waiting, no signal is an end
        except FileNotFoundError:
            return None, None
        known = {key: meta[key] for key in ("e_tag", "version") if meta[key] is not None}
        return data.decode("utf-8", "replace"), known

    def _replace(self, name: str, text: str, version: Any) -> None:
        """Write a lock if the object that is there is the one that was looked at."""
        import obstore
        from obstore.exceptions import PreconditionError

        with suppress(PreconditionError, OSError), told(self._store.url, self._key(name)):
            obstore.put(self._store.store, self._key(name), text.encode(), mode=version)


def _bytes(text: str) -> Buffer:
    return Buffer.from_bytes(text.encode())


def _text() -> str:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    lines = (os.getpid(), socket.gethostname(), now, _machine(), uuid4().hex)
    return "".join(f"{each}\n" for each in lines)


@cache
def _machine() -> str:
    """Return what no other machine or container has, nor this one when it is started again.

    Names of hosts are not enough: a store is seen from everywhere.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{getnode():x}"


def _is_over(text: str) -> bool:
    """Say whether the process that a lock names has ended, as far as that can be known."""
    return os.name != "nt" and _is_ours(text) and not _lives_here(text)


def _is_ours(text: str) -> bool:
    """Say whether a lock names this machine."""
    lines = text.splitlines()
    return len(lines) > 3 and (lines[1], lines[3]) == (socket.gethostname(), _machine())


def _lives_here(text: str) -> bool:
    """Say whether the process that a lock names is known to live on this machine."""
    holder = holder_of(text)
    if holder is None or not _is_ours(text):
        return False
    if holder.pid == os.getpid():  # in a container, all processes may have the same number
        return text in _held_here
    if os.name == "nt":  # there, to ask would end it; who breaks its lock has to know
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
