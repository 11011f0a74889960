"""Memory of this machine and process, in bytes."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from .cgroups import group_bytes

ROOT = Path("/")
"""Where the system tells its limits; tests have trees of their own."""

_KEPT: ContextVar[int | None] = ContextVar("kept", default=None)


def available_bytes(root: Path = ROOT) -> int:
    """Return the host memory that can be used without swapping and within every limit.

    The least of what the machine has free, what the control groups (containers, jobs) leave, and
    what the process may still map; and what this thread is `counting_on`.

    Args:
        root: Folder of the file system.
    """
    limits = (_free_bytes(root), group_bytes(root), _address_bytes(root))
    kept = _KEPT.get()
    given_back = 0 if kept is None else max(0, held_bytes() - kept)
    return min(limit for limit in limits if limit is not None) + given_back


@contextmanager
def counting_on(kept_bytes: int | None) -> Iterator[None]:
    """Count as available in this thread what the process holds beyond so much, at any moment.

    Others of it will have given it back; ``None`` is for where there are no others.
    """
    token = _KEPT.set(kept_bytes)
    try:
        yield
    finally:
        _KEPT.reset(token)


def _free_bytes(root: Path) -> int:
    free = _told(root / "proc/meminfo", "MemAvailable:")
    if free is not None:
        return free * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):  # Windows tells it in no such way: assume a small machine
        return 8 << 30


def _address_bytes(root: Path) -> int | None:
    """Return what ``ulimit -v`` leaves; ``None`` where there is no such limit."""
    limit = _told(root / "proc/self/limits", "Max address space")
    if limit is None:
        return None
    return max(0, limit - (_told(root / "proc/self/status", "VmSize:") or 0) * 1024)


def resident_bytes() -> int:
    """Return the memory that this process holds now; 0 where the system does not say."""
    return (_told(ROOT / "proc/self/status", "VmRSS:") or 0) * 1024


def held_bytes() -> int:
    """Return what of it is no file's content, which counts as available; 0 where nobody says."""
    return (_told(ROOT / "proc/self/status", "RssAnon:") or 0) * 1024


def _told(path: Path, name: str) -> int | None:
    """Return the number behind a name in a file of ``/proc``; ``None`` where there is none."""
    try:
        for line in path.read_text().splitlines():
            if line.startswith(name):
                return int(line.removeprefix(name).split()[0])
    except (OSError, ValueError, IndexError):  # not there, or the word "unlimited"
        pass
    return None


def peak_rss_bytes() -> int:
    """Return the largest resident size this process has had; 0 where the system does not say."""
    peak_kb = _told(ROOT / "proc/self/status", "VmHWM:")
    if peak_kb is not None:  # on Linux, getrusage counts what the process was forked from as well
        return peak_kb * 1024
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak_rss() -> None:
    """Let ``peak_rss_bytes`` count from here on, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def human(size: float) -> str:
    """Return a size for people.

    >>> human(1536)
    '1.5 kB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"
