"""Who writes an output: locks in it that say which process of which host does.

A whole run has its output for itself. Parts of a run, ``0/4`` to ``3/4``, write side by side, each
under a lock of its own; a whole run is refused while a part runs, and a part while a whole run does
or parts of another number.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore

from ...tiler.errors import OutputError, TileInferError, cause_of
from ..part import Part
from ..remote import RETRY_SECONDS
from ..url_store import UrlStore
from .file_locks import FileLocks
from .holder import LOCK, OF_A_PART
from .object_locks import ObjectLocks
from .store import BEGUN, OURS, place
from .zarr_thread import SETTLE_SECONDS, settle_zarr

_PATIENCE_SECONDS = 0.5
"""To see that a lock's process is dead, and to take it over."""

_BEGIN_SECONDS = 1800.0
"""For another part to measure the network and to write the plan."""


class Locks(Protocol):
    """The locks of one output, of which this process may hold some."""

    def names(self) -> list[str]:
        """Return the names of the locks that are there."""
        ...

    def take(self, name: str, break_lock: bool, seconds: float) -> None:
        """Hold a lock, which a dead process of this machine may have left.

        Args:
            name: Its name.
            break_lock: Take it over from a process of another machine, or one that is not named.
            seconds: How long to wait for it.

        Raises:
            OutputError: Another process holds it.
            OSError: Nothing can be written there.
        """
        ...

    def release(self, name: str) -> None:
        """Hold a lock no more."""
        ...

    def close(self) -> None:
        """Release all that is held."""
        ...


def _locks_of(store: Store) -> Locks | None:
    """Return the locks of an output; ``None`` where no other process could see it."""
    if isinstance(store, LocalStore):
        return FileLocks(Path(store.root), Path(store.root) / OURS)
    return ObjectLocks(store, OURS) if isinstance(store, UrlStore) else None


@contextmanager
def one_writer(store: Store, break_lock: bool = False, part: Part | None = None) -> Iterator[None]:
    """Hold an output, or a part of it, for this process while it is written.

    What a dead process of this host left is taken over. Folders that were made for the lock and
    hold nothing else in the end are removed. Only outputs in folders and at URLs are locked.

    Args:
        store: The output.
        break_lock: Take over what a process of another host holds, or one that is not named.
        part: What is written of it; ``None`` for all.

    Raises:
        OutputError: Another process writes it, or it cannot be written to.
    """
    locks = _locks_of(store)
    if locks is None:
        yield
        return
    with closing(locks):
        try:
            name = LOCK if part is None else f"{LOCK}.{part.number}-of-{part.count}"
            locks.take(name, break_lock, _PATIENCE_SECONDS)
            # Its own lock comes first: of two that exclude each other, at least one sees the
            # other's.
            for other in _excluded(locks.names(), part):
                locks.take(other, break_lock, _PATIENCE_SECONDS)
                locks.release(other)
        except TileInferError:
            raise
        except OSError as error:
            raise OutputError(
                f"{place(store)} cannot be written to ({cause_of(error)}); choose another place "
                "with out"
            ) from error
        try:
            yield
        except BaseException:
            # Once the lock is gone, nothing writes any more.
            settle_zarr(RETRY_SECONDS if isinstance(store, UrlStore) else SETTLE_SECONDS)
            raise


@contextmanager
def one_beginner(store: Store, break_lock: bool = False) -> Iterator[None]:
    """Let one part after the other in until an output is begun, and all of them from then on.

    Args:
        store: The output, of which this process holds a part.
        break_lock: As for ``one_writer``.

    Raises:
        OutputError: Another part has been at it for half an hour.
    """
    locks = _locks_of(store)
    if locks is None or sync(store.exists(BEGUN)):
        yield
        return
    with closing(locks):
        locks.take(f"{LOCK}.begin", break_lock, _BEGIN_SECONDS)
        yield


def lock_text(store: Store) -> str | None:
    """Return what the lock of a whole run says, by which an output is told from its like."""
    found = sync(store.get(f"{OURS}/{LOCK}", default_buffer_prototype()))
    return None if found is None else found.to_bytes().decode("utf-8", "replace")


def _excluded(names: list[str], part: Part | None) -> list[str]:
    """Return the locks that are there and must not be held beside this one."""
    others = []
    for name in names:
        found = OF_A_PART.fullmatch(name)
        if part is None:
            excluded = found is not None
        else:
            excluded = name == LOCK or (found is not None and int(found["count"]) != part.count)
        if excluded:
            others.append(name)
    return others
