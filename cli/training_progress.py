"""Progress of a training on stderr: a bar on a terminal, a line per checkpoint elsewhere."""

from time import monotonic

from ..engine.training.progress import Progress as TrainingProgress
from .bar import Bar
from .progress import clock
from .terminal import Terminal

_SILENCE_SECONDS = 30
"""Without a terminal, a line is printed at least so often."""


class TrainingReport(Bar):
    """Shows how far a training is; to be called after every step."""

    def __init__(self, terminal: Terminal, title: str) -> None:
        super().__init__(terminal, title, "making the weight maps")
        self.begun = self.said = monotonic()
        self.first: int | None = None
        self.told = 0

    def __call__(self, progress: TrainingProgress) -> None:
        """Show the progress."""
        if self.first is None:
            self.first, self.told = progress.step - 1, len(progress.rows)
            if self.first:
                self.terminal.note(f"{self.title}: continued after step {self.first}")
            self.said = self.begun = monotonic()
        seconds = (monotonic() - self.begun) / max(1, progress.step - self.first - 1)
        detail = describe(progress, seconds)
        if self.show(progress.step, progress.steps, detail):
            return
        if len(progress.rows) > self.told:
            self.told, self.said = len(progress.rows), monotonic()
            row = progress.rows[-1]
            # The loss shown is the mean since the row before; the step's own jumps too much.
            self.terminal.note(
                f"{self.title}: step {row.step} of {progress.steps}, loss {row.loss:.4f}"
                + (f", Dice {row.dice:.4f}" if row.dice == row.dice else "")
            )
        elif monotonic() - self.said > _SILENCE_SECONDS:
            self.said = monotonic()
            self.terminal.note(f"{self.title}: {detail}")


def describe(progress: TrainingProgress, seconds_per_step: float) -> str:
    """Return steps, the last figures and the time left.

    >>> describe(TrainingProgress(20, 100, 0.25, ()), 1.5)
    'step 20, loss 0.250, 2:00 left'
    """
    parts = [f"step {progress.step}", f"loss {progress.loss:.3f}"]
    if progress.rows and progress.rows[-1].dice == progress.rows[-1].dice:
        parts.append(f"Dice {progress.rows[-1].dice:.3f}")
    left = seconds_per_step * (progress.steps - progress.step)
    return ", ".join([*parts, f"{clock(left)} left"])
