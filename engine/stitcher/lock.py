"""One writer for each output: a file in it that says which process of which host writes."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import SoftFileLock, Timeout
from zarr.abc.store import Store
from zarr.storage import LocalStore

from ...tiler.errors import OutputError, cause_of
from .store import LOCK, OURS
from .zarr_thread import settle_zarr

_PATIENCE_SECONDS = 0.5
"""To see that a lock's process is dead, and to take it over."""


@contextmanager
def one_writer(store: Store, break_lock: bool = False) -> Iterator[None]:
    """Hold an output for this process while it is written.

    What a dead process of this host left is taken over. Folders that were made for the lock and
    hold nothing else in the end are removed. Only outputs on a file system are locked.

    Args:
        store: The output.
        break_lock: Take over what a process of another host holds, or one that is not named.

    Raises:
        OutputError: Another process writes it, or the folder cannot be written to.
    """
    if not isinstance(store, LocalStore):
        yield
        return
    folder = Path(store.root) / OURS
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    lock = SoftFileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if break_lock and not _is_here(_holder(folder / LOCK)):
            lock.break_lock()
        lock.acquire(timeout=_PATIENCE_SECONDS)
    except Timeout:
        raise OutputError(_refusal(store.root, _holder(folder / LOCK))) from None
    except OSError as error:
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


def _holder(path: Path) -> tuple[str, int] | None:
    """Return the host and the process that a lock names; ``None`` where it names none."""
    try:
        pid, host, *_ = path.read_text().splitlines()
        return host, int(pid)
    except (OSError, ValueError):
        return None


def _is_here(holder: tuple[str, int] | None) -> bool:
    return holder is not None and holder[0] == socket.gethostname()


def _refusal(root: Path, holder: tuple[str, int] | None) -> str:
    if holder is None:
        return (
            f"{root} is locked by a process that is not named; if nothing writes to it, give "
            "break_lock=True"
        )
    host, pid = holder
    who = f"{root} is being written by process {pid} of {host}"
    if _is_here(holder):
        mine = " (this one)" if pid == os.getpid() else ""
        return f"{who}{mine}; wait until it has ended"
    return f"{who}; if that has ended, give break_lock=True"


def _remove(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # what holds something stays
            folder.rmdir()
