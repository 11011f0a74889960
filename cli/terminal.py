"""Where messages go: results to stdout, everything else to stderr."""

import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from io import TextIOWrapper
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from ..engine.naming import printable
from ..tiler.errors import TileInferWarning
from .wording import as_options

LONGEST_LINE = 4000
"""Characters of a message: what is longer was not meant for people."""


class Lines:
    """What one of several threads prints: kept until it is its turn, then shown at once."""

    def __init__(self) -> None:
        """Keep all."""
        self._kept: list[Callable[[], None]] | None = []
        self._lock = threading.RLock()  # what is shown may warn, and that is shown as well

    @property
    def kept(self) -> bool:
        """Whether it is not its turn yet."""
        return self._kept is not None

    def put(self, show: Callable[[], None]) -> None:
        """Show something, now or later."""
        with self._lock:
            if self._kept is None:
                show()
            else:
                self._kept.append(show)

    def drop(self) -> None:
        """Forget what is kept."""
        with self._lock:
            if self._kept is not None:
                self._kept = []

    def release(self) -> None:
        """Show what is kept, and from now on all at once."""
        with self._lock:
            kept, self._kept = self._kept or [], None
            for show in kept:
                show()


class Terminal:
    """What a command prints with."""

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet, self.verbose = quiet, verbose
        # Without markup, so that brackets in a file name stay brackets.
        self.stdout = _Console(markup=False, highlight=False, emoji=False)
        self.stderr = _Console(stderr=True, markup=False, highlight=False, emoji=False)
        self._thread = threading.local()
        for stream in (sys.stdout, sys.stderr):  # a file name need not be valid Unicode
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")

    def print(self, text: RenderableType = "") -> None:
        """Print a result, unless quiet."""
        if not self.quiet:
            shown = _one_line(text) if isinstance(text, str) else text
            self.show(partial(self.stdout.print, shown, soft_wrap=isinstance(text, str)))

    def json(self, value: dict[str, Any]) -> None:
        """Print a result for programs, quiet or not."""
        print(json.dumps(value, indent=2))

    def note(self, text: str) -> None:
        """Say what was assumed, unless quiet."""
        if not self.quiet:
            self.say("note", as_options(text), "cyan")

    def warning(self, text: str) -> None:
        """Say what the user should know."""
        self.say("warning", as_options(text), "yellow")

    def error(self, text: str) -> None:
        """Say what went wrong."""
        self.say("error", text, "bold red")

    def traceback(self) -> None:
        """Show where the exception being handled comes from."""
        self.stderr.print_exception()

    def say(self, kind: str, text: str, style: str = "") -> None:
        """Print ``kind: text`` as one line on stderr."""
        line = Text.assemble((f"{kind}:", style), " ", _one_line(text))
        self.show(partial(self.stderr.print, line, soft_wrap=True))

    def show(self, show: Callable[[], None]) -> None:
        """Call what shows something, when it is this thread's turn."""
        lines = self._lines
        if lines is None:
            show()
        else:
            lines.put(show)

    @property
    def keeps(self) -> bool:
        """Whether what this thread prints is shown later."""
        return self._lines is not None and self._lines.kept

    @property
    def _lines(self) -> Lines | None:
        return getattr(self._thread, "lines", None)

    @contextmanager
    def keeping(self, lines: Lines) -> Iterator[None]:
        """Have what this thread prints shown when it is its turn."""
        self._thread.lines = lines
        try:
            yield
        finally:
            del self._thread.lines

    @contextmanager
    def in_charge(self) -> Iterator[None]:
        """Show our warnings as lines of ours; silence other libraries, unless verbose."""
        handler: logging.Handler = logging.NullHandler()
        if self.verbose:
            handler = logging.StreamHandler()
            handler.setLevel(logging.WARNING)
            handler.setFormatter(_Formatter())
        root = logging.getLogger()
        root.addHandler(handler)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("default" if self.verbose else "ignore")
                warnings.simplefilter("always", TileInferWarning)
                warnings.showwarning = self._show_warning
                yield
        finally:
            root.removeHandler(handler)

    def _show_warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        ours = issubclass(category, TileInferWarning)
        self.warning(str(message) if ours else f"{filename}:{lineno}: {message}")


class _Console(Console):
    """Shows names and texts of others, whatever is in them: no control character gets out.

    Colours are no part of what is rendered: they are added to it afterwards.
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Yield what is printed."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text == "\n":
                yield segment
            else:
                yield Segment(_lines(segment.text), segment.style)


class _Formatter(logging.Formatter):
    """Writes what other libraries say, without control characters."""

    def format(self, record: logging.LogRecord) -> str:
        return _lines(super().format(record))


def _one_line(text: str) -> str:
    line = printable(" ".join(text.splitlines()))
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}…"


def _lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))
