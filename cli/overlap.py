"""Pieces of work in threads, each begun while the one before it ends."""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Condition
from typing import Generic, TypeVar

from ..engine.places import Stopped
from ..engine.pool import start_threads
from ..tiler.errors import TileInferError, failing_as
from .terminal import Lines

T = TypeVar("T")

AT_ONCE = 2
"""Pieces of work under way: one that ends, and the next."""

_LOOK_SECONDS = 1.0
"""How often is looked for an interruption: one that comes just before a wait does not end it."""


class Turn(Generic[T]):
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
        """Wait for no turn any more."""
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
    works: Sequence[Callable[[Turn[T]], T]], stop: Callable[[], None], at_once: int = AT_ONCE
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
    todo, turns, news = deque(works), deque[Turn[T]](), Condition()

    def may_begin() -> bool:
        last = turns[-1] if turns else None
        free = last is None or last.next_may_begin or last.outcome.done()
        return bool(todo) and len(turns) < at_once and free

    def has_ended() -> bool:
        return bool(turns) and turns[0].outcome.done()

    def tell(_: Future[T]) -> None:
        with news:
            news.notify_all()

    pool = ThreadPoolExecutor(at_once, "image")
    try:
        with failing_as(TileInferError, "beginning", "images"):
            start_threads(pool, at_once)
        while todo or turns:
            with news:
                while not (may_begin() or has_ended()):
                    news.wait(_LOOK_SECONDS)
            if may_begin():
                turn = Turn[T](news)
                if not turns:
                    turn.come_first()
                turns.append(turn)  # before it begins: an interruption may come at any time
                turn.outcome = pool.submit(todo.popleft(), turn)
                turn.outcome.add_done_callback(tell)
                continue
            yield turns.popleft().outcome
            if turns:
                turns[0].come_first()
    except BaseException:
        stop()
        for turn in turns:
            turn.stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
