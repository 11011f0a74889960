"""What a lock says of the process that holds it, and what is said to the others."""

import os
import re
import socket
from dataclasses import dataclass

LOCK = "lock"
"""What is there while a process writes; the names of all other locks begin so."""

OF_A_PART = re.compile(rf"{LOCK}\.(?P<number>\d+)-of-(?P<count>\d+)")
"""The lock of one of several parts."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that a lock names."""

    host: str
    """Name of its machine."""
    pid: int
    """Its number there."""

    @property
    def is_here(self) -> bool:
        """Whether it runs, or ran, on this machine, as far as a name can tell."""
        return self.host == socket.gethostname()


def holder_of(text: str) -> Holder | None:
    """Return the process that a lock's first two lines name; ``None`` where they name none."""
    try:
        pid, host, *_ = text.splitlines()
        return Holder(host, int(pid))
    except ValueError:
        return None


def refusal(place: str, name: str, holder: Holder | None, *, here: bool) -> str:
    """Return why an output cannot be written.

    Args:
        place: The output.
        name: Of the lock that is held.
        holder: Who holds it.
        here: Whether that process is known to live on this machine.
    """
    found = OF_A_PART.fullmatch(name)
    what = f"part {found['number']}/{found['count']} of {place}" if found else place
    if holder is None:
        return (
            f"{what} is locked by a process that is not named; if nothing writes to it, give "
            "break_lock=True"
        )
    who = f"{what} is being written by process {holder.pid} of {holder.host}"
    if here:
        mine = " (this one)" if holder.pid == os.getpid() else ""
        return f"{who}{mine}; wait until it has ended"
    return f"{who}; if that has ended, give break_lock=True"
