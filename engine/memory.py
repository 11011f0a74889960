"""Memory of this machine and process, in bytes."""

import os
import sys
from contextlib import suppress
from pathlib import Path


def available_bytes() -> int:
    """Return the host memory that can be used without swapping."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):  # Windows tells it in no such way: assume a small machine
        return 8 << 30


def peak_rss_bytes() -> int:
    """Return the largest resident size this process has had; 0 where the system does not say."""
    try:  # on Linux, getrusage counts what the process was forked from as well
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
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
