"""Locks of an output in a folder: files that are created exclusively."""

from contextlib import suppress
from pathlib import Path

from filelock import SoftFileLock, Timeout

from ...tiler.errors import OutputError
from .holder import LOCK, Holder, holder_of, refusal


class FileLocks:
    """Locks as files of one folder; see `Locks`."""

    def __init__(self, place: Path, folder: Path) -> None:
        """Prepare to lock; nothing is made yet.

        Args:
            place: The output.
            folder: What the locks lie in; it is made, and removed in the end if it is empty.
        """
        self._place, self._folder = place, folder
        self._made = [each for each in (folder, *folder.parents) if not each.exists()]
        self._held: dict[str, SoftFileLock] = {}

    def names(self) -> list[str]:
        """Return the names of the locks that are there."""
        return sorted(path.name for path in self._folder.glob(f"{LOCK}*"))

    def take(self, name: str, break_lock: bool, seconds: float) -> None:
        """Hold a lock; see `Locks.take`."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / name
        lock, holder = SoftFileLock(path), self._holder(path)
        if break_lock and (holder is None or not holder.is_here):
            lock.break_lock()
        try:
            lock.acquire(timeout=seconds)
        except Timeout:
            holder = self._holder(path)
            here = holder is not None and holder.is_here
            raise OutputError(refusal(str(self._place), name, holder, here=here)) from None
        self._held[name] = lock

    def release(self, name: str) -> None:
        """Hold a lock no more."""
        self._held.pop(name).release()

    def close(self) -> None:
        """Release all that is held; folders that were made for locks and are empty go."""
        for name in list(self._held):
            self.release(name)
        for folder in self._made:
            with suppress(OSError):  # what holds something stays
                folder.rmdir()

    def _holder(self, path: Path) -> Holder | None:
        try:
            return holder_of(path.read_text())
        except (OSError, ValueError):
            return None
