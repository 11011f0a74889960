"""A bar on stderr while something runs."""

from types import TracebackType
from typing import Self

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from .terminal import Terminal


class Bar:
    """A bar on a terminal; elsewhere nothing, and whoever wants to print lines instead does so."""

    def __init__(self, terminal: Terminal, title: str, detail: str) -> None:
        """Prepare a bar that appears with ``with``.

        Args:
            terminal: Where to show it.
            title: Stands before it.
            detail: Stands behind it at first.
        """
        self.terminal, self.title = terminal, title
        self._bar: Progress | None = None
        if not terminal.quiet and terminal.stderr.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=32),
                TaskProgressColumn(),
                TextColumn("{task.fields[detail]}", markup=False),
                console=terminal.stderr,
                transient=True,
            )
            self._task = self._bar.add_task(title, total=None, detail=detail)

    def __enter__(self) -> Self:
        if self._bar:
            self.terminal.show(self._bar.start)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self.terminal.show(self._bar.stop)

    def show(self, done: int, total: int, detail: str) -> bool:
        """Move the bar; return whether there is one."""
        if self._bar:
            self._bar.update(self._task, total=total, completed=done, detail=detail)
        return self._bar is not None
