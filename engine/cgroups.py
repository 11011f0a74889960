"""What the control groups of Linux leave of the memory: the limits of containers and of jobs."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import NamedTuple


class _Names(NamedTuple):
    """How one version of control groups calls what is read here."""

    limit: str
    used: str
    cache: str
    """Line of ``memory.stat``: file pages that are given back as soon as memory is short."""


_V2 = _Names("memory.max", "memory.current", "inactive_file")
_V1 = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")

_V2_MOUNTS = ("sys/fs/cgroup", "sys/fs/cgroup/unified")
_V1_MOUNTS = ("sys/fs/cgroup/memory", "sys/fs/cgroup/cpu,memory")


def group_bytes(root: Path) -> int | None:
    """Return what this process's group and those around it leave; ``None`` without a limit.

    Args:
        root: Folder of the file system, another one in tests.
    """
    left = [found for names, folder in _groups(root) if (found := _left(folder, names)) is not None]
    return min(left, default=None)


def _groups(root: Path) -> Iterator[tuple[_Names, Path]]:
    """Yield the folders of the group and of those around it.

    A container may see its group's name on the host, but only its own part of the tree: of the
    folders that the name leads through, those that are there count, the mount itself among them.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if number == "0" and not controllers:
            names, mounts = _V2, _V2_MOUNTS
        elif "memory" in controllers.split(","):
            names, mounts = _V1, _V1_MOUNTS
        else:
            continue
        inside = PurePosixPath(normpath(f"/{name}").lstrip("/"))
        for mount in mounts:
            for part in (inside, *inside.parents):
                yield names, root / mount / part


def _left(folder: Path, names: _Names) -> int | None:
    limit, used = _number(folder / names.limit), _number(folder / names.used)
    if limit is None or used is None:
        return None
    return max(0, limit - max(0, used - _cache(folder, names.cache)))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # not there, or the word "max"
        return None


def _cache(folder: Path, name: str) -> int:
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
        return next(int(value) for key, value in map(str.split, lines) if key == name)
    except (OSError, ValueError, StopIteration):
        return 0
