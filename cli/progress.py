"""Progress of a run on stderr: a bar on a terminal, a line now and then elsewhere."""

from time import monotonic

from ..engine.pipeline import Progress as RunProgress
from .bar import Bar
from .terminal import Terminal

PLAIN_INTERVAL_SECONDS = 10.0
"""Least time between two lines where there is no bar."""


class ProgressReport(Bar):
    """Shows how far a run is; to be called after every block."""

    def __init__(self, terminal: Terminal, title: str) -> None:
        super().__init__(terminal, title, "measuring the network")
        self.last_line = monotonic()

    def __call__(self, progress: RunProgress) -> None:
        """Show the progress."""
        detail = describe(progress)
        if self.show(progress.blocks_done, progress.blocks, detail) or self.terminal.quiet:
            return
        if self.terminal.keeps:  # it would be old news
            return
        if monotonic() - self.last_line >= PLAIN_INTERVAL_SECONDS:
            self.last_line = monotonic()
            share = progress.blocks_done / progress.blocks
            self.terminal.note(f"{self.title}: {share:.0%}, {detail}")


def describe(progress: RunProgress) -> str:
    """Return blocks, speed and time left.

    >>> describe(RunProgress(3, 10, 2_000_000, 9_000_000, 4.0))
    '3/10 blocks, 0.50 MPix/s, 0:14 left'
    """
    blocks = f"{progress.blocks_done}/{progress.blocks} blocks"
    if not progress.pixels_done or progress.seconds <= 0:
        return blocks
    per_second = progress.pixels_done / progress.seconds
    left = (progress.pixels - progress.pixels_done) / per_second
    return f"{blocks}, {per_second / 1e6:.2f} MPix/s, {clock(left)} left"


def clock(seconds: float) -> str:
    """Return a time as ``m:ss`` or ``h:mm:ss``.

    >>> clock(3725)
    '1:02:05'
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
