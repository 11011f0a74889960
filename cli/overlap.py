"""Pieces of work in threads, each begun while the one before it ends."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Condition
from typing import Generic, TypeVar

from ..engine.pool import start_threads
from ..engine.rooms import Stopped
from ..tiler.errors import TileInferError, failing_as
from .terminal import Lines

T = TypeVar("T")

AT_ONCE = 2
"""Pieces of work under way: one that ends, and the next."""

_LOOK_SECONDS = 1.0
"""How often is looked for an interruption: one that comes just before a wait does not end it."""


class Piece(Generic[T]):
    """A piece of work under way, as it is seen by itself."""

    def __init__(self, news: Condition) -> None:
        """Begin behind others."""
        self.lines = Lines()
        """What it prints, which is shown when those before it have been told of."""
        self.outcome = Future[T]()
        """What comes of it."""
        self.first = False
        """Whether all before it have ended, and been told of."""
        self.next_may_begin = False
        """Whether it needs less than there is from now on."""
        self._stopped = False
        self._news = news

    def let_next(self) -> None:
        """Let the next piece of work begin."""
        with self._news:
            self.next_may_begin = True
            self._news.notify_all()

    def come_first(self) -> None:
        """Show what was printed so far, and from now on all at once."""
        self.lines.release()
        with self._news:
            self.first = True
            self._news.notify_all()

    def stop(self) -> None:
        """Wait for those before it no more."""
        with self._news:
            self._stopped = True
            self._news.notify_all()

    def wait(self) -> None:
        """Wait until all before it have ended; the next waits until it is let once more.

        Raises:
            Stopped: They will not.
        """
        with self._news:
            self.next_may_begin = False
            self._news.wait_for(lambda: self.first or self._stopped)
            if self._stopped:
                raise Stopped


def overlapping(
    works: Sequence[Callable[[Piece[T]], T]], stop: Callable[[], None], at_once: int = AT_ONCE
) -> Generator[Future[T], None, None]:
    """Do pieces of work in order; yield what came of each, in order.

    The next one is begun when the last that was begun lets it, or has ended.

    Args:
        works: Called each in a thread of its own.
        stop: Called where the work is to end early, be it that nobody asks for more; what is under
            way is then waited for.
        at_once: Pieces of work under way, or done and not yielded yet, at most.

    Raises:
        TileInferError: A thread cannot be started.
    """
    todo, pieces, news = deque(works), deque[Piece[T]](), Condition()

    def may_begin() -> bool:
        last = pieces[-1] if pieces else None
        free = last is None or last.next_may_begin or last.outcome.done()
        return bool(todo) and len(pieces) < at_once and free

    def has_ended() -> bool:
        return bool(pieces) and pieces[0].outcome.done()

    def tell(_: Future[T]) -> None:
        with news:
            news.notify_all()

    pool = ThreadPoolExecutor(at_once, "image")
    try:
        with failing_as(TileInferError, "beginning", "images"):
            start_threads(pool, at_once)
        while todo or pieces:
            with news:
                while not (may_begin() or has_ended()):
                    news.wait(_LOOK_SECONDS)
            if may_begin():
                piece = Piece[T](news)
                if not pieces:
                    piece.come_first()
                pieces.append(piece)  # before it begins: an interruption may come at any time
                piece.outcome = pool.submit(todo.popleft(), piece)
                piece.outcome.add_done_callback(tell)
                continue
            yield pieces.popleft().outcome
            if pieces:
                pieces[0].come_first()
    except BaseException:
        stop()
        for piece in pieces:
            piece.stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
