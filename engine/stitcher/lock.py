"""Who writes an output: files in it that say which process of which host does.

A whole run has its output for itself. Parts of a run, ``0/4`` to ``3/4``, write side by side, each
under a lock of its own; a whole run is refused while a part runs, and a part while a whole run does
or parts of another number.
"""

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import SoftFileLock, Timeout
from zarr.abc.store import Store
from zarr.storage import LocalStore

from ...tiler.errors import OutputError, cause_of
from ..part import Part
from .store import BEGUN, LOCK, OURS
from .zarr_thread import settle_zarr

_PATIENCE_SECONDS = 0.5
"""To see that a lock's process is dead, and to take it over."""

_BEGIN_SECONDS = 1800.0
"""For another part to measure the network and to write the plan."""

_OF_A_PART = re.compile(rf"{LOCK}\.(?P<number>\d+)-of-(?P<count>\d+)")


@contextmanager
def one_writer(store: Store, break_lock: bool = False, part: Part | None = None) -> Iterator[None]:
    """Hold an output, or a part of it, for this process while it is written.

    What a dead process of this host left is taken over. Folders that were made for the lock and
    hold nothing else in the end are removed. Only outputs on a file system are locked.

    Args:
        store: The output.
        break_lock: Take over what a process of another host holds, or one that is not named.
        part: What is written of it; ``None`` for all.

    Raises:
        OutputError: Another process writes it, or the folder cannot be written to.
    """
    if not isinstance(store, LocalStore):
        yield
        return
    folder = Path(store.root) / OURS
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    path = folder / (LOCK if part is None else f"{LOCK}.{part.number}-of-{part.count}")
    lock = SoftFileLock(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _take(lock, path, break_lock)
        # Its own lock comes first: of two that exclude each other, at least one sees the other's.
        for other in _excluded(folder, part):
            probe = SoftFileLock(other)
            _take(probe, other, break_lock)
            probe.release()
    except OutputError:
        lock.release()
        raise
    except OSError as error:
        lock.release()
        _remove(made)
        raise OutputError(
            f"{store.root} cannot be written to ({cause_of(error)}); choose another place with out"
        ) from error
    try:
        yield
    except BaseException:
        settle_zarr()  # once the lock is gone, nothing writes any more
        raise
    finally:
        lock.release()
        _remove(made)


@contextmanager
def one_beginner(store: Store, break_lock: bool = False) -> Iterator[None]:
    """Let one part after the other in until an output is begun, and all of them from then on.

    Args:
        store: The output, of which this process holds a part.
        break_lock: As for ``one_writer``.

    Raises:
        OutputError: Another part has been at it for half an hour.
    """
    if not isinstance(store, LocalStore) or (store.root / BEGUN).exists():
        yield
        return
    path = Path(store.root) / OURS / f"{LOCK}.begin"
    lock = SoftFileLock(path)
    _take(lock, path, break_lock, _BEGIN_SECONDS)
    try:
        yield
    finally:
        lock.release()


def lock_text(store: LocalStore) -> str | None:
    """Return what the lock of a whole run says, by which a folder is told from its like."""
    try:
        return (Path(store.root) / OURS / LOCK).read_text()
    except OSError:
        return None


def _take(
    lock: SoftFileLock, path: Path, break_lock: bool, seconds: float = _PATIENCE_SECONDS
) -> None:
    """Acquire a lock, or say who holds it."""
    if break_lock and not _is_here(_holder(path)):
        lock.break_lock()
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        raise OutputError(_refusal(path, _holder(path))) from None


def _excluded(folder: Path, part: Part | None) -> list[Path]:
    """Return the locks that are there and must not be held beside this one."""
    others = []
    for path in sorted(folder.glob(f"{LOCK}*")):
        found = _OF_A_PART.fullmatch(path.name)
        if part is None:
            excluded = found is not None
        else:
            excluded = path.name == LOCK or (
                found is not None and int(found["count"]) != part.count
            )
        if excluded:
            others.append(path)
    return others


def _holder(path: Path) -> tuple[str, int] | None:
    """Return the host and the process that a lock names; ``None`` where it names none."""
    try:
        pid, host, *_ = path.read_text().splitlines()
        return host, int(pid)
    except (OSError, ValueError):
        return None


def _is_here(holder: tuple[str, int] | None) -> bool:
    return holder is not None and holder[0] == socket.gethostname()


def _refusal(path: Path, holder: tuple[str, int] | None) -> str:
    root, found = path.parent.parent, _OF_A_PART.fullmatch(path.name)
    what = f"part {found['number']}/{found['count']} of {root}" if found else str(root)
    if holder is None:
        return (
            f"{what} is locked by a process that is not named; if nothing writes to it, give "
            "break_lock=True"
        )
    host, pid = holder
    who = f"{what} is being written by process {pid} of {host}"
    if _is_here(holder):
        mine = " (this one)" if pid == os.getpid() else ""
        return f"{who}{mine}; wait until it has ended"
    return f"{who}; if that has ended, give break_lock=True"


def _remove(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # what holds something stays
            folder.rmdir()
