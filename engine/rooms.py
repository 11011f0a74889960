"""What images under way at the same time share: together they take no more than one alone.

A plan says what its blocks take when as many as it allows are in flight. While the last blocks of
one image are, the first ones of the next take the seats that become free: a block of an image that
has four in flight alone counts as a quarter, whoever's the other three are.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from fractions import Fraction
from threading import Condition

from .backends.base import Execution
from .memory import counting_on, held_bytes
from .sizing import BASE_BYTES

ALL = Fraction(1)


class Stopped(BaseException):
    """No seat is given any more: what is in flight ends, and nothing is begun."""


class Room:
    """Something that is shared out in seats which never make more than all of it, in turn."""

    def __init__(self) -> None:
        """Begin with all of it free."""
        self._changed = Condition()
        self._waiting = deque[object]()
        self._taken = Fraction(0)
        self._stopped = False

    @property
    def taken(self) -> Fraction:
        """How much of it is taken now."""
        return self._taken

    @contextmanager
    def seat(self, share: Fraction = ALL) -> Iterator[None]:
        """Hold a seat, once that part of it is free.

        Raises:
            Stopped: It was stopped.
        """
        with self.seats(share) as seats:
            seats.take()
            yield

    @contextmanager
    def seats(self, share: Fraction) -> Iterator["Seats"]:
        """Take and give back seats of one size; in the end, all that are held are given back."""
        seats = Seats(self, share)
        try:
            yield seats
        finally:
            seats.give_all()

    def stop(self) -> None:
        """Give no seat any more, nor to those who wait."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def take(self, share: Fraction) -> None:
        """Take so much of it, once that is free."""
        with self._changed:
            me = object()
            self._waiting.append(me)
            try:
                self._changed.wait_for(
                    lambda: self._stopped or (self._waiting[0] is me and self._taken + share <= ALL)
                )
                if self._stopped:
                    raise Stopped
                self._taken += share
            finally:
                self._waiting.remove(me)
                self._changed.notify_all()

    def give(self, share: Fraction) -> None:
        """Give so much of it back."""
        with self._changed:
            self._taken -= share
            self._changed.notify_all()


class Seats:
    """The seats that somebody holds, all of one size."""

    def __init__(self, room: Room, share: Fraction) -> None:
        """Hold none yet."""
        self._room, self._share = room, share
        self._held = deque[Fraction]()

    def take(self) -> None:
        """Take one more, once it is free."""
        self._room.take(self._share)
        self._held.append(self._share)

    def give(self) -> None:
        """Give one back, unless all were given back."""
        try:
            share = self._held.pop()
        except IndexError:
            return
        self._room.give(share)

    def give_all(self) -> None:
        """Give back all that are held."""
        while self._held:
            self.give()


class Rooms:
    """What the images of one command share."""

    def __init__(self) -> None:
        """Begin with everything free."""
        self.blocks = Room()
        """Host memory: a block takes what it is of those in flight by its plan."""
        self.device = Room()
        """The device: a run takes what it is of those at the same time by its plan."""
        self.network = Room()
        """The network, where two runs cannot use it side by side."""
        self._kept_bytes: int | None = None
        """What the process held before the first plan was made."""

    def stop(self) -> None:
        """Let blocks and tiles in flight end, and begin nothing any more."""
        self.blocks.stop()
        self.network.stop()

    @contextmanager
    def planning(self) -> Iterator[None]:
        """Let a plan be made as if no other image were under way.

        What those before hold of the memory they give back, and `alone` waits for their blocks.
        """
        kept_bytes = self._kept_bytes
        if kept_bytes is None:
            self._kept_bytes = max(BASE_BYTES, held_bytes())
        token = _PLANNING.set(self)
        try:
            with counting_on(kept_bytes):
                yield
        finally:
            _PLANNING.reset(token)


_PLANNING: ContextVar[Rooms | None] = ContextVar("planning", default=None)


def alone() -> AbstractContextManager[None]:
    """Hold off the blocks of other images, while something is timed to make a plan by."""
    rooms = _PLANNING.get()
    return nullcontext() if rooms is None else rooms.blocks.seat()


def side_by_side(execution: Execution) -> bool:
    """Say whether a network can be made ready for another image, or run for it, beside a run.

    Torch has settings that all threads share, and traces a module in the sight of all of them; and
    two networks do not fit a GPU that was filled by one.
    """
    return execution.device == "cpu" and execution.backend != "torch"
